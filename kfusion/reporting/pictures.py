"""Figures of a run folder, made part of the page."""

import base64
import re
import struct
from pathlib import Path

from kfusion.reporting.blocks import Picture
from kfusion.rules import UserError

MAX_SVG_BYTES = 120_000
"""A larger drawing is shown as PNG: it holds pixels, or thousands of points."""
PNG_PER_CSS_PIXEL = 150 / 96
_SVG_SIZE = re.compile(
    rb'<svg[^>]*?\swidth="([\d.]+)pt"\sheight="([\d.]+)pt"|<svg[^>]*?\sheight="([\d.]+)pt"[^>]*?\swidth="([\d.]+)pt"'
)


def picture(folder: Path, name: str, alt: str, caption: str, **look: bool) -> list[Picture]:
    """A figure as part of the page; none where the folder lacks it.

    Args:
        folder: where `name.png` and `name.svg` are.
        name: of the figure.
        alt, caption, look: see `Picture`; a photo is shown as PNG.

    Raises:
        UserError: the file is damaged.
    """
    svg, png = folder / f"{name}.svg", folder / f"{name}.png"
    if svg.exists() and not look.get("photo") and svg.stat().st_size <= MAX_SVG_BYTES:
        content, size, kind = svg.read_bytes(), _svg_size(svg), "svg+xml"
    elif png.exists():
        content, size, kind = png.read_bytes(), _png_size(png), "png"
    else:
        return []
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
    return [Picture(source, alt, caption, size, **look)]


def _svg_size(path: Path) -> tuple[int, int]:
    found = _SVG_SIZE.search(path.read_bytes()[:4000])
    if not found:
        raise UserError(f"{path}: must be a figure that kfusion drew. Found: no size in it")
    width, height = (found[1], found[2]) if found[1] else (found[4], found[3])
    return round(float(width) * 96 / 72), round(float(height) * 96 / 72)


def _png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    if len(head) < 24 or head[:8] != b"\x89PNG\r\n\x1a\n":
        raise UserError(f"{path}: must be a PNG that kfusion drew. Found: {head[:8]!r}")
    width, height = struct.unpack(">II", head[16:24])
    return round(width / PNG_PER_CSS_PIXEL), round(height / PNG_PER_CSS_PIXEL)
