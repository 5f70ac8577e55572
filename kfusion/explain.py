"""Show why a model names the class of one sample as it does: each modality's share, and where the evidence lies.

Run: python -m kfusion.explain MODEL --image 3.png --audio three.wav [--input NAME=FILE] [--out why.html]
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from kfusion.cli import console, parse, quiet, run_main
from kfusion.io import write_text
from kfusion.validation import UserError, require

PROG = "python -m kfusion.explain"


@dataclass(frozen=True)
class Command:
    """Write a page on why a model names the class of one sample as it does."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A run folder, or an exported version such as saved_models/kfusion/1."""
    image: str = ""
    """A picture."""
    audio: str = ""
    """A sound."""
    input: tuple[str, ...] = ()
    """NAME=FILE for any other modality that comes in files."""
    out: Path = Path("why.html")
    """The page to write."""


def main() -> None:
    """Explains as the command line says."""
    command = parse(Command, PROG)
    given = {"image": command.image, "audio": command.audio}
    for word in command.input:
        name, _, path = word.partition("=")
        require(name.isidentifier() and bool(path), "input", "NAME=FILE", word)
        given[name] = path
    files = {name: [path] for name, path in given.items() if path}
    if not files:
        raise UserError("one of 'image', 'audio' and 'input' must be given. Received: none")
    with quiet():
        from kfusion.classifier import load
    why = load(command.model).explain(files)
    write_text(command.out, why.html())
    console.print(*why.lines(), f"page: {command.out}", sep="\n", soft_wrap=True)


if __name__ == "__main__":
    run_main(main)
