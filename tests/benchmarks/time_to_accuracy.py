"""Time to a validation accuracy: kfusion against PyTorch as the paper's author would run it.

    python -m tests.benchmarks.time_to_accuracy --torch-python PYTHON_WITH_TORCH [--accuracy 0.99] [--seeds 0 1 2]

Both see the same training and validation part of the built-in digits (kfusion's `clip` split). PyTorch runs the
paper's recipe, 50 epochs with flips; kfusion runs `--recipe` over `--epochs`, and both stop after the first epoch
whose fused answer reaches the accuracy. Two clocks: `training`, from the first epoch's begin, validation included; and
`whole`, from the start of the process, with the imports, the reading of the data and the tracing. They run one after
the other.
"""

import json
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from kfusion.config import DataConfig
from kfusion.data.dataset import Pairs
from kfusion.data.loaders import load
from kfusion.data.splits import split
from tests.benchmarks.arrays import Arrays
from tests.benchmarks.contender import Contender
from tests.benchmarks.figures import machine
from tests.benchmarks.others import Others
from tests.benchmarks.tables import wide_console

GOAL = 5.0


@dataclass(frozen=True)
class Settings:
    """Measure the time to a validation accuracy."""

    torch_python: str = sys.executable
    """The interpreter that has PyTorch."""
    accuracy: float = 0.99
    """Validation accuracy to reach."""
    recipe: str = "paper"
    """kfusion's recipe."""
    epochs: int = 10
    """kfusion's epochs, which its learning rate is planned over."""
    paper_epochs: int = 50
    """PyTorch's epochs."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One race each."""
    num_cores: int = 2
    """Processor cores that each may use."""
    out: Path | None = None
    """A JSON file for every measured figure."""


def write_part(pairs: Pairs, folder: Path) -> str:
    """The rows of one part in the own layout."""
    folder.mkdir()
    values = pairs.read(np.arange(len(pairs)))
    arrays = values["image"][..., 0].astype(np.uint8), values["audio"], pairs.label
    for name, rows in zip(Arrays._fields, arrays, strict=True):
        np.save(folder / f"{name}.npy", rows)
    return str(folder)


def race(settings: Settings, seed: int, work: Path) -> dict[str, dict[str, Any]]:
    """Both, one after the other, on the same split."""
    config = DataConfig()
    parts = split(load(config), config, seed)
    train, val = write_part(parts.train, work / "train"), write_part(parts.val, work / "val")
    num_steps = len(parts.train) // 64
    paper = {"folder": train, "num_rows": None, "batch_size": 64, "total_steps": num_steps * settings.paper_epochs}
    plan = {
        "PyTorch, the paper's recipe": ("torch_paper", settings.torch_python, paper | {"seed": seed}),
        f"kfusion, {settings.recipe}, {settings.epochs} epochs": (
            "kfusion_race",
            sys.executable,
            {"recipe_name": settings.recipe, "epochs": settings.epochs, "run_folder": str(work / "run"), "seed": seed},
        ),
    }
    results = {}
    for name, (module, python, start) in plan.items():
        contender = Contender(name, module, python, work, **start)
        try:
            reply = contender.ask("reach", accuracy=settings.accuracy, val_folder=val, epochs=settings.paper_epochs)
            results[name] = reply["result"] | {"whole": contender.age(), "peak_bytes": reply["peak_bytes"]}
        finally:
            contender.close()
    return results


def main() -> None:
    settings = tyro.cli(Settings, prog="python -m tests.benchmarks.time_to_accuracy", description=__doc__)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: settings.num_cores])
    console, facts, races = wide_console(), machine(settings.num_cores), []
    others = Others()
    for seed in settings.seeds:
        with tempfile.TemporaryDirectory() as folder:
            races.append(race(settings, seed, Path(folder)))
        console.print(f"seed {seed}: {races[-1]}", highlight=False, soft_wrap=True)
    facts["others_cores"] = others.share()
    print_races(races, settings, console)
    console.print(Others.verdict(facts["others_cores"]), soft_wrap=True)
    if settings.out:
        settings.out.write_text(json.dumps({"machine": facts, "settings": vars(settings), "races": races}, default=str))
        console.print(f"written: {settings.out}")


def print_races(races: list[dict[str, dict[str, Any]]], settings: Settings, console: Console) -> None:
    """Medians over the seeds, and how many times faster kfusion was."""
    table = Table(title=f"Time to {settings.accuracy:.1%} validation accuracy, median of {len(races)} seeds")
    for column in ("", "reached", "epochs", "training s", "whole s"):
        table.add_column(column, justify="left" if not column else "right")
    paper, itself = races[0]
    for name in (paper, itself):
        runs = [each[name] for each in races]
        medians = [statistics.median(run[key] for run in runs) for key in ("epochs", "training", "whole")]
        num_reached = sum(run["reached"] for run in runs)
        table.add_row(name, f"{num_reached} of {len(runs)}", *(f"{value:,.1f}" for value in medians))
    console.print(table)
    for clock in ("training", "whole"):
        ratio = statistics.median(each[paper][clock] / each[itself][clock] for each in races)
        console.print(f"{clock}: kfusion {ratio:.1f} × faster, goal ≥ {GOAL:g}")
    console.print("Where PyTorch did not reach it, its time is that of all its epochs: a lower bound.")


if __name__ == "__main__":
    main()
