"""Runs that have been evaluated, embedded and reported on, once per session; a test that changes one takes a copy."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.processes import once, run_verb


@pytest.fixture(scope="session")
def evaluated(trained_run: Path, shared: Path) -> Path:
    """A copy of the trained run, evaluated by the command; `evaluated.txt` beside it is what that said."""

    def make() -> None:
        shutil.copytree(trained_run, shared / "evaluated")
        done = run_verb("kfusion.evaluate", "evaluated", "--grid-rows", 40, cwd=shared)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        (shared / "evaluated.txt").write_text(done.stdout)

    return once(shared, shared / "evaluated.txt", make).with_suffix("")


@pytest.fixture(scope="session")
def bare(trained_run: Path, shared: Path) -> Path:
    """A copy of the small run of which only the training is known."""
    folder = shared / "small <run> & more"
    return once(shared, folder, lambda: _copied(trained_run, folder))


@pytest.fixture(scope="session")
def whole(trained_run: Path, shared: Path) -> Path:
    """A copy of the small run that has been evaluated and embedded, beside a twin that answers a little differently."""
    folder = shared / "reported" / "whole"

    def make() -> None:
        from kfusion.evaluation.embedder import embed
        from kfusion.evaluation.evaluator import Request, evaluate
        from kfusion.reporting.page import report

        shutil.copytree(trained_run, folder)
        evaluate(folder, Request(grid_rows=20))
        embed(folder)
        twin = folder.with_name("twin")
        shutil.copytree(folder, twin)
        with np.load(twin / "evaluation/answers.npz") as arrays:
            answers = dict(arrays)
        # The first five test rows are answered wrong: every view names the class after the true one.
        answers["test"] = answers["test"].copy()
        answers["test"][:5] = np.eye(10)[(answers["label"][:5] + 1) % 10][:, None]
        np.savez(twin / "evaluation/answers.npz", **answers)
        report(folder, (twin,))

    once(shared, folder / "report.html", make)
    return folder


@pytest.fixture
def evaluated_copy(evaluated: Path, tmp_path: Path) -> Path:
    """To be spoilt."""
    return _copied(evaluated, tmp_path / "run")


@pytest.fixture
def whole_copy(whole: Path, tmp_path: Path) -> Path:
    """To be spoilt."""
    return _copied(whole, tmp_path / "copy")


def _copied(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder))
