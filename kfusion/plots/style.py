"""The look that all figures share, and how one is written to disk."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kfusion.io import write_atomically

# Okabe and Ito's palette: told apart with every common kind of colour vision, and in print.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#5F6368"
PALETTE = (BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DPI = 150
NAME_LENGTH = 28

# For class names in scripts that matplotlib's own font lacks; those that this machine has are used.
_FONTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans Arabic", "Noto Sans Devanagari", "Arial Unicode MS")


@contextmanager
def look() -> Iterator[None]:
    """Within the block, new figures have kfusion's look; matplotlib's settings are the caller's again afterwards."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    settings: Any = {
        "font.family": ["DejaVu Sans", *(name for name in _FONTS if name in installed)],
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.labelsize": 10,
        "axes.labelcolor": "#202124",
        "axes.edgecolor": GREY,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": False,
        "axes.axisbelow": True,
        "grid.color": "#DADCE0",
        "grid.linewidth": 0.8,
        "lines.linewidth": 1.8,
        "lines.markersize": 4,
        "xtick.color": GREY,
        "ytick.color": GREY,
        "xtick.labelcolor": "#202124",
        "ytick.labelcolor": "#202124",
        "legend.frameon": False,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "savefig.pad_inches": 0.1,
        "svg.hashsalt": "kfusion",  # without it, the identifiers in an SVG differ from one writing to the next
        "svg.fonttype": "path",  # looks the same where the fonts are missing
    }
    with matplotlib.rc_context(settings):
        yield


def new_figure(
    width_in: float, height_in: float, layout: Literal["constrained", "compressed"] = "constrained"
) -> Figure:
    """An empty figure, in inches, that lays itself out so that labels do not overlap.

    Args:
        width_in: width.
        height_in: height.
        layout: `compressed` is for axes that keep the shape of a picture.
    """
    return Figure(figsize=(width_in, height_in), dpi=DPI, layout=layout)


def plain(name: str) -> str:
    """A class name as it can be drawn: on one line, not too long, and never read as a formula."""
    line = " ".join(name.split())
    if len(line) > NAME_LENGTH:
        # Both ends stay: long names often share their beginning.
        line = f"{line[: NAME_LENGTH // 2]}…{line[-(NAME_LENGTH // 2 - 1) :]}"
    return line.replace("$", r"\$")


def bare(axes: Axes) -> None:
    """Axes for a picture: no ticks, a thin frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, color="#DADCE0", linewidth=0.8)


def save(figure: Figure, folder: str | Path, name: str) -> tuple[Path, Path]:
    """Writes `folder/name.png` (150 dpi) and `folder/name.svg`, then empties the figure.

    Each file appears whole or not at all, and the same figure gives the same bytes.

    Args:
        figure: what is written.
        folder: where; it must exist.
        name: of the files, without an ending.

    Returns:
        the two paths.

    Raises:
        OSError: the folder is missing, read-only or full; no part of a file stays behind.
    """
    png, svg = Path(folder) / f"{name}.png", Path(folder) / f"{name}.svg"
    # No program version, no date: they would change the bytes from one writing to the next.
    undated = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
    for path in (png, svg):
        kind = path.suffix[1:]
        write = partial(figure.savefig, format=kind, dpi=DPI, bbox_inches="tight", metadata=undated[kind])
        with look(), warnings.catch_warnings():
            # A script that no font of this machine can draw appears as boxes; that is no reason to stop a run.
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            write_atomically(path, write)
    figure.clear()
    return png, svg
