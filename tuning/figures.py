"""Trials to figures: the score by parameter, parallel coordinates, the paper's claim, the progress of the search.

Each function returns a `matplotlib.figure.Figure` that needs no display; `save` writes it as PNG and SVG. All but
`progress` show the trials that may be compared (`tuning.statistics.comparable`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kfusion.analysis.style import BLUE, GREY, ORANGE, look, new_figure, plain, save
from tuning.axes import MAX_TICKS, NAMES, Scale, Scores, drawable, entitle, scale_of, scores_of, subject
from tuning.claim import paper_claim
from tuning.parallel import parallel_coordinates
from tuning.plan import Plan
from tuning.statistics import main_effects, mean_and_error
from tuning.trials import Trial

__all__ = ["paper_claim", "parallel_coordinates", "progress", "save", "score_by_parameter"]

COLUMNS = (1, 2, 3, 2, 3, 3, 3, 4, 3, 4, 4)
"""Panels side by side, for 1, 2, … parameters."""
PANEL_IN = (5.0, 3.6), (3.6, 3.0), (3.1, 2.6), (2.8, 2.4)
"""Width and height of a panel, by how many stand side by side."""
POINTS = 9
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
    ticks = scale.ticks(room_in / (1 + 2 * margin), POINTS)
    if scale.kind == "words" and not all(label for _, label in ticks):
        ticks = scale.ticks(room_in * 100, POINTS)
        axes.tick_params(axis="x", labelrotation=30)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")
    axes.set_xticks([at for at, _ in ticks], [label for _, label in ticks])
    axes.tick_params(axis="x", labelsize=POINTS)
    axes.set_xlim(-margin, 1 + margin)


def _legend(panels: Sequence[Axes]) -> tuple[list, list[str]]:
    """Each kind of mark once."""
    found = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)
