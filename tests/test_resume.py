"""A training process killed at several points and resumed ends with the weights of one that was not."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np

from tests.processes import SMALL, environment, run_train

FLAGS = (*SMALL, "--recipe", "robust", "--epochs", "5", "--deterministic", "--limit", "600")


def start(out: Path, *flags: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "kfusion.train", *FLAGS, "--out", str(out), *flags]
    return subprocess.Popen(
        command, cwd=out.parent, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def kill_when(process: subprocess.Popen, reached, then_wait_s: float) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(then_wait_s)
    assert process.poll() is None, "the run had ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.communicate()


def num_epochs(out: Path) -> int:
    history = out / "history.csv"
    return len(history.read_text().splitlines()) - 1 if history.exists() else 0


def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = run_train(*FLAGS, "--out", str(whole), cwd=tmp_path)
    assert done.returncode == 0, done.stderr

    # Before the first checkpoint; between two files of one epoch; in the middle of a later epoch.
    kill_when(start(broken), (broken / "config.json").exists, 0.5)
    kill_when(start(broken, "--resume"), (broken / "best.keras").exists, 0.0)
    kill_when(start(broken, "--resume"), lambda: num_epochs(broken) >= 2, 0.15)
    assert not (broken / "metrics.json").exists()
    done = run_train(*FLAGS, "--out", str(broken), "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr

    for name in ("last.keras", "best.keras"):
        weights = [keras.saving.load_model(folder / name).get_weights() for folder in (whole, broken)]
        for one, other in zip(*weights, strict=True):
            np.testing.assert_array_equal(one, other)
    with np.load(whole / "checkpoint.npz") as one, np.load(broken / "checkpoint.npz") as other:
        state = [name for name in one.files if name != "progress"]  # It holds speeds.
        assert all(np.array_equal(one[name], other[name]) for name in state)
    assert (whole / "metrics.json").read_text() == (broken / "metrics.json").read_text()
    assert not list(broken.glob(".partial-*"))


def test_resume_needs_the_settings_of_the_run(trained_run, tmp_path):
    done = run_train("--recipe", "paper", "--out", str(trained_run), "--resume", cwd=tmp_path)
    assert done.returncode == 2
    assert "'--resume' needs the settings of the run. Found: another data.limit, model.filters" in done.stderr
    assert done.stderr.count("\n") == 1


def test_resume_of_a_finished_run_changes_nothing(trained_run, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in trained_run.rglob("*")}
    done = run_train(
        "--recipe", "robust", *SMALL, "--epochs", "12", "--out", str(trained_run), "--resume", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "this run is finished already" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in trained_run.rglob("*")} == before


def test_resume_of_a_damaged_checkpoint_says_so(tmp_path):
    out = tmp_path / "run"
    process = start(out)
    kill_when(process, lambda: num_epochs(out) >= 1, 0.0)
    checkpoint = out / "checkpoint.npz"
    if not checkpoint.exists():  # Killed between the history and the first checkpoint.
        checkpoint.write_bytes(b"PK")
    checkpoint.write_bytes(checkpoint.read_bytes()[: -len(checkpoint.read_bytes()) // 2])
    done = run_train(*FLAGS, "--out", str(out), "--resume", cwd=tmp_path)
    assert done.returncode == 2
    assert "checkpoint.npz: a checkpoint must be whole. Found:" in done.stderr
    assert done.stderr.count("\n") == 1
