"""What a picture file is, read from its first bytes before anything is decoded: signature, size, kind of pixels.

A file that cannot be used gets a sentence here, in the graph, so that one row's fault never costs the others. What no
header tells (a byte flipped within the pixels) shows when the file is decoded: see `pictures.py`.
"""

import tensorflow as tf

MAX_SIDE = 4096
"""Pixels: the most that a picture may have along a side. A header may claim 20 000 and ask for gigabytes."""
MAX_BYTES = 32 * 2**20
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_PNG_END = b"IEND\xaeB`\x82"
_HEAD_BYTES = 64

_NOT_A_PICTURE = "must be a PNG or JPEG file. Found: another beginning"
_TOO_LARGE = f"must have at most {MAX_BYTES // 2**20} MB. Found: more"
_CUT_OFF = "must be complete. Found: a file that ends before its picture does"
_NO_HEADER = "must begin with a PNG header. Found: no IHDR"
_FOUR_INKS = "must be grey or RGB. Found: a JPEG in the four inks of print (CMYK)"


def is_png(content: tf.Tensor) -> tf.Tensor:
    return tf.equal(tf.strings.substr(content, 0, len(_PNG)), _PNG)


def refusal(content: tf.Tensor) -> tf.Tensor:
    """Why a file cannot be decoded, as far as its bytes tell without decoding it; "" if nothing speaks against it.

    Args:
        content: a scalar string, not empty.
    """
    is_jpeg = tf.equal(tf.strings.substr(content, 0, len(_JPEG)), _JPEG)
    size = tf.strings.length(content)

    def of_kind() -> tf.Tensor:
        return tf.cond(is_png(content), lambda: _png_refusal(content, size), lambda: _jpeg_refusal(content))

    def of_size() -> tf.Tensor:
        return tf.cond(size > MAX_BYTES, lambda: tf.constant(_TOO_LARGE), of_kind)

    return tf.cond(is_png(content) | is_jpeg, of_size, lambda: tf.constant(_NOT_A_PICTURE))


def png_color_type(content: tf.Tensor) -> tf.Tensor:
    """0 grey, 2 colour, 3 palette, 4 grey with alpha, 6 colour with alpha."""
    return _head(content)[25]


def _head(content: tf.Tensor) -> tf.Tensor:
    """The first bytes as int32 (64,), zeros where the file is shorter."""
    padded = tf.strings.join([tf.strings.substr(content, 0, _HEAD_BYTES), b"\0" * _HEAD_BYTES])
    return tf.cast(tf.io.decode_raw(tf.strings.substr(padded, 0, _HEAD_BYTES), tf.uint8), tf.int32)


def _png_refusal(content: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """IHDR comes first: 4 bytes each of length, name, width and height. IEND comes last."""
    head = _head(content)
    # In 64 bits: a width of 2³¹ must not come out negative.
    sides = tf.reshape(tf.cast(head[16:24], tf.int64), (2, 4)) * [2**24, 2**16, 2**8, 1]
    width, height = tf.unstack(tf.reduce_sum(sides, axis=1))
    end = tf.strings.substr(content, tf.maximum(size - 4096, 0), 4096)
    named = tf.reduce_all(tf.equal(head[12:16], list(b"IHDR")))
    broken = tf.cond(named, lambda: _size_refusal(width, height), lambda: tf.constant(_NO_HEADER))
    # Some writers leave a few bytes after the end.
    complete = tf.strings.length(tf.strings.split(end, _PNG_END)[0]) < tf.strings.length(end)
    return tf.where(tf.equal(broken, "") & ~complete, _CUT_OFF, broken)


def _jpeg_refusal(content: tf.Tensor) -> tf.Tensor:
    """The size and the channels stand in the start-of-frame segment, which libjpeg finds."""
    data = tf.io.decode_raw(content, tf.uint8)
    # Cameras may write more after the end of the picture.
    complete = tf.reduce_any((data[:-1] == 0xFF) & (data[1:] == 0xD9))

    def of_shape() -> tf.Tensor:
        shape = tf.image.extract_jpeg_shape(content)
        size = _size_refusal(shape[1], shape[0])
        return tf.where(shape[2] > 3, _FOUR_INKS, size)

    return tf.cond(complete, of_shape, lambda: tf.constant(_CUT_OFF))


def _size_refusal(width: tf.Tensor, height: tf.Tensor) -> tf.Tensor:
    size = tf.strings.join([tf.strings.as_string(v) for v in (width, height)], " × ")
    rule = f"must have 1 to {MAX_SIDE} pixels along each side. Found: "
    outside = (tf.minimum(width, height) < 1) | (tf.maximum(width, height) > MAX_SIDE)
    return tf.where(outside, tf.strings.join([rule, size]), "")
