"""A job that is killed, and goes on; what a second command may and may not do."""

import os
import signal
import time

import numpy as np
import pandas as pd
import pytest

from kfusion.prediction import outputs
from kfusion.prediction.job import Job, predict
from kfusion.prediction.outputs import Work
from kfusion.spec import FUSED
from tests.exports import views
from tests.inputs import digits, write_arrays
from tests.processes import fails, full_disk, in_process, start_verb

NUM_ROWS = 4 * outputs.SHARD_ROWS + 1000


def test_a_killed_job_goes_on_after_its_last_complete_shard(trained_run, tmp_path):
    images, audio = digits(1000)
    repeated = np.arange(NUM_ROWS) % 1000
    write_arrays(tmp_path / "data", images[repeated], audio[repeated])
    words = (trained_run, tmp_path / "data", "--out", "out.csv")
    job = Work(tmp_path / "out.csv")
    process, deadline = start_verb("kfusion.predict", *words, cwd=tmp_path), time.monotonic() + 200
    while not job.part(outputs.SHARD_ROWS).exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = sorted(path for path in job.folder.glob("shard-*.csv"))
    assert 2 <= len(kept) < 5 and not job.out.exists()
    # A mark in a kept shard is found again in the output: it was not answered a second time.
    text = kept[1].read_text()
    kept[1].write_text(text.replace("\n8192,", "\n8192,100"))
    done = in_process("kfusion.predict", *words, "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"({NUM_ROWS - len(kept) * outputs.SHARD_ROWS:,} rows in " in done.stdout
    expected = views(trained_run, images, audio)[FUSED].argmax(axis=1)[repeated]
    table = pd.read_csv(tmp_path / "out.csv")
    assert table["row_id"].tolist() == list(range(NUM_ROWS))
    assert np.flatnonzero(table["label"] != expected).tolist() == [8192]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out.csv"]


def test_a_full_disk_is_one_line_and_costs_no_shard(trained_run, tmp_path, monkeypatch, capsys):
    """Two shards fit, the two joined do not."""
    images, audio = digits(1000)
    repeated = np.arange(outputs.SHARD_ROWS + 3000) % 1000
    write_arrays(tmp_path / "data", images[repeated], audio[repeated])
    words = (trained_run, tmp_path / "data", "--out", tmp_path / "out.csv")
    with full_disk(after_bytes=70_000):
        done = in_process("kfusion.predict", *words)
    fails(done, "Found: File too large; what is done is kept, --resume goes on from there")
    assert not (tmp_path / "out.csv").exists()
    assert in_process("kfusion.predict", *words, "--resume").returncode == 0
    assert "out.csv (0 rows in " in capsys.readouterr().out
    label = pd.read_csv(tmp_path / "out.csv")["label"]
    assert label.tolist() == views(trained_run, images, audio)[FUSED].argmax(axis=1)[repeated].tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out.csv"]


@pytest.fixture
def broken_off(trained_run, tmp_path, monkeypatch):
    """A job of which two shards of three are there."""
    monkeypatch.setattr(outputs, "SHARD_ROWS", 10)
    images, audio = digits(25)
    audio[4] = np.nan
    write_arrays(tmp_path / "data", images, audio)
    job = Work(tmp_path / "out.csv")
    keep = Work.keep

    def killed(self, start, *tables):
        if start == 20:
            raise KeyboardInterrupt
        keep(self, start, *tables)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Work, "keep", killed)
        predict(Job(trained_run, tmp_path / "data", job.out))
    assert [job.part(start).exists() for start in (0, 10, 20)] == [True, True, False]
    return job


def test_an_unfinished_job_is_kept_until_one_says_what_to_do(broken_off, trained_run, tmp_path, monkeypatch, capsys):
    words = (trained_run, tmp_path / "data", "--out", broken_off.out)
    assert in_process("kfusion.predict", *words).returncode == 2
    assert "an unfinished job is kept; --resume or --overwrite it, or choose another --out" in capsys.readouterr().err
    assert in_process("kfusion.predict", *words, "--resume", "--strict").returncode == 2
    assert "Found: row 4: audio: values must be finite" in capsys.readouterr().err
    assert in_process("kfusion.predict", *words, "--resume").returncode == 1
    assert "5 rows in" in (said := capsys.readouterr()).out and "1 row has no prediction" in said.err
    assert in_process("kfusion.predict", *words, "--resume").returncode == 1
    assert "finished already" in capsys.readouterr().out
    assert pd.read_csv(broken_off.errors)["row_id"].tolist() == [4]
    assert in_process("kfusion.predict", *words, "--overwrite").returncode == 1
    assert "25 rows in" in capsys.readouterr().out


@pytest.mark.parametrize(("flags", "what"), [(("--format", "full"), "format"), ((), "input")])
def test_another_job_is_not_mixed_with_it(flags, what, broken_off, trained_run, tmp_path, monkeypatch, capsys):
    if what == "input":
        os.utime(tmp_path / "data" / "images.npy", (1, 1))
    words = (trained_run, tmp_path / "data", "--out", broken_off.out, "--resume", *flags)
    assert in_process("kfusion.predict", *words).returncode == 2
    assert f"'--resume' needs the job that was begun. Found: another {what}\n" in capsys.readouterr().err
    assert broken_off.part(0).exists()


def test_a_second_program_is_kept_out(broken_off, trained_run, tmp_path, monkeypatch, capsys):
    with broken_off.lock():
        words = (trained_run, tmp_path / "data", "--out", broken_off.out, "--overwrite")
        assert in_process("kfusion.predict", *words).returncode == 2
    assert "another process is writing into this folder" in capsys.readouterr().err
    assert broken_off.part(0).exists()
