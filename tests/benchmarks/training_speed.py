"""Training speed: kfusion against PyTorch and plain Keras, interleaved in one run.

    python -m tests.benchmarks.training_speed --torch-python PYTHON_WITH_TORCH [--rounds 9] [--out speed.json]

Same network, same data, batch 64, the same cores. In every round each contender trains one epoch while the others
sleep, so that a slow minute of the machine slows all of them; ratios are taken within a round, and the median over
the rounds is what counts. Shown beside: the convolution roof of the machine, kfusion's pipeline alone, evaluation,
peak memory. PyTorch (the extra `bench`) may live in an environment of its own.
"""

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from tests.benchmarks.arrays import write_digits
from tests.benchmarks.contender import Contender
from tests.benchmarks.figures import Figures, machine
from tests.benchmarks.others import Others
from tests.benchmarks.tables import print_tables, wide_console

PAPER, FAST, NAIVE, ITSELF = "(a) PyTorch, as in the paper", "(b) strongest PyTorch", "(c) plain Keras", "(d) kfusion"
ROOFS = {"float32": "convolution roof, float32", "bfloat16": "convolution roof, bfloat16"}
NUM_PAIRS, TRAIN_SHARE, EPOCHS = 6000, 0.8, 50


@dataclass(frozen=True)
class Settings:
    """Measure training speed."""

    torch_python: str = sys.executable
    """The interpreter that has PyTorch."""
    rounds: int = 9
    """Measured rounds; at least 5 for a figure to be quoted."""
    warmup_rounds: int = 2
    """Rounds before that, not counted: tracing, choosing of kernels, filling of caches."""
    batch_size: int = 64
    """Pairs per step."""
    num_cores: int = 2
    """Processor cores that each contender may use."""
    only: tuple[str, ...] = ()
    """Letters of the contenders to run, such as a b d; empty: all."""
    fast_settings: str = "{}"
    """Settings of (b) to try, as JSON, such as '{"compiled": true}', or '{"device": "cuda"}' with `--only b d`."""
    out: Path | None = None
    """A JSON file for every measured figure."""


def contenders(settings: Settings, data: Path, work: Path) -> dict[str, Contender]:
    """The processes, started and asleep."""
    num_rows = int(NUM_PAIRS * TRAIN_SHARE)
    same = {
        "folder": str(data),
        "num_rows": num_rows,
        "batch_size": settings.batch_size,
        "total_steps": EPOCHS * (num_rows // settings.batch_size),
    }
    plan = {
        PAPER: ("torch_paper", settings.torch_python, same),
        FAST: ("torch_fast", settings.torch_python, same | json.loads(settings.fast_settings)),
        NAIVE: ("keras_naive", sys.executable, same),
        ITSELF: ("kfusion_itself", sys.executable, same | {"run_folder": str(work / "run")}),
    }
    chosen = {name: entry for name, entry in plan.items() if not settings.only or name[1] in settings.only}
    for dtype, name in ROOFS.items():
        chosen[name] = ("convolution_roof", sys.executable, {"batch_size": settings.batch_size, "dtype": dtype})
    return {name: Contender(name, module, python, work, **start) for name, (module, python, start) in chosen.items()}


def measure(settings: Settings, data: Path, work: Path, console: Console) -> Figures:
    """All rounds."""
    steps = int(NUM_PAIRS * TRAIN_SHARE) // settings.batch_size
    rows = steps * settings.batch_size
    players = contenders(settings, data, work)
    figures, others = Figures(machine(settings.num_cores)), Others()
    try:
        for number in range(-settings.warmup_rounds, settings.rounds):
            counted = number >= 0
            for name, player in players.items():
                reply = player.ask("train", steps=steps)
                # kfusion's epoch ends with validation and a checkpoint, which the others do not have.
                seconds = reply["result"]["training"] if name == ITSELF else reply["seconds"]
                figures.add("train", name, rows / seconds, counted)
            for name in (FAST, ITSELF):
                if name in players:
                    reply = players[name].ask("evaluate")
                    figures.add("evaluate", name, reply["result"]["rows"] / reply["seconds"], counted)
            if ITSELF in players:
                reply = players[ITSELF].ask("pipeline", steps=steps)
                figures.add("pipeline", ITSELF, reply["result"] / reply["seconds"], counted)
            console.print(figures.line(number + 1), highlight=False, soft_wrap=True)
        for name, player in players.items():
            reply = player.ask("versions")
            figures.note(name, reply["result"], reply["peak_bytes"], player.idle_share())
        figures.machine["others_cores"] = others.share()
    finally:
        for player in players.values():
            player.close()
    return figures


def main() -> None:
    settings = tyro.cli(Settings, prog="python -m tests.benchmarks.training_speed", description=__doc__)
    # Inherited by the contenders.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: settings.num_cores])
    console = wide_console()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = write_digits(work / "data", NUM_PAIRS)
        figures = measure(settings, data, work, console)
    print_tables(figures, console)
    if settings.out:
        settings.out.write_text(json.dumps(figures.to_json(), indent=1) + "\n")
        console.print(f"written: {settings.out}")


if __name__ == "__main__":
    main()
