"""What the picture formats PNG, JPEG, GIF, BMP and WebP are, in TensorFlow operations: refusals and decoders.

What a file is (size, kind of pixels, opacity, which way up) is read from its bytes before anything is decoded, so that
a file that cannot be used gets a sentence.

References: ISO/IEC 15948 (PNG), ITU-T T.81 (JPEG), CompuServe 1990 (GIF89a), RFC 9649 (WebP), CIPA DC-008 (Exif 2.32).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from kfusion.modalities.image.files import FORMATS, MAX_BYTES, MAX_PIXELS, MAX_SIDE

_EXIF_BYTES = 4096
"""Exif comes first in a JPEG, and the orientation among its first entries."""
_EXIF_ENTRIES = 64
_EXIF_START = b"Exif\0\0"
_ORIENTATION = 0x0112
_VALUE_SIZES = {1: (1, 6), 4: (4, 9)}
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
    parts = tf.strings.split(tf.strings.substr(content, 0, _EXIF_BYTES), _EXIF_START, maxsplit=1)
    return tf.cond(tf.size(parts) > 1, lambda: parts[-1], lambda: tf.constant(""))


def orientation(exif: Any) -> Any:
    """Which way up a picture is: Exif's tag 0x0112, int32, 1 to 8; 1 where Exif does not say.

    1 is upright, 3 upside down, 6 and 8 are quarter turns, 2, 4, 5 and 7 are mirrored.

    Args:
        exif: a scalar string: a TIFF header and its entries, which some PNG writers begin as a JPEG does; or "".
    """
    padded = tf.strings.join([exif, b"\0" * (_EXIF_BYTES + len(_EXIF_START))])
    skipped = tf.where(tf.equal(tf.strings.substr(padded, 0, len(_EXIF_START)), _EXIF_START), len(_EXIF_START), 0)
    tiff = tf.cast(tf.io.decode_raw(tf.strings.substr(padded, skipped, _EXIF_BYTES), tf.uint8), tf.int32)
    little = tf.equal(tiff[0], ord("I"))

    def number(place: Any, size: int) -> Any:
        """Of so many bytes, at each place, in the file's own order."""
        places = tf.minimum(place[..., None] + tf.range(size), _EXIF_BYTES - 1)
        parts = tf.gather(tiff, places)
        parts = tf.where(little, parts, tf.reverse(parts, [-1]))
        return tf.reduce_sum(parts * [256**power for power in range(size)], axis=-1)

    first = tf.clip_by_value(number(tf.constant(4), 4), 0, _EXIF_BYTES)
    entries = first + 2 + 12 * tf.range(tf.minimum(number(first, 2), _EXIF_ENTRIES))
    kind, value = number(entries + 2, 2), number(entries + 8, 2)
    for size, kinds in _VALUE_SIZES.items():
        value = tf.where(tf.reduce_any(tf.equal(kind[:, None], kinds), axis=1), number(entries + 8, size), value)
    way = tf.reduce_max(tf.where(tf.equal(number(entries, 2), _ORIENTATION), value, 0))
    known = little | tf.equal(tiff[0], ord("M"))
    return tf.where(known & (way >= 1) & (way <= 8), way, 1)


_PNG = FORMATS[0][1]
_PNG_END = b"IEND\xaeB`\x82"
_HEAD_BYTES = 64
_MAX_CHUNKS = 8192
"""Chunks of a PNG that are looked at: 32 MB in the 4 kB pieces of a thrifty writer. Others are left to libpng."""
_MAX_BLOCKS = 2**16
"""Blocks of up to 255 bytes that the first frame of a GIF may have."""
_MOST_REDUCED = 8
"""libjpeg decodes to whole, half, quarter and eighth sizes."""
_PALETTE = 3

_CUT_OFF = "must be complete. Found: a file that ends before its picture does"
_NO_HEADER = "must begin with a PNG header. Found: no IHDR"
_APPLE = "must be a PNG that others than Apple's programs can read. Found: Apple's own variant (CgBI)"
_ODD_BMP = "must be a plain BMP of 1, 4, 8, 24 or 32 bits. Found: another kind of BMP"
_ODD_WEBP = "must begin with a WebP header. Found: none"


def _number(data: Any, size: int) -> Any:
    """The whole number in the first `size` bytes, (n,) int32, the lowest byte first; int64, for widths of 2³¹."""
    return tf.reduce_sum(tf.cast(data[:size], tf.int64) * [256**power for power in range(size)])


def first_that_fits(content: Any, kinds: tuple[tuple[int, bytes, str], ...]) -> Any:
    """The first of some kinds (offset, bytes there, name) whose bytes a file has, int32; their number if none does."""
    table, counts = np.zeros((2, len(kinds), _HEAD_BYTES), np.int32)
    for row, (offset, signature, _) in enumerate(kinds):
        place = slice(offset, offset + len(signature))
        table[row, place], counts[row, place] = list(signature), 1
    same = tf.reduce_all(tf.equal(_head(content) * counts, table), axis=1)
    return tf.argmax(tf.cast(tf.concat([same, [True]], axis=0), tf.int32), output_type=tf.int32)


def _head(content: Any) -> Any:
    """The first bytes as int32 (64,), zeros where the file is shorter."""
    padded = tf.strings.join([tf.strings.substr(content, 0, _HEAD_BYTES), b"\0" * _HEAD_BYTES])
    return tf.cast(tf.io.decode_raw(tf.strings.substr(padded, 0, _HEAD_BYTES), tf.uint8), tf.int32)


def _size_refusal(width: Any, height: Any, reduced: int = 1) -> Any:
    """What is wrong with the size of a picture, whose sides may be decoded to 1 / `reduced`."""
    size = tf.strings.join([tf.strings.as_string(v) for v in (width, height)], " × ")
    rule = f"must have 1 to {MAX_SIDE * reduced} pixels along each side. Found: "
    outside = (tf.minimum(width, height) < 1) | (tf.maximum(width, height) > MAX_SIDE * reduced)
    reason = tf.where(outside, tf.strings.join([rule, size]), "")
    many = tf.cast(width, tf.int64) * tf.cast(height, tf.int64) > MAX_PIXELS
    rule = f"must have at most {MAX_PIXELS:,} pixels. Found: "
    return tf.where(tf.equal(reason, "") & many, tf.strings.join([rule, size]), reason)


# PNG


def _png_refusal(content: Any) -> Any:
    """IHDR comes first: 4 bytes each of length, name, width and height. IEND comes last."""
    head = _head(content)
    width, height = (_number(head[place : place + 4][::-1], 4) for place in (16, 20))
    named, apple = (tf.reduce_all(tf.equal(head[12:16], list(name))) for name in (b"IHDR", b"CgBI"))
    unnamed = tf.where(apple, _APPLE, _NO_HEADER)
    broken = tf.cond(named, lambda: _size_refusal(width, height), lambda: unnamed)
    # Some writers leave bytes after the end, a phone a whole film.
    complete = tf.strings.length(tf.strings.split(content, _PNG_END)[0]) < tf.strings.length(content)
    return tf.where(tf.equal(broken, "") & ~complete, _CUT_OFF, broken)


def png_depth(content: Any) -> Any:
    """Bits of one sample, or of one place in the palette: 1, 2, 4, 8 or 16, int32."""
    return _head(content)[24]


def png_notes(content: Any) -> tuple[Any, Any]:
    """What a PNG's chunks say of its pixels.

    Returns:
        Whether any pixel may be transparent: by an alpha channel, or by a tRNS chunk for palette, grey and colour. And
        the data of the eXIf chunk, which may come before the pixels or after them; "" where there is none.
    """
    # Few files have either chunk, and this is faster than to look at each; \C is any byte.
    named = tf.strings.regex_full_match(content, r"\C*(tRNS|eXIf)\C*")
    keyed, exif = tf.cond(named, lambda: _walked(content), lambda: (tf.constant(False), tf.constant("")))
    has_alpha = _head(content)[25] > _PALETTE  # 4: grey with alpha, 6: colour with alpha.
    return keyed | has_alpha, exif


def _walked(content: Any) -> tuple[Any, Any]:
    """Whether there is a chunk tRNS, and the data of eXIf; each chunk is length, name, data and checksum."""
    size = tf.strings.length(content)

    def unfinished(step: Any, place: Any, *_: Any) -> Any:
        return (step < _MAX_CHUNKS) & (place + 12 <= size)

    def next_chunk(step: Any, place: Any, keyed: Any, exif: Any, num_exif: Any) -> tuple[Any, ...]:
        # A length that cannot be true ends the walk; in 64 bits it does not become negative before.
        parts = tf.cast(tf.io.decode_raw(tf.strings.substr(content, place, 4), tf.uint8), tf.int64)
        length = tf.cast(tf.minimum(tf.reduce_sum(parts * [2**24, 2**16, 2**8, 1]), MAX_BYTES), tf.int32)
        name = tf.strings.substr(content, place + 4, 4)
        is_exif = tf.equal(name, b"eXIf") & (place + 12 + length <= size)
        exif, num_exif = tf.where(is_exif, place + 8, exif), tf.where(is_exif, length, num_exif)
        return step + 1, place + 12 + length, keyed | tf.equal(name, b"tRNS"), exif, num_exif

    first = tf.constant(0), tf.constant(len(_PNG)), tf.constant(False), tf.constant(0), tf.constant(0)
    _, _, keyed, exif, num_exif = tf.while_loop(unfinished, next_chunk, first, parallel_iterations=1)
    return keyed, tf.strings.substr(content, exif, num_exif)


def _decode_png(content: Any) -> tuple[Any, Any]:
    translucent, exif = png_notes(content)

    def with_alpha() -> Any:
        rgba = tf.io.decode_png(content, channels=4)
        # Where libpng finds no opacity after all, as in a damaged tRNS, TensorFlow takes 2ⁿ - 1, with n bits a sample.
        depth = png_depth(content)
        missing = (depth < 8) & tf.reduce_all(tf.equal(tf.cast(rgba[..., 3], tf.int32), tf.pow(2, depth) - 1))
        return tf.cond(missing, opaque, lambda: rgba)

    def opaque() -> Any:
        # This operation decodes PNG as well. Asked for opacity, TensorFlow gives pixels of n bits 2ⁿ - 1 of 255.
        return _opaque(tf.io.decode_jpeg(content, channels=3))

    return tf.cond(translucent, with_alpha, opaque), exif


def _opaque(rgb: Any) -> Any:
    return tf.pad(rgb, ((0, 0), (0, 0), (0, 1)), constant_values=tf.constant(255, tf.uint8))


# JPEG


def _jpeg_refusal(content: Any) -> Any:
    """The size stands in the start-of-frame segment, which libjpeg finds."""
    data = tf.io.decode_raw(content, tf.uint8)
    # Cameras may write more after the end of the picture.
    complete = tf.reduce_any((data[:-1] == 0xFF) & (data[1:] == 0xD9))

    def of_shape() -> Any:
        shape = tf.image.extract_jpeg_shape(content)
        return _size_refusal(shape[1], shape[0], _MOST_REDUCED)

    return tf.cond(complete, of_shape, lambda: tf.constant(_CUT_OFF))


def _decode_jpeg(content: Any) -> tuple[Any, Any]:
    """At the largest size whose sides have at most `MAX_SIDE` pixels; CMYK becomes RGB as well."""
    side = tf.reduce_max(tf.image.extract_jpeg_shape(content)[:2])
    ratios = (1, 2, 4, _MOST_REDUCED)
    step = tf.reduce_sum(tf.cast(side > [MAX_SIDE * ratio for ratio in ratios[:-1]], tf.int32))
    sizes = [lambda ratio=ratio: tf.io.decode_jpeg(content, channels=3, ratio=ratio) for ratio in ratios]
    return _opaque(tf.switch_case(step, sizes)), jpeg_exif(content)


# GIF


def _gif_refusal(content: Any) -> Any:
    place, end, _ = _gif_frame(content)
    head = _head(content)
    sizes = [_number(part, 2) for part in (head[6:], head[8:], *_gif_place(content, place)[2:])]
    size = _size_refusal(tf.maximum(sizes[0], sizes[2]), tf.maximum(sizes[1], sizes[3]))
    return tf.where(end > 0, size, _CUT_OFF)


def _gif_place(content: Any, place: Any) -> list[Any]:
    """Left, top, width and height of a frame, the bytes of each."""
    data = _bytes(content, place + 1, 8)
    return [data[first : first + 2] for first in range(0, 8, 2)]


def _gif_frame(content: Any) -> tuple[Any, Any, Any]:
    """Where the first frame begins and ends, its end 0 where there is none, and the place of the colour that is no
    colour in the palette, -1 where there is none."""
    data = tf.cast(tf.io.decode_raw(content, tf.uint8), tf.int32)
    size = tf.size(data)

    def at(place: Any) -> Any:
        return tf.where(place < size, data[tf.minimum(place, size - 1)], 0)

    def unfinished(step: Any, place: Any, inside: Any, frame: Any, _: Any) -> Any:
        marked = (at(place) == ord("!")) | (at(place) == ord(","))
        return (step < _MAX_BLOCKS) & (place < size) & (inside | (frame == 0) & marked)

    def next_block(step: Any, place: Any, inside: Any, frame: Any, clear: Any) -> tuple[Any, ...]:
        # Within an extension or a frame: a block, the last of which is empty. Else: what begins here.
        first, is_frame = at(place), ~inside & (at(place) == ord(","))
        shown = ~inside & (first == ord("!")) & (at(place + 1) == 0xF9) & (at(place + 3) % 2 == 1)
        start = tf.where(is_frame, 11 + _gif_colours(at(place + 9)), 2)
        return (
            step + 1,
            place + tf.where(inside, first + 1, start),
            ~inside | (first > 0),
            tf.where(is_frame, place, frame),
            tf.where(shown, at(place + 6), clear),
        )

    first = tf.constant(0), 13 + _gif_colours(at(tf.constant(10))), tf.constant(False), tf.constant(0), tf.constant(-1)
    _, end, inside, frame, clear = tf.while_loop(unfinished, next_block, first, parallel_iterations=1)
    return frame, tf.where((frame > 0) & ~inside & (end <= size), end, 0), clear


def _gif_colours(flags: Any) -> Any:
    """Bytes of the palette that follows."""
    return tf.where(flags >= 128, 3 * tf.pow(2, flags % 8 + 1), 0)


def _decode_gif(content: Any) -> tuple[Any, Any]:
    """The first frame, decoded under a palette of greys, so that its pixels are places in its own palette."""
    place, end, clear = _gif_frame(content)
    head, flags = _head(content), _bytes(content, place + 9, 1)[0]
    own, common = _gif_colours(flags), _gif_colours(head[10])
    size = tf.strings.substr(content, place + 5, 4)
    greys = bytes(np.repeat(np.arange(256, dtype=np.uint8), 3))
    interlaced = tf.where(flags // 64 % 2 == 1, b"\x40", b"\0")
    data = tf.strings.substr(content, place + 10 + own, end - place - 10 - own)
    parts = [b"GIF89a", size, b"\xf7\0\0", greys, b",\0\0\0\0", size, interlaced, data, b";"]
    index = tf.io.decode_image(tf.strings.join(parts), channels=3, expand_animations=False)
    index = tf.cast(tf.ensure_shape(index, (None, None, 3))[..., 0], tf.int32)
    palette = _bytes(content, tf.where(own > 0, place + 10, 13), tf.where(own > 0, own, common))
    palette = tf.reshape(tf.pad(palette, [[0, 768 - tf.size(palette)]]), (256, 3))
    opacity = tf.where(tf.range(256) == clear, 0, 255)[:, None]
    rgba = tf.gather(tf.cast(tf.concat([palette, opacity], axis=1), tf.uint8), index)
    left, top, width, height = (tf.cast(_number(part, 2), tf.int32) for part in _gif_place(content, place))
    canvas = [tf.cast(_number(part, 2), tf.int32) for part in (head[8:], head[6:])]
    after = [tf.maximum(canvas[0] - top - height, 0), tf.maximum(canvas[1] - left - width, 0)]
    return tf.pad(rgba, [[top, after[0]], [left, after[1]], [0, 0]]), tf.constant("")


def _bytes(content: Any, place: Any, count: Any) -> Any:
    """So many bytes from a place on, int32 (count,); zeros beyond the end of the file."""
    there = tf.strings.substr(content, tf.minimum(place, tf.strings.length(content)), count)
    data = tf.cast(tf.io.decode_raw(there, tf.uint8), tf.int32)
    return tf.pad(data, [[0, count - tf.size(data)]])


# BMP


def _bmp_header(content: Any) -> dict[str, Any]:
    """What a BMP says of itself, int64; the height is negative where the first row is the top one."""
    data = _bytes(content, tf.constant(0), 70)
    places = {"offset": 10, "header": 14, "width": 18, "height": 22, "coding": 30, "masks": 54}
    found = {name: _number(data[place:], 4) for name, place in places.items()}
    found["height"] -= tf.where(found["height"] >= 2**31, tf.constant(2**32, tf.int64), 0)
    found["bits"] = _number(data[28:], 2)
    found["stride"] = (found["bits"] * found["width"] + 31) // 32 * 4
    usual = tf.reduce_all(data[54:66] == [0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0])
    found["masked"] = tf.cast((found["coding"] == 3) & usual & (found["bits"] == 32), tf.int64)
    opacity = tf.reduce_all(data[66:70] == [0, 0, 0, 255]) & (found["header"] >= 56)
    found["opacity"] = found["masked"] * tf.cast(opacity, tf.int64)
    return found


def _bmp_refusal(content: Any) -> Any:
    head = _bmp_header(content)
    known = tf.reduce_any(head["bits"] == tf.constant([1, 4, 8, 24, 32], tf.int64))
    plain = known & (head["header"] >= 40) & ((head["coding"] == 0) | (head["masked"] == 1))
    height = tf.abs(head["height"])
    reason = tf.where(plain, _size_refusal(head["width"], height), _ODD_BMP)
    there = tf.cast(tf.strings.length(content), tf.int64) >= head["offset"] + head["stride"] * height
    return tf.where(tf.equal(reason, "") & ~there, _CUT_OFF, reason)


def _decode_bmp(content: Any) -> tuple[Any, Any]:
    found = _bmp_header(content)
    head = {name: tf.cast(value, tf.int32) for name, value in found.items() if name != "masks"}
    bits, width, height, stride = head["bits"], head["width"], tf.abs(head["height"]), head["stride"]
    data = tf.io.decode_raw(tf.strings.substr(content, head["offset"], stride * height), tf.uint8)
    rows = tf.reshape(data, (height, stride))

    def by_palette() -> Any:
        # Several places in the palette in one byte, the first in its highest bits.
        in_byte = 8 // tf.minimum(bits, 8)
        shift = tf.pow(2, tf.minimum(bits, 8) * (in_byte - 1 - tf.range(in_byte)))
        index = tf.math.floormod(tf.cast(rows, tf.int32)[:, :, None] // shift, tf.pow(2, tf.minimum(bits, 8)))
        palette = tf.reshape(_bytes(content, 14 + head["header"], 1024), (256, 4))[:, 2::-1]
        index = tf.reshape(index, (height, stride * in_byte))[:, :width]
        return _opaque(tf.gather(tf.cast(palette, tf.uint8), index))

    def in_colour() -> Any:
        channels = bits // 8
        pixels = tf.reshape(rows[:, : width * channels], (height, width, channels))
        rgb = pixels[:, :, 2::-1]
        return tf.cond(head["opacity"] == 1, lambda: tf.concat([rgb, pixels[:, :, 3:]], axis=2), lambda: _opaque(rgb))

    rgba = tf.ensure_shape(tf.cond(bits <= 8, by_palette, in_colour), (None, None, 4))
    return tf.cond(head["height"] < 0, lambda: rgba, lambda: rgba[::-1]), tf.constant("")


# WebP


def _webp_refusal(content: Any) -> Any:
    """The size stands in the header of the first chunk, of which there are three kinds."""
    head = _head(content)
    kinds = [tf.reduce_all(tf.equal(head[12:16], list(name))) for name in (b"VP8 ", b"VP8L", b"VP8X")]
    packed = _number(head[21:], 4)
    sides = (
        (_number(head[26:], 2) % 2**14, _number(head[28:], 2) % 2**14),
        (packed % 2**14 + 1, packed // 2**14 % 2**14 + 1),
        (_number(head[24:], 3) + 1, _number(head[27:], 3) + 1),
    )
    width, height = (
        sum(tf.where(kind, side[axis], 0) for kind, side in zip(kinds, sides, strict=True)) for axis in (0, 1)
    )
    reason = tf.where(tf.reduce_any(kinds), _size_refusal(width, height), _ODD_WEBP)
    there = tf.cast(tf.strings.length(content), tf.int64) >= _number(head[4:], 4) + 8
    return tf.where(tf.equal(reason, "") & ~there, _CUT_OFF, reason)


def _decode_webp(content: Any) -> tuple[Any, Any]:
    """By `decode_image`, which every TensorFlow has: one that does not know WebP fails on the row, not on the graph."""
    pixels = tf.io.decode_image(content, channels=0, expand_animations=False)
    pixels = tf.reshape(pixels, tf.concat([tf.shape(pixels)[:2], tf.shape(pixels)[-1:]], axis=0))
    missing: Any = 4 - tf.shape(pixels)[2]
    rgba = tf.pad(pixels, [[0, 0], [0, 0], [0, missing]], constant_values=tf.constant(255, tf.uint8))
    # Exif is a chunk of its own: its name, its size, its data.
    parts = tf.strings.split(content, b"EXIF")
    has_exif = tf.equal(tf.strings.substr(content, 12, 4), b"VP8X") & (tf.size(parts) > 1)
    exif = tf.cond(has_exif, lambda: parts[-1], lambda: tf.constant(b"\0\0\0\0"))
    return tf.ensure_shape(rgba, (None, None, 4)), tf.strings.substr(exif, 4, _EXIF_BYTES)


class Format(NamedTuple):
    """How files of one format are read.

    Args:
        refusal: content -> a sentence, "" where nothing speaks against the file.
        decode: content -> uint8 (height, width, 4), as it lies in the file, and its Exif.
    """

    refusal: Callable[[Any], Any]
    decode: Callable[[Any], tuple[Any, Any]]


READERS = (
    Format(_png_refusal, _decode_png),
    Format(_jpeg_refusal, _decode_jpeg),
    Format(_gif_refusal, _decode_gif),
    Format(_bmp_refusal, _decode_bmp),
    Format(_webp_refusal, _decode_webp),
)
"""For each of `FORMATS`."""
