"""kfusion's commands as real processes, and work that test processes share."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SMALL = ("--limit", "1000", "--filters", "8", "16", "--precision", "float32")
"""Flags of a training that takes seconds."""


def environment(columns: int = 80, **more: str) -> dict[str, str]:
    """Of a process that finds this checkout first, and writes lines of that width."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": paths, "COLUMNS": str(columns), **more}


def run_train(*flags: object, cwd: Path, **kwargs: object) -> subprocess.CompletedProcess[str]:
    """`python -m kfusion.train` as a real process; its output is captured."""
    return run_verb("kfusion.train", *flags, cwd=cwd, **kwargs)


def run_export(*flags: object, cwd: Path, **kwargs: object) -> subprocess.CompletedProcess[str]:
    """`python -m kfusion.export` as a real process; its output is captured."""
    return run_verb("kfusion.export", *flags, cwd=cwd, **kwargs)


def run_verb(module: str, *flags: object, cwd: Path, **kwargs: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *map(str, flags)]
    settings: dict[str, Any] = {"env": environment(), "timeout": 300, **kwargs}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, **settings)


def once(root: Path, result: Path, make: Callable[[], object]) -> Path:
    """What `make` ends with, made by the first of all test processes that asks; the others wait."""
    with (root / f"{result.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            make()
    return result
