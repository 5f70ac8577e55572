"""The trials of a search folder: read from its files, compared with each other, and written as text.

trials/oracle.json                  keras-tuner's memory of the search
trials/trial_07/trial.json          one trial: its parameters, its status, its score
trials/trial_07/repeat-0/           a run folder of kfusion: history.csv, config.json, best.keras
trials/trial_07/repeat-0.json       what became of it, once it has ended
trials/trial_07/error.txt           why the trial failed
trials/trial_07/attempts.json       how often it was begun, and by which worker last

Other processes write these files meanwhile. Values, scores and times are written alike in the live table, in the
report and in the figures.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple

from scipy.special import stdtrit

from tuning.space import Plan

RETIRED = 75
"""Exit status of a worker that has grown too large and wants to be started again."""
TRIALS = "trials"
"""The folder of the trials, in that of the search."""
Status = Literal["running", "completed", "failed"]


@dataclass(frozen=True)
class Repeat:
    """One training of a trial."""

    seed: int
    score: float
    """The objective of the kept epoch, averaged as `kfusion.training.fit.best_epoch` does."""
    val_accuracy: float
    val_loss: float
    best_epoch: int
    """The kept epoch, from 1."""
    epochs: int
    """Epochs trained."""
    seconds: float
    """Time of the training itself, over all attempts; of epochs before a restart, without their validation."""
    weights: int = 0
    """Trainable numbers of the network."""


@dataclass(frozen=True)
class Trial:
    """One setting of the parameters, and what came of it."""

    number: int
    """From 0, in the order of starting."""
    status: Status
    values: dict[str, Any]
    """The tuned parameters by name, in the order of `--tune`."""
    score: float | None = None
    """Mean over the repeats; None unless completed."""
    repeats: tuple[Repeat, ...] = ()
    """Those that have ended."""
    reason: str = ""
    """Why it failed, in one line."""
    epoch: int = 0
    """Epochs done by the training that runs."""
    epochs: int = 0
    """Epochs that each training of this trial is to have."""
    worker: str = ""
    """Who began it last."""
    attempts: int = 1

    @property
    def seconds(self) -> float:
        """Training time of the repeats that have ended."""
        return sum(repeat.seconds for repeat in self.repeats)

    @property
    def best_epoch(self) -> float | None:
        """Mean over the repeats."""
        return sum(r.best_epoch for r in self.repeats) / len(self.repeats) if self.repeats else None


def read_trials(folder: Path, names: tuple[str, ...], epochs: int) -> list[Trial]:
    """Every trial that was begun.

    Args:
        folder: the search's folder.
        names: the tuned parameters.
        epochs: of the plan's config, where a trial does not say otherwise.
    """
    trials = []
    for path in (folder / TRIALS).glob("trial_*/trial.json"):
        state = _read(path)
        if state and state.get("status") is not None:
            trials.append(_trial(path.parent, state, names, epochs))
    return sorted(trials, key=lambda trial: trial.number)


def ranked(trials: list[Trial], objective: str) -> list[Trial]:
    """The completed trials, best first; of equals the earlier.

    Args:
        trials: in any order.
        objective: "val_accuracy" or "val_loss".
    """
    done = [trial for trial in trials if trial.status == "completed" and trial.score is not None]
    sign = -1.0 if objective == "val_accuracy" else 1.0
    return sorted(done, key=lambda trial: (sign * (trial.score or 0.0), trial.number))


def _trial(place: Path, state: dict[str, Any], names: tuple[str, ...], epochs: int) -> Trial:
    values = state["hyperparameters"]["values"]
    repeats = tuple(Repeat(**each) for path in sorted(place.glob("repeat-*.json")) if (each := _read(path)))
    status = {"COMPLETED": "completed", "FAILED": "failed", "INVALID": "failed"}.get(state["status"], "running")
    begun = _read(place / "attempts.json") or {}
    return Trial(
        number=int(state["trial_id"]),
        status=status,  # type: ignore[arg-type]
        values={name: values[name] for name in names if name in values},
        score=_score(state, repeats) if status == "completed" else None,
        repeats=repeats,
        reason=_reason(place, state) if status == "failed" else "",
        epoch=_epochs_done(place, len(repeats)) if status == "running" else 0,
        epochs=int(values.get("tuner/epochs", values.get("epochs", epochs))),
        worker=begun.get("worker", ""),
        attempts=begun.get("attempts", 1),
    )


def _score(state: dict[str, Any], repeats: tuple[Repeat, ...]) -> float:
    """From the repeats where their files are here; they hold the objective to the last digit."""
    return sum(repeat.score for repeat in repeats) / len(repeats) if repeats else float(state["score"])


def _reason(place: Path, state: dict[str, Any]) -> str:
    """The last line of the error, which names it."""
    try:
        text = (place / "error.txt").read_text(encoding="utf-8")
    except OSError:
        text = state.get("message") or "the worker left no message"
    return text.strip().splitlines()[-1]


def _epochs_done(place: Path, repeat: int) -> int:
    try:
        return max(0, (place / f"repeat-{repeat}" / "history.csv").read_text(encoding="utf-8").count("\n") - 1)
    except OSError:
        return 0


def _read(path: Path) -> dict[str, Any] | None:
    """None where the file is not there yet."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None


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

    Args:
        trials: in any order.
        plan: the search.
    """
    done = completed(trials)
    if plan.settings.tuner == "hyperband":
        most = max((trial.epochs for trial in done), default=0)
        done = [trial for trial in done if trial.epochs == most]
    return ranked(done, plan.settings.objective)


def best_of(trials: Sequence[Trial], plan: Plan) -> Trial | None:
    """The best of the comparable trials; None where none is completed.

    Args:
        trials: in any order.
        plan: the search.
    """
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
    """The comparable trials that cannot be told from the best: no further from it than `least_difference`.

    Args:
        trials: in any order.
        plan: the search.
    """
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


SHORT = {
    "hidden_dim": "hidden",
    "embed_dim": "embed",
    "modality_dropout": "mod drop",
    "batch_size": "batch",
    "peak_learning_rate": "peak lr",
    "warmup_share": "warmup",
    "weight_decay": "decay",
}
"""Headings where the parameters' own names do not fit."""
SHORT_LENGTH = 8


def one_line(text: str) -> str:
    """The text without line breaks and without characters that would steer a terminal."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def short(name: str) -> str:
    """A heading of about `SHORT_LENGTH` characters for a parameter."""
    if name in SHORT or len(name) <= SHORT_LENGTH:
        return SHORT.get(name, name)
    return f"{name[: SHORT_LENGTH - 1]}…"


def value_text(value: Any) -> str:
    """A parameter's value: whole numbers and words as they are, others to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else one_line(str(value))


def setting_text(values: Mapping[str, Any]) -> str:
    """`hidden_dim 256, embed_dim 128`"""
    return ", ".join(f"{name} {value_text(value)}" for name, value in values.items())


def score_text(trial: Trial) -> str:
    """`0.9925`; of several repeats the mean and their sample standard deviation, `0.9925 ± 0.0012`."""
    if trial.score is None:
        return "-"
    deviation = sample_deviation([repeat.score for repeat in trial.repeats])
    return f"{trial.score:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def epoch_text(trial: Trial) -> str:
    """The epoch whose weights were kept, `18`; over several repeats its mean, `17.3`."""
    if trial.best_epoch is None:
        return "-"
    return f"{trial.best_epoch:.1f}".removesuffix(".0")


def clock(seconds: float) -> str:
    """`0:41`, `12:03` or `1:02:03`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration(seconds: float) -> str:
    """`41 s`, `12 min 3 s` or `1 h 2 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def counted(number: int, noun: str) -> str:
    """`1 trial`, `2 trials`.

    Args:
        number: how many.
        noun: in the singular.
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
