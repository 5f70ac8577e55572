"""A picture of a written sign -> MNIST's convention: a bright stroke on dark ground, scaled to fit a box of 20 × 20
pixels, centred by its mass in 28 × 28.

Reference: LeCun, Bottou, Bengio, Haffner 1998, Gradient-based learning applied to document recognition, III.A.
"""

from typing import Any

import tensorflow as tf

from kfusion.data.components import sign_mask
from kfusion.data.ink import ink

SIDE, BOX, CENTRE = 28, 20, 14
FRAME_MEAN = 32.0
"""The mean brightness of the outermost pixels up to which an image counts as being in MNIST's convention already. Over
all 70 000 of MNIST it is at most 8.7, though in one of a hundred a stroke reaches them."""
_EDGE = 0.2
"""The share of ink at which a stroke begins."""
_THIN, _USUAL = 2.2, 2.8
"""Pixels in the box: strokes that are thinner than the first are widened to the second, as MNIST's pens write."""


def mnist_digit(rgb: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Brings one picture to MNIST's convention.

    A grey picture of 28 × 28 pixels whose outermost pixels are dark (`FRAME_MEAN`) is in it already, and comes out as
    it went in.

    Args:
        rgb: float32 (height, width, 3) in [0, 255].

    Returns:
        float32 (28, 28, 1) in [0, 255], and whether anything is visible, a scalar bool.
    """
    shape = tf.shape(rgb)
    fits = tf.equal(shape[0], SIDE) & tf.equal(shape[1], SIDE)
    return tf.cond(fits & _is_conventional(rgb), lambda: _as_it_is(rgb), lambda: _brought(rgb))


def _is_conventional(rgb: Any) -> Any:
    grey = tf.reduce_max(rgb, axis=-1) - tf.reduce_min(rgb, axis=-1)
    edge = tf.concat([rgb[0], rgb[-1], rgb[1:-1, 0], rgb[1:-1, -1]], axis=0)
    return tf.equal(tf.reduce_max(grey), 0.0) & (tf.reduce_mean(edge) <= FRAME_MEAN)


def _as_it_is(rgb: Any) -> tuple[tf.Tensor, tf.Tensor]:
    image = tf.reshape(rgb[..., :1], (SIDE, SIDE, 1))
    return image, tf.reduce_max(image) > 0


def _brought(rgb: Any) -> tuple[tf.Tensor, tf.Tensor]:
    amount, visible = ink(rgb)
    cut = _widened(_cut_out(amount * sign_mask(amount)))
    return _centred(_boxed(cut)) * 255.0, visible


def _cut_out(amount: Any) -> Any:
    """The rectangle that holds all ink; (1, 1) where there is none."""
    for axis in (0, 1):
        found = tf.where(tf.reduce_max(amount, axis=1 - axis) > _EDGE)[:, 0]
        found = tf.cond(tf.size(found) > 0, lambda found=found: found, lambda: tf.zeros((1,), tf.int64))
        amount = tf.gather(amount, tf.range(found[0], found[-1] + 1), axis=axis)
    return amount


def _widened(cut: Any) -> Any:
    """Widens the strokes of a thin pen, which a box of 20 pixels would leave faint.

    The mean width of a stroke is twice its area by the length of its edge.
    """
    dark = tf.cast(cut > 0.5, tf.float32)
    ringed = tf.pad(dark, ((1, 1), (1, 1)))
    beside = [ringed[:-2, 1:-1], ringed[2:, 1:-1], ringed[1:-1, :-2], ringed[1:-1, 2:]]
    edge = tf.reduce_sum(dark * (1.0 - tf.reduce_min(beside, axis=0)))
    unit = tf.cast(tf.reduce_max(tf.shape(cut)), tf.float32) / BOX
    width = 2.0 * tf.reduce_sum(dark) / tf.maximum(edge, 1.0) / unit
    steps = tf.cast(tf.where(width < _THIN, tf.round((_USUAL - width) * unit / 2.0), 0.0), tf.int32)
    cut = tf.pad(cut, tf.fill((2, 2), steps))

    def spread(step: Any, wide: Any) -> tuple[Any, Any]:
        return step + 1, tf.nn.max_pool2d(wide, 3, 1, "SAME")

    _, wide = tf.while_loop(lambda step, _: step < steps, spread, (tf.constant(0), cut[None, ..., None]))
    return wide[0, ..., 0]


def _boxed(cut: Any) -> Any:
    """Scaled so that the longer side has 20 pixels and the strongest ink is 1."""
    size = tf.cast(tf.shape(cut), tf.float32)
    wanted = tf.maximum(tf.cast(tf.round(size * BOX / tf.reduce_max(size)), tf.int32), 1)
    boxed = tf.image.resize(cut[..., None], wanted, antialias=True)[..., 0]
    return boxed / tf.maximum(tf.reduce_max(boxed), 1e-6)


def _centred(boxed: Any) -> Any:
    """float32 (28, 28, 1): the centre of mass on pixel 14, as near as whole pixels and the frame allow."""
    total = tf.maximum(tf.reduce_sum(boxed), 1e-6)
    before = []
    for axis in (0, 1):
        size = tf.shape(boxed)[axis]
        place = tf.range(tf.cast(size, tf.float32))
        middle = tf.reduce_sum(tf.reduce_sum(boxed, axis=1 - axis) * place) / total
        before.append(tf.clip_by_value(CENTRE - tf.cast(tf.round(middle), tf.int32), 0, SIDE - size))
    first = tf.stack(before)
    padded = tf.pad(boxed, tf.stack([first, SIDE - tf.shape(boxed) - first], axis=1))
    return tf.reshape(padded, (SIDE, SIDE, 1))
