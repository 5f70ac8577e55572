"""One page about a run: everything that training, evaluate and embed have found, in a single HTML file.

Run: python -m kfusion.report RUN [--compare RUN2 …] [--out FILE]

The page is `report.html` in the run folder. It needs no network and no other file. What has not been made yet, it says
with the command that makes it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from kfusion.cli import console, parse, quiet, run_main

PROG = "python -m kfusion.report"


@dataclass(frozen=True)
class Command:
    """Write one HTML page about a run."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder, of a training that is finished."""
    compare: tuple[Path, ...] = ()
    """Other finished runs, to be put beside it with paired tests."""
    out: Path | None = None
    """The file to write; default: report.html in the run folder."""


def main() -> None:
    """Writes the page about the run that the command line names."""
    command = parse(Command, PROG)
    with quiet():
        from kfusion.reporting.page import report
    path = report(command.run, command.compare, command.out)
    console.print(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)


if __name__ == "__main__":
    run_main(main, "run the same command again")
