"""What a section of the report is made of. The template knows how each block looks, the sections what is in it.

Texts are plain: the template escapes them. Shares are in [0, 1].
"""

from dataclasses import dataclass, field
from typing import Any


class Block:
    """Something on the page; `kind` names the template's macro."""

    @property
    def kind(self) -> str:
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Text(Block):
    """A paragraph; `strong` makes it the sentence that the section is read for."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Facts(Block):
    """Names and what belongs to them."""

    title: str
    rows: list[tuple[str, str]]


@dataclass(frozen=True)
class Table(Block):
    """A table whose first column names the rows.

    Args:
        caption: what it shows.
        head: one text per column.
        rows: as many cells each.
        words: columns, counted from 0, that hold words; the others hold numbers and are set to the right.
        strong: rows, counted from 0, that stand out.
        folded: shown only when it is opened.
    """

    caption: str
    head: list[str]
    rows: list[list[str]]
    words: tuple[int, ...] = (0,)
    strong: tuple[int, ...] = ()
    folded: bool = False


@dataclass(frozen=True)
class Interval:
    """A share with its 95 % interval and what is written beside it; `tone` numbers the colour."""

    name: str
    value: float
    bounds: tuple[float, float] | None
    cells: list[str]
    tone: int = 0


@dataclass(frozen=True)
class Intervals(Block):
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
class Heat(Block):
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
class Picture(Block):
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
class Code(Block):
    """Commands, each with what it is for."""

    lines: list[tuple[str, str]]


@dataclass(frozen=True)
class Missing(Block):
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
