"""Shared by all tests: no start-up chatter, one trained run and one exported model per session, a browser."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser import browser  # noqa: F401

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

ROOT = Path(__file__).resolve().parents[1]
SMALL = ("--limit", "1000", "--filters", "8", "16", "--precision", "float32")
"""Flags of a training that takes seconds."""


def run_train(*flags: str, cwd: Path, **kwargs: object) -> subprocess.CompletedProcess[str]:
    """`python -m kfusion.train` as a real process; its output is captured."""
    return run_verb("kfusion.train", *flags, cwd=cwd, **kwargs)


def run_export(*flags: str, cwd: Path, **kwargs: object) -> subprocess.CompletedProcess[str]:
    """`python -m kfusion.export` as a real process; its output is captured."""
    return run_verb("kfusion.export", *flags, cwd=cwd, **kwargs)


def run_verb(module: str, *flags: str, cwd: Path, **kwargs: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *map(str, flags)]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "80"}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, **kwargs)  # type: ignore


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A small robust run on the built-in data, trained once however many test processes there are."""
    root = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    folder = root / "trained_run"
    with (root / "trained_run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "metrics.json").exists():
            done = run_train("--recipe", "robust", *SMALL, "--epochs", "12", "--out", str(folder), cwd=root)
            assert done.returncode == 0, done.stderr
            (root / "trained_run.txt").write_text(done.stdout)
    return folder


@pytest.fixture(scope="session")
def exported_model(trained_run: Path) -> Path:
    """The trained run's first version, `saved_models/kfusion/1`, exported and proved once; not calibrated."""
    root = trained_run.parent
    folder = root / "saved_models" / "kfusion" / "1"
    with (root / "exported_model.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            done = run_export(str(trained_run), "--no-calibrate", cwd=root)
            assert done.returncode == 0, done.stdout + done.stderr
            (root / "exported_model.txt").write_text(done.stdout)
    return folder


@pytest.fixture(scope="session")
def served_model(exported_model: Path) -> Path:
    """A model's folder as a server reads it, `kfusion`, with version 1 alone, whatever other tests export."""
    folder = exported_model.parents[2] / "served" / "kfusion"
    with (exported_model.parents[2] / "served_model.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            shutil.copytree(exported_model, folder.parent / "copy" / "1")
            (folder.parent / "copy").rename(folder)
    return folder
