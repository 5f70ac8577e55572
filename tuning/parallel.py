"""Trials to parallel coordinates: an axis per parameter, a line per trial."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter

from kfusion.analysis.style import GREY, look, new_figure
from tuning.axes import NAMES, Scale, Scores, drawable, entitle, folded, scale_of, scores_of, subject
from tuning.plan import Plan
from tuning.trials import Trial

AXIS_IN, HEIGHT_IN = 1.25, 3.6
POINTS = 9
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
            _axis(axes, at, scale.ticks(HEIGHT_IN, POINTS, along=False))
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
        axes.text(at + 0.05, height, label, va="center", fontsize=POINTS, zorder=4, bbox=behind)
