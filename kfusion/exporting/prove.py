"""A SavedModel asked in a process of its own, since what goes wrong there may abort it.

`ask_apart` starts this file as `python -m kfusion.exporting.prove FOLDER`, which imports no Python TensorFlow: requests
come pickled on its standard input, and each reply leaves as soon as it is there.
"""

import io
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kfusion.system.terminal import BEFORE_TENSORFLOW

TIMEOUT_SECONDS = 900
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, eq=False)
class Request:
    """Arrays for an endpoint; object arrays of bytes for its strings. No `outputs`: all of them."""

    signature: str
    inputs: dict[str, np.ndarray]
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Reply:
    """What came back: `outputs`, or the `code` and `text` of the refusal."""

    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    code: str = "OK"
    text: str = ""


@dataclass(frozen=True, eq=False)
class Session:
    """What became of a process.

    Args:
        replies: one for each request that was answered before the process ended, in order.
        load_seconds: how long loading took; NaN where it failed.
        modules: what the process had imported.
        end: "" where it ended well, else how it ended, and its last words.
    """

    replies: list[Reply]
    load_seconds: float
    modules: frozenset[str]
    end: str


def ask_apart(folder: Path, requests: Sequence[Request]) -> Session:
    """Loads a SavedModel in a new process and asks it everything, one after the other."""
    command = [sys.executable, "-m", "kfusion.exporting.prove", str(folder)]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**BEFORE_TENSORFLOW, **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        command, input=pickle.dumps(list(requests)), capture_output=True, env=env, timeout=TIMEOUT_SECONDS
    )
    said = _unpickled(done.stdout)
    seconds, modules = said[0] if said else (float("nan"), frozenset())
    end = "" if done.returncode == 0 else _last_words(done.returncode, done.stderr.decode("utf-8", "replace"))
    return Session(said[1:], seconds, modules, end)


def _unpickled(stream: bytes) -> list[Any]:
    """Everything that a process has said before it ended, which may have been in the middle of a word."""
    file, said = io.BytesIO(stream), []
    try:
        while True:
            said.append(pickle.load(file))
    except (EOFError, pickle.UnpicklingError):
        return said


def _last_words(status: int, text: str) -> str:
    """How a process ended, in one line."""
    how = f"killed by signal {-status}" if status < 0 else f"status {status}"
    lines = [line for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "Check failed" in line] or lines[-1:]
    return ": ".join([how, *telling[:1]])


def _reply(model: Any, request: Request, refused: type[Exception]) -> Reply:
    try:
        return Reply(model.ask(request.signature, request.inputs, request.outputs))
    except refused as error:
        return Reply(code=getattr(error, "code", ""), text=str(error))


def main() -> None:
    from kfusion.runtime.capi import Refused
    from kfusion.runtime.model import ServedModel

    requests = pickle.load(sys.stdin.buffer)
    start = time.perf_counter()
    with ServedModel(Path(sys.argv[1])) as model:
        _say((time.perf_counter() - start, frozenset(sys.modules)))
        for request in requests:
            _say(_reply(model, request, Refused))


def _say(value: object) -> None:
    sys.stdout.buffer.write(pickle.dumps(value))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    # Pickled classes must have the name under which the other process knows them.
    from kfusion.exporting import prove

    prove.main()
