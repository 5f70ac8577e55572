"""Picture files -> pixels, in TensorFlow operations alone: one front end for training, `predict` and exported graphs.

Which front end suits some files, `chosen` says.

Each row of a batch passes through a small tf.data pipeline inside the graph, which leaves out the rows that fail, so
that one row's fault never costs the others. Digits that are in MNIST's convention already, in a file with nothing else
in it, are only decoded there, and looked at together. What no header tells (a byte flipped within the pixels) shows
when the file is decoded: libpng checks the checksum of each chunk, so that a flipped byte in a PNG is always found;
other formats have none, and a flipped byte may show as nothing but a smear.

Signs are brought to MNIST's convention, photos to a shape of their own. A sign is drawn with one ink on one ground,
without colour: two levels of brightness say nearly all of it, once uneven light is taken away. The share of the
brightness's variance that the two best levels explain (Otsu's criterion) is, as the median over pictures: MNIST's
digits .93, cut to their ink at 16 x 16 .87; grey photos .82, noise .75, small pictures of things in the sky .73. Light
that falls off over the paper is a plane, and is subtracted first.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kfusion.modalities.base import UNKNOWN, Shape
from kfusion.modalities.image.files import FORMATS, KINDS, MAX_BYTES, opened
from kfusion.modalities.image.formats import READERS, first_that_fits, upright
from kfusion.modalities.image.handwriting import is_conventional, mnist_digit
from kfusion.spec import DIGIT_SHAPE, ModalitySpec
from kfusion.validation import UserError

IMAGE_FRONT_END = "strokes-20-of-28-v1"
"""MNIST's convention (`handwriting.py`): a bright stroke on dark ground in a box of 20, centred by mass in 28."""
PLAIN_FRONT_END = "resized-v1"
"""Antialiased resizing, to the shape that the data have."""
WORK_SIDE = 128
"""Pixels along the longer side at which signs are looked for."""
_PARALLEL = 4
_TOO_LARGE = f"must have at most {MAX_BYTES // 2**20} MB. Found: more"
_DAMAGED = "must be an undamaged picture. Found: a picture that cannot be decoded"
_BLANK = "must show a sign. Found: nothing that stands out from its ground"


def image_front_end(spec: ModalitySpec) -> str:
    """How picture files become pixels for data of this spec, as a run folder notes it."""
    return spec.front_end or (IMAGE_FRONT_END if spec.shape == DIGIT_SHAPE else PLAIN_FRONT_END)


def picture_format(content: Any, formats: int = len(FORMATS)) -> Any:
    """The place of a file's format in `FORMATS`, int32; the number of formats for any other file.

    Args:
        content: a scalar string.
        formats: how many of `FORMATS` are known.
    """
    return first_that_fits(content, FORMATS[:formats])


def refusal(content: Any, kind: Any, formats: int = len(FORMATS)) -> Any:
    """Why a file cannot be decoded, as far as its bytes tell without decoding it; "" if nothing speaks against it.

    Args:
        content: a scalar string, not empty.
        kind: from `picture_format`.
        formats: how many of `FORMATS` are known.
    """
    *some, last = (name for *_, name in FORMATS[:formats])

    def foreign() -> Any:
        names = tf.constant([*(name for *_, name in KINDS), UNKNOWN])
        rule = f"must be a {', '.join(some)} or {last} file. Found: "
        return tf.strings.join([rule, names[first_that_fits(content, KINDS)]])

    branches = [*(lambda reader=reader: reader.refusal(content) for reader in READERS[:formats]), foreign]
    large = (tf.strings.length(content) > MAX_BYTES) & (kind < formats)
    return tf.cond(large, lambda: tf.constant(_TOO_LARGE), lambda: tf.switch_case(kind, branches))


def decoded(content: Any, kind: Any = None, formats: int = len(FORMATS)) -> Any:
    """uint8 (height, width, 4), upright: red, green, blue, opacity.

    Args:
        content: string scalar, a file that is not refused.
        kind: from `picture_format`; found out if left out.
        formats: how many of `FORMATS` are known.
    """
    kind = picture_format(content) if kind is None else kind
    rgba, exif = tf.switch_case(kind, [lambda reader=reader: reader.decode(content) for reader in READERS[:formats]])
    return tf.cond(tf.equal(exif, ""), lambda: rgba, lambda: upright(rgba, exif))


@tf.autograph.experimental.do_not_convert
def read_images(contents: Any, spec: ModalitySpec, formats: int = len(FORMATS)) -> tuple[Any, Any]:
    """Decodes picture files and brings them to the data's shape.

    Args:
        contents: string (batch,), whole files; an empty string is an absent picture.
        spec: says what they are brought to; without a front end of its own, images of 28 × 28 × 1 follow MNIST's
            convention, and others are resized.
        formats: how many of `FORMATS` are read.

    Returns:
        image float32 (batch, height, width, channels) in [0, spec.scale], and reason string (batch,): the rule
        that a row breaks and what was found, or "". The pixels of such rows, and of absent pictures, are 0.
    """
    num = tf.shape(contents)[0]
    image, reason = tf.zeros((num, *spec.shape)), tf.fill([num], _DAMAGED)
    waiting = tf.range(num)
    if not spec.front_end and spec.shape == DIGIT_SHAPE:
        # What most digits are takes few operations a file, and is looked at together.
        plain = tf.where(_is_plain(contents))[:, 0]
        place, grey = _of_rows(plain, contents, _grey, tf.zeros(DIGIT_SHAPE, tf.uint8))
        grey = tf.cast(grey, tf.float32)
        as_it_is = is_conventional(grey[..., 0])
        place, grey = tf.boolean_mask(place, as_it_is)[:, None], tf.boolean_mask(grey, as_it_is)
        image = tf.tensor_scatter_nd_update(image, place, grey)
        visible = tf.reduce_any(grey > 0, axis=(1, 2, 3))
        reason = tf.tensor_scatter_nd_update(reason, place, tf.where(visible, "", _BLANK))
        done = tf.tensor_scatter_nd_update(tf.fill([num], False), place, tf.ones_like(visible))
        waiting = tf.where(tf.logical_not(done))[:, 0]

    def read(content: Any) -> tuple[Any, Any]:
        return _read_image(content, spec, formats)

    nothing = tf.zeros(spec.shape), tf.constant(_DAMAGED)
    place, *found = _of_rows(waiting, contents, read, *nothing, parallel=_PARALLEL)
    image = tf.tensor_scatter_nd_update(image, place[:, None], found[0])
    reason = tf.tensor_scatter_nd_update(reason, place[:, None], found[1])
    # Whole numbers, so that an array of bytes keeps exactly what a served file gives.
    return tf.round(tf.ensure_shape(image, (None, *spec.shape))) * (spec.scale / 255), reason


def _of_rows(places: Any, contents: Any, read: Any, *like: Any, parallel: int | None = None) -> tuple[Any, ...]:
    """What is read of some rows, without those that fail: their places, and their results, each along a first axis.

    Args:
        places: whole numbers (n,).
        contents: string (batch,).
        read: takes a content; gives one or more results.
        like: for each result a tensor of its shape and type.
        parallel: rows that are read at the same time.
    """
    places = tf.cast(places, tf.int32)
    rows = tf.data.Dataset.from_tensor_slices((places, tf.gather(contents, places)))

    # Everything here is written for the graph: to have AutoGraph look for loops would take longer than the rest.
    @tf.autograph.experimental.do_not_convert
    def of_row(place: Any, content: Any) -> tuple[Any, ...]:
        found = read(content)
        return place, *(found if isinstance(found, tuple) else (found,))

    rows = rows.map(of_row, num_parallel_calls=parallel).ignore_errors()
    # One more row, so that there is a batch even where all others were left out.
    rows = rows.concatenate(tf.data.Dataset.from_tensors((tf.constant(0), *like)))
    found = rows.batch(tf.size(places, tf.int64) + 1).get_single_element()
    return tuple(each[:-1] for each in found)


_PLAIN_HEAD = rb"\CPNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x1c\x00\x00\x00\x1c\x08\x00\x00\x00\x00\C{8}IDAT"
_PLAIN_END = rb"\x00\x00\x00\x00IEND\CB`\C"


def _is_plain(contents: Any) -> Any:
    """Whether each file is a PNG of 28 × 28 grey pixels of 8 bits, with nothing but these in it: bool (batch,)."""
    size = tf.io.decode_raw(contents, tf.uint8, fixed_length=40)[:, 33:37]
    size = tf.reduce_sum(tf.cast(size, tf.int64) * [2**24, 2**16, 2**8, 1], axis=1)
    # Head, the length, the pixels, their checksum and the end: there is no other chunk.
    alone = size + 57 == tf.cast(tf.strings.length(contents), tf.int64)
    return alone & tf.strings.regex_full_match(contents, _PLAIN_HEAD + rb"\C*" + _PLAIN_END)


def _grey(content: Any) -> Any:
    return tf.ensure_shape(tf.io.decode_png(content, channels=1), DIGIT_SHAPE)


def read_standard_images(contents: Any, spec: ModalitySpec) -> tuple[Any, Any]:
    """`read_images` for what `standard_picture` leaves: PNG and JPEG only, in a graph of half the size.

    Args:
        contents: string (batch,), whole files.
        spec: of the pictures.
    """
    return read_images(contents, spec, formats=2)


def _read_image(content: Any, spec: ModalitySpec, formats: int) -> tuple[Any, Any]:
    """One file -> pixels in [0, 255], and a reason."""
    blank, kind = tf.zeros(spec.shape), picture_format(content, formats)

    def pixels() -> tuple[Any, Any]:
        rgba = decoded(content, kind, formats)
        if spec.front_end == PHOTO_FRONT_END:
            return _fitted(rgba, spec), tf.constant("")
        if spec.shape != DIGIT_SHAPE:
            return _resized(rgba, spec), tf.constant("")
        image, visible = mnist_digit(on_ground(_at_most(rgba, WORK_SIDE)))
        return image, tf.where(visible, "", _BLANK)

    def checked() -> tuple[Any, Any]:
        reason = refusal(content, kind, formats)
        return tf.cond(tf.equal(reason, ""), pixels, lambda: (blank, reason))

    return tf.cond(tf.equal(content, ""), lambda: (blank, tf.constant("")), checked)


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


def _resized(rgba: Any, spec: ModalitySpec) -> Any:
    """float32 (height, width, channels) of the spec, in [0, 255]."""
    return _in_channels(on_ground(tf.image.resize(rgba, spec.shape[:2], antialias=True)), spec)


def _fitted(rgba: Any, spec: ModalitySpec) -> Any:
    """float32 (height, width, channels) of the spec, in [0, 255]: the whole picture, its sides in their proportion."""
    wanted = tf.constant(spec.shape[:2])
    size = tf.cast(tf.shape(rgba)[:2], tf.float32)
    share = tf.reduce_min(tf.cast(wanted, tf.float32) / size)
    inside = tf.clip_by_value(tf.cast(tf.round(size * share), tf.int32), 1, wanted)
    rgb = on_ground(tf.image.resize(rgba, inside, antialias=True))
    mean = tf.reduce_mean(rgb, axis=(0, 1), keepdims=True)
    before = (wanted - inside) // 2
    sides = tf.stack([before, wanted - inside - before], axis=1)
    filled = tf.pad(rgb - mean, tf.concat([sides, [[0, 0]]], axis=0)) + mean
    return _in_channels(tf.ensure_shape(filled, (*spec.shape[:2], 3)), spec)


def _in_channels(rgb: Any, spec: ModalitySpec) -> Any:
    return tf.image.rgb_to_grayscale(rgb) if spec.shape[2] == 1 else rgb


PHOTO_FRONT_END = "fitted-v1"
"""Antialiased resizing until the whole picture fits into the shape, in the middle of its mean colour."""
NUM_SAMPLED = 48
"""Pictures that are looked at, evenly over all files."""
SIDE = 64
"""Pixels along the longer side at which they are looked at; and the most along a side of a photo, unless told."""
SMALLEST_SIDE = 32
STEP = 8
"""Sides of photos are multiples of this, so that three poolings lose no row."""
LEAST_TWO_LEVELS = 0.84
MOST_COLOUR = 0.25
"""Of the range of brightness."""


def chosen(how: str, shape: Shape, files: Sequence[Path]) -> tuple[str, Shape, str]:
    """What pictures are brought to, as the settings say or leave to the files.

    Args:
        how: digit, photo or auto; auto with a shape: by the shape alone.
        shape: height, width and channels; empty: as the pictures are.
        files: the pictures.

    Returns:
        The front end's name where it is not the usual one of the shape, else ""; the shape; and a sentence on what was
        decided, "" where nothing was left open.
    """
    if how == "digit" or shape:
        return PHOTO_FRONT_END if how == "photo" else "", shape or DIGIT_SHAPE, ""
    looks = [look for path in _some(files) if (look := _look(path))]
    if how == "auto" and not looks:
        return "", DIGIT_SHAPE, ""
    levels, colour = np.median([look[:2] for look in looks], axis=0) if looks else (0.0, 1.0)
    if how == "auto" and levels >= LEAST_TWO_LEVELS and colour <= MOST_COLOUR:
        return (
            "",
            DIGIT_SHAPE,
            "pictures are taken for signs, as in MNIST; --image-preprocessing photo takes them whole",
        )
    shape = _photo_shape([look[2] for look in looks])
    line = f"pictures are fitted into {shape[0]} × {shape[1]} pixels in colour"
    told = "" if how == "photo" else ", as photos; --image-preprocessing digit takes them for signs"
    return PHOTO_FRONT_END, shape, line + told


def _some(files: Sequence[Path]) -> list[Path]:
    places = np.unique(np.linspace(0, len(files) - 1, min(NUM_SAMPLED, len(files))).round().astype(int))
    return [files[place] for place in places]


def _look(path: Path) -> tuple[float, float, int] | None:
    """How much of a picture two levels of grey explain, how much colour it has, and its longer side.

    None where it cannot be read, or shows nothing.
    """
    from PIL import Image

    try:
        with opened(path.read_bytes()) as picture:
            side = max(picture.size)
            picture.draft("RGB", (SIDE, SIDE))
            small = picture.convert("RGBA")
    except (OSError, ValueError, SyntaxError, UserError):  # Whoever reads all files says which cannot be read.
        return None
    small.thumbnail((SIDE, SIDE))
    white = Image.new("RGBA", small.size, "white")
    pixels = np.asarray(Image.alpha_composite(white, small), np.float64)[..., :3]
    grey = pixels.mean(axis=-1)
    span = np.ptp(grey)
    if span < 1:
        return None
    return two_levels(grey), float(np.ptp(pixels, axis=-1).mean() / span), side


def two_levels(grey: np.ndarray) -> float:
    """The share of a picture's variance that its two best levels of grey explain, in [0, 1]; with a plane or without.

    Args:
        grey: (height, width), not all of one value.
    """
    rows, columns = np.indices(grey.shape)
    plane = np.stack([rows.ravel(), columns.ravel(), np.ones(grey.size)], axis=1)
    flat = grey.ravel()
    even = flat - plane @ np.linalg.lstsq(plane, flat, rcond=None)[0]
    return max(_two_levels(flat), _two_levels(even))


def _two_levels(values: np.ndarray) -> float:
    ordered, num = np.sort(values), len(values)
    variance = values.var()
    if num < 2 or variance == 0:
        return 0.0
    below = np.arange(1, num)
    sums = np.cumsum(ordered)
    low, high = sums[:-1] / below, (sums[-1] - sums[:-1]) / (num - below)
    return float(np.max(below * (num - below) / num**2 * (low - high) ** 2) / variance)


def _photo_shape(sides: list[int]) -> tuple[int, int, int]:
    """Three channels, and sides of the usual picture: never more than it has, nor than `SIDE`."""
    usual = int(np.median(sides)) if sides else SIDE
    side = min(max(usual // STEP * STEP, SMALLEST_SIDE), SIDE)
    return side, side, 3
