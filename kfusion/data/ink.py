"""How much ink there is at each place of a picture, whatever its colour, on paper of any colour in uneven light.

Ink is what differs from the ground. The ground's colour is a smooth surface over the picture, fitted so that what
lies far from it does not count; so nobody needs to know which of the two is the brighter one.
"""

from typing import Any

import tensorflow as tf

_GRID = 48
"""Places along each side at which the ground is looked at."""
_ROUNDS = 8
_LEAST_SCALE = 3.0
"""Grey levels of 255: differences that any camera makes."""
FAINTEST = 12.0
"""Grey levels of 255 by which ink must differ from its ground."""
_BLACK = 48.0
"""Grey levels added to the light, so that a black ground does not count as no light at all."""
WIDEST = 25
"""Pixels: wider dark places are shadows."""
_TO_DEVIATION = 1.4826
"""From the median of absolute values to the standard deviation of normal noise."""
_NOISE = 4.0
"""Ink must differ from its ground by so many standard deviations of the noise (smoothed over 3 × 3 pixels)."""


def ink(rgb: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """The share of ink in each pixel.

    Args:
        rgb: float32 (height, width, 3) in [0, 255].

    Returns:
        ink float32 (height, width) in [0, 1], and whether any is visible, a scalar bool.
    """
    paper = ground(rgb)
    difference = rgb - paper
    weight = tf.reduce_sum(difference**2, axis=-1, keepdims=True)
    # What is ink differs in one direction; noise differs in all, and its sum vanishes.
    axis = tf.math.l2_normalize(tf.reduce_sum(difference * weight, axis=(0, 1)))
    light = tf.reduce_mean(tf.clip_by_value(paper, 0.0, 255.0), axis=-1) + _BLACK
    # Where less light falls, ink and paper differ by less.
    amount = _without_shadows(tf.linalg.matvec(difference, axis) * tf.reduce_mean(light) / light)
    smooth = _smooth(amount)
    noise = _TO_DEVIATION * median(tf.abs(smooth))
    top = tf.reduce_max(smooth)
    dark = smooth > tf.maximum(0.4 * top, tf.minimum(_NOISE * noise, 0.6 * top))
    level = tf.reduce_sum(tf.where(dark, amount, 0.0)) / tf.maximum(tf.reduce_sum(tf.cast(dark, tf.float32)), 1.0)
    floor = tf.minimum(2 * _TO_DEVIATION * median(tf.abs(amount)), 0.4 * level)
    visible = top > tf.maximum(FAINTEST, _NOISE * noise)
    return tf.clip_by_value((amount - floor) / tf.maximum(level - floor, 1e-3), 0.0, 1.0), visible


def _smooth(amount: Any) -> Any:
    """The mean over 3 × 3 pixels."""
    return tf.squeeze(tf.nn.avg_pool2d(amount[None, ..., None], 3, 1, "SAME"), (0, 3))


def _without_shadows(amount: Any) -> Any:
    """Takes away what is wider than a stroke can be (the white top-hat of mathematical morphology)."""
    opened = _smooth(amount)[None, ..., None]
    for sign in (-1.0, 1.0):
        for window in ((WIDEST, 1), (1, WIDEST)):
            opened = sign * tf.nn.max_pool2d(sign * opened, window, 1, "SAME")
    return amount - tf.squeeze(opened, (0, 3))


def ground(rgb: Any) -> Any:
    """The paper without its ink: a surface of second degree for each colour.

    Fitted by iteratively reweighted least squares with the weights 1 / (1 + (r / s)²)² (Geman and McClure), from the
    picture's border inwards; r is a pixel's distance from the surface, s its median.

    Args:
        rgb: float32 (height, width, 3).

    Returns:
        float32 (height, width, 3).
    """
    size = tf.minimum(tf.shape(rgb)[:2], _GRID)
    sample = tf.reshape(tf.image.resize(rgb, size, method="nearest"), (-1, 3))
    terms, border = _terms(size)
    weight = tf.where(border, 1.0, 0.05)
    surface = tf.zeros((6, 3))
    for _ in range(_ROUNDS):
        weighted = terms * weight[:, None]
        normal = tf.matmul(weighted, terms, transpose_a=True) + 1e-3 * tf.eye(6)
        surface = tf.linalg.solve(normal, tf.matmul(weighted, sample, transpose_a=True))
        distance = tf.norm(sample - tf.matmul(terms, surface), axis=-1)
        scale = tf.maximum(1.5 * median(distance), _LEAST_SCALE)
        weight = 1.0 / tf.square(1.0 + tf.square(distance / scale))
    return tf.reshape(tf.matmul(_terms(tf.shape(rgb)[:2])[0], surface), tf.shape(rgb))


def _terms(size: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """1, x, y, x², xy, y² of each pixel, x and y from -1 to 1: (pixels, 6); and whether it lies near the border."""
    places = [
        2 * (tf.range(size[axis], dtype=tf.float32) + 0.5) / tf.cast(size[axis], tf.float32) - 1 for axis in (0, 1)
    ]
    y, x = (tf.reshape(each, (-1,)) for each in tf.meshgrid(*places, indexing="ij"))
    border = tf.maximum(tf.abs(x), tf.abs(y)) > 0.85
    return tf.stack([tf.ones_like(x), x, y, x * x, x * y, y * y], axis=1), border


def median(values: Any) -> Any:
    flat = tf.sort(tf.reshape(values, (-1,)))
    return flat[tf.size(flat) // 2]
