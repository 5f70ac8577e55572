"""Which spots of ink belong to the sign: the largest, and those near it that are not small; dirt and edges go."""

from typing import Any

import tensorflow as tf

_GRID = 64
"""Cells along the longer side at which ink is joined."""
_DARK = 0.5
"""The share of ink from which a cell is part of a spot."""
_SHARE = 0.08
"""A spot counts if it has this share of the largest one's ink."""
_NEAR = 0.5
"""How far from the largest spot another may lie, as a share of that one's size."""
_AT_BORDER = 0.15
"""How much the ink of a spot counts that runs out of the picture, as an edge of the paper does."""


def sign_mask(ink: Any) -> Any:
    """Where the sign is.

    Args:
        ink: float32 (height, width) in [0, 1].

    Returns:
        float32 (height, width): 1 where ink belongs to the sign and close around it, else 0.
    """
    shape = tf.shape(ink)
    stride = tf.maximum(1, -(-tf.reduce_max(shape) // _GRID))
    grid = -(-shape // stride)
    rest = grid * stride - shape
    blocks = tf.reshape(tf.pad(ink, tf.stack([tf.zeros_like(rest), rest], axis=1)), (grid[0], stride, grid[1], stride))
    label = _labels(tf.reduce_max(blocks, axis=(1, 3)) > _DARK)
    kept = tf.gather(_kept(label, tf.reduce_sum(blocks, axis=(1, 3))), label)
    around = _spread(tf.cast(kept, tf.float32))
    return tf.repeat(tf.repeat(around, stride, axis=0), stride, axis=1)[: shape[0], : shape[1]]


def _labels(dark: Any) -> Any:
    """int32, as `dark`: 0 where it is not dark, else a number that is common to all cells that hang together.

    Each cell starts with a number of its own. In each round every number gives way to the largest that any of its cells
    has beside it, so that whole spots join at once and a few rounds do.
    """
    shape, num = tf.shape(dark), tf.size(dark) + 1
    inside = tf.cast(dark, tf.float32)
    start = tf.reshape(tf.range(1, num), shape) * tf.cast(dark, tf.int32)

    def join(label: Any, _: Any) -> tuple[tf.Tensor, tf.Tensor]:
        beside = tf.cast(_spread(tf.cast(label, tf.float32)) * inside, tf.int32)
        largest = tf.math.unsorted_segment_max(tf.reshape(beside, (-1,)), tf.reshape(label, (-1,)), num)
        new = tf.gather(tf.tensor_scatter_nd_update(largest, [[0]], [0]), label)
        return new, tf.reduce_any(tf.not_equal(new, label))

    return tf.while_loop(lambda _, changed: changed, join, (start, tf.constant(True)))[0]


def _kept(label: Any, mass: Any) -> Any:
    """bool, for each number in `label`: whether these cells belong to the sign."""
    flat, num = tf.reshape(label, (-1,)), tf.size(label) + 1
    y, x = (tf.reshape(axis, (-1,)) for axis in tf.meshgrid(*(tf.range(size) for size in _sizes(label)), indexing="ij"))
    height, width = _sizes(label)
    at_border = tf.cast((y == 0) | (x == 0) | (y == height - 1) | (x == width - 1), tf.int32)
    of_label = tf.math.unsorted_segment_sum(tf.reshape(mass, (-1,)), flat, num)
    of_label *= tf.cast(tf.range(num) > 0, tf.float32)
    outside = tf.math.unsorted_segment_max(at_border, flat, num) > 0
    main = tf.argmax(of_label * tf.where(outside, _AT_BORDER, 1.0), output_type=tf.int32)
    is_main = tf.equal(flat, main)
    near = tf.constant(True)
    for axis in (y, x):
        low = tf.reduce_min(tf.where(is_main, axis, tf.int32.max))
        high = tf.reduce_max(tf.where(is_main, axis, -1))
        reach = tf.cast(_NEAR * tf.cast(high - low + 1, tf.float32), tf.int32) + 1
        near &= (axis >= low - reach) & (axis <= high + reach)
    is_near = tf.math.unsorted_segment_max(tf.cast(near, tf.int32), flat, num) > 0
    other = is_near & ~outside & (of_label >= _SHARE * of_label[main])
    return (tf.equal(tf.range(num), main) | other) & (tf.range(num) > 0)


def _sizes(label: Any) -> tuple[tf.Tensor, tf.Tensor]:
    shape = tf.shape(label)
    return shape[0], shape[1]


def _spread(values: Any) -> Any:
    """Each cell's largest neighbour, itself included."""
    return tf.nn.max_pool2d(values[None, ..., None], 3, 1, "SAME")[0, ..., 0]
