"""What a search is to do: the content of search.json, which every process of the search reads."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from kfusion.config import Config
from kfusion.config_file import config_from_json
from kfusion.recipes import differences
from kfusion.rules import UserError, check_fields, require
from kfusion.system.files import read_json, write_json
from tuning.space import DEFAULT, Domain, choose

FORMAT = 1
DEFAULT_TRIALS = 20


@dataclass(frozen=True)
class Settings:
    """How the search goes about it."""

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


def check_same(found: Plan, wanted: Plan, folder: Path) -> None:
    """A resumed search may try more trials; all else must be as it was.

    Raises:
        UserError: it is not.
    """
    changed = differences(found.config, wanted.config)
    pairs = [(f.name, getattr(found.settings, f.name), getattr(wanted.settings, f.name)) for f in fields(Settings)]
    changed += [name for name, old, new in pairs if old != new and name != "trials"]
    if changed:
        raise UserError(f"{folder}: '--resume' needs the settings of the search. Found: another {', '.join(changed)}")
