"""How kfusion's time and memory grow with the data: 6 000 to 600 000 rows in files, one epoch each.

    python -m tests.benchmarks.scaling [--sizes 6000 60000 600000] [--folder DIR] [--out scaling.json]

For each size: files in kfusion's own layout (uint8 images, float32 audio; 600 000 rows are 1.7 GB), then
`kfusion.training.trainer.train` for one epoch in a process of its own. Time should grow in proportion to the rows, and
the resident memory hardly at all, since rows stream from the files.
"""

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from tests.benchmarks.arrays import write_digits, write_many
from tests.benchmarks.contender import Contender
from tests.benchmarks.figures import machine
from tests.benchmarks.others import Others
from tests.benchmarks.tables import wide_console

MILLION, THOUSAND = 1e6, 1e3
STAGES = {"prepared": "split", "trained": "train", "finished": "test"}
"""What a run does: reads and splits; trains and validates; tests, draws and writes."""


@dataclass(frozen=True)
class Settings:
    """Measure growth with the number of rows."""

    sizes: tuple[int, ...] = (6_000, 20_000, 60_000, 200_000, 600_000)
    """Numbers of rows, rising."""
    recipe: str = "paper"
    """kfusion's recipe."""
    split: str = "clip"
    """How the rows are divided."""
    num_cores: int = 2
    """Processor cores to be used."""
    folder: Path | None = None
    """Where the files are made and removed; default: the system's temporary folder."""
    out: Path | None = None
    """A JSON file for every measured figure."""


def grow(settings: Settings, num_rows: int, digits: Path, work: Path) -> dict[str, Any]:
    """One size: files made, one epoch trained, files removed."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        data = write_many(Path(folder) / "data", digits, num_rows)
        data_bytes = sum(file.stat().st_size for file in data.iterdir())
        start = {"folder": str(data), "recipe_name": settings.recipe, "split": settings.split}
        contender = Contender(f"{num_rows} rows", "kfusion_growth", sys.executable, work, **start)
        try:
            reply = contender.ask("train", run_folder=str(Path(folder) / "run"))
        finally:
            contender.close()
    return {"rows": num_rows, "data_bytes": data_bytes, "before_bytes": contender.started["peak_bytes"]} | reply[
        "result"
    ]


def print_growth(sizes: list[dict[str, Any]], console: Console) -> None:
    """Seconds and peak memory by stage, and what each further row costs."""
    table = Table(title="One epoch of kfusion, by rows of data; MB: peak memory so far")
    headings = [f"{stage} {unit}" for stage in STAGES.values() for unit in ("s", "MB")]
    for column in ("rows", "files MB", *headings):
        table.add_column(column, justify="right")
    for size in sizes:
        cells = []
        for stage in STAGES:
            cells += [f"{size['seconds'][stage]:,.1f}", f"{size['peak_bytes'][stage] / MILLION:,.0f}"]
        table.add_row(f"{size['rows']:,}", f"{size['data_bytes'] / MILLION:,.0f}", *cells)
    console.print(table)
    for small, large in pairwise(sizes):
        rows = large["rows"] - small["rows"]
        further = {stage: (large["seconds"][stage] - small["seconds"][stage]) / rows * MILLION for stage in STAGES}
        costs = ", ".join(f"{STAGES[stage]} {value:,.0f} µs" for stage, value in further.items())
        console.print(f"each row from {small['rows']:,} to {large['rows']:,}: {costs}", soft_wrap=True)
    first, last = sizes[0], sizes[-1]
    grown = last["peak_bytes"]["finished"] - first["peak_bytes"]["finished"]
    share = grown / (last["data_bytes"] - first["data_bytes"])
    console.print(
        f"peak memory grew by {grown / MILLION:,.0f} MB, {share:.1%} of what the files grew by"
        f" ({grown / (last['rows'] - first['rows']):,.0f} bytes a row)",
        soft_wrap=True,
    )


def main() -> None:
    settings = tyro.cli(Settings, prog="python -m tests.benchmarks.scaling", description=__doc__)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: settings.num_cores])
    console, facts, sizes = wide_console(), machine(settings.num_cores), []
    others = Others()
    with tempfile.TemporaryDirectory(dir=settings.folder) as folder:
        digits = write_digits(Path(folder) / "digits")
        for num_rows in settings.sizes:
            sizes.append(grow(settings, num_rows, digits, Path(folder)))
            seconds = sum(sizes[-1]["seconds"].values())
            console.print(f"{num_rows:,} rows: {seconds:,.1f} s, {seconds / num_rows * THOUSAND:.2f} ms a row")
    facts["others_cores"] = others.share()
    print_growth(sizes, console)
    console.print(Others.verdict(facts["others_cores"]), soft_wrap=True)
    if settings.out:
        settings.out.write_text(json.dumps({"machine": facts, "sizes": sizes}, indent=1) + "\n")
        console.print(f"written: {settings.out}")


if __name__ == "__main__":
    main()
