"""Random changes of training images: one warp of the batch, colour jitter, and damage beyond ordinary variation.

An augmentation is a layer here, its settings in `config.AugmentConfig`, and its random stream; `layers_of` lists
them in their order. All are keyed by sample (`random_streams`): layers take the keys beside the images.

The warp is flip, rotation, zoom, shear and crop in one interpolation. Flip, rotation and crop mean what they do in
Keras' RandomFlip, RandomRotation (bilinear, filled with 0) and RandomCrop after padding with 0, but pixels that the
rotation turned out of the frame and the crop brings back keep their values.

Damage teaches the fusion when an image is not to be trusted. With clean images alone a fused network follows a digit
lying on its side, a half-covered or a negative one, and is wrong where its sound alone would be right. The class stays
that of the image.
"""

import math
from typing import Any

import keras
import tensorflow as tf

from kfusion.config import AugmentConfig
from kfusion.random_streams import Stream, uniform

COLOURS = 3
Affine = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]


def layers_of(config: AugmentConfig, pixel_max: float, channels: int, prefix: str = "") -> list[Any]:
    """The layers that some settings ask for, in their order.

    Args:
        config: which of the changes, and how far.
        pixel_max: full brightness, in the images' own units.
        channels: of the images.
        prefix: of the layers' names.
    """
    layers = []
    if config.flip != "none" or config.rotation or config.crop or config.zoom or config.shear:
        layers.append(RandomWarp(config, name=f"{prefix}random_warp", dtype="float32"))
    if config.image_jitter and channels == COLOURS:
        layers.append(RandomJitter(config.image_jitter, pixel_max, name=f"{prefix}random_jitter", dtype="float32"))
    if config.image_damage:
        layers.append(RandomDamage(config.image_damage, pixel_max, name=f"{prefix}random_damage", dtype="float32"))
    return layers


def warp_coefficients(draws: tf.Tensor, config: AugmentConfig, height: int, width: int) -> Affine:
    """Where each output pixel comes from: x_in = a0 x + a1 y + a2 and y_in = b0 x + b1 y + b2.

    Crop, rotation and flip are undone in this order; the rotation turns counter-clockwise about the centre.

    Args:
        draws: float32 (batch, 7) in [0, 1): flip x, flip y, angle, crop x, crop y, zoom, shear.
        config: which of the changes, and how far.
        height: of the images, in pixels.
        width: of the images, in pixels.

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
    """Reads each image where an affine map says, bilinearly; outside, 0, and the nearest pixel of a colour picture.

    Args:
        image: float32 (batch, height, width, channels).
        affine: from `warp_coefficients`.
    """
    zeros = tf.zeros_like(affine[0])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image,
        transforms=tf.stack([*affine, zeros, zeros], axis=1),
        output_shape=tf.constant([image.shape[1], image.shape[2]]),
        fill_value=0.0,
        interpolation="BILINEAR",
        # A photo's surroundings go on; around a bright stroke on dark ground is nothing.
        fill_mode="NEAREST" if image.shape[3] == COLOURS else "CONSTANT",
    )


@keras.saving.register_keras_serializable("kfusion")
class RandomWarp(keras.layers.Layer):
    """Flip, rotation, zoom, shear and crop in one warp.

    Args:
        config: which of the changes, and how far.

    Input shape:
        image float32 (batch, height, width, channels) and keys int64 (batch,).

    Output shape:
        As the image's; outside training, the image itself. What the change uncovers is 0, the ground of a bright
        stroke on dark paper; in colour, the nearest pixel of the picture.
    """

    def __init__(self, config: AugmentConfig | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = AugmentConfig(**config) if isinstance(config, dict) else config

    def call(self, image: Any, keys: Any, training: bool | None = None) -> Any:
        """Changes images in training; see the class."""
        if not training:
            return image
        return warp(
            image, warp_coefficients(uniform(keys, Stream.IMAGE_WARP, 7), self.config, image.shape[1], image.shape[2])
        )

    def compute_output_shape(self, image_shape: Any, keys_shape: Any) -> Any:
        """The shape of the output, for Keras."""
        return image_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same object, for saving."""
        return {**super().get_config(), "config": vars(self.config)}


LUMA = (0.299, 0.587, 0.114)
"""What red, green and blue add to the brightness (ITU-R BT.601)."""


@keras.saving.register_keras_serializable("kfusion")
class RandomJitter(keras.layers.Layer):
    """Other light: saturation, contrast and brightness, each changed by a share s, uniform in [-amount, amount].

        y = grey(x) + (1 + s₁) (x - grey(x));   z = m + (1 + s₂) (y - m), m the mean of y;   z + s₃ · pixel_max

    Keras' RandomSaturation, RandomContrast and RandomBrightness do the same, but their random numbers come from a state
    and not from the sample's key.

    Args:
        amount: the largest share, in [0, 1).
        pixel_max: full brightness, in the images' own units.

    Input shape:
        image float32 (batch, height, width, 3) in [0, pixel_max], and keys int64 (batch,).

    Output shape:
        As the image's, cut off at 0 and pixel_max; outside training, the image itself.
    """

    def __init__(self, amount: float, pixel_max: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.amount, self.pixel_max = amount, float(pixel_max)

    def call(self, image: Any, keys: Any, training: bool | None = None) -> Any:
        """Changes images in training; see the class."""
        if not training:
            return image
        share = self.amount * (2.0 * uniform(keys, Stream.IMAGE_JITTER, 3) - 1.0)
        saturation, contrast, brightness = tf.unstack(share[:, :, None, None, None], axis=1)
        grey = tf.reduce_sum(image * LUMA, axis=3, keepdims=True)
        image = grey + (1.0 + saturation) * (image - grey)
        mean = tf.reduce_mean(image, axis=(1, 2, 3), keepdims=True)
        image = mean + (1.0 + contrast) * (image - mean) + brightness * self.pixel_max
        return tf.clip_by_value(image, 0.0, self.pixel_max)

    def compute_output_shape(self, image_shape: Any, keys_shape: Any) -> Any:
        """The shape of the output, for Keras."""
        return image_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same object, for saving."""
        return {**super().get_config(), "amount": self.amount, "pixel_max": self.pixel_max}


SMALLEST_TURN, WIDEST_TURN = 20 / 360, 0.5
SMALLEST_COVER, WIDEST_COVER = 0.3, 0.8
SMALLEST_NEGATIVE = 0.2


@keras.saving.register_keras_serializable("kfusion")
class RandomDamage(keras.layers.Layer):
    """Damages a share of the images, each in one of three ways, all as likely.

    1. Turned by 20° to 180°, to either side; what that uncovers is as in `warp`.
    2. Covered by a rectangle, black or of full brightness, of 30 % to 80 % of each side.
    3. Negative from the left or the right edge on, over 20 % to 100 % of the width.

    Args:
        share: probability, in [0, 1], that an image is damaged.
        pixel_max: full brightness, in the images' own units.

    Input shape:
        image float32 (batch, height, width, channels) in [0, pixel_max], and keys int64 (batch,).

    Output shape:
        As the image's; outside training, the image itself.
    """

    def __init__(self, share: float, pixel_max: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.share, self.pixel_max = share, float(pixel_max)

    def call(self, image: Any, keys: Any, training: bool | None = None) -> Any:
        """Changes images in training; see the class."""
        if not training:
            return image
        draws = uniform(keys, Stream.IMAGE_DAMAGE, 7)
        kind = tf.where(draws[:, 0] < self.share, tf.floor(3.0 * draws[:, 1]), -1.0)
        turn, cover, negative = kind == 0.0, (kind == 1.0)[:, None, None, None], (kind == 2.0)[:, None, None, None]
        image = turned(image, tf.where(turn, _angles(draws[:, 2:4]), 0.0))
        shade = tf.where(draws[:, 2] < 0.5, 0.0, self.pixel_max)[:, None, None, None]
        image = tf.where(cover & _covered(image, draws[:, 3:7]), shade, image)
        return tf.where(negative & _inverted(image, draws[:, 2:4]), self.pixel_max - image, image)

    def compute_output_shape(self, image_shape: Any, keys_shape: Any) -> Any:
        """The shape of the output, for Keras."""
        return image_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same object, for saving."""
        return {**super().get_config(), "share": self.share, "pixel_max": self.pixel_max}


def _angles(draws: Any) -> Any:
    """Angles in radians, (batch,), from draws (batch, 2): how far, and to which side."""
    turns = SMALLEST_TURN + draws[:, 0] * (WIDEST_TURN - SMALLEST_TURN)
    return tf.where(draws[:, 1] < 0.5, -1.0, 1.0) * turns * (2.0 * math.pi)


def turned(image: Any, angle: Any) -> Any:
    """Turns images counter-clockwise about their centres; what comes from outside is as in `warp`.

    Args:
        image: float32 (batch, height, width, channels).
        angle: float32 (batch,), in radians.
    """
    x, y = (image.shape[2] - 1) / 2, (image.shape[1] - 1) / 2
    cos, sin = tf.cos(angle), tf.sin(angle)
    return warp(image, (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y))


def _places(size: int) -> Any:
    """The middles of `size` pixels in a side of length 1."""
    return (tf.range(size, dtype=tf.float32) + 0.5) / size


def _covered(image: Any, draws: Any) -> Any:
    """Which pixels the rectangle covers, bool (batch, height, width, 1), from draws (batch, 4): its sides, place."""
    side = SMALLEST_COVER + draws[:, :2] * (WIDEST_COVER - SMALLEST_COVER)
    low = draws[:, 2:] * (1.0 - side)
    rows, columns = (
        (_places(size)[None] >= low[:, axis, None]) & (_places(size)[None] <= (low + side)[:, axis, None])
        for axis, size in enumerate(image.shape[1:3])
    )
    return (rows[:, :, None] & columns[:, None, :])[..., None]


def _inverted(image: Any, draws: Any) -> Any:
    """Which pixels are inverted, bool (batch, 1, width, 1), from draws (batch, 2): from which edge, and how far."""
    place = _places(image.shape[2])[None]
    place = tf.where(draws[:, :1] < 0.5, place, 1.0 - place)
    return (place <= SMALLEST_NEGATIVE + draws[:, 1:] * (1.0 - SMALLEST_NEGATIVE))[:, None, :, None]
