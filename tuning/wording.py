"""How values, scores and times of trials are written: the same on the board, in the report and in the figures."""

from collections.abc import Mapping
from typing import Any

from tuning.statistics import sample_deviation
from tuning.trials import Trial

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
    """`1 trial`, `2 trials`"""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
