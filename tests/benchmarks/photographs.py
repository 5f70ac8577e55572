"""MNIST digits as people might scan, draw or photograph them: rendered with Pillow, keyed by a seed."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from tests.media import encoded

Shade = tuple[int, int, int]
LONG_SIDE = 200
"""Pixels of a digit's 28 × 28 frame in a rendered photograph."""


def enlarged(digit: np.ndarray, side: int) -> np.ndarray:
    """uint8 (28, 28) -> (side, side)."""
    return np.array(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC))


def scanned(side: int, inverted: bool) -> Callable[[np.ndarray, np.random.Generator], bytes]:
    """The digit at another size; inverted: dark on white."""

    def render(digit: np.ndarray, rng: np.random.Generator) -> bytes:
        picture = enlarged(digit, side)
        return encoded(255 - picture if inverted else picture)

    return render


def photographed(
    *,
    paper: tuple[Shade, Shade] = ((170, 170, 150), (250, 250, 250)),
    pen: tuple[Shade, Shade] = ((0, 0, 0), (90, 80, 120)),
    thin: bool = False,
    ruled: bool = False,
    shadow: bool = False,
    light: float = 0.35,
    noise: float = 5.0,
    quality: int = 75,
) -> Callable[[np.ndarray, np.random.Generator], bytes]:
    """A JPEG of a sheet, the digit somewhere on it.

    Args:
        paper, pen: lowest and highest red, green and blue of what colours are drawn from.
        thin: a ballpoint pen instead of MNIST's felt pens.
        ruled: lines of blue across the sheet.
        shadow: a shadow with an edge falls over a part of it.
        light: by what share the light may fall off across the sheet.
        noise: of the sensor, in grey levels.
        quality: of the JPEG.
    """

    def render(digit: np.ndarray, rng: np.random.Generator) -> bytes:
        ink = _on_sheet(digit, rng, thin)
        height, width = ink.shape
        colour = [rng.uniform(low, high, 3) for low, high in (paper, pen)]
        sheet = np.broadcast_to(colour[0], (height, width, 3)).copy()
        if ruled:
            sheet[rng.integers(0, 40) :: 40] = (150, 170, 220)
        sheet = sheet * (1 - ink[..., None]) + colour[1] * ink[..., None]
        y, x = np.mgrid[0:height, 0:width] / max(height, width) - 0.5
        angle = rng.uniform(0, 2 * np.pi)
        along = x * np.cos(angle) + y * np.sin(angle)
        lit = 1 - light * (0.5 + along) - 0.3 * light * (x**2 + y**2)
        if shadow:
            edge = (along + 0.3 * np.sin(4 * x) > rng.uniform(-0.2, 0.2)).astype(np.float32)
            lit = lit * (1 - 0.35 * _blurred(edge, 3))
        picture = sheet * lit[..., None] + rng.normal(0, noise, sheet.shape)
        return encoded(picture.clip(0, 255).astype(np.uint8), "JPEG", quality=quality)

    return render


def _on_sheet(digit: np.ndarray, rng: np.random.Generator, thin: bool) -> np.ndarray:
    """The share of ink, float (h, w), of a digit at a random place of a larger sheet."""
    ink = Image.fromarray(enlarged(digit, LONG_SIDE))
    if thin:
        ink = ink.filter(ImageFilter.MinFilter(9))
    height, width = (int(LONG_SIDE * share) for share in rng.uniform(1.0, 2.5, 2))
    sheet = Image.new("L", (width, height))
    sheet.paste(ink, (int(rng.integers(0, width - LONG_SIDE + 1)), int(rng.integers(0, height - LONG_SIDE + 1))))
    return np.asarray(sheet.filter(ImageFilter.GaussianBlur(1.0)), np.float32) / 255


def _blurred(values: np.ndarray, radius: int) -> np.ndarray:
    return np.asarray(Image.fromarray((values * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))) / 255


RENDERINGS = {
    "28 × 28, as MNIST has it": scanned(28, False),
    "28 × 28, dark on white": scanned(28, True),
    "enlarged to 56": scanned(56, False),
    "enlarged to 280": scanned(280, False),
    "enlarged to 280, dark on white": scanned(280, True),
    "enlarged to 1000, dark on white": scanned(1000, True),
    "photo, white paper, even light": photographed(light=0.05, noise=2.0, paper=((235, 235, 235), (250, 250, 250))),
    "photo, coloured paper, uneven light": photographed(paper=((120, 120, 120), (250, 250, 250))),
    "photo, dim and noisy": photographed(light=0.6, noise=12.0, pen=((40, 40, 40), (110, 110, 110))),
    "photo, chalk on a board": photographed(paper=((10, 30, 20), (60, 80, 60)), pen=((190, 190, 190), (250, 250, 250))),
    "photo, red pen on green paper": photographed(
        paper=((120, 190, 120), (140, 210, 140)), pen=((200, 40, 40), (210, 50, 50))
    ),
    "photo, thin pen": photographed(thin=True),
    "photo, edge of a shadow": photographed(shadow=True),
    "photo, ruled paper": photographed(ruled=True),
}
