"""Pictures of nothing that a class is, made from some of the classes and from lines, areas and noise."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, map_coordinates

from kfusion.modalities.unknowns import in_blocks, others, spliced

Rng = np.random.Generator
FINE = 2
"""Pixels of a drawing for each pixel of the picture, along each side."""


def of_pictures(images: NDArray, label: NDArray, full: float, rng: Rng) -> dict[str, NDArray]:
    """Unknown pictures by how they were made.

    Args:
        images: (n, height, width, channels).
        label: classes, int (n,).
        full: full brightness.
        rng: what is random.
    """
    num, height, width, channels = images.shape
    other = images[others(label, rng)]
    quarter = np.rot90(images, rng.choice([1, 3]), (1, 2)) if height == width else images[:, ::-1, ::-1]
    halves = in_blocks(in_blocks(images, 2, 1, rng), 2, 2, rng)
    colours = full * rng.uniform(0.7, 1, (num, 1, 1, channels)) if channels > 1 else full
    drawn = {
        name: np.stack([draw(height, width, rng) for _ in range(num)])[..., None] * colours
        for name, draw in (("lines", _lines), ("areas", _areas), ("noise", _noise))
    }
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
