"""What a picture file is, read from its bytes before anything is decoded: signature, size, kind of pixels, chunks.

A file that cannot be used gets a sentence here, in the graph, so that one row's fault never costs the others. What no
header tells (a byte flipped within the pixels) shows when the file is decoded: see `pictures.py`.

References: ISO/IEC 15948 (PNG, its chunks and IHDR), ITU-T T.81 (JPEG).
"""

import numpy as np
import tensorflow as tf

MAX_SIDE = 4096
"""Pixels: the most that a picture may have along a side. A header may claim 20 000 and ask for gigabytes."""
MAX_BYTES = 32 * 2**20
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_PNG_END = b"IEND\xaeB`\x82"
_HEAD_BYTES = 64
_MAX_CHUNKS = 8192
"""Chunks of a PNG that are looked at: 32 MB in the 4 kB pieces of a thrifty writer. Others are left to libpng."""
_PALETTE = 3

_NOT_A_PICTURE = "must be a PNG or JPEG file. Found: "
_UNKNOWN = "another beginning"
_KINDS = (
    (0, b"GIF8", "a GIF picture"),
    (8, b"WEBP", "a WebP picture"),
    (0, b"BM", "a BMP picture"),
    (0, b"II*\0", "a TIFF picture"),
    (0, b"MM\0*", "a TIFF picture"),
    (0, b"II+\0", "a TIFF picture"),
    (0, b"MM\0+", "a TIFF picture"),
    (4, b"ftyphe", "a HEIC picture"),
    (4, b"ftypmif1", "a HEIC picture"),
    (4, b"ftypmsf1", "a HEIC picture"),
    (4, b"ftypavi", "an AVIF picture"),
    (4, b"ftyp", "a video (MP4 or MOV)"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (4, b"JXL ", "a JPEG XL picture"),
    (4, b"jP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (0, b"\0\0\1\0", "an icon (ICO)"),
    (0, b"8BPS", "a Photoshop picture (PSD)"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"<?xml", "an SVG drawing, or another text in XML"),
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"<!DOCTYPE html", "a web page"),
    (0, b"<!doctype html", "a web page"),
    (0, b"<html", "a web page"),
    (8, b"WAVE", "a WAV sound"),
    (0, b"ID3", "an MP3 sound"),
    (0, b"\xff\xfb", "an MP3 sound"),
    (0, b"OggS", "an OGG sound"),
    (0, b"fLaC", "a FLAC sound"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x93NUMPY", "an .npy array"),
    (0, b"version https://git-lfs", "what Git LFS keeps in place of a file; git lfs pull fetches it"),
)
"""Offset, bytes there, and what such a file is; the first that fits counts."""
_TOO_LARGE = f"must have at most {MAX_BYTES // 2**20} MB. Found: more"
_CUT_OFF = "must be complete. Found: a file that ends before its picture does"
_NO_HEADER = "must begin with a PNG header. Found: no IHDR"
_APPLE = "must be a PNG that others than Apple's programs can read. Found: Apple's own variant (CgBI)"
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

    return tf.cond(is_png(content) | is_jpeg, of_size, lambda: tf.strings.join([_NOT_A_PICTURE, _kind(content)]))


def _kind(content: tf.Tensor) -> tf.Tensor:
    """What a file that is neither PNG nor JPEG is, in words."""
    table, counts = np.zeros((2, len(_KINDS), _HEAD_BYTES), np.int32)
    for row, (offset, signature, _) in enumerate(_KINDS):
        place = slice(offset, offset + len(signature))
        table[row, place], counts[row, place] = list(signature), 1
    same = tf.reduce_all(tf.equal(_head(content) * counts, table), axis=1)
    names = tf.constant([*(name for *_, name in _KINDS), _UNKNOWN])
    return names[tf.argmax(tf.cast(tf.concat([same, [True]], axis=0), tf.int32))]


def png_depth(content: tf.Tensor) -> tf.Tensor:
    """Bits of one sample, or of one place in the palette: 1, 2, 4, 8 or 16, int32."""
    return _head(content)[24]


def png_notes(content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
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


def _walked(content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Whether there is a chunk tRNS, and the data of eXIf; each chunk is length, name, data and checksum."""
    size = tf.strings.length(content)

    def unfinished(step: tf.Tensor, place: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return (step < _MAX_CHUNKS) & (place + 12 <= size)

    def next_chunk(
        step: tf.Tensor, place: tf.Tensor, keyed: tf.Tensor, exif: tf.Tensor, num_exif: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
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
    named, apple = (tf.reduce_all(tf.equal(head[12:16], list(name))) for name in (b"IHDR", b"CgBI"))
    unnamed = tf.where(apple, _APPLE, _NO_HEADER)
    broken = tf.cond(named, lambda: _size_refusal(width, height), lambda: unnamed)
    # Some writers leave bytes after the end, a phone a whole film.
    complete = tf.strings.length(tf.strings.split(content, _PNG_END)[0]) < size
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
