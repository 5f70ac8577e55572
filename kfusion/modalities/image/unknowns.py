"""Pictures of nothing that a class is, made from some of the classes and from lines, areas and noise."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter, map_coordinates

from kfusion.modalities.unknowns import in_blocks, others, spliced
from kfusion.spec import NUMBER_WORDS

Rng = np.random.Generator
FINE = 2
"""Pixels of a drawing for each pixel of the picture, along each side."""
FONTS = ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmr10", "cmb10", "cmss10", "cmti10", "cmtt10")
"""Files of matplotlib's fonts in which letters are drawn; tests are made with its others."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ALIKE = {
    **{"0": "OoQD", "1": "Iilj", "2": "Zz", "3": "", "4": "", "5": "Ss", "6": "bG", "7": "", "8": "B", "9": "gq"},
    **{letter: letter.swapcase() for letter in LETTERS},
}
"""What a sign may be taken for, besides itself."""


def letters_besides(class_names: Sequence[str]) -> str:
    """The letters that look like no class; none unless each class is a sign, by its name: a letter or a digit.

    Args:
        class_names: of a network.

    Example:
        >>> letters_besides([*"0123456789"])
        'ACEFHJKLMNPRTUVWXYacdefhkmnprtuvwxy'
    """
    signs = [str(NUMBER_WORDS.index(name)) if name in NUMBER_WORDS else name for name in map(str.casefold, class_names)]
    if not signs or not all(sign in ALIKE for sign in signs):
        return ""
    taken = {each for sign in signs for each in sign + sign.swapcase() + ALIKE[sign]}
    return "".join(letter for letter in LETTERS if letter not in taken)


def of_pictures(
    images: NDArray, label: NDArray, full: float, rng: Rng, class_names: Sequence[str] = ()
) -> dict[str, NDArray]:
    """Unknown pictures by how they were made.

    Args:
        images: (n, height, width, channels).
        label: classes, int (n,).
        full: full brightness.
        rng: what is random.
        class_names: where they are signs, others are drawn; see `letters_besides`.
    """
    num, height, width, channels = images.shape
    other = images[others(label, rng)]
    quarter = np.rot90(images, rng.choice([1, 3]), (1, 2)) if height == width else images[:, ::-1, ::-1]
    halves = in_blocks(in_blocks(images, 2, 1, rng), 2, 2, rng)
    colours = full * rng.uniform(0.7, 1, (num, 1, 1, channels)) if channels > 1 else full
    ways: dict[str, Callable[[int, int, Rng], NDArray]] = {"lines": _lines, "areas": _areas, "noise": _noise}
    if letters := letters_besides(class_names):
        # As many as of four ways: they are what is nearest to signs.
        kinds = ("letters", "more letters", "still more letters", "letters, bent")
        ways |= dict.fromkeys(kinds, partial(_letter, letters))
    drawn = {
        name: np.stack([draw(height, width, rng) for _ in range(num)])[..., None] * colours
        for name, draw in ways.items()
    }
    if "letters, bent" in drawn:
        drawn["letters, bent"] = np.stack([_bent(each, rng) for each in drawn["letters, bent"]])
    made = {
        "turned by a quarter": quarter,
        "turned by a half": images[:, ::-1, ::-1],
        "mirrored": images[:, :, ::-1] if rng.random() < 0.5 else images[:, ::-1],
        "spliced, upper and lower": spliced(images, other, 1, rng),
        "spliced, left and right": spliced(images, other, 2, rng),
        "halves": halves,
        "sixteenths": in_blocks(in_blocks(images, 4, 1, rng), 4, 2, rng),
        "two in one": np.maximum(images, other) if channels == 1 else (images + other) / 2,
        "bent": np.stack([_bent(each, rng) for each in images]),
        **drawn,
    }
    return {name: np.asarray(each, np.float32) for name, each in made.items()}


def _lines(height: int, width: int, rng: Rng) -> NDArray:
    """Straight and bent strokes of a pen, (height, width) in [0, 1]."""
    size = np.array([width, height]) * FINE
    picture = Image.new("L", (width * FINE, height * FINE))
    draw, end, t = ImageDraw.Draw(picture), rng.uniform(0.18, 0.82, 2), np.linspace(0, 1, 16)[:, None]
    thick = max(1, round(float(rng.uniform(0.06, 0.15)) * min(size)))
    for _ in range(rng.integers(1, 5)):
        start = end if rng.random() < 0.5 else rng.uniform(0.18, 0.82, 2)
        end = rng.uniform(0.18, 0.82, 2)
        middle = rng.uniform(0.1, 0.9, 2) if rng.random() < 0.5 else (start + end) / 2
        curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
        draw.line([(float(x), float(y)) for x, y in curve * size], fill=255, width=thick, joint="curve")
    return _reduced(picture) * rng.uniform(0.8, 1)


def _areas(height: int, width: int, rng: Rng) -> NDArray:
    """Ellipses, rectangles and polygons, some hollow, (height, width) in [0, 1]."""
    size = np.array([width, height]) * FINE
    picture = Image.new("L", (width * FINE, height * FINE))
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.integers(1, 4)):
        corners = np.sort(rng.uniform(0.08, 0.92, (2, 2)), axis=0) * size
        box, shade = [(float(x), float(y)) for x, y in corners], int(rng.integers(100, 256))
        fill, thick = (None, max(2, min(size) // 12)) if rng.random() < 0.3 else (shade, 1)
        shape = rng.integers(3)
        if shape == 0:
            draw.ellipse(box, fill=fill, outline=shade, width=int(thick))
        elif shape == 1:
            draw.rectangle(box, fill=fill, outline=shade, width=int(thick))
        else:
            points = rng.uniform(0.08, 0.92, (rng.integers(3, 7), 2)) * size
            draw.polygon([(float(x), float(y)) for x, y in points], fill=shade)
    return _reduced(picture)


def _letter(letters: str, height: int, width: int, rng: Rng) -> NDArray:
    """A letter, a little turned, as large as signs are in pictures, (height, width) in [0, 1]."""
    size = np.array([width, height]) * FINE
    font, letter = _font(str(rng.choice(FONTS)), 2 * int(max(size))), str(rng.choice(list(letters)))
    left, upper, right, lower = font.getbbox(letter)
    glyph = Image.new("L", (int(right - left) + 2, int(lower - upper) + 2))
    ImageDraw.Draw(glyph).text((1 - left, 1 - upper), letter, fill=255, font=font)
    glyph = glyph.rotate(float(rng.uniform(-15, 15)), expand=True, resample=Image.Resampling.BILINEAR)
    glyph = glyph.crop(glyph.getbbox())
    scale = float(rng.uniform(0.6, 0.8)) * min(size) / max(glyph.size)
    glyph = glyph.resize((max(1, round(glyph.width * scale)), max(1, round(glyph.height * scale))))
    picture = Image.new("L", (width * FINE, height * FINE))
    place = (size - glyph.size) / 2 + rng.uniform(-0.05, 0.05, 2) * size
    picture.paste(glyph, (round(float(place[0])), round(float(place[1]))))
    return _reduced(picture) * rng.uniform(0.8, 1)


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf"), size)


def _reduced(picture: Image.Image) -> NDArray:
    return np.asarray(picture.reduce(FINE), np.float32) / 255


def _noise(height: int, width: int, rng: Rng) -> NDArray:
    """Noise of any grain, contrast and brightness, (height, width) in [0, 1]."""
    grain = gaussian_filter(rng.standard_normal((height, width)), rng.choice([0, 0, 0.7, 1.5, 3, 6]))
    grain = (grain - grain.mean()) / (grain.std() + 1e-6)
    return np.clip(rng.uniform(0, 1) + rng.uniform(0.05, 0.6) * grain, 0, 1)


def _bent(image: NDArray, rng: Rng) -> NDArray:
    """A picture read at places that are moved by a smooth noise."""
    height, width, _ = image.shape
    smooth, far = rng.uniform(0.07, 0.18) * height, rng.uniform(0.1, 0.22) * height
    moved = [gaussian_filter(rng.standard_normal((height, width)), smooth) for _ in range(2)]
    place = [at + each / (each.std() + 1e-6) * far for at, each in zip(np.mgrid[:height, :width], moved, strict=True)]
    return np.stack([map_coordinates(channel, place, order=1) for channel in np.moveaxis(image, 2, 0)], axis=2)
