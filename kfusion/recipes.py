"""Recipes: named configs.

`paper` is the student paper's training, flips included. `robust` is what did best on people never heard, on images or
sounds alone, and on conflicts between them; the README holds the measured comparison.
"""

from dataclasses import fields

from kfusion.config import AugmentConfig, Config, ModelConfig, TrainingConfig
from kfusion.rules import UserError

RECIPES: dict[str, Config] = {
    "paper": Config(),
    "robust": Config(
        model=ModelConfig(image_dropout=0.4, embed_dropout=0.3, utterance_trim=0.3, utterance_jitter=2.0),
        augment=AugmentConfig(
            flip="none",
            rotation=12 / 360,
            crop=2,
            zoom=0.1,
            shear=0.1,
            background=0.5,
            time_shift=4.0,
            time_stretch=0.2,
            time_warp=0.25,
            repair=True,
            wrong_sound=0.06,
            wrong_image=0.03,
        ),
        training=TrainingConfig(epochs=30, views="all", late_teacher=2.0),
    ),
}


def recipe(name: str) -> Config:
    """The config of that name.

    Raises:
        UserError: there is no such recipe.
    """
    if name not in RECIPES:
        raise UserError(f"'recipe' must be one of {', '.join(RECIPES)}. Received: {name!r}")
    return RECIPES[name]


def differences(one: Config, other: Config) -> list[str]:
    """The settings in which two configs differ, as `section.name`."""
    found = []
    for section in fields(Config):
        left, right = getattr(one, section.name), getattr(other, section.name)
        found += [f"{section.name}.{f.name}" for f in fields(left) if getattr(left, f.name) != getattr(right, f.name)]
    return found
