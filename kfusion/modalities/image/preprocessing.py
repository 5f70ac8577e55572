"""What picture files are brought to, by what they show: signs to MNIST's convention, photos to a shape of their own.

A sign is drawn with one ink on one ground, without colour: two levels of brightness say nearly all of it, once uneven
light is taken away. The share of the brightness's variance that the two best levels explain (Otsu's criterion) is, as
the median over pictures: MNIST's digits .93, cut to their ink at 16 x 16 .87; grey photos .82, noise .75, small
pictures of things in the sky .73. Light that falls off over the paper is a plane, and is subtracted first.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kfusion.modalities.base import Shape
from kfusion.modalities.image.files import opened
from kfusion.spec import DIGIT_SHAPE
from kfusion.validation import UserError

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
