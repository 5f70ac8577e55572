"""Configs as JSON: what `--config FILE` and a run folder's config.json hold."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from kfusion.config import Config
from kfusion.contents import own_data
from kfusion.rules import UserError, require
from kfusion.system.files import read_json


def config_from_json(values: Any) -> Config:
    """Reads what `Config.to_json` gave; settings that are left out keep their defaults.

    Raises:
        UserError: a section or a setting that does not exist, or a value of another type or out of its range.
    """
    if not isinstance(values, dict):
        raise UserError(f"a config must be a JSON object. Received: {type(values).__name__}")
    _known(values, Config, "config")
    default = Config()
    return replace(default, **{name: _section(getattr(default, name), name, part) for name, part in values.items()})


def load_config(path: Path) -> Config:
    """The config in a JSON file, as a run folder holds it; data that the run keeps are found where the run is now.

    Raises:
        UserError: the file is missing, is not JSON, or holds an unknown setting.
    """
    values = read_json(path)
    try:
        config = config_from_json(values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    own = own_data(path.parent) if path.name == "config.json" else None
    return config if own is None else replace(config, data=replace(config.data, data=str(own)))


def _known(values: dict[str, Any], kind: Any, where: str) -> None:
    names = [f.name for f in fields(kind)]
    unknown = sorted(set(values) - set(names))
    require(not unknown, where, f"made of {', '.join(names)}", unknown)


def _section(default: Any, name: str, values: Any) -> Any:
    if not isinstance(values, dict):
        raise UserError(f"'{name}' must be a JSON object. Received: {values!r}")
    _known(values, type(default), name)
    return replace(default, **{key: _value(getattr(default, key), value) for key, value in values.items()})


def _value(default: Any, value: Any) -> Any:
    """The value in the type of its default: JSON knows no tuples, and writes 1 for 1.0."""
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    return float(value) if isinstance(default, float) and type(value) is int else value
