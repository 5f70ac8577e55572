"""Evaluate a run: what it knows, which modality decides, what noise does to it, and whether it can be trusted.

Run: python -m kfusion.evaluate RUN [--data builtin|FOLDER] [--no-grid]

Writes into the run folder:

    calibration.json               {"temperature": {view: T}, …}, fitted on validation
    evaluation/evaluation.json     every number but the grid's
    evaluation/robustness.json     the grid
    evaluation/report.txt          the tables, for reading
    evaluation/figures/            PNG and SVG
    evaluation/answers.npz         what the network answered; reused while weights and data are the same
    evaluation/NAME/               the same for other data, given with --data; NAME-FINGERPRINT where NAME is taken
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from kfusion.cli import console, parse, quiet, run_main

PROG = "python -m kfusion.evaluate"


@dataclass(frozen=True)
class Command:
    """Evaluate a run: reports, who decides, calibration, the worst errors, and robustness."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder, of a training that is finished."""
    data: tuple[str, ...] = ()
    """Evaluate on other labelled data of the same shapes and classes, 'builtin', a folder, or several; else the test
    part."""
    test_labels: str = ""
    """With --data: a CSV with the labels of the competition's test files."""
    force: bool = False
    """Evaluate on data of another scale too."""
    seed: int = 0
    """Decides the conflicts, the corruptions and the bootstrap."""
    grid: bool = True
    """The robustness grid, which takes most of the time."""
    grid_rows: int = 10_000
    """Pairs of the grid at most, evenly over the classes; 0: all."""


def main() -> None:
    """Evaluates the run that the command line names."""
    command = parse(Command, PROG)
    with quiet():
        from kfusion.evaluation.evaluator import Request, evaluate
    settings = {name: value for name, value in vars(command).items() if name not in ("run", "data")}
    data = command.data if len(command.data) > 1 else "".join(command.data)
    place = evaluate(command.run, Request(data=data, **settings), console)
    console.print(f"\nevaluation: {place}", soft_wrap=True)


if __name__ == "__main__":
    run_main(main, "run the same command again; answers that are complete are kept")
