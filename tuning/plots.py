"""Trials to figures: the score by parameter, the paper's claim, the progress of the search.

Each function returns a `matplotlib.figure.Figure` that needs no display; `save` writes it as PNG and SVG. All but
`progress` show the trials that may be compared (`tuning.trials.comparable`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from kfusion.metrics.classification import require
from kfusion.plots.style import BLUE, GREY, ORANGE, look, new_figure, plain, save
from tuning.space import Plan, current
from tuning.trials import Trial, comparable, counted, main_effects, mean_and_error, value_text

__all__ = ["paper_claim", "progress", "save", "score_by_parameter"]

LOGARITHMIC = 4.0
"""Numbers whose largest is at least this many times their smallest are drawn on a logarithmic axis."""
MAX_TICKS = 8
"""Up to this many tried values each have a tick; of more, round numbers have."""
CHARACTER_IN = 0.0075
"""Width of a character in inches, per point of its size, rounded up."""
LABEL_LENGTH = 16
FAR = 3.0
"""Scores worse than the worst quarter by this many interquartile ranges are drawn at the edge (Tukey's "far out")."""
MIN_FOR_FAR = 8
NAMES = {"val_accuracy": "validation accuracy, %", "val_loss": "validation loss, nats"}
CHOSEN, EQUAL, EMBED_DIM = 256, 128, 128
"""The paper's hidden size, the one that "worked equally nicely", and its embed size."""
MAX_LINES = 6
MARKERS = "osD^vP"
LABEL = 0.07
"""Share of the axis that the label of a tick takes."""
APART = 1.025
"""Factor between the places of neighbouring lines, so that their error bars do not hide each other."""
COLUMNS = (1, 2, 3, 2, 3, 3, 3, 4, 3, 4, 4)
"""Panels side by side, for 1, 2, … parameters."""
PANEL_IN = (5.0, 3.6), (3.6, 3.0), (3.1, 2.6), (2.8, 2.4)
"""Width and height of a panel, by how many stand side by side."""
CURVE_POINTS = 9
TRIALS_PER_MEAN = 4
MAX_MEANS = 5
Points = dict[str, list[tuple[int, float, float]]]
"""By the name of the line: hidden size, mean score, standard error."""


@dataclass(frozen=True)
class Scale:
    """Where the tried values of one parameter lie on an axis of length 1."""

    kind: Literal["words", "log", "linear"]
    values: tuple[Any, ...]
    """The tried ones, each once, in their order."""

    def position(self, value: Any) -> float:
        """In [0, 1]; in the middle where there is only one value."""
        if len(self.values) == 1:
            return 0.5
        if self.kind == "words":
            return self.values.index(value) / (len(self.values) - 1)
        low, high, here = (self._length(number) for number in (self.values[0], self.values[-1], value))
        return (here - low) / (high - low)

    @property
    def gap(self) -> float:
        """Between the two values that lie closest together."""
        places = sorted(self.position(value) for value in self.values)
        return min((high - low for low, high in pairwise(places)), default=1.0)

    def ticks(self, length_in: float, points: float) -> list[tuple[float, str]]:
        """Positions and labels of a horizontal axis; a label that would run into the one before is empty.

        Args:
            length_in: of the axis.
            points: size of the labels.
        """
        values = self.values if len(self.values) <= MAX_TICKS or self.kind == "words" else self._round_values()
        ticks, end = [], -math.inf
        for value in values:
            label = brief(value_text(value))
            size = len(label) * points * CHARACTER_IN
            start = self.position(value) * length_in - size / 2
            if start < end:
                label = ""
            else:
                end = start + size + points * CHARACTER_IN
            ticks.append((self.position(value), label))
        return ticks

    def _length(self, number: float) -> float:
        return math.log(number) if self.kind == "log" else float(number)

    def _round_values(self) -> list[float]:
        low, high = self.values[0], self.values[-1]
        whole = all(isinstance(value, int) for value in self.values)
        locator = MaxNLocator(5, integer=whole)
        if self.kind == "log":
            locator = LogLocator(2 if whole else 10, subs=(1.0,) if whole or high > 100 * low else (1.0, 2.0, 5.0))
        ticks = [float(f"{tick:.6g}") for tick in locator.tick_values(low, high) if low <= tick <= high]
        return [int(tick) if whole else tick for tick in ticks]


def scale_of(name: str, trials: Sequence[Trial], plan: Plan) -> Scale:
    """The scale of a parameter: a logarithmic one for numbers over a wide span, the listed order for words.

    Args:
        name: of the parameter.
        trials: whose values it holds.
        plan: the search.
    """
    tried = {trial.values[name] for trial in trials}
    if any(isinstance(value, str) for value in tried):
        domain = next(domain for domain in plan.domains if domain.name == name)
        return Scale("words", tuple(value for value in domain.values if value in tried))
    values = tuple(sorted(tried))
    wide = values[0] > 0 and values[-1] >= LOGARITHMIC * values[0]
    return Scale("log" if wide else "linear", values)


@dataclass(frozen=True)
class Scores:
    """The span of scores that a figure shows. Accuracies lie in [0, 1] and are written in %."""

    objective: str
    worst: float
    """Beyond it, trials are drawn at the edge: one failure of a setting would flatten all differences."""
    best: float
    num_beyond: int = 0

    @property
    def limits(self) -> tuple[float, float]:
        """From low to high, with some room around."""
        low, high = sorted((self.worst, self.best))
        # Of equal scores, the differences between neighbouring floats are not to be seen.
        least = 0.01 if self.objective == "val_accuracy" else 0.1 * max(abs(high), 0.01)
        room = 0.07 * (high - low) if high - low > 1e-9 else least / 2
        high += room
        return low - room, max(self.best, min(high, 1 + 0.3 * room)) if self.objective == "val_accuracy" else high

    def beyond(self, score: float) -> bool:
        return score < self.worst if self.objective == "val_accuracy" else score > self.worst

    def inside(self, score: float) -> float:
        """The score, or the edge where it lies beyond."""
        return self.worst if self.beyond(score) else score

    def set_ticks(self, axis: Axis) -> None:
        """Writes accuracies in %, at round numbers."""
        factor = 100 if self.objective == "val_accuracy" else 1
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda score, _: f"{factor * score:.6g}"))

    def note(self, treatment: str) -> str:
        """A sentence on the trials beyond the worst score; "" where there are none.

        Args:
            treatment: how the figure shows them.
        """
        side, factor, unit = ("below", 100, " %") if self.objective == "val_accuracy" else ("above", 1, "")
        text = f"{counted(self.num_beyond, 'trial')} {side} {factor * self.worst:.4g}{unit}: {treatment}"
        return text if self.num_beyond else ""


def scores_of(trials: Sequence[Trial], objective: str) -> Scores:
    """The span of the scores of completed trials and their repeats, without those that are far worse than the rest.

    Args:
        trials: the completed ones.
        objective: "val_accuracy" or "val_loss".
    """
    sign = 1.0 if objective == "val_accuracy" else -1.0
    means = sign * np.array([trial.score or 0.0 for trial in trials])
    low, high = np.quantile(means, (0.25, 0.75))
    fence = low - FAR * (high - low) if len(means) >= MIN_FOR_FAR and high > low else -math.inf
    shown = [trial for trial, mean in zip(trials, means, strict=True) if mean >= fence]
    each = [sign * score for t in shown for score in (t.score or 0.0, *(r.score for r in t.repeats))]
    return Scores(objective, sign * max(fence, min(each)), sign * max(each), len(trials) - len(shown))


def drawable(trials: Sequence[Trial], plan: Plan) -> list[Trial]:
    """The trials that a figure may compare with each other, best first.

    Args:
        trials: of a search, in any order.
        plan: the search.

    Raises:
        ValueError: no trial is completed.
    """
    shown = comparable(trials, plan)
    require(len(shown) > 0, "trials", "completed, one or more", "none")
    return shown


def entitle(figure: Figure, *notes: str) -> None:
    """The title of a figure, a line for each note that is not empty."""
    figure.suptitle("\n".join(filter(None, notes)), x=0.01, ha="left", fontsize=11)


def subject(trials: Sequence[Trial], plan: Plan) -> str:
    """Which trials a figure shows: `12 trials`.

    Args:
        trials: of a search, in any order.
        plan: the search.
    """
    shown = comparable(trials, plan)
    others = sum(trial.status == "completed" for trial in trials) - len(shown)
    if not others:
        return counted(len(shown), "trial")
    return f"{counted(len(shown), 'trial')} of {counted(shown[0].epochs, 'epoch')} ({others} shorter left out)"


def brief(text: str) -> str:
    """A value as a tick's label, of at most `LABEL_LENGTH` characters: of a longer one, both ends."""
    half = LABEL_LENGTH // 2
    return plain(text if len(text) <= LABEL_LENGTH else f"{text[:half]}…{text[1 - half :]}")


def paper_claim(trials: Sequence[Trial], plan: Plan) -> Figure | None:
    """The mean score over the hidden size, a line per embed size, with the paper's two settings marked.

    The error bars are standard errors: over trials where points have several, else over each trial's repeats.

    Args:
        trials: of a search, in any order.
        plan: the search.

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
    near = [trial for trial in shown if not everything.beyond(trial.score or 0.0)]
    lines = _lines(near, "embed_dim" in names)
    single = all(len(group) == 1 for line in lines.values() for group in line.values())
    points = {name: [(at, *_mean(line[at], single)) for at in sorted(line)] for name, line in lines.items()}
    with look():
        figure = new_figure(7.2, 4.8)
        axes = figure.subplots()
        _draw(axes, points)
        scores = _span(points, plan.settings.objective)
        scores.set_ticks(axes.yaxis)
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
    ticks, room = [CHOSEN, EQUAL], LABEL * math.log(sizes[-1] / sizes[0])
    for size in sizes:
        if all(abs(math.log(size / other)) >= room for other in ticks):
            ticks.append(size)
    return sorted(ticks)


def score_by_parameter(trials: Sequence[Trial], plan: Plan) -> Figure:
    """A panel per tuned parameter: each trial's score at its value, and the means with their standard errors.

    Args:
        trials: of a search, in any order.
        plan: the search.

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
        scores.set_ticks(grid[0, 0].yaxis)
        figure.supylabel(NAMES[plan.settings.objective], fontsize=10)
        entitle(figure, subject(trials, plan), scores.note("drawn at the edge, left out of the means"))
        figure.legend(*_legend([*grid.flat][: len(names)]), loc="outside lower center", ncols=3)
    return figure


def progress(trials: Sequence[Trial], plan: Plan) -> Figure:
    """The score of each trial in the order in which they were begun, and the best so far.

    Args:
        trials: of a search, in any order.
        plan: the search.

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
        scores.set_ticks(axes.yaxis)
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
    handles = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    return list(handles.values()), list(handles)
