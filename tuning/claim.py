"""Trials to the figure that holds them against the paper."""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

from kfusion.analysis.style import BLUE, GREY, ORANGE, look, new_figure
from tuning.axes import MAX_TICKS, NAMES, Scores, drawable, entitle, scores_of, subject
from tuning.plan import Plan
from tuning.space import current
from tuning.statistics import mean_and_error
from tuning.trials import Trial

CHOSEN, EQUAL, EMBED_DIM = 256, 128, 128
"""The paper's hidden size, the one that "worked equally nicely", and its embed size."""
MAX_LINES = 6
MARKERS = "osD^vP"
LABEL = 0.07
"""Share of the axis that the label of a tick takes."""
APART = 1.025
"""Factor between the places of neighbouring lines, so that their error bars do not hide each other."""

Points = dict[str, list[tuple[int, float, float]]]
"""By the name of the line: hidden size, mean score, standard error."""


def paper_claim(trials: Sequence[Trial], plan: Plan) -> Figure | None:
    """The mean score over the hidden size, a line per embed size, with the paper's two settings marked.

    The error bars are standard errors: over trials where points have several, else over each trial's repeats.

    Returns:
        None where the hidden size is not tuned.

    Raises:
        ValueError: no trial is completed.
    """
    names = [domain.name for domain in plan.domains]
    if "hidden_dim" not in names:
        return None
    shown = drawable(trials, plan)
    everything = scores_of(shown, plan.settings.objective)
    kept = [trial for trial in shown if not everything.beyond(trial.score or 0.0)]
    lines = _lines(kept, "embed_dim" in names)
    single = all(len(group) == 1 for line in lines.values() for group in line.values())
    points = {name: [(at, *_mean(line[at], single)) for at in sorted(line)] for name, line in lines.items()}
    with look():
        figure = new_figure(7.2, 4.8)
        axes = figure.subplots()
        _draw(axes, points)
        scores = _span(points, plan.settings.objective)
        scores.write(axes.yaxis)
        axes.set(xlabel="hidden_dim", ylabel=NAMES[plan.settings.objective], ylim=scores.limits)
        axes.grid(axis="y", visible=True)
        over = f"; ± standard error over {'the repeats of a trial' if single else 'the trials of a point'}"
        barred = any(math.isfinite(error) for line in points.values() for *_, error in line)
        embed = "" if "embed_dim" in names else f"; embed_dim {current('embed_dim', plan.config)}"
        title = f"{subject(trials, plan)}{embed}{over if barred else ''}"
        entitle(figure, title, everything.note("left out"))
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def _lines(trials: Sequence[Trial], by_embed: bool) -> dict[str, dict[int, list[Trial]]]:
    """The trials of each point, by the name of its line and its hidden size."""
    embeds = sorted({trial.values["embed_dim"] for trial in trials}) if by_embed else []
    pooled = not 0 < len(embeds) <= MAX_LINES
    lines = {} if pooled else {f"embed_dim {embed}": {} for embed in embeds}
    for trial in trials:
        name = ("any embed_dim" if by_embed else "trials") if pooled else f"embed_dim {trial.values['embed_dim']}"
        lines.setdefault(name, {}).setdefault(trial.values["hidden_dim"], []).append(trial)
    return lines


def _mean(group: Sequence[Trial], single: bool) -> tuple[float, float]:
    if single:
        repeats = [repeat.score for repeat in group[0].repeats]
        return mean_and_error(repeats or [group[0].score or 0.0])
    return mean_and_error([trial.score or 0.0 for trial in group])


def _span(points: Points, objective: str) -> Scores:
    """From the lowest end of an error bar to the highest."""
    each = [(mean, 0.0 if math.isnan(error) else error) for line in points.values() for _, mean, error in line]
    low, high = min(mean - error for mean, error in each), max(mean + error for mean, error in each)
    return Scores(objective, low, high) if objective == "val_accuracy" else Scores(objective, high, low)


def _draw(axes: Axes, points: Points) -> None:
    """The paper's two sizes, the lines, and the axis of the hidden size."""
    sizes = {size for line in points.values() for size, *_ in line}
    few = len(sizes) <= MAX_TICKS
    axes.axvline(CHOSEN, color=ORANGE, lw=1.5, zorder=0, label=f"paper: {CHOSEN}, embed_dim {EMBED_DIM}")
    axes.axvline(EQUAL, color=GREY, lw=1.5, ls="--", zorder=0, label=f"paper: {EQUAL} “worked equally nicely”")
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.8, len(points)))
    for at, (name, line) in enumerate(points.items()):
        factor = APART ** (at - (len(points) - 1) / 2)
        x, mean, error = zip(*((size * factor, *rest) for size, *rest in line), strict=True)
        kind = f"{MARKERS[at]}-" if few else MARKERS[at]
        color = BLUE if len(points) == 1 else shades[at]
        axes.errorbar(x, mean, error, fmt=kind, color=color, capsize=3, lw=1.5, ms=5, label=name)
    axes.set_xscale("log", base=2)
    ends = sorted(sizes | {CHOSEN, EQUAL})
    axes.set_xlim(ends[0] / 2**0.3, ends[-1] * 2**0.3)
    axes.xaxis.set_major_locator(FixedLocator(_ticks(ends)) if few else LogLocator(2))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _ticks(sizes: Sequence[int]) -> list[int]:
    """The paper's sizes, and those others whose labels have room beside them."""
    kept, room = [CHOSEN, EQUAL], LABEL * math.log(sizes[-1] / sizes[0])
    for size in sizes:
        if all(abs(math.log(size / other)) >= room for other in kept):
            kept.append(size)
    return sorted(kept)
