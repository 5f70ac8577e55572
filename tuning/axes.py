"""What the axes of the search's figures have in common: where values lie, what the ticks say, what scores they span."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from kfusion.metrics.classification import require
from kfusion.plots.style import plain
from tuning.space import Plan
from tuning.trials import Trial, comparable, counted, value_text

LOGARITHMIC = 4.0
"""Numbers whose largest is at least this many times their smallest are drawn on a logarithmic axis."""
MAX_TICKS = 8
"""Up to this many tried values each have a tick; of more, round numbers have."""
CHARACTER_IN = 0.0075
"""Width of a character in inches, per point of its size, rounded up."""
LINE_IN = 0.019
"""Height of a line in inches, per point."""
LABEL_LENGTH = 16
FAR = 3.0
"""Scores worse than the worst quarter by this many interquartile ranges are drawn at the edge (Tukey's "far out")."""
MIN_FOR_FAR = 8
NAMES = {"val_accuracy": "validation accuracy, %", "val_loss": "validation loss, nats"}


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

    def ticks(self, length_in: float, points: float, along: bool = True) -> list[tuple[float, str]]:
        """Positions and labels, those left empty that would run into the one before.

        Args:
            length_in: of the axis.
            points: size of the labels.
            along: the labels are written along the axis, as on a horizontal one.
        """
        values = self.values if len(self.values) <= MAX_TICKS or self.kind == "words" else self._round_values()
        ticks, end = [], -math.inf
        for value in values:
            label = brief(value_text(value))
            size = len(label) * points * CHARACTER_IN if along else points * LINE_IN
            start = self.position(value) * length_in - size / 2
            if start < end:
                label = ""
            else:
                end = start + size + (points * CHARACTER_IN if along else 0)
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
        found = [float(f"{tick:.6g}") for tick in locator.tick_values(low, high) if low <= tick <= high]
        return [int(tick) if whole else tick for tick in found]


def scale_of(name: str, trials: Sequence[Trial], plan: Plan) -> Scale:
    """The scale of a parameter: a logarithmic one for numbers over a wide span, the listed order for words."""
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

    def write(self, axis: Axis) -> None:
        """The ticks of an axis."""
        axis.set_major_locator(self.locator())
        axis.set_major_formatter(FuncFormatter(lambda score, _: self.text(score)))

    def locator(self) -> MaxNLocator:
        return MaxNLocator(6, steps=[1, 2, 2.5, 5, 10])

    def text(self, score: float) -> str:
        return f"{100 * score if self.objective == 'val_accuracy' else score:.6g}"

    def note(self, what: str) -> str:
        """What became of the trials beyond, or nothing where there are none."""
        side, factor, unit = ("below", 100, " %") if self.objective == "val_accuracy" else ("above", 1, "")
        text = f"{counted(self.num_beyond, 'trial')} {side} {factor * self.worst:.4g}{unit}: {what}"
        return text if self.num_beyond else ""


def scores_of(trials: Sequence[Trial], objective: str) -> Scores:
    """The span of the scores of completed trials and their repeats, without those that are far worse than the rest."""
    sign = 1.0 if objective == "val_accuracy" else -1.0
    means = sign * np.array([trial.score or 0.0 for trial in trials])
    low, high = np.quantile(means, (0.25, 0.75))
    fence = low - FAR * (high - low) if len(means) >= MIN_FOR_FAR and high > low else -math.inf
    shown = [trial for trial, mean in zip(trials, means, strict=True) if mean >= fence]
    each = [sign * score for t in shown for score in (t.score or 0.0, *(r.score for r in t.repeats))]
    return Scores(objective, sign * max(fence, min(each)), sign * max(each), len(trials) - len(shown))


def drawable(trials: Sequence[Trial], plan: Plan) -> list[Trial]:
    """The trials that a figure may hold against each other, best first.

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
    """Which trials a figure shows: `12 trials`."""
    shown = comparable(trials, plan)
    others = sum(trial.status == "completed" for trial in trials) - len(shown)
    if not others:
        return counted(len(shown), "trial")
    return f"{counted(len(shown), 'trial')} of {counted(shown[0].epochs, 'epoch')} ({others} shorter left out)"


def brief(text: str) -> str:
    """A value as a tick's label, of at most `LABEL_LENGTH` characters: of a longer one, both ends."""
    half = LABEL_LENGTH // 2
    return plain(text if len(text) <= LABEL_LENGTH else f"{text[:half]}…{text[1 - half :]}")


def folded(name: str, width: int) -> str:
    """A parameter's name in lines of at most `width` characters, broken at its underscores where it can be."""
    lines = textwrap.wrap(plain(name).replace("_", "_ "), width)
    return "\n".join(line.replace("_ ", "_") for line in lines)
