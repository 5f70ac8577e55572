"""What a run folder holds for the page, or, where it does not, the command that makes it."""

from collections.abc import Iterable
from pathlib import Path
from shlex import quote
from typing import Any

from kfusion.reporting.blocks import Block, Missing
from kfusion.reporting.findings import Findings
from kfusion.reporting.pictures import picture


def command(verb: str, *words: Path | str) -> str:
    """The command line of a verb, to be pasted into a shell."""
    return " ".join([f"python -m kfusion.{verb}", *(quote(str(word)) for word in words)])


def missing(found: Findings, verb: str, what: str) -> Missing:
    """In place of what a verb has not made of this run, or made with other weights."""
    return Missing(what, command(verb, found.run.folder), verb in found.stale)


def figures_of(found: Findings, verb: str) -> Path:
    """Where a verb puts its figures."""
    folder = found.run.folder
    return {"evaluate": found.run.evaluation, "embed": folder / "embeddings"}[verb] / "figures"


def drawn(found: Findings, verb: str, name: str, alt: str, caption: str, **look: Any) -> Iterable[Block]:
    """A figure that evaluate or embed drew; see `picture`."""
    made = picture(figures_of(found, verb), name, alt, caption, **look)
    return made or [missing(found, verb, f"the figure {name}")]
