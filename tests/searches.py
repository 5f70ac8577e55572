"""Searches in real processes, for the tests that look at what they leave; and made trials, for what is said of them."""

import os
from pathlib import Path
from typing import Any

from tests.processes import SMALL, environment, run_verb, start_verb
from tuning.space import Plan, Settings
from tuning.trials import Repeat, Trial, read_trials

PROC = Path("/proc")
TWO = ("--tune", "hidden_dim=8,16", "embed_dim=8")
FOUR = ("--tune", "hidden_dim=8,16", "embed_dim=8,16")
NAMES = ("hidden_dim", "embed_dim")
SLICE = (*SMALL, "--limit", "300", "--epochs", "1", "--deterministic")


def search(cwd, *flags, **env):
    return run_verb("tuning.search", *flags, cwd=cwd, env=environment(100, **env), timeout=150)


def start(cwd, *flags, **env):
    """A search that goes on beside the test; its output is in a file."""
    with (cwd / "output.txt").open("ab") as output:
        settings = {"env": environment(100, **env), "stdout": output, "stderr": output}
        return start_verb("tuning.search", *flags, cwd=cwd, **settings)


def trials(folder, status=None):
    return [trial for trial in read_trials(folder, NAMES, 1) if status in (None, trial.status)]


def workers(folder):
    """The processes of the search in a folder, by their number, where the system lists them in /proc."""
    return [
        pid
        for pid in map(int, filter(str.isdigit, os.listdir(PROC) if PROC.is_dir() else []))
        if f"tuning.process_pool\0{folder}\0" in said(pid)
    ]


def said(pid, what="cmdline"):
    """The words of a process' command line or environment, each ended by a zero; none of one that is gone."""
    try:
        return (PROC / str(pid) / what).read_text()
    except OSError:
        return ""


def plan(*tune: str, **settings: Any) -> Plan:
    """A plan of the default two parameters, or of others."""
    return Plan(Settings(tune=tune or ("hidden_dim", "embed_dim"), **settings))


def repeat(score: float, seed: int = 0, **given: Any) -> Repeat:
    known: dict[str, Any] = {"best_epoch": 18, "epochs": 20, "seconds": 41.0, "weights": 1000}
    return Repeat(seed, score, score, 1 - score, **known | given)


def completed(number: int, *scores: float, seconds: float = 41.0, epochs: int = 20, **values: Any) -> Trial:
    """A trial with a training per score."""
    repeats = tuple(repeat(score, seed, seconds=seconds, epochs=epochs) for seed, score in enumerate(scores))
    mean = sum(scores) / len(scores)
    values = values or {"hidden_dim": 256, "embed_dim": 128}
    return Trial(number, "completed", values, mean, repeats, epochs=epochs, worker="worker-0")


def failed(number: int, reason: str, **values: Any) -> Trial:
    return Trial(number, "failed", values or {"hidden_dim": 64, "embed_dim": 32}, reason=reason, epochs=20)


def running(number: int, epoch: int, *scores: float, **values: Any) -> Trial:
    """A trial whose repeats with these scores have ended."""
    repeats = tuple(repeat(score) for score in scores)
    values = values or {"hidden_dim": 512, "embed_dim": 64}
    return Trial(number, "running", values, repeats=repeats, epoch=epoch, epochs=20)
