"""What a search does: which settings it tunes, over which values, and how.

`SPACE` is the table to edit. On the command line, `--tune` picks from it, and may give other values:
`--tune hidden_dim embed_dim=32,64 peak_learning_rate=1e-4..1e-2`. A `Plan` is the content of search.json, which every
process of the search reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from kfusion.config import (
    DECIDED,
    HEADS,
    AugmentConfig,
    Config,
    ModelConfig,
    TrainingConfig,
    config_from_json,
    differences,
)
from kfusion.io import read_json, write_json
from kfusion.recipes import as_named
from kfusion.validation import UserError, check_fields, require

if TYPE_CHECKING:  # keras-tuner imports TensorFlow, which the process that only supervises does not need.
    import keras_tuner

Value = int | float | str

SPACE: dict[str, tuple[type, tuple[Any, ...]]] = {
    # name: (section of the config, values)
    "hidden_dim": (ModelConfig, (64, 128, 256, 512)),
    "embed_dim": (ModelConfig, (32, 64, 128, 256)),
    "filters": (ModelConfig, ((16, 32), (32, 64), (64, 128))),
    "dropout": (ModelConfig, (0.1, 0.3, 0.5)),
    "fusion": (ModelConfig, tuple(HEADS)),
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
FORMAT = 1
DEFAULT_TRIALS = 20


@dataclass(frozen=True)
class Domain:
    """What one parameter may be: some values, or any number of a range.

    Args:
        name: of the parameter.
        values: numbers or words; a tuple setting is written `32x64`. Empty: the range.
        low, high: the range.
        whole: it is one of whole numbers.
    """

    name: str
    values: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False

    def declare(self, space: "keras_tuner.HyperParameters", default: Value) -> None:
        """Adds this parameter to keras-tuner's space.

        Args:
            space: that space.
            default: the value where nothing is searched.
        """
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
    """The domains that `--tune` means; each value is tried in the config.

    Args:
        texts: `name`, `name=value,value` or `name=low..high`.
        config: the settings that are not tuned.

    Raises:
        UserError: a parameter is unknown or named twice, its values are missing, or one is out of its range.
    """
    require(len(texts) > 0, "tune", f"one or more of {', '.join(SPACE)}", "none")
    domains = []
    for text in texts:
        name, equals, values = text.partition("=")
        require(name in SPACE, "tune", f"one or more of {', '.join(SPACE)}", name)
        require(name not in [domain.name for domain in domains], "tune", "made of different parameters", name)
        domain = _read(name, values) if equals else Domain(name, tuple(as_text(v) for v in SPACE[name][1]))
        for value in domain.values or (_ends(domain)):
            apply({name: value}, config)
        domains.append(domain)
    return tuple(domains)


def apply(values: Mapping[str, Value], config: Config) -> Config:
    """The config of a trial: with some parameters set, and exactly its epochs and batch size.

    Args:
        values: by name; parameters that are not in `SPACE`, such as keras-tuner's own, are passed over.
        config: the other settings.

    Raises:
        UserError: a value is out of its range.
    """
    config = as_named(config, DECIDED)
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
    """A parameter's value in a config, as the space writes it.

    Args:
        name: of the parameter.
        config: the settings.
    """
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


@dataclass(frozen=True)
class Settings:
    """How the search proceeds."""

    tuner: Literal["random", "bayesian", "hyperband", "grid"] = "random"
    """random: independent draws; bayesian: a Gaussian process proposes; hyperband: many short trainings, the best go
    on; grid: every combination."""
    trials: int | None = None
    """At most this many settings are tried; default: 20, or all of the grid, or what hyperband plans."""
    repeats: int = 1
    """Trainings per trial, each with a seed of its own on the same split; the score is their mean."""
    objective: Literal["val_accuracy", "val_loss"] = "val_accuracy"
    """What is compared: that of the weights which a run would keep."""
    patience: int = 0
    """Stop a training after this many epochs without a better objective; 0: never."""
    tune: tuple[str, ...] = DEFAULT
    """What is searched: names from the table in tuning/space.py, alone or as name=value,value or name=low..high."""

    def __post_init__(self) -> None:
        check_fields(self)
        require(self.trials is None or self.trials >= 1, "trials", "≥ 1", self.trials)
        require(self.repeats >= 1, "repeats", "≥ 1", self.repeats)
        require(self.patience >= 0, "patience", "≥ 0", self.patience)


@dataclass(frozen=True)
class Plan:
    """A whole search: its settings, and those of the training run that every trial varies."""

    settings: Settings = field(default_factory=Settings)
    config: Config = field(default_factory=Config)

    def __post_init__(self) -> None:
        domains, tuner = self.domains, self.settings.tuner
        last = self.config.training.seed + self.settings.repeats - 1
        require(last < 2**31, "seed + repeats - 1", "below 2^31", last)
        names = [domain.name for domain in domains]
        if tuner == "hyperband":
            require("epochs" not in names, "tune", "without 'epochs', which hyperband decides", names)
            require(self.settings.repeats == 1, "repeats", "1 with hyperband", self.settings.repeats)
        if tuner == "grid":
            ranges = [domain.name for domain in domains if not domain.values]
            require(not ranges, "tune", "made of listed values for a grid", ranges)

    @property
    def domains(self) -> tuple[Domain, ...]:
        """What each tuned parameter may be, in the order of `--tune`."""
        return choose(self.settings.tune, self.config)

    @property
    def num_trials(self) -> int | None:
        """How many trials there will be at most; None where hyperband decides."""
        size = 1
        for domain in self.domains:
            size *= len(domain.values) or 10**9  # A range is not used up.
        wanted = self.settings.trials
        if self.settings.tuner == "hyperband":
            return wanted
        return min(size, wanted or (size if self.settings.tuner == "grid" else DEFAULT_TRIALS))

    def write(self, folder: Path) -> None:
        """Writes search.json; `read_plan` reads it back."""
        values = {"format": FORMAT, "settings": asdict(self.settings), "config": self.config.to_json()}
        write_json(folder / "search.json", values)


def read_plan(folder: Path) -> Plan:
    """The plan of a search folder.

    Raises:
        UserError: the folder holds none, or one of another format.
    """
    path = folder / "search.json"
    if not path.exists():
        raise UserError(f"{folder}: must be a folder made by 'python -m tuning.search'. Found: no search.json")
    values: Any = read_json(path)
    version = values.get("format") if isinstance(values, dict) else None
    if version != FORMAT:
        raise UserError(f"{path}: must be a search's plan of format {FORMAT}. Found: {version!r}")
    try:
        settings = values["settings"] | {"tune": tuple(values["settings"]["tune"])}
        return Plan(Settings(**settings), config_from_json(values["config"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: must be a search's plan. Found: {error}") from error


def check_same(earlier: Plan, wanted: Plan, folder: Path) -> None:
    """A resumed search may try more trials; all else must be as it was.

    Args:
        earlier: the plan of the search that is resumed.
        wanted: that of the command.
        folder: of the search, for the message.

    Raises:
        UserError: another setting differs.
    """
    # A trial has its own epochs and batch size, whatever rules on them a recipe has or had; see `apply`.
    changed = differences(*(as_named(plan.config, DECIDED) for plan in (earlier, wanted)))
    pairs = [(f.name, getattr(earlier.settings, f.name), getattr(wanted.settings, f.name)) for f in fields(Settings)]
    changed += [name for name, old, new in pairs if old != new and name != "trials"]
    if changed:
        raise UserError(f"{folder}: '--resume' needs the settings of the search. Found: another {', '.join(changed)}")
