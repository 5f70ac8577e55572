"""Random flip, rotation and crop of images, fused into one warp of the batch.

The meaning is that of Keras' RandomFlip, RandomRotation (bilinear, filled with 0) and RandomCrop after padding with 0;
the randomness is keyed by sample (`keyed.py`), so these layers take the keys beside the images. One interpolation
instead of three: pixels that the rotation turned out of the frame and the crop brings back keep their values.
"""

import math
from typing import Any

import keras
import tensorflow as tf

from kfusion.config import AugmentConfig
from kfusion.data.keyed import uniform

WARP = 1
"""The use of random numbers (`keyed.uniform`) that the warp has."""

Affine = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]


def warp_coefficients(draws: tf.Tensor, config: AugmentConfig, height: int, width: int) -> Affine:
    """Where each output pixel comes from: x_in = a0 x + a1 y + a2 and y_in = b0 x + b1 y + b2.

    Crop, rotation and flip are undone in this order; the rotation turns counter-clockwise about the centre.

    Args:
        draws: float32 (batch, 7) in [0, 1): flip x, flip y, angle, crop x, crop y, zoom, shear.
        config: which of the changes, and how far.
        height, width: of the images, in pixels.

    Returns:
        a0, a1, a2, b0, b1, b2: float32 (batch,) each, in pixels.
    """
    ones = tf.ones_like(draws[:, 0])
    flip_x = tf.where(draws[:, 0] < 0.5, -1.0, 1.0) if "horizontal" in config.flip else ones
    flip_y = tf.where(draws[:, 1] < 0.5, -1.0, 1.0) if "vertical" in config.flip else ones
    angle = (2.0 * draws[:, 2] - 1.0) * config.rotation * 2.0 * math.pi
    scale = 1.0 / (1.0 + (2.0 * draws[:, 5] - 1.0) * config.zoom)
    shift_x = tf.floor(draws[:, 3] * (2 * config.crop + 1)) - config.crop
    shift_y = tf.floor(draws[:, 4] * (2 * config.crop + 1)) - config.crop
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    slant = (2.0 * draws[:, 6] - 1.0) * config.shear
    cos, sin = tf.cos(angle) * scale, tf.sin(angle) * scale
    a0, a1, b0, b1 = flip_x * cos, flip_x * (slant - sin), flip_y * sin, flip_y * cos
    a2 = a0 * (shift_x - centre_x) + a1 * (shift_y - centre_y) + centre_x
    b2 = b0 * (shift_x - centre_x) + b1 * (shift_y - centre_y) + centre_y
    return a0, a1, a2, b0, b1, b2


def warp(image: Any, affine: Affine) -> Any:
    """Reads each image (batch, height, width, channels) where `affine` says, bilinearly; 0 outside."""
    zeros = tf.zeros_like(affine[0])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image,
        transforms=tf.stack([*affine, zeros, zeros], axis=1),
        output_shape=tf.constant([image.shape[1], image.shape[2]]),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


@keras.saving.register_keras_serializable("kfusion")
class RandomWarp(keras.layers.Layer):
    """Flip, rotation, zoom, shear and crop in one warp.

    Input shape:
        image float32 (batch, height, width, channels) and keys int64 (batch,).

    Output shape:
        As the image's; outside training, the image itself. What the change uncovers is 0, the ground of a bright
        stroke on dark paper.
    """

    def __init__(self, config: AugmentConfig | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = AugmentConfig(**config) if isinstance(config, dict) else config

    def call(self, image: Any, keys: Any, training: bool | None = None) -> Any:
        if not training:
            return image
        return warp(image, warp_coefficients(uniform(keys, WARP, 7), self.config, image.shape[1], image.shape[2]))

    def compute_output_shape(self, image_shape: Any, keys_shape: Any) -> Any:
        return image_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": vars(self.config)}
