"""A SavedModel in a process of its own, since what goes wrong there may abort it.

`ask_apart` starts this file as `python -m kfusion.exporting.subprocess_runner FOLDER`, which imports no Python
TensorFlow. Requests come on its standard input, and each reply leaves as soon as it is there: a line of JSON each, an
array as the base64 of TensorFlow's tensor message.
"""

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kfusion.cli import BEFORE_TENSORFLOW
from kfusion.runtime.protos import fill_tensor, message, read_array

TIMEOUT_SECONDS = 900.0
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


def ask_apart(folder: Path, requests: Sequence[Request], timeout_s: float = TIMEOUT_SECONDS) -> Session:
    """Loads a SavedModel in a new process and sends it all requests, one after the other.

    Args:
        folder: a SavedModel.
        requests: to it.
        timeout_s: longest time for all of it, after which the process is killed.
    """
    command = [sys.executable, "-m", "kfusion.exporting.subprocess_runner", str(folder)]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**BEFORE_TENSORFLOW, **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    lines = b"".join(_line({**vars(request), "inputs": _packed(request.inputs)}) for request in requests)
    try:
        done = subprocess.run(command, input=lines, capture_output=True, env=env, timeout=timeout_s)
        output, status = done.stdout, done.returncode
        end = "" if status == 0 else _last_words(status, done.stderr.decode("utf-8", "replace"))
    except subprocess.TimeoutExpired as error:  # The process has been killed.
        output, end = error.stdout or b"", f"not answered within {timeout_s:g} s"
    # The last line may have been cut off by the end of the process.
    start, *replies = [json.loads(line) for line in output.splitlines(keepends=True) if line.endswith(b"\n")] or [{}]
    return Session(
        [Reply(_unpacked(reply["outputs"]), reply["code"], reply["text"]) for reply in replies],
        start.get("load_seconds", float("nan")),
        frozenset(start.get("modules", ())),
        end,
    )


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values).encode() + b"\n"


def _packed(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Arrays as JSON can carry them."""
    packed = {}
    for name, values in arrays.items():
        fill_tensor(tensor := message("Tensor")(), values)
        packed[name] = base64.b64encode(tensor.SerializeToString()).decode("ascii")
    return packed


def _unpacked(packed: Mapping[str, str]) -> dict[str, np.ndarray]:
    return {name: read_array(message("Tensor").FromString(base64.b64decode(text))) for name, text in packed.items()}


def _last_words(status: int, text: str) -> str:
    """How a process ended, in one line."""
    how = f"killed by signal {-status}" if status < 0 else f"status {status}"
    lines = [line for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "Check failed" in line] or lines[-1:]
    return ": ".join([how, *telling[:1]])


def main() -> None:
    """Answers the requests on standard input."""
    from kfusion.runtime.c_api import Refused, ServedModel

    requests = [json.loads(line) for line in sys.stdin.buffer]
    began = time.perf_counter()
    with ServedModel(Path(sys.argv[1])) as model:
        _write({"load_seconds": time.perf_counter() - began, "modules": sorted(sys.modules)})
        for request in requests:
            try:
                reply = Reply(model.ask(request["signature"], _unpacked(request["inputs"]), request["outputs"]))
            except Refused as error:
                reply = Reply(code=error.code, text=str(error))
            _write({**vars(reply), "outputs": _packed(reply.outputs)})


def _write(values: Mapping[str, Any]) -> None:
    sys.stdout.buffer.write(_line(values))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
