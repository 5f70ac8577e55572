"""Which way up a photograph is: a camera that was turned writes it into the file, and leaves the pixels as they were.

Exif is a TIFF header and a table of entries: in a JPEG after the bytes "Exif", in a PNG the data of the chunk eXIf.

Reference: CIPA DC-008 (Exif 2.32), tag 0x0112: 1 upright, 3 upside down, 6 and 8 quarter turns, 2, 4, 5 and 7 mirrored.
"""

from typing import Any

import tensorflow as tf

_MAX_BYTES = 4096
"""Exif comes first in a JPEG, and the orientation among its first entries."""
_MAX_ENTRIES = 64
_BEFORE = b"Exif\0\0"
_TAG = 0x0112
_SIZES = {1: (1, 6), 4: (4, 9)}
"""Bytes of a value: the types that have so many. The orientation should be one of 2 bytes, and is not always."""


def upright(picture: Any, exif: Any) -> Any:
    """Turns and mirrors a decoded picture as its file's Exif says.

    Args:
        picture: (height, width, channels).
        exif: a scalar string, as `orientation` takes it.
    """
    way = orientation(exif)
    picture = tf.cond(way >= 5, lambda: tf.transpose(picture, (1, 0, 2)), lambda: picture)
    # After the transposition: 5 is done, 6 is to be mirrored from left to right, 7 both ways, 8 from top to bottom.
    across = tf.reduce_any(tf.equal(way, [2, 3, 6, 7]))
    down = tf.reduce_any(tf.equal(way, [3, 4, 7, 8]))
    picture = tf.cond(across, lambda: tf.reverse(picture, [1]), lambda: picture)
    return tf.cond(down, lambda: tf.reverse(picture, [0]), lambda: picture)


def jpeg_exif(content: Any) -> Any:
    """The Exif of a JPEG file; "" where it has none among its first bytes."""
    parts = tf.strings.split(tf.strings.substr(content, 0, _MAX_BYTES), _BEFORE, maxsplit=1)
    return tf.cond(tf.size(parts) > 1, lambda: parts[-1], lambda: tf.constant(""))


def orientation(exif: Any) -> Any:
    """1 to 8, int32; 1 where Exif does not say.

    Args:
        exif: a scalar string: a TIFF header and its entries, which some PNG writers begin as a JPEG does; or "".
    """
    padded = tf.strings.join([exif, b"\0" * (_MAX_BYTES + len(_BEFORE))])
    skipped = tf.where(tf.equal(tf.strings.substr(padded, 0, len(_BEFORE)), _BEFORE), len(_BEFORE), 0)
    tiff = tf.cast(tf.io.decode_raw(tf.strings.substr(padded, skipped, _MAX_BYTES), tf.uint8), tf.int32)
    little = tf.equal(tiff[0], ord("I"))

    def number(place: Any, size: int) -> Any:
        """Of so many bytes, at each place, in the file's own order."""
        places = tf.minimum(place[..., None] + tf.range(size), _MAX_BYTES - 1)
        parts = tf.gather(tiff, places)
        parts = tf.where(little, parts, tf.reverse(parts, [-1]))
        return tf.reduce_sum(parts * [256**power for power in range(size)], axis=-1)

    first = tf.clip_by_value(number(tf.constant(4), 4), 0, _MAX_BYTES)
    entries = first + 2 + 12 * tf.range(tf.minimum(number(first, 2), _MAX_ENTRIES))
    kind, value = number(entries + 2, 2), number(entries + 8, 2)
    for size, kinds in _SIZES.items():
        value = tf.where(tf.reduce_any(tf.equal(kind[:, None], kinds), axis=1), number(entries + 8, size), value)
    way = tf.reduce_max(tf.where(tf.equal(number(entries, 2), _TAG), value, 0))
    known = little | tf.equal(tiff[0], ord("M"))
    return tf.where(known & (way >= 1) & (way <= 8), way, 1)
