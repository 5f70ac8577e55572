"""Settings by flat names, as the command line has its flags: what a classifier's parameters mean."""

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from kfusion.config import DECIDED, Config, config_from_json, differences
from kfusion.recipes import RECIPES, as_named, recipe
from kfusion.spec import Caution

SECTIONS = {setting.name: part.name for part in fields(Config) for setting in fields(getattr(Config(), part.name))}
"""The section of each setting."""
SETTINGS = tuple(name for name in SECTIONS if name != "data")
"""The settings that are parameters of a classifier: all but `data`, which is an argument of `fit`."""
OWN: dict[str, Any] = {
    "recipe": "paper",
    "out": None,
    "verbose": 1,
    "tensorboard": False,
    "overwrite": False,
    "resume": False,
    "turn_away": Caution.turn_away,
    "coverage": Caution.coverage,
}
"""The other parameters, and their defaults."""


def config_of(start: str | Config, settings: Mapping[str, Any]) -> Config:
    """The settings that some parameters mean.

    Args:
        start: a recipe's name, or settings to start from.
        settings: by flat names; None: as in the recipe. Lists do for tuples, NumPy's numbers for Python's.

    Raises:
        UserError: a value of another type or outside its range, or a recipe that does not exist.

    Example:
        >>> config_of("robust", {"epochs": 5}).training.epochs
        5
    """
    values = (start if isinstance(start, Config) else recipe(start)).to_json()
    named = {name: value for name, value in settings.items() if value is not None}
    for name, value in named.items():
        values[SECTIONS[name]][name] = _plain(value)
    return as_named(config_from_json(values), named)


def _plain(value: Any) -> Any:
    """A value without NumPy's types, which the rules of the settings do not know."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def with_data(config: Config, data: str | tuple[str, ...]) -> Config:
    """The same settings with other data."""
    return replace(config, data=replace(config.data, data=data))


def parameters_of(config: Config) -> dict[str, Any]:
    """The recipe that is nearest to some settings, and what differs from it: the inverse of `config_of`."""
    name = min(RECIPES, key=lambda each: len(differences(RECIPES[each], config)))
    changed = [path.split(".") for path in differences(RECIPES[name], config)]
    named = {key: getattr(getattr(config, part), key) for part, key in changed if key in SETTINGS}
    implied = [rule for setting, rule in DECIDED.items() if setting in named and named.get(rule) == 0]
    return {"recipe": name, **{key: value for key, value in named.items() if key not in implied}}


def unknown(name: str) -> str:
    """The message on a parameter that does not exist."""
    if name == "data":
        return "'data' must be given to fit, as its X. Received: a parameter 'data'"
    near = difflib.get_close_matches(name, [*OWN, *SETTINGS], n=1)
    hint = f"did you mean {near[0]!r}?" if near else "help(FusionClassifier) lists them."
    return f"{name!r} must be a parameter of FusionClassifier; {hint} Received: {name!r}"


def signature() -> inspect.Signature:
    """Every parameter by its name, for `get_params`, for notebooks that complete names, and for help()."""
    kind = inspect.Parameter
    named = {**OWN, **dict.fromkeys(SETTINGS)}
    first = [
        kind("self", kind.POSITIONAL_OR_KEYWORD),
        kind("recipe", kind.POSITIONAL_OR_KEYWORD, default=named.pop("recipe")),
    ]
    return inspect.Signature([*first, *(kind(name, kind.KEYWORD_ONLY, default=value) for name, value in named.items())])
