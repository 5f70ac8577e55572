"""Which way up a photograph is: a camera that was turned writes it into the file, and leaves the pixels as they were.

Reference: CIPA DC-008 (Exif 2.32), tag 0x0112: 1 upright, 3 upside down, 6 and 8 quarter turns, 2, 4, 5 and 7 mirrored.
"""

from typing import Any

import tensorflow as tf

_HEAD_BYTES = 4096
"""Exif comes first in a JPEG, and the orientation among its first entries."""
_TAG = 0x0112


def upright(picture: Any, content: Any) -> Any:
    """Turns and mirrors a decoded picture as its file's Exif says.

    Args:
        picture: (height, width, channels).
        content: the JPEG file, a scalar string.
    """
    way = orientation(content)
    picture = tf.cond(way >= 5, lambda: tf.transpose(picture, (1, 0, 2)), lambda: picture)
    # After the transposition: 5 is done, 6 is to be mirrored from left to right, 7 both ways, 8 from top to bottom.
    across = tf.reduce_any(tf.equal(way, [2, 3, 6, 7]))
    down = tf.reduce_any(tf.equal(way, [3, 4, 7, 8]))
    picture = tf.cond(across, lambda: tf.reverse(picture, [1]), lambda: picture)
    return tf.cond(down, lambda: tf.reverse(picture, [0]), lambda: picture)


def orientation(content: Any) -> Any:
    """1 to 8, int32; 1 where a file does not say."""
    padded = tf.strings.join([tf.strings.substr(content, 0, _HEAD_BYTES), b"\0" * _HEAD_BYTES])
    data = tf.cast(tf.io.decode_raw(tf.strings.substr(padded, 0, _HEAD_BYTES), tf.uint8), tf.int32)
    num_places = _HEAD_BYTES - 6
    begins = [tf.equal(data[place : place + num_places], byte) for place, byte in enumerate(b"Exif\0\0")]
    found = tf.reduce_all(begins, axis=0)
    tiff = data[tf.argmax(tf.cast(found, tf.int32), output_type=tf.int32) + 6 :]
    little = tf.equal(tiff[0], ord("I"))

    def number(place: Any, size: int) -> Any:
        """Of so many bytes, at each place, in the file's own order."""
        places = tf.minimum(place[..., None] + tf.range(size), tf.size(tiff) - 1)
        parts = tf.gather(tiff, places)
        parts = tf.where(little, parts, tf.reverse(parts, [-1]))
        return tf.reduce_sum(parts * [256**power for power in range(size)], axis=-1)

    first = tf.clip_by_value(number(tf.constant(4), 4), 0, _HEAD_BYTES)
    entries = first + 2 + 12 * tf.range(tf.minimum(number(first, 2), 64))
    is_it = tf.equal(number(entries, 2), _TAG)
    way = tf.reduce_max(tf.where(is_it, number(entries + 8, 2), 0)) * tf.cast(tf.reduce_any(found), tf.int32)
    return tf.where((way >= 1) & (way <= 8), way, 1)
