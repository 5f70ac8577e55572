"""Searches in real processes, for the tests that look at what they leave."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.processes import SMALL, environment
from tuning.trials import read_trials

PROC = Path("/proc")
FOUR = ("--tune", "hidden_dim=8,16", "embed_dim=8,16")
NAMES = ("hidden_dim", "embed_dim")
SLICE = (*SMALL, "--limit", "300", "--epochs", "1", "--deterministic")


def command(*flags):
    return [sys.executable, "-m", "tuning.search", *map(str, flags)]


def search(cwd, *flags, **env):
    settings = {"env": environment(100, **env), "capture_output": True, "text": True, "timeout": 150}
    return subprocess.run(command(*flags), cwd=cwd, **settings)


def start(cwd, *flags, **env):
    """A search that goes on beside the test; its output is in a file."""
    with (cwd / "output.txt").open("ab") as output:
        return subprocess.Popen(command(*flags), cwd=cwd, env=environment(100, **env), stdout=output, stderr=output)


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


def trials(folder, status=None):
    return [trial for trial in read_trials(folder, NAMES, 1) if status in (None, trial.status)]


def workers(folder):
    """The processes of the search in a folder, by their number, where the system lists them in /proc."""
    return [
        pid
        for pid in map(int, filter(str.isdigit, os.listdir(PROC) if PROC.is_dir() else []))
        if f"tuning.worker\0{folder}\0" in said(pid)
    ]


def said(pid, what="cmdline"):
    """The words of a process' command line or environment, each ended by a zero; none of one that is gone."""
    try:
        return (PROC / str(pid) / what).read_text()
    except OSError:
        return ""
