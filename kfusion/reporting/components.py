"""What a section of the report is made of: blocks, figures, and numbers as people read them.

The template knows how each block looks, the sections what is in it. Tables are `plots.tables.Table`. Texts are plain:
the template escapes them. Shares are in [0, 1]. A figure is made part of the page; where a run folder lacks one, the
page names the command that makes it.
"""

import base64
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

from kfusion.plots.tables import Table
from kfusion.reporting.run_data import Findings
from kfusion.validation import UserError


class Shown:
    """Something on the page but a table; `kind` names the template's macro."""

    @property
    def kind(self) -> str:
        """The class' name, in lower case."""
        return type(self).__name__.lower()


Block = Shown | Table


@dataclass(frozen=True)
class Text(Shown):
    """A paragraph; `strong` makes it the sentence that the section is read for."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Facts(Shown):
    """Names and what belongs to them."""

    title: str
    rows: list[tuple[str, str]]


@dataclass(frozen=True)
class Interval:
    """A share with its 95 % interval and what is written beside it; `tone` numbers the colour."""

    name: str
    value: float
    bounds: tuple[float, float] | None
    cells: list[str]
    tone: int = 0


@dataclass(frozen=True)
class Intervals(Shown):
    """A table of shares with a bar for each: the dot is the share, the line its interval.

    Args:
        caption: what it shows.
        head: the heads of the name and of the cells.
        rows: the shares.
        low: where the bars begin; they end at 1.
    """

    caption: str
    head: list[str]
    rows: list[Interval]
    low: float


@dataclass(frozen=True)
class Heat(Shown):
    """A table of numbers whose cells are coloured by them.

    Args:
        caption: what it shows.
        corner: what the rows are.
        head: one text per column of numbers.
        rows: for each its name, and a (text, depth, tone) per cell: depth of the colour in [0, 1], and which colour.
        note: how to read it.
        folded: shown only when it is opened.
    """

    caption: str
    corner: str
    head: list[str]
    rows: list[tuple[str, list[tuple[str, float, str]]]]
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Picture(Shown):
    """A figure of the run folder.

    Args:
        source: a data URI.
        alt: what it shows, for those who do not see it.
        caption: below the picture.
        size: width and height, in CSS pixels.
        photo: holds pictures of samples or many colours, which dark mode must not invert.
        wide: too finely drawn to be made smaller; it may be moved sideways instead.
        folded: shown only when it is opened.
    """

    source: str
    alt: str
    caption: str
    size: tuple[int, int]
    photo: bool = False
    wide: bool = False
    folded: bool = False


@dataclass(frozen=True)
class Code(Shown):
    """Commands, each with what it is for."""

    lines: list[tuple[str, str]]


@dataclass(frozen=True)
class Missing(Shown):
    """What is not there, or is `stale`, made with other weights; and the command that makes it."""

    what: str
    command: str
    stale: bool = False


@dataclass(frozen=True)
class Section:
    """A heading and what is below it.

    Args:
        key: its place in the page's address.
        title: the heading.
        blocks: what it shows.
    """

    key: str
    title: str
    blocks: list[Any] = field(default_factory=list)


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
        alt: see `Picture`.
        caption: see `Picture`.
        **look: see `Picture`; a photo is shown as PNG.

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


def command(verb: str, *words: Path | str) -> str:
    """The command line of a verb, to be pasted into a shell."""
    return " ".join([f"python -m kfusion.{verb}", *(quote(str(word)) for word in words)])


def missing(findings: Findings, verb: str, what: str) -> Missing:
    """In place of what a verb has not made of this run, or made with other weights."""
    return Missing(what, command(verb, findings.run.folder), verb in findings.stale)


def figures_of(findings: Findings, verb: str) -> Path:
    """Where a verb puts its figures."""
    folder = findings.run.folder
    return {"evaluate": findings.run.evaluation, "embed": folder / "embeddings"}[verb] / "figures"


def drawn(findings: Findings, verb: str, name: str, alt: str, caption: str, **look: Any) -> Iterable[Block]:
    """A figure that evaluate or embed drew; see `picture`."""
    made = picture(figures_of(findings, verb), name, alt, caption, **look)
    return made or [missing(findings, verb, f"the figure {name}")]


def count(number: float) -> str:
    """1234.4 -> "1,234"."""
    return f"{round(number):,}"


def digits_for(num_rows: int) -> int:
    """Digits after the point of a percentage, so that one row more or less is seen."""
    return 1 if num_rows <= 2000 else 2


def percent(share: float, digits: int = 1) -> str:
    """0.998 -> "99.8 %"; never rounded up to all or down to nothing."""
    text = f"{100 * share:.{digits}f}"
    if share < 1 and float(text) >= 100:
        text = f"> {100 - 10.0**-digits:.{digits}f}"
    elif share > 0 and float(text) <= 0:
        text = f"< {10.0**-digits:.{digits}f}"
    return f"{text} %"


def between(bounds: Sequence[float] | None, digits: int = 1) -> str:
    """(0.99, 1.0) -> "99.0 – 100.0 %"."""
    return "–" if bounds is None else f"{100 * bounds[0]:.{digits}f} – {100 * bounds[1]:.{digits}f} %"


def points(difference: float, digits: int = 1) -> str:
    """A difference of two shares, in percentage points: 0.004 -> "+0.4"."""
    text = f"{100 * difference:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def points_between(bounds: Sequence[float], digits: int = 1) -> str:
    """(-0.01, 0.02) -> "−1.0 to +2.0"."""
    return f"{points(bounds[0], digits)} to {points(bounds[1], digits)}"


def score(value: float | None, digits: int = 3) -> str:
    """-0.1234 -> "−0.123"."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def in_words(number: int) -> str:
    """3 -> "three"."""
    return ("no", "one", "two", "three", "four", "five", "six")[number] if number <= 6 else str(number)


def many(number: int, what: str) -> str:
    """1 -> "1 error", 2 -> "2 errors"."""
    return f"{count(number)} {what}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], most: int = 12) -> str:
    """All names, or the first few and how many more."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
