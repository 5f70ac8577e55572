"""What the scores of a search allow one to say: which trial is best, and how much of a difference is chance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, NamedTuple

from scipy.special import stdtrit

from tuning.plan import Plan
from tuning.trials import Trial, ranked

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """How far the scores of one setting scatter when only the seed changes."""

    sd: float
    """Pooled sample standard deviation of the repeats within trials."""
    degrees_of_freedom: int
    repeats: float
    """Repeats per trial."""
    least_difference: float
    """Two settings whose mean scores are further apart than this differ at 95 %."""


class Effect(NamedTuple):
    """The trials that share one value of a parameter."""

    value: Any
    mean: float
    """Of the trials' scores."""
    standard_error: float
    """Over the trials; NaN where there is only one."""
    num_trials: int


def completed(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that have a score."""
    return [trial for trial in trials if trial.status == "completed" and trial.score is not None]


def comparable(trials: Sequence[Trial], plan: Plan) -> list[Trial]:
    """The completed trials whose scores may be held against each other, best first; of equals the earlier.

    Hyperband trains most settings for a few epochs only, and a short training scores lower whatever its setting: there,
    these are the trials of the most epochs among those that are completed.
    """
    done = completed(trials)
    if plan.settings.tuner == "hyperband":
        most = max((trial.epochs for trial in done), default=0)
        done = [trial for trial in done if trial.epochs == most]
    return ranked(done, plan.settings.objective)


def best_of(trials: Sequence[Trial], plan: Plan) -> Trial | None:
    """The best of the comparable trials; None where none is completed."""
    return next(iter(comparable(trials, plan)), None)


def spread(trials: Sequence[Trial]) -> Spread | None:
    """The chance in a score, from the trials that were trained more than once; None where there is none.

    With x_ij the score of repeat j of trial i, and n_i ≥ 2 repeats of it:

        sd² = Σ_i Σ_j (x_ij - mean_i)² / df,    df = Σ_i (n_i - 1)          (pooled variance)
        least_difference = t(0.975, df) · sd · √(2 / n)                     (two-sided, 95 %)

    where n is the harmonic mean of the n_i, which is the number of repeats where all trials have as many. This takes
    the scatter to be the same in every setting. It is meant for two settings that were picked before their scores were
    seen. Where many are compared it is liberal: among many equal settings, the best and the worst are often further
    apart than this by chance alone.

    Reference:
        R. A. Fisher, The Design of Experiments, 1935 (least significant difference); G. W. Snedecor and W. G. Cochran,
        Statistical Methods, on the pooled variance and on comparing all pairs of means.
    """
    groups = [[repeat.score for repeat in trial.repeats] for trial in completed(trials) if len(trial.repeats) >= 2]
    if not groups:
        return None
    freedom = sum(len(group) - 1 for group in groups)
    means = [fmean(group) for group in groups]
    squares = sum((score - mean) ** 2 for group, mean in zip(groups, means, strict=True) for score in group)
    sd = math.sqrt(squares / freedom)
    repeats = len(groups) / sum(1 / len(group) for group in groups)
    quantile = float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
    return Spread(sd, freedom, repeats, quantile * sd * math.sqrt(2 / repeats))


def indistinct(trials: Sequence[Trial], plan: Plan) -> list[Trial]:
    """The comparable trials that cannot be told from the best: no further from it than `least_difference`."""
    chance, others = spread(trials), comparable(trials, plan)
    if chance is None:
        return []
    best = others[0].score or 0.0
    return [trial for trial in others[1:] if abs((trial.score or 0.0) - best) <= chance.least_difference]


def main_effects(trials: Sequence[Trial], name: str) -> list[Effect]:
    """The mean score of the completed trials at each value of one parameter, whatever the others were.

    standard_error = s / √n, with s the sample standard deviation of the n trials' scores at that value. It holds what
    the other parameters did to the score as well as chance.

    Args:
        trials: only those that may be compared: see `comparable`.
        name: the parameter.

    Returns:
        numbers in ascending order, before words in that of the alphabet.
    """
    scores: dict[Any, list[float]] = {}
    for trial in completed(trials):
        if name in trial.values and trial.score is not None:
            scores.setdefault(trial.values[name], []).append(trial.score)
    return [Effect(value, *mean_and_error(scores[value]), len(scores[value])) for value in sorted(scores, key=_order)]


def mean_and_error(scores: Sequence[float]) -> tuple[float, float]:
    """The mean of one or more scores and its standard error, which is NaN where there is only one."""
    deviation = sample_deviation(scores)
    return fmean(scores), math.nan if deviation is None else deviation / math.sqrt(len(scores))


def sample_deviation(scores: Sequence[float]) -> float | None:
    """√(Σ (x - mean)² / (n - 1)); None of fewer than two."""
    return stdev(scores) if len(scores) >= 2 else None


def _order(value: Any) -> tuple[bool, float, str]:
    word = isinstance(value, str)
    return word, 0.0 if word else float(value), str(value)
