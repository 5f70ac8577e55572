"""How long one answer takes, and the first one after a start, in each runtime; PyTorch eager beside them.

    python -m tests.benchmarks.latency RUN [--torch-python PYTHON_WITH_TORCH] [--rounds 7] [--threads 1 2]

Each runtime answers in a process of its own, one after the other, round by round; all but the one asked are idle. A
cold start is a new process, from its start to its first answer, with one thread. The ratios are medians of the rounds'.
The files and the SavedModel give all their outputs, three answers among them; tf.function, Keras and PyTorch, where
nothing else is said, the fused answer only.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from tests.benchmarks.contender import ROOT, Contender
from tests.benchmarks.latency_ways import WAYS
from tests.benchmarks.others import Others
from tests.benchmarks.tables import wide_console

TORCH, TORCH_VIEWS, KERAS, SERVED = "PyTorch eager", "PyTorch eager, all views", "Keras call", "SavedModel, C API"
FILES = ("LiteRT", "LiteRT int8", "ONNX Runtime")
TORCH_GOAL, KERAS_GOAL, SERVED_GOAL_MS = 2.5, 15.0, 1.5
Times = dict[str, list[float]]


@dataclass(frozen=True)
class Settings:
    """Measure the runtimes on a run with the default widths."""

    run: tyro.conf.Positional[Path]
    torch_python: str = sys.executable
    """An interpreter that has PyTorch."""
    rounds: int = 7
    seconds: float = 0.5
    """Of asking, each time."""
    threads: tuple[int, ...] = (1, 2)


def make_files(settings: Settings, work: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.latency_files", str(settings.run.resolve()), str(work)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def start(settings: Settings, work: Path, threads: int, stack: ExitStack) -> list[Contender]:
    """The contenders, each in its process, ready to answer."""
    run = str(settings.run.resolve())
    contenders = []
    for name in (*WAYS, TORCH, TORCH_VIEWS):
        eager = name not in WAYS
        python, module = (settings.torch_python, "latency_torch") if eager else (sys.executable, "latency_ways")
        own = {"all_views": name == TORCH_VIEWS} if eager else {"way": name, "run": run}
        contender = Contender(name, module, python, work, work=str(work), threads=threads, **own)
        stack.callback(contender.close)
        contenders.append(contender)
    return contenders


def warm(settings: Settings, work: Path, threads: int) -> Times:
    """Seconds of one answer: each contender's median, round by round."""
    times: Times = {}
    with ExitStack() as stack:
        contenders = start(settings, work, threads, stack)
        for _ in range(settings.rounds):
            for contender in contenders:
                took = contender.ask("ask", seconds=settings.seconds)["result"]
                times.setdefault(contender.name, []).append(statistics.median(took))
    return times


def cold(settings: Settings, work: Path) -> Times:
    """Seconds from the start of a process to its first answer, round by round."""
    run, times = str(settings.run.resolve()), Times()
    python = [sys.executable, "-m", "tests.benchmarks.latency_ways"]
    commands = {
        name: [*python, name, run, str(work)] for name in WAYS if name not in ("tf.function", "Keras predict()")
    }
    commands[TORCH] = [settings.torch_python, "-m", "tests.benchmarks.latency_torch", str(work)]
    for _ in range(settings.rounds):
        for name, command in commands.items():
            began = time.perf_counter()
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
                said = process.stdout.readline() if process.stdout else b""
                times.setdefault(name, []).append(time.perf_counter() - began)
            if not said:
                raise RuntimeError(f"{name} gave no answer: {' '.join(command)}")
    return times


def ratio(times: Times, base: str, name: str) -> float:
    """How many times as long `base` takes as `name`: the median over the rounds."""
    return statistics.median(one / other for one, other in zip(times[base], times[name], strict=True))


def show(answers: dict[int, Times], first: Times, console: Console) -> None:
    """One row for each way, and the goals below."""
    table = Table()
    table.add_column("batch 1", no_wrap=True)
    for threads in answers:
        table.add_column(f"ms, {threads} thread{'s' * (threads > 1)}", justify="right")
        table.add_column("PyTorch ÷ it", justify="right")
    table.add_column("cold start, s", justify="right")
    table.add_column("Keras ÷ it", justify="right")
    for name in (*WAYS, TORCH, TORCH_VIEWS):
        row = [name]
        for times in answers.values():
            row += [f"{1e3 * statistics.median(times[name]):.3f}", f"{ratio(times, TORCH, name):.2f}"]
        seen = name in first
        row += [f"{statistics.median(first[name]):.2f}", f"{ratio(first, KERAS, name):.1f}"] if seen else ["", ""]
        table.add_row(*row)
    console.print(table)
    for line in goals(answers, first):
        console.print(line, soft_wrap=True)


def goals(answers: dict[int, Times], first: Times) -> list[str]:
    """Each goal beside what was measured."""

    def by_file(times: Times, base: str, goal: float) -> str:
        found = {name: ratio(times, base, name) for name in FILES}
        # The goal is for a network in float32.
        best = max(found[name] for name in FILES if "int8" not in name)
        return f"{', '.join(f'{name} {value:.1f}' for name, value in found.items())}; ≥ {goal:g} {_said(best >= goal)}"

    lines = []
    for threads, times in answers.items():
        served = 1e3 * statistics.median(times[SERVED])
        lines += [
            f"{TORCH} ÷ file, threads {threads}: {by_file(times, TORCH, TORCH_GOAL)}",
            f"{TORCH_VIEWS} ÷ file, threads {threads}: {by_file(times, TORCH_VIEWS, TORCH_GOAL)}",
            f"{SERVED}, threads {threads}: {served:.2f} ms; ≤ {SERVED_GOAL_MS} {_said(served <= SERVED_GOAL_MS)}",
        ]
    return [*lines, f"cold start, Keras ÷ file: {by_file(first, KERAS, KERAS_GOAL)}"]


def _said(reached: bool) -> str:
    return "reached" if reached else "missed"


def main() -> None:
    settings = tyro.cli(Settings, description=__doc__)
    others = Others()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_files(settings, work)
        answers = {threads: warm(settings, work, threads) for threads in settings.threads}
        first = cold(settings, work)
    console = wide_console()
    show(answers, first, console)
    console.print(Others.verdict(others.share()), soft_wrap=True)


if __name__ == "__main__":
    main()
