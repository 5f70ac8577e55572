"""kfusion's commands, in this process or as processes of their own, and work that test processes share.

A command that only says a sentence is run in this process: starting TensorFlow takes longer than all that it does.
"""

import contextlib
import fcntl
import importlib
import io
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from kfusion.cli import console, run_main

ROOT = Path(__file__).resolve().parents[1]
SMALL = ("--limit", "1000", "--filters", "8", "16", "--precision", "float32")
"""Flags of a training that takes seconds."""
TRAINED = ("--recipe", "robust", *SMALL, "--epochs", "12", "--deterministic")
"""Those of the fixture `trained_run`."""
Done = subprocess.CompletedProcess[str]


def environment(columns: int = 80, **more: str) -> dict[str, str]:
    """Of a process that finds this checkout first, and writes lines of that width."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": paths, "COLUMNS": str(columns), **more}


def in_process(module: str, *flags: object, cwd: Path | None = None) -> Done:
    """`python -m MODULE FLAGS` in this process: its exit status and its output, which capsys sees too.

    Args:
        module: a command, such as kfusion.train.
        flags: its words.
        cwd: where it runs; None: here.
    """
    words, out, err, status = [module, *map(str, flags)], io.StringIO(), io.StringIO(), 0
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with (
        mock.patch.object(sys, "argv", words),
        mock.patch.object(console, "_width", 80),
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            run_main(importlib.import_module(module).main)
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    sys.stdout.write(out.getvalue())
    sys.stderr.write(err.getvalue())
    return Done(words, status, out.getvalue(), err.getvalue())


def fails(done: Done, sentence: str) -> None:
    """A command said one line on standard error, with this in it, and ended with status 2."""
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("kfusion: ")


@contextlib.contextmanager
def full_disk(after_bytes: int = 60_000) -> Iterator[None]:
    """A limit on the size of files stands in for a full disk: writing fails the same way, in the middle of a file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def run_train(*flags: object, cwd: Path, **kwargs: object) -> Done:
    """`python -m kfusion.train` as a real process; its output is captured."""
    return run_verb("kfusion.train", *flags, cwd=cwd, **kwargs)


def run_export(*flags: object, cwd: Path, **kwargs: object) -> Done:
    """`python -m kfusion.export` as a real process; its output is captured."""
    return run_verb("kfusion.export", *flags, cwd=cwd, **kwargs)


def run_verb(module: str, *flags: object, cwd: Path, **kwargs: object) -> Done:
    """A command as a real process; its output is captured."""
    return run_python("-m", module, *flags, cwd=cwd, **kwargs)


def run_python(*words: object, cwd: Path = ROOT, **kwargs: object) -> Done:
    """Python as a real process; its output is captured."""
    settings: dict[str, Any] = {"env": environment(), "timeout": 300, **kwargs}
    return subprocess.run([sys.executable, *map(str, words)], cwd=cwd, capture_output=True, text=True, **settings)


def start_verb(module: str, *flags: object, cwd: Path, columns: int = 100, **settings: Any) -> subprocess.Popen[str]:
    """A command that goes on beside the test; its output comes through pipes, if not said otherwise."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment(columns)}
    command = [sys.executable, "-m", module, *map(str, flags)]
    return subprocess.Popen(command, cwd=cwd, text=True, **pipes | settings)


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
    return found


def once(root: Path, result: Path, make: Callable[[], object]) -> Path:
    """What `make` ends with, made by the first of all test processes that asks; the others wait."""
    with (root / f"{result.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            make()
    return result
