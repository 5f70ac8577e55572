"""Made trials of a search, for the tests of what is said of them."""

from typing import Any

from tuning.plan import Plan, Settings
from tuning.trials import Repeat, Trial


def plan(*tune: str, **settings: Any) -> Plan:
    """A plan of the default two parameters, or of others."""
    return Plan(Settings(tune=tune or ("hidden_dim", "embed_dim"), **settings))


def repeat(score: float, seed: int = 0, **given: Any) -> Repeat:
    known: dict[str, Any] = {"best_epoch": 18, "epochs": 20, "seconds": 41.0, "weights": 1000}
    return Repeat(seed, score, score, 1 - score, **known | given)


def completed(number: int, *scores: float, seconds: float = 41.0, epochs: int = 20, **values: Any) -> Trial:
    """A trial with a training per score."""
    repeats = tuple(repeat(score, seed, seconds=seconds, epochs=epochs) for seed, score in enumerate(scores))
    mean = sum(scores) / len(scores)
    values = values or {"hidden_dim": 256, "embed_dim": 128}
    return Trial(number, "completed", values, mean, repeats, epochs=epochs, worker="worker-0")


def failed(number: int, reason: str, **values: Any) -> Trial:
    return Trial(number, "failed", values or {"hidden_dim": 64, "embed_dim": 32}, reason=reason, epochs=20)


def running(number: int, epoch: int, *scores: float, **values: Any) -> Trial:
    """A trial whose repeats with these scores have ended."""
    repeats = tuple(repeat(score) for score in scores)
    values = values or {"hidden_dim": 512, "embed_dim": 64}
    return Trial(number, "running", values, repeats=repeats, epoch=epoch, epochs=20)
