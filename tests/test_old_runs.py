"""Runs and versions that an earlier kfusion made go on working: made anew here, by that kfusion's own code."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.inputs import digits, write_arrays
from tests.processes import ROOT, SMALL, environment, run_verb

OLD = "756f9f4"
"""The last commit before the modules moved."""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    """A folder with `run`, finished, and `saved_models/kfusion/1`, exported from it."""
    folder = tmp_path_factory.mktemp("old")
    packed = subprocess.run(["git", "archive", OLD, "kfusion"], cwd=ROOT, capture_output=True)
    if packed.returncode:
        pytest.skip(f"needs the repository's commit {OLD}")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder / "code", filter="data")
    settings = {"cwd": folder, "env": environment(PYTHONPATH=str(folder / "code")), "check": True}
    flags = ("--recipe", "robust", *SMALL, "--epochs", "2", "--out", "run")
    subprocess.run([sys.executable, "-m", "kfusion.train", *flags], **settings)
    subprocess.run([sys.executable, "-m", "kfusion.export", "run"], **settings)
    return folder


def test_an_old_run_and_its_version_predict_the_same(old):
    """Before the run is evaluated, which tempers its confidences."""
    write_arrays(old / "data", *digits(50))
    for model, out in (("run", "run.csv"), ("saved_models/kfusion/1", "version.csv")):
        done = run_verb("kfusion.predict", model, "data", "--format", "full", "--out", out, cwd=old)
        assert done.returncode == 0, done.stderr
    one, other = (pd.read_csv(old / name) for name in ("run.csv", "version.csv"))
    assert one["label"].tolist() == other["label"].tolist()
    np.testing.assert_allclose(one["confidence"], other["confidence"], atol=1e-5)


def test_an_old_run_is_resumed_as_finished_and_trained_again_from_its_config(old):
    done = run_verb("kfusion.train", "--config", "run/config.json", "--out", "run", "--resume", cwd=old)
    assert done.returncode == 0 and "finished already" in done.stdout, done.stderr
    done = run_verb("kfusion.train", "--config", "run/config.json", "--epochs", 1, "--out", "again", cwd=old)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_an_old_run_is_evaluated_embedded_reported_and_exported(old):
    for verb, *flags in (("evaluate", "--no-grid"), ("embed",), ("report",), ("export", "--version", "2")):
        done = run_verb(f"kfusion.{verb}", "run", *flags, cwd=old)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    trained = json.loads((old / "run" / "metrics.json").read_text())["views"]
    judged = json.loads((old / "run" / "evaluation" / "evaluation.json").read_text())["views"]
    assert all(judged[view]["num_errors"] == trained[view]["num_errors"] for view in ("fused", "image", "audio"))
