"""Prediction: speed beside the bare model and beside PyTorch, memory as the input grows, and what Ray is worth.

    python -m tests.benchmarks.predicting speed --run RUN --torch-python PYTHON_WITH_TORCH [--rounds 7]
    python -m tests.benchmarks.predicting memory --run RUN [--sizes 10000 1000000]
    python -m tests.benchmarks.predicting ray --run RUN [--sizes 10000 100000]

`speed` wants the shared data beside the checkout (`../shared/data`), which are written as PNG and WAV files; PyTorch's
environment needs pillow and scipy too. In every round each contender answers all rows while the others sleep.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console

from kfusion.cli import quiet
from tests.benchmarks.arrays import write_digits, write_many
from tests.benchmarks.contender import ROOT, Contender
from tests.benchmarks.figures import Figures, machine
from tests.benchmarks.others import Others
from tests.benchmarks.tables import verdict, wide_console

SHARED = ROOT.parent / "shared" / "data"
BARE, ARRAYS, FILES, TORCH = "bare model, arrays in memory", "kfusion, .npy", "kfusion, files", "PyTorch, files"
GOALS = {(ARRAYS, BARE): 0.9, (FILES, TORCH): 3.0}


@dataclass(frozen=True)
class Settings:
    """Measure predictions."""

    what: Annotated[str, tyro.conf.Positional]
    """speed, memory or ray."""
    run: Path = Path("runs/robust-1")
    """A finished run."""
    torch_python: str = sys.executable
    """speed: the interpreter that has PyTorch."""
    rounds: int = 7
    """speed: measured rounds, after one that is not counted."""
    rows: int = 4000
    """speed: rows of each input."""
    sizes: tuple[int, ...] = (10_000, 1_000_000)
    """memory, ray: rows."""
    inputs: tuple[str, ...] = ("arrays", "manifest")
    """memory: kinds of input."""
    out: Path | None = None
    """A JSON file for every measured figure."""


def write_files(folder: Path, num_rows: int) -> Path:
    """MNIST's test images as PNG and recordings of the same digits as WAV."""
    with quiet():
        from tests.media import encoded, wav_bytes

    folder.mkdir()
    with np.load(SHARED / "mnist.npz") as mnist, np.load(SHARED / "fsdd.npz") as sounds:
        images, label = mnist["x_test"], mnist["y_test"]
        audio, offsets, spoken = sounds["audio"], sounds["offsets"], sounds["label"]
    rng = np.random.default_rng(0)
    for row in range(num_rows):
        place = row % len(images)
        clip = rng.choice(np.flatnonzero(spoken == label[place]))
        (folder / f"{row:07d}.png").write_bytes(encoded(images[place]))
        (folder / f"{row:07d}.wav").write_bytes(wav_bytes(audio[offsets[clip] : offsets[clip + 1]].astype("<i2")))
    return folder


def speed(settings: Settings, work: Path, console: Console) -> dict[str, Any]:
    """Rounds of all four, and their ratios."""
    arrays, files = write_digits(work / "arrays", settings.rows), write_files(work / "files", settings.rows)
    start = {"run_folder": str(settings.run.resolve()), "out": str(work / "out.csv")}
    kfusion = Contender(
        "kfusion", "kfusion_predict", sys.executable, work, **start, arrays=str(arrays), files=str(files)
    )
    torch = Contender("torch", "torch_predict", settings.torch_python, work, folder=str(files))
    turns = {
        BARE: (kfusion, {"do": "bare_model"}),
        ARRAYS: (kfusion, {"do": "predict", "source": "arrays"}),
        FILES: (kfusion, {"do": "predict", "source": "files"}),
        TORCH: (torch, {"do": "predict"}),
    }
    figures, others = Figures(machine(len(os.sched_getaffinity(0)))), Others()
    try:
        for number in range(-1, settings.rounds):
            for name, (player, asked) in turns.items():
                reply = player.ask(**asked)
                figures.add("train", name, reply["result"] / reply["seconds"], number >= 0)
            console.print(figures.line(number + 1), soft_wrap=True)
    finally:
        for player in (kfusion, torch):
            player.close()
    for name in turns:
        console.print(f"{name}: {figures.median('train', name):,.0f} rows/s")
    for (one, other), goal in GOALS.items():
        ratio = figures.ratio(("train", one), ("train", other))
        console.print(f"{one} ÷ {other}: {ratio:.2f}, {verdict(ratio, goal)}")
    figures.machine["others_cores"] = others.share()
    console.print(Others.verdict(figures.machine["others_cores"]), soft_wrap=True)
    return figures.to_json()


def command(settings: Settings, data: Path, *flags: str) -> tuple[float, int]:
    """Seconds and peak memory, in bytes, of one `python -m kfusion.predict`."""
    words = [sys.executable, "-m", "kfusion.predict", str(settings.run.resolve()), str(data), "--overwrite", *flags]
    began, peak = time.perf_counter(), 0
    process = subprocess.Popen([*words, "--out", str(data.parent / "out.csv")], cwd=ROOT, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        # Not the usage that the system reports at the end: that counts the memory of who started the process, too.
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            peak = int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
        time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"prediction ended with status {process.returncode}")
    return time.perf_counter() - began, peak


def memory(settings: Settings, work: Path, console: Console) -> dict[str, Any]:
    """Peak memory of the command, for each size and kind of input."""
    digits, found = write_digits(work / "digits"), {}
    files = write_files(work / "files", 100) if "manifest" in settings.inputs else None
    for size in settings.sizes:
        with tempfile.TemporaryDirectory(dir=work) as folder:
            inputs = {}
            if "arrays" in settings.inputs:
                inputs["arrays"] = write_many(Path(folder) / "arrays", digits, size)
            if files:
                inputs["manifest"] = Path(folder) / "rows.csv"
                with inputs["manifest"].open("w") as out:
                    out.write("image,audio\n")
                    out.writelines(f"{files}/{row % 100:07d}.png,\n" for row in range(size))
            for name, data in inputs.items():
                seconds, peak = command(settings, data)
                found[f"{name} {size}"] = {"seconds": seconds, "peak_bytes": peak}
                console.print(f"{name}, {size:,} rows: {seconds:,.1f} s, peak {peak / 1e6:,.0f} MB")
    for name in settings.inputs:
        peaks = [found[f"{name} {size}"]["peak_bytes"] for size in settings.sizes if f"{name} {size}" in found]
        if peaks:
            console.print(
                f"{name}: {peaks[-1] / peaks[0] - 1:+.1%} from the smallest to the largest (goal: within 10 %)"
            )
    return found


def ray(settings: Settings, work: Path, console: Console) -> dict[str, Any]:
    """Seconds of the whole command with either engine, for each size."""
    digits, found, others = write_digits(work / "digits"), {}, Others()
    for size in settings.sizes:
        with tempfile.TemporaryDirectory(dir=work) as folder:
            data = write_many(Path(folder) / "arrays", digits, size)
            found[size] = [command(settings, data, "--engine", engine)[0] for engine in ("local", "ray")]
        local, several = found[size]
        console.print(f"{size:,} rows: local {local:,.1f} s, ray {several:,.1f} s, {local / several:.2f} × as fast")
    console.print(Others.verdict(others.share()), soft_wrap=True)
    return {str(size): seconds for size, seconds in found.items()}


def main() -> None:
    settings = tyro.cli(Settings, prog="python -m tests.benchmarks.predicting", description=__doc__)
    console, measures = wide_console(), {"speed": speed, "memory": memory, "ray": ray}
    with tempfile.TemporaryDirectory() as folder:
        found = measures[settings.what](settings, Path(folder), console)
    if settings.out:
        settings.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
