"""All random changes of a batch, as one callable: the same layers in the tf.data pipeline and on an accelerator."""

from typing import Any

from kfusion.config import AugmentConfig
from kfusion.modalities.audio.augmentation import RandomSound
from kfusion.modalities.image.augmentation import RandomDamage, RandomWarp
from kfusion.spec import Spec


class Augmentation:
    """(batch, keys) -> batch, every sample changed as its key says.

    Args:
        config: which changes, and how far.
        spec: the shapes.
        mean: of each audio feature over the training part, (num_audio,).
        decibels: whether the audio features are MFCC in decibels, as far as is known.
    """

    def __init__(self, config: AugmentConfig, spec: Spec, mean: Any, decibels: bool) -> None:
        warps = config.flip != "none" or config.rotation or config.crop or config.zoom or config.shear
        in_time = config.time_shift or config.time_stretch or config.time_warp
        sounds = in_time or config.time_mask or config.frequency_mask or config.background
        self.warp = RandomWarp(config, name="random_warp", dtype="float32") if warps else None
        damage = config.image_damage
        self.damage = RandomDamage(damage, spec.pixel_max, name="random_damage", dtype="float32") if damage else None
        grid = spec.audio_grid
        self.sound = RandomSound(config, grid, mean, decibels, name="random_sound", dtype="float32") if sounds else None

    def __call__(self, batch: dict[str, Any], keys: Any, training: bool | None = True) -> dict[str, Any]:
        """Changes "image" (batch, height, width, channels) and "audio" (batch, num_audio); keys int64 (batch,).

        `training` None: as the model that the layers are part of is called.
        """
        image = self.warp(batch["image"], keys, training=training) if self.warp else batch["image"]
        image = self.damage(image, keys, training=training) if self.damage else image
        audio = self.sound(batch["audio"], keys, training=training) if self.sound else batch["audio"]
        return {**batch, "image": image, "audio": audio}
