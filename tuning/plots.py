"""Trials to figures: the score by parameter, parallel coordinates, the paper's claim, the progress of the search.

Each function returns a `matplotlib.figure.Figure` that needs no display; `save` writes it as PNG and SVG. All but
`progress` show the trials that may be compared (`tuning.trials.comparable`).

Trials to the figure that holds them against the paper.

Trials to parallel coordinates: an axis per parameter, a line per trial.
"""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from kfusion.plots.style import BLUE, GREY, ORANGE, look, new_figure, plain, save
from tuning.axes import MAX_TICKS, NAMES, Scale, Scores, drawable, entitle, folded, scale_of, scores_of, subject
from tuning.space import Plan, current
from tuning.trials import Trial, main_effects, mean_and_error

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
    axes.xaxis.set_major_locator(FixedLocator(_claim_ticks(ends)) if few else LogLocator(2))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _claim_ticks(sizes: Sequence[int]) -> list[int]:
    """The paper's sizes, and those others whose labels have room beside them."""
    kept, room = [CHOSEN, EQUAL], LABEL * math.log(sizes[-1] / sizes[0])
    for size in sizes:
        if all(abs(math.log(size / other)) >= room for other in kept):
            kept.append(size)
    return sorted(kept)


AXIS_IN, HEIGHT_IN = 1.25, 3.6
LINE_POINTS = 9
NAME_WIDTH = 13
SPREAD = 0.02
"""How far lines that share a value are drawn from it, as a share of the axis."""


def parallel_coordinates(trials: Sequence[Trial], plan: Plan) -> Figure:
    """A line per trial through its values and its score, dark for a good one; the best is drawn thick, on top.

    Raises:
        ValueError: no trial is completed.
    """
    shown = drawable(trials, plan)
    names = [domain.name for domain in plan.domains]
    scales = [scale_of(name, shown, plan) for name in names]
    scores = scores_of(shown, plan.settings.objective)
    low, high = scores.limits
    heights = np.array([_heights(shown, name, scale) for name, scale in zip(names, scales, strict=True)])
    ends = [(scores.inside(trial.score or 0.0) - low) / (high - low) for trial in shown]
    lines = np.vstack([heights, ends]).T
    colour = ScalarMappable(Normalize(low, high), _colours(scores))
    with look():
        figure = new_figure(max(5.2, AXIS_IN * (len(names) + 1) + 1.4), HEIGHT_IN + 1.3)
        axes = figure.subplots()
        for trial, line in reversed(list(zip(shown, lines, strict=True))):
            best = trial is shown[0]
            edge = [withStroke(linewidth=5, foreground="white")] if best else []
            shade = colour.to_rgba(np.array(scores.inside(trial.score or 0.0)))
            axes.plot(line, color=shade, lw=3 if best else 1.2, alpha=1 if best else 0.75, path_effects=edge)
        for at, scale in enumerate(scales):
            _axis(axes, at, scale.ticks(HEIGHT_IN, LINE_POINTS, along=False))
        _axis(axes, len(names), _score_ticks(scores))
        axes.set_xticks(range(len(names) + 1), [*(folded(name, NAME_WIDTH) for name in names), "score"])
        axes.tick_params(axis="x", length=0, top=True, labeltop=True, labelbottom=False, pad=8)
        axes.set(xlim=(-0.1, len(names) + 0.45), ylim=(-0.04, 1.04), yticks=[])
        axes.spines[:].set_visible(False)
        key = figure.colorbar(colour, ax=axes, pad=0.01, fraction=0.05, aspect=30)
        key.set_label(NAMES[plan.settings.objective])
        key.ax.yaxis.set_major_locator(scores.locator())
        key.ax.yaxis.set_major_formatter(FuncFormatter(lambda score, _: scores.text(score)))
        entitle(figure, f"{subject(trials, plan)}; thick: the best", scores.note("drawn at the edge"))
    return figure


def _heights(trials: Sequence[Trial], name: str, scale: Scale) -> list[float]:
    """Where each line crosses a parameter's axis; lines that share a value are spread a little, by their score."""
    places = {}
    for value in scale.values:
        group = [trial.number for trial in trials if trial.values[name] == value][::-1]
        width = SPREAD * min(1.0, (len(group) - 1) / 6)
        for number, offset in zip(group, np.linspace(-width, width, len(group)), strict=True):
            places[number] = scale.position(value) + float(offset)
    return [places[trial.number] for trial in trials]


def _colours(scores: Scores) -> ListedColormap:
    """Dark for good scores: the palette's light end is hard to see on white."""
    visible = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, 256))
    return ListedColormap(visible[::-1] if scores.objective == "val_accuracy" else visible)


def _score_ticks(scores: Scores) -> list[tuple[float, str]]:
    low, high = scores.limits
    ticks = [tick for tick in scores.locator().tick_values(low, high) if low <= tick <= high]
    return [((tick - low) / (high - low), scores.text(tick)) for tick in ticks]


def _axis(axes: Axes, at: int, ticks: Sequence[tuple[float, str]]) -> None:
    """One vertical axis, its labels to the right of it."""
    axes.plot([at, at], [0, 1], color=GREY, lw=1, zorder=3)
    for height, label in ticks:
        axes.plot([at, at + 0.03], [height, height], color=GREY, lw=1, zorder=3)
        behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
        axes.text(at + 0.05, height, label, va="center", fontsize=LINE_POINTS, zorder=4, bbox=behind)


__all__ = ["paper_claim", "parallel_coordinates", "progress", "save", "score_by_parameter"]

COLUMNS = (1, 2, 3, 2, 3, 3, 3, 4, 3, 4, 4)
"""Panels side by side, for 1, 2, … parameters."""
PANEL_IN = (5.0, 3.6), (3.6, 3.0), (3.1, 2.6), (2.8, 2.4)
"""Width and height of a panel, by how many stand side by side."""
CURVE_POINTS = 9
TRIALS_PER_MEAN = 4
MAX_MEANS = 5


def score_by_parameter(trials: Sequence[Trial], plan: Plan) -> Figure:
    """A panel per tuned parameter: each trial's score at its value, and the means with their standard errors.

    Raises:
        ValueError: no trial is completed.
    """
    shown = drawable(trials, plan)
    names = [domain.name for domain in plan.domains]
    num_columns = COLUMNS[min(len(names), len(COLUMNS)) - 1]
    num_rows = -(-len(names) // num_columns)
    width_in, height_in = PANEL_IN[num_columns - 1]
    scores = scores_of(shown, plan.settings.objective)
    with look():
        figure = new_figure(width_in * num_columns + 0.6, height_in * num_rows + 0.9)
        grid = figure.subplots(num_rows, num_columns, squeeze=False, sharey=True)
        for at, axes in enumerate(grid.flat):
            if at >= len(names):
                axes.remove()
                continue
            scale = scale_of(names[at], shown, plan)
            _dots(axes, names[at], shown, scale, scores)
            _means(axes, names[at], [trial for trial in shown if not scores.beyond(trial.score or 0.0)], scale)
            _ticks(axes, scale, width_in - 0.8)
            axes.set_xlabel(plain(names[at]))
            axes.grid(axis="y", visible=True)
        grid[0, 0].set_ylim(scores.limits)
        scores.write(grid[0, 0].yaxis)
        figure.supylabel(NAMES[plan.settings.objective], fontsize=10)
        entitle(figure, subject(trials, plan), scores.note("drawn at the edge, left out of the means"))
        figure.legend(*_legend([*grid.flat][: len(names)]), loc="outside lower center", ncols=3)
    return figure


def progress(trials: Sequence[Trial], plan: Plan) -> Figure:
    """The score of each trial in the order in which they were begun, and the best so far.

    Raises:
        ValueError: no trial is completed.
    """
    shown = sorted(drawable(trials, plan), key=lambda trial: trial.number)
    shorter = [trial for trial in trials if trial.status == "completed" and trial not in shown]
    failed = [trial.number for trial in trials if trial.status == "failed"]
    scores = scores_of([*shown, *shorter], plan.settings.objective)
    best = np.maximum if plan.settings.objective == "val_accuracy" else np.minimum
    with look():
        figure = new_figure(7.2, 4.0)
        axes = figure.subplots()
        name = f"trial of {shown[0].epochs} epochs" if shorter else "trial"
        _plot_trials(axes, [trial.number for trial in shown], shown, scores, name)
        if shorter:
            places, heights = zip(*((t.number, scores.inside(t.score or 0.0)) for t in shorter), strict=True)
            axes.plot(places, heights, "o", color=GREY, mfc="white", label="shorter trial")
        so_far = best.accumulate([scores.inside(trial.score or 0.0) for trial in shown])
        last = max(trial.number for trial in trials)
        numbers = [*(trial.number for trial in shown), last]
        axes.step(numbers, [*so_far, so_far[-1]], color=ORANGE, where="post", label="best so far")
        if failed:
            foot = [0.02] * len(failed)
            axes.plot(failed, foot, "x", color=GREY, markersize=6, transform=axes.get_xaxis_transform(), label="failed")
        scores.write(axes.yaxis)
        axes.set(xlabel="trial", ylabel=NAMES[plan.settings.objective], xlim=(-0.5, last + 0.5), ylim=scores.limits)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(axis="y", visible=True)
        axes.set_title(scores.note("drawn at the edge"))
        figure.legend(*_legend([axes]), loc="outside upper right", ncols=5)
    return figure


def _dots(axes: Axes, name: str, trials: Sequence[Trial], scale: Scale, scores: Scores) -> None:
    """The trials of one panel; those of the same value stand side by side."""
    width = min(0.17, max(0.02, 0.5 * scale.gap))
    ordered, places = [], []
    for value in scale.values:
        group = sorted((t for t in trials if t.values[name] == value), key=lambda trial: trial.number)
        half = 0.5 * width * min(1, len(group) / 8) if len(group) > 1 else 0.0
        places += [scale.position(value) + float(at) for at in np.linspace(-half, half, len(group))]
        ordered += group
    _plot_trials(axes, places, ordered, scores, "trial")


def _plot_trials(axes: Axes, places: Sequence[float], trials: Sequence[Trial], scores: Scores, name: str) -> None:
    """A dot per trial, a small one per repeat, and a triangle at the edge for a trial beyond it."""
    repeats, near, far = [], [], []
    for place, trial in zip(places, trials, strict=True):
        score = trial.score or 0.0
        repeats += [(place, each.score) for each in trial.repeats if len(trial.repeats) > 1]
        (far if scores.beyond(score) else near).append((place, scores.inside(score)))
    worse = "v" if scores.objective == "val_accuracy" else "^"
    looks: list[tuple[list, dict[str, Any]]] = [
        (repeats, {"marker": "o", "color": BLUE, "alpha": 0.4, "markersize": 3, "label": "repeat"}),
        (near, {"marker": "o", "color": BLUE, "alpha": 0.8, "markersize": 5, "label": name}),
        (far, {"marker": worse, "color": GREY, "markersize": 6, "label": "_far"}),
    ]
    for points, look_of_points in looks:
        if points:
            axes.plot(*zip(*points, strict=True), linestyle="", markeredgewidth=0, zorder=3, **look_of_points)


def _means(axes: Axes, name: str, trials: Sequence[Trial], scale: Scale) -> None:
    """The mean at each value with its standard error; of many different numbers, those of neighbouring trials."""
    if scale.kind == "words" or len(scale.values) <= MAX_TICKS:
        effects = main_effects(trials, name)
        points = sorted((scale.position(each.value), each.mean, each.standard_error) for each in effects)
    else:
        ordered = sorted(trials, key=lambda trial: scale.position(trial.values[name]))
        groups = np.array_split(np.arange(len(ordered)), min(MAX_MEANS, max(1, len(ordered) // TRIALS_PER_MEAN)))
        chunks = [[ordered[at] for at in group] for group in groups]
        places = [float(np.mean([scale.position(trial.values[name]) for trial in chunk])) for chunk in chunks]
        points = [(at, *mean_and_error([t.score or 0.0 for t in c])) for at, c in zip(places, chunks, strict=True)]
    # Words have no order that a line between them could follow.
    kind = "D" if scale.kind == "words" else "D-"
    x, mean, error = zip(*points, strict=True)
    look = {"fmt": kind, "color": ORANGE, "capsize": 3, "lw": 1.5, "ms": 7, "mfc": "none", "zorder": 4}
    axes.errorbar(x, mean, error, label="mean ± standard error", **look)


def _ticks(axes: Axes, scale: Scale, room_in: float) -> None:
    margin = 0.12 if len(scale.values) <= 4 else 0.07
    ticks = scale.ticks(room_in / (1 + 2 * margin), CURVE_POINTS)
    if scale.kind == "words" and not all(label for _, label in ticks):
        ticks = scale.ticks(room_in * 100, CURVE_POINTS)
        axes.tick_params(axis="x", labelrotation=30)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")
    axes.set_xticks([at for at, _ in ticks], [label for _, label in ticks])
    axes.tick_params(axis="x", labelsize=CURVE_POINTS)
    axes.set_xlim(-margin, 1 + margin)


def _legend(panels: Sequence[Axes]) -> tuple[list, list[str]]:
    """Each kind of mark once."""
    found = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)
