"""A training process killed at several points and resumed ends with the weights of one that was not."""

import shutil
import signal
import subprocess
import time
from pathlib import Path

import keras
import numpy as np
import pytest

import kfusion.model.build  # noqa: F401  # The layers that the networks are made of.
from tests.processes import SMALL, TRAINED, fails, in_process, run_train, start_verb

FLAGS = (*SMALL, "--recipe", "robust", "--epochs", "5", "--deterministic", "--limit", "600")


def start(out: Path, flags: tuple[str, ...], *more: str) -> subprocess.Popen[str]:
    words = (*flags, "--out", out, *more)
    return start_verb("kfusion.train", *words, cwd=out.parent, stdout=subprocess.DEVNULL)


def kill_when(process: subprocess.Popen[str], reached, then_wait_s: float) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(then_wait_s)
    assert process.poll() is None, "the run had ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.communicate()


def num_epochs(out: Path) -> int:
    history = out / "history.csv"
    return len(history.read_text().splitlines()) - 1 if history.exists() else 0


def equal(whole: Path, broken: Path) -> None:
    """Both runs ended with the same weights, the same state of the optimizer and the same figures."""
    for name in ("last.keras", "best.keras"):
        weights = [keras.saving.load_model(folder / name).get_weights() for folder in (whole, broken)]
        for one, other in zip(*weights, strict=True):
            np.testing.assert_array_equal(one, other)
    with np.load(whole / "checkpoint.npz") as one, np.load(broken / "checkpoint.npz") as other:
        state = [name for name in one.files if name != "progress"]  # It holds speeds.
        assert len(state) > 20 and all(np.array_equal(one[name], other[name]) for name in state)
    assert (whole / "metrics.json").read_text() == (broken / "metrics.json").read_text()
    assert not list(broken.glob(".partial-*"))


def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(trained_run, tmp_path, deterministic, undrawn):
    """Killed between two files of one epoch by kill -9; resumed in another process."""
    broken = tmp_path / "broken"
    kill_when(start(broken, TRAINED), (broken / "best.keras").exists, 0.0)
    assert not (broken / "metrics.json").exists()
    done = in_process("kfusion.train", *TRAINED, "--out", broken, "--resume")
    assert done.returncode == 0, done.stderr
    equal(trained_run, broken)


@pytest.mark.slow
def test_killed_at_several_points_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = run_train(*FLAGS, "--out", whole, cwd=tmp_path)
    assert done.returncode == 0, done.stderr

    # Before the first checkpoint; between two files of one epoch; in the middle of a later epoch.
    kill_when(start(broken, FLAGS), (broken / "config.json").exists, 0.5)
    kill_when(start(broken, FLAGS, "--resume"), (broken / "best.keras").exists, 0.0)
    kill_when(start(broken, FLAGS, "--resume"), lambda: num_epochs(broken) >= 2, 0.15)
    assert not (broken / "metrics.json").exists()
    done = run_train(*FLAGS, "--out", broken, "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    equal(whole, broken)


def test_resume_needs_the_settings_of_the_run(trained_run):
    done = in_process("kfusion.train", "--recipe", "paper", "--out", trained_run, "--resume")
    fails(
        done,
        "'--resume' needs the settings of the run. Found: another data.word_copies, data.limit, model.filters",
    )


def test_resume_of_a_finished_run_changes_nothing(trained_run):
    before = {path: path.stat().st_mtime_ns for path in trained_run.rglob("*")}
    done = in_process("kfusion.train", *TRAINED, "--out", trained_run, "--resume")
    assert done.returncode == 0, done.stderr
    assert "this run is finished already" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in trained_run.rglob("*")} == before


def test_resume_of_a_damaged_checkpoint_says_so(trained_run, tmp_path):
    out = Path(shutil.copytree(trained_run, tmp_path / "run"))
    (out / "metrics.json").unlink()
    checkpoint = out / "checkpoint.npz"
    checkpoint.write_bytes(checkpoint.read_bytes()[: -len(checkpoint.read_bytes()) // 2])
    fails(in_process("kfusion.train", *TRAINED, "--out", out, "--resume"), "checkpoint.npz: a checkpoint must be whole")
    assert not (out / "metrics.json").exists()
