"""Recipes: all settings of a training under one name, how they give way to what a person names, and how they are a
classifier's parameters: by flat names, as the command line has its flags.

`paper` is the student paper's training, flips included. `robust` is what did best on people never heard, on images or
sounds alone, and on conflicts between them; the README holds the comparison. `auto` keeps what is best on validation:
`robust`, a smaller network where there are few rows, or the baselines.
"""

import difflib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from kfusion.config import (
    DECIDED,
    AugmentConfig,
    Config,
    DataConfig,
    ModelConfig,
    TrainingConfig,
    config_from_json,
    differences,
)
from kfusion.spec import Caution
from kfusion.validation import UserError

RECIPES: dict[str, Config] = {
    "paper": Config(),
    "robust": Config(
        data=DataConfig(word_features="log-mel", word_copies=6),
        model=ModelConfig(
            filters=(16, 64),
            image_dropout=0.2,
            embed_dropout=0.2,
            utterance_trim=0.3,
            utterance_jitter=2.0,
        ),
        augment=AugmentConfig(
            flip="none",
            rotation=12 / 360,
            crop=2,
            zoom=0.1,
            shear=0.1,
            image_damage=0.15,
            background=0.5,
            gain=6.0,
            mix=0.5,
            time_shift=4.0,
            time_stretch=0.2,
            time_warp=0.25,
            frequency_warp=0.15,
            time_mask=3,
            repair=True,
            wrong_sound=0.06,
            wrong_image=0.03,
        ),
        training=TrainingConfig(
            epochs=16,
            min_steps=1000,
            passes=0,
            min_batches=4,
            peak_learning_rate=2e-3,
            views="all",
            late_teacher=2.0,
            label_smoothing=0.05,
        ),
    ),
}
RECIPES["auto"] = replace(RECIPES["robust"], training=replace(RECIPES["robust"].training, learner="auto"))

EARLIER: dict[str, dict[str, Any]] = {
    "data": {"word_features": "mfcc", "word_copies": 0},
    "model": {"filters": (32, 64), "image_dropout": 0.4, "embed_dropout": 0.3},
    "augment": {"image_damage": 0.0, "gain": 0.0, "mix": 0.0, "frequency_warp": 0.0, "time_mask": 0},
    "training": {"epochs": 30, "min_steps": 1500, "peak_learning_rate": 1e-3, "label_smoothing": 0.0},
}
"""What `robust` was until 2026-11-28, where it is something else now: a run begun by it goes on by it."""


def recipe(name: str) -> Config:
    """The config of that name.

    Raises:
        UserError: there is no such recipe.
    """
    if name not in RECIPES:
        raise UserError(f"'recipe' must be one of {', '.join(RECIPES)}. Received: {name!r}")
    return RECIPES[name]


def closest_recipe(config: Config) -> str:
    """The recipe from which the fewest settings differ."""
    return min(RECIPES, key=lambda name: len(differences(RECIPES[name], config)))


def smaller(config: Config) -> Config:
    """The same settings with every width of the network halved.

    Args:
        config: every setting.
    """
    names = ("filters", "audio_units", "audio_filters", "embed_dim", "hidden_dim")
    widths = {name: getattr(config.model, name) for name in names}
    halved = {
        name: tuple(max(1, each // 2) for each in width) if isinstance(width, tuple) else max(1, width // 2)
        for name, width in widths.items()
    }
    return replace(config, model=replace(config.model, **halved))


def as_named(config: Config, names: Iterable[str]) -> Config:
    """The config in which the epochs and the batch size hold that a person named; see `DECIDED`.

    Args:
        config: every setting.
        names: of the settings that a person gave.
    """
    names = set(names)
    off = {rule: 0 for name, rule in DECIDED.items() if name in names and rule not in names}
    return replace(config, training=replace(config.training, **off))


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
    name = closest_recipe(config)
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
