"""The search space: which settings may be tuned, and over which values.

`SPACE` is the table to edit. On the command line, `--tune` picks from it, and may give other values:
`--tune hidden_dim embed_dim=32,64 peak_learning_rate=1e-4..1e-2`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_type_hints

from kfusion.config import AugmentConfig, Config, ModelConfig, TrainingConfig
from kfusion.rules import UserError, require

if TYPE_CHECKING:  # keras-tuner imports TensorFlow, which the command that only watches does not need.
    import keras_tuner

Value = int | float | str

SPACE: dict[str, tuple[type, tuple[Any, ...]]] = {
    # name: (section of the config, values)
    "hidden_dim": (ModelConfig, (64, 128, 256, 512)),
    "embed_dim": (ModelConfig, (32, 64, 128, 256)),
    "filters": (ModelConfig, ((16, 32), (32, 64), (64, 128))),
    "dropout": (ModelConfig, (0.1, 0.3, 0.5)),
    "fusion": (ModelConfig, ("lstm", "attention", "late")),
    "modality_dropout": (AugmentConfig, (0.0, 0.15, 0.3)),
    "batch_size": (TrainingConfig, (64, 128)),
    "epochs": (TrainingConfig, (10, 20, 50)),
    "peak_learning_rate": (TrainingConfig, (3e-4, 1e-3, 3e-3)),
    "warmup_share": (TrainingConfig, (0.05, 0.1, 0.2)),
    "weight_decay": (TrainingConfig, (1e-3, 1e-2, 5e-2)),
}
DEFAULT = ("hidden_dim", "embed_dim")
"""What the paper tuned."""
WIDE = 10.0
"""A range whose end is at least this many times its beginning is searched on a logarithmic scale."""
DIGITS = 6
"""Of a number drawn from a range: more would only make the config harder to read."""


@dataclass(frozen=True)
class Domain:
    """What one parameter may be: some values, or any number of a range."""

    name: str
    values: tuple[Value, ...] = ()
    """Numbers or words; a tuple setting is written `32x64`."""
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    """A range of whole numbers."""

    def declare(self, space: "keras_tuner.HyperParameters", default: Value) -> None:
        """Adds this parameter to keras-tuner's space."""
        if self.values:
            space.Choice(self.name, list(self.values), default=default if default in self.values else self.values[0])
            return
        scale = "log" if self.low > 0 and self.high >= WIDE * self.low else "linear"
        inside = min(max(float(default), self.low), self.high)
        if self.whole:
            space.Int(self.name, int(self.low), int(self.high), sampling=scale, default=round(inside))
        else:
            space.Float(self.name, self.low, self.high, sampling=scale, default=inside)


def choose(texts: Sequence[str], config: Config) -> tuple[Domain, ...]:
    """What `--tune` says, as domains; each value is tried in the config.

    Args:
        texts: `name`, `name=value,value` or `name=low..high`.
        config: the settings that are not tuned.

    Raises:
        UserError: a parameter is unknown or named twice, its values are missing, or one is out of its range.
    """
    require(len(texts) > 0, "tune", f"one or more of {', '.join(SPACE)}", "none")
    domains = []
    for text in texts:
        name, given, values = text.partition("=")
        require(name in SPACE, "tune", f"one or more of {', '.join(SPACE)}", name)
        require(name not in [domain.name for domain in domains], "tune", "made of different parameters", name)
        domain = _read(name, values) if given else Domain(name, tuple(as_text(v) for v in SPACE[name][1]))
        for value in domain.values or (_ends(domain)):
            apply({name: value}, config)
        domains.append(domain)
    return tuple(domains)


def apply(values: Mapping[str, Value], config: Config) -> Config:
    """The config with some parameters set.

    Args:
        values: by name; parameters that are not in `SPACE`, such as keras-tuner's own, are passed over.

    Raises:
        UserError: a value is out of its range.
    """
    for name, value in values.items():
        if name in SPACE:
            section = section_of(name)
            config = replace(config, **{section: replace(getattr(config, section), **{name: _setting(name, value)})})
    return config


def section_of(name: str) -> str:
    """The section of the config that holds a parameter."""
    kind = SPACE[name][0]
    return next(section for section, hint in get_type_hints(Config).items() if hint is kind)


def current(name: str, config: Config) -> Value:
    """A parameter's value in a config, as the space writes it."""
    return as_text(getattr(getattr(config, section_of(name)), name))


def as_text(value: Any) -> Value:
    """A setting as keras-tuner can hold it: numbers and words as they are, a tuple as `32x64`."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else value


def _setting(name: str, value: Value) -> Any:
    """A value of the space in the type of its setting."""
    kind = _kind(name)
    if kind is float:
        return float(f"{value:.{DIGITS}g}")
    if kind in (int, str):
        return kind(value)
    return tuple(int(part) for part in str(value).split("x"))


def _kind(name: str) -> Any:
    """int, float, str or tuple."""
    hint = get_type_hints(SPACE[name][0])[name]
    if hint in (int, float):
        return hint
    return str if isinstance(SPACE[name][1][0], str) else tuple


def _read(name: str, text: str) -> Domain:
    """The values after the equals sign."""
    low, ranged, high = text.partition("..")
    kind = _kind(name)
    rule = f"{name}=value,value,…" + (f" or {name}=low..high" if kind in (int, float) else "")
    try:
        if ranged and kind in (int, float):
            domain = Domain(name, (), kind(low), kind(high), kind is int)
            require(domain.low < domain.high, "tune", f"{rule} with low below high", f"{name}={text}")
            return domain
        values = tuple(as_text(_setting(name, kind(part) if kind is not tuple else part)) for part in text.split(","))
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"'tune' must be {rule}. Received: {name}={text!r}") from error
    require("" not in values, "tune", rule, f"{name}={text}")
    require(len(set(values)) == len(values), "tune", f"{rule}, each value once", f"{name}={text}")
    return Domain(name, values)


def _ends(domain: Domain) -> tuple[Value, Value]:
    return (int(domain.low), int(domain.high)) if domain.whole else (domain.low, domain.high)
