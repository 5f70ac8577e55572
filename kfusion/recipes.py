"""Recipes: all settings of a training under one name, and how they give way to what a person names.

`paper` is the student paper's training, flips included. `robust` is what did best on people never heard, on images or
sounds alone, and on conflicts between them; the README holds the comparison. `auto` keeps what is best on validation:
`robust`, a smaller network where there are few rows, or the baselines.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from kfusion.config import DECIDED, AugmentConfig, Config, DataConfig, ModelConfig, TrainingConfig
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
