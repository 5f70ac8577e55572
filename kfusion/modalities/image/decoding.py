"""What a picture file is, read from its bytes before anything is decoded: signature, size, kind of pixels, chunks.

A file that cannot be used gets a sentence here, in the graph, so that one row's fault never costs the others. What no
header tells (a byte flipped within the pixels) shows when the file is decoded: see `read_images`.

References: ISO/IEC 15948 (PNG, its chunks and IHDR), ITU-T T.81 (JPEG).

PNG and JPEG files -> pixels, in TensorFlow operations alone: one front end for the exported graph, `predict` and
training from files.

The files of a batch pass through a small tf.data pipeline inside the graph, which leaves out the rows that fail: so a
file that only the decoder finds damaged costs nobody else's answer. libpng checks the checksum of each chunk, so that a
flipped byte in a PNG is always found; a JPEG has none, and a flipped byte may show as nothing but a smear.

Which way up a photograph is: a camera that was turned writes it into the file, and leaves the pixels as they were.

Exif is a TIFF header and a table of entries: in a JPEG after the bytes "Exif", in a PNG the data of the chunk eXIf.

Reference: CIPA DC-008 (Exif 2.32), tag 0x0112: 1 upright, 3 upside down, 6 and 8 quarter turns, 2, 4, 5 and 7 mirrored.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from kfusion.modalities.image.handwriting import mnist_digit
from kfusion.spec import ModalitySpec

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


IMAGE_FRONT_END = "strokes-20-of-28-v1"
"""MNIST's convention (`handwriting.py`): a bright stroke on dark ground in a box of 20, centred by mass in 28."""
PLAIN_FRONT_END = "resized-v1"
"""Antialiased resizing, to the shape that the data have."""
_DIGIT_SHAPE = (28, 28, 1)
WORK_SIDE = 128
"""Pixels along the longer side at which signs are looked for."""
_PARALLEL = 4
_DAMAGED = "must be an undamaged PNG or JPEG file. Found: a picture that cannot be decoded"
_BLANK = "must show a sign. Found: nothing that stands out from its ground"


def image_front_end(spec: ModalitySpec) -> str:
    """How picture files become pixels for data of this shape, as a run folder notes it."""
    return IMAGE_FRONT_END if spec.shape == _DIGIT_SHAPE else PLAIN_FRONT_END


@tf.autograph.experimental.do_not_convert
def read_images(contents: Any, spec: ModalitySpec) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes PNG and JPEG files and brings them to the data's shape.

    Args:
        contents: string (batch,), whole files; an empty string is an absent picture.
        spec: with images of 28 × 28 × 1, pictures are brought to MNIST's convention; else they are resized.

    Returns:
        image float32 (batch, height, width, channels) in [0, spec.scale], and reason string (batch,): the rule
        that a row breaks and what was found, or "". The pixels of such rows, and of absent pictures, are 0.
    """
    num = tf.shape(contents)[0]
    nothing = tf.zeros(spec.shape), tf.constant(_DAMAGED)
    rows = tf.data.Dataset.from_tensor_slices((tf.range(num), contents))

    def read(place: Any, content: Any) -> tuple[Any, Any, Any]:
        return place, *_read_image(content, spec)

    # Everything here is written for the graph: to have AutoGraph look for loops would take longer than the rest.
    rows = rows.map(tf.autograph.experimental.do_not_convert(read), num_parallel_calls=_PARALLEL)
    # One more row, so that there is a batch even where all others were left out.
    rows = rows.ignore_errors().concatenate(tf.data.Dataset.from_tensors((num, *nothing)))
    place, image, reason = rows.batch(tf.cast(num, tf.int64) + 1).get_single_element()
    last = tf.size(place) - 1
    found = tf.tensor_scatter_nd_update(tf.fill((num + 1,), last), place[:, None], tf.range(last + 1))[:num]
    image = tf.ensure_shape(tf.gather(image, found), (None, *spec.shape))
    # Whole numbers, so that an array of bytes keeps exactly what a served file gives.
    return tf.round(image) * (spec.scale / 255), tf.gather(reason, found)


def _read_image(content: Any, spec: ModalitySpec) -> tuple[tf.Tensor, tf.Tensor]:
    """One file -> pixels in [0, 255], and a reason."""
    blank = tf.zeros(spec.shape)

    def pixels() -> tuple[tf.Tensor, tf.Tensor]:
        rgba = decoded(content)
        if spec.shape != _DIGIT_SHAPE:
            return _resized(rgba, spec), tf.constant("")
        image, visible = mnist_digit(on_ground(_at_most(rgba, WORK_SIDE)))
        return image, tf.where(visible, "", _BLANK)

    def checked() -> tuple[tf.Tensor, tf.Tensor]:
        reason = refusal(content)
        return tf.cond(tf.equal(reason, ""), pixels, lambda: (blank, reason))

    return tf.cond(tf.equal(content, ""), lambda: (blank, tf.constant("")), checked)


def decoded(content: Any) -> tf.Tensor:
    """uint8 (height, width, 4), upright: red, green, blue, opacity."""
    png = is_png(content)
    translucent, exif = tf.cond(png, lambda: png_notes(content), lambda: (tf.constant(False), jpeg_exif(content)))

    def with_alpha() -> tf.Tensor:
        rgba = tf.io.decode_png(content, channels=4)
        # Where libpng finds no opacity after all, as in a damaged tRNS, TensorFlow takes 2ⁿ - 1, with n bits a sample.
        depth = png_depth(content)
        missing = (depth < 8) & tf.reduce_all(tf.equal(tf.cast(rgba[..., 3], tf.int32), tf.pow(2, depth) - 1))
        return tf.cond(missing, opaque, lambda: rgba)

    def opaque() -> tf.Tensor:
        # This operation decodes PNG as well. Asked for opacity, TensorFlow gives pixels of n bits 2ⁿ - 1 of 255.
        rgb = tf.io.decode_jpeg(content, channels=3)
        return tf.pad(rgb, ((0, 0), (0, 0), (0, 1)), constant_values=tf.constant(255, tf.uint8))

    rgba = tf.cond(translucent, with_alpha, opaque)
    return tf.cond(tf.equal(exif, ""), lambda: rgba, lambda: upright(rgba, exif))


def on_ground(rgba: Any) -> Any:
    """Puts a drawing on white, a bright one on black: what is drawn must stand out from its ground.

    Args:
        rgba: (height, width, 4) in [0, 255].

    Returns:
        float32 (height, width, 3) in [0, 255].
    """
    rgb, alpha = rgba[..., :3], rgba[..., 3:] / 255
    brightness = tf.reduce_sum(rgb * alpha) / (3 * tf.maximum(tf.reduce_sum(alpha), 1.0))
    return rgb * alpha + tf.where(brightness > 127.5, 0.0, 255.0) * (1 - alpha)


def _at_most(rgba: Any, side: int) -> Any:
    """float32 (height, width, 4): shrunk, if need be, until no side is longer."""
    size = tf.cast(tf.shape(rgba)[:2], tf.float32)
    share = tf.minimum(1.0, side / tf.reduce_max(size))
    wanted = tf.maximum(tf.cast(tf.round(size * share), tf.int32), 1)
    return tf.image.resize(rgba, wanted, antialias=True)


def _resized(rgba: Any, spec: ModalitySpec) -> tf.Tensor:
    """float32 (height, width, channels) of the spec, in [0, 255]."""
    height, width, channels = spec.shape
    rgb = on_ground(tf.image.resize(rgba, (height, width), antialias=True))
    if channels == 1:
        return tf.image.rgb_to_grayscale(rgb)
    return rgb
