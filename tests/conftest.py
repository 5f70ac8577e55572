"""Shared by all tests: no start-up chatter, one trained run and one exported model per session, a browser."""

import os
import shutil
from pathlib import Path

import pytest

from tests.browser import browser  # noqa: F401
from tests.evaluations import bare, evaluated, evaluated_copy, whole, whole_copy  # noqa: F401
from tests.processes import SMALL, once, run_export, run_train

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all test processes of a session have in common."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def trained_run(shared: Path) -> Path:
    """A small robust run on the built-in data."""

    def make() -> None:
        done = run_train("--recipe", "robust", *SMALL, "--epochs", "12", "--out", shared / "trained_run", cwd=shared)
        assert done.returncode == 0, done.stderr
        (shared / "trained_run.txt").write_text(done.stdout)

    return once(shared, shared / "trained_run.txt", make).with_suffix("")


@pytest.fixture(scope="session")
def exported_model(trained_run: Path, shared: Path) -> Path:
    """The trained run's first version, `saved_models/kfusion/1`, exported and proved; not calibrated."""

    def make() -> None:
        done = run_export(trained_run, "--no-calibrate", cwd=shared)
        assert done.returncode == 0, done.stdout + done.stderr
        (shared / "exported_model.txt").write_text(done.stdout)

    once(shared, shared / "exported_model.txt", make)
    return shared / "saved_models" / "kfusion" / "1"


@pytest.fixture(scope="session")
def served_model(exported_model: Path, shared: Path) -> Path:
    """A model's folder as a server reads it, `kfusion`, with version 1 alone, whatever other tests export."""

    def make() -> None:
        shutil.copytree(exported_model, shared / "served" / "copy" / "1")
        (shared / "served" / "copy").rename(shared / "served" / "kfusion")

    return once(shared, shared / "served" / "kfusion", make)
