"""The trials of a search folder, read from its files while other processes write them.

trials/oracle.json                  keras-tuner's memory of the search
trials/trial_07/trial.json          one trial: its parameters, its status, its score
trials/trial_07/repeat-0/           a run folder of kfusion: history.csv, config.json, best.keras
trials/trial_07/repeat-0.json       what became of it, once it has ended
trials/trial_07/error.txt           why the trial failed
trials/trial_07/attempts.json       how often it was begun, and by which worker last
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

TRIALS = "trials"
Status = Literal["running", "completed", "failed"]


@dataclass(frozen=True)
class Repeat:
    """One training of a trial."""

    seed: int
    score: float
    """The objective of the kept epoch, averaged as `kfusion.training.callbacks.best_epoch` does."""
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
    found = []
    for path in (folder / TRIALS).glob("trial_*/trial.json"):
        state = _read(path)
        if state and state.get("status") is not None:
            found.append(_trial(path.parent, state, names, epochs))
    return sorted(found, key=lambda trial: trial.number)


def ranked(trials: list[Trial], objective: str) -> list[Trial]:
    """The completed ones, best first; of equals the earlier."""
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
