"""What a search costs beyond the training of its trials, whether two workers help, and whether memory grows.

    python -m tests.benchmarks.searching overhead [--trials 20] [--epochs 10]
    python -m tests.benchmarks.searching memory [--trials 30] [--epochs 1]
    python -m tests.benchmarks.searching workers [--trials 8] [--rounds 5] [--epochs 2]

All run `python -m tuning.search` on the built-in digits. Overhead: wall time of the command less the training time of
its trials, over the latter. Workers: wall time with two over that with one, interleaved. Memory: of the worker process
as each trial ends.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.table import Table

from tests.benchmarks.answering import family
from tests.benchmarks.others import Others
from tests.benchmarks.tables import wide_console

MILLION = 1e6
POLL_SECONDS = 0.2
GOALS = {"overhead": 0.05, "workers": 1.1}


@dataclass(frozen=True)
class Settings:
    """Measure a search."""

    what: tyro.conf.Positional[Literal["overhead", "memory", "workers"]]
    trials: int = 0
    """0: 20, 30 and 8."""
    epochs: int = 0
    """Of each trial; 0: 10, 1 and 2."""
    rounds: int = 5
    """Of the workers."""


DEFAULTS = {"overhead": (20, 10), "memory": (30, 1), "workers": (8, 2)}


def resident(pid: int) -> float:
    """Resident memory of the largest process below one, in bytes: the worker that trains."""
    sizes = [0]
    for child in family(pid)[1:]:
        try:
            lines = Path(f"/proc/{child}/status").read_text().splitlines()
        except OSError:
            continue
        sizes += [1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS")]
    return max(sizes)


def search(trials: int, epochs: int, workers: int = 1) -> tuple[float, float, list[float]]:
    """One search; its wall seconds, the training seconds of its trials, and the memory at each trial's end."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "search"
        flags = ["--trials", trials, "--epochs", epochs, "--workers", workers, "--out", folder]
        flags += ["--tune", "hidden_dim=64..512", "embed_dim=32..256"]
        began, ended = time.perf_counter(), []
        command = [sys.executable, "-m", "tuning.search", *map(str, flags)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while process.poll() is None:
            done = len(list(folder.glob("trials/trial_*/repeat-0.json")))
            if done > len(ended):
                ended.append(resident(process.pid))
            time.sleep(POLL_SECONDS)
        wall = time.perf_counter() - began
        if process.returncode:
            raise SystemExit(f"the search ended with status {process.returncode}")
        told = json.loads((folder / "trials.json").read_text())
    return wall, sum(trial["seconds"] for trial in told["trials"]), ended


def overhead(trials: int, epochs: int, console: Console) -> None:
    wall, training, ended = search(trials, epochs)
    share = wall / training - 1
    console.print(f"{trials} trials of {epochs} epochs: {wall:.1f} s, of which training {training:.1f} s")
    console.print(f"overhead {share:.1%}, {(wall - training) / trials:.2f} s a trial; goal ≤ {GOALS['overhead']:.0%}")
    print_memory(ended, console)


def memory(trials: int, epochs: int, console: Console) -> None:
    print_memory(search(trials, epochs)[2], console)


def print_memory(ended: list[float], console: Console) -> None:
    sizes = [size / MILLION for size in ended]
    console.print("MB resident as the trials end: " + " ".join(f"{size:.0f}" for size in sizes))
    console.print(f"least {min(sizes):.0f}, most {max(sizes):.0f}")


def workers(trials: int, epochs: int, rounds: int, console: Console) -> None:
    table, ratios = Table("round", "one worker s", "two workers s", "ratio"), []
    for number in range(rounds):
        one, two = search(trials, epochs)[0], search(trials, epochs, workers=2)[0]
        ratios.append(two / one)
        table.add_row(str(number + 1), f"{one:.1f}", f"{two:.1f}", f"{ratios[-1]:.2f}")
    console.print(table)
    console.print(f"median ratio {statistics.median(ratios):.2f}, goal ≤ {GOALS['workers']:g}")


def main() -> None:
    settings = tyro.cli(Settings, prog="python -m tests.benchmarks.searching", description=__doc__)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    console, others = wide_console(), Others()
    trials, epochs = settings.trials or DEFAULTS[settings.what][0], settings.epochs or DEFAULTS[settings.what][1]
    if settings.what == "workers":
        workers(trials, epochs, settings.rounds, console)
    else:
        {"overhead": overhead, "memory": memory}[settings.what](trials, epochs, console)
    console.print(Others.verdict(others.share()), soft_wrap=True)


if __name__ == "__main__":
    main()
