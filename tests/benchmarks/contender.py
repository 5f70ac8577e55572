"""The benchmark's half of the conversation: a contender in a process of its own, told what to do one line at a time."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.answering import cpu_seconds

ROOT = Path(__file__).resolve().parents[2]


class Contender:
    """A process that does nothing until it is asked.

    Args:
        name: how it is called in tables.
        module: the module to run, below `tests.benchmarks`.
        python: the interpreter, which decides the libraries.
        log_folder: where what it prints is kept.
        **start: what its class is built with.
    """

    def __init__(self, name: str, module: str, python: str, log_folder: Path, **start: Any) -> None:
        self.name = name
        self.log = log_folder / f"{name}.log"
        self.idle_seconds = self.idle_cpu_seconds = 0.0
        self.born = time.perf_counter()
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [python, "-m", f"tests.benchmarks.{module}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
                env=os.environ | quiet,
            )
        self.last = (time.perf_counter(), 0.0)
        self.started = self.ask("start", **start)
        self.idle_seconds = self.idle_cpu_seconds = 0.0

    def ask(self, do: str, **values: Any) -> dict[str, Any]:
        """Send a command and wait for its reply: seconds, result, and the memory of the process and its workers.

        Raises:
            RuntimeError: the process ended; the end of what it printed is in the message.
        """
        self.idle_seconds += time.perf_counter() - self.last[0]
        self.idle_cpu_seconds += cpu_seconds(self.process.pid) - self.last[1]
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError(f"{self.name}: no pipe")
        try:
            stdin.write(json.dumps({"do": do, **values}) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"{self.name} ended at '{do}':\n" + "\n".join(self.log.read_text().splitlines()[-12:]))
        self.last = (time.perf_counter(), cpu_seconds(self.process.pid))
        return json.loads(line)

    def age(self) -> float:
        """Seconds since the process was started."""
        return time.perf_counter() - self.born

    def idle_share(self) -> float:
        """Processor time used while not asked, as a share of one core's time: near 0 if idle means idle."""
        return self.idle_cpu_seconds / max(self.idle_seconds, 1e-9)

    def close(self) -> None:
        """End the process and its workers."""
        self.process.kill() if self.process.stdin is None else self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
