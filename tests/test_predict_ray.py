"""`--engine ray`: the same output from several processes, whatever happens to one of them."""

import os
import signal
import time

import numpy as np
import pandas as pd
import pytest

from kfusion.prediction import outputs
from kfusion.prediction.job import Job, predict
from kfusion.prediction.outputs import Work
from tests.inputs import digits, write_arrays
from tests.processes import in_process, start_verb

pytest.importorskip("ray", reason="needs the extra ray")

PROC = "/proc"


def workers():
    """The processes of Ray that answer shards, by their number: Ray names a process after what it runs."""
    found = []
    for pid in filter(str.isdigit, os.listdir(PROC)):
        try:
            with open(f"{PROC}/{pid}/cmdline") as file:
                words = file.read()
        except OSError:
            continue
        if "ray::" in words and "ShardWorker" in words:
            found.append(int(pid))
    return found


def compare(folder, *names):
    """Row by row: the same labels, the same confidences but for the order in which threads add."""
    one, other = (pd.read_csv(folder / name) for name in names)
    pd.testing.assert_frame_equal(one, other, rtol=0, atol=3e-6)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir(PROC), reason="finds the worker in /proc")
def test_two_workers_one_of_them_killed_say_what_one_process_says(trained_run, tmp_path):
    images, audio = digits(1000)
    audio[500] = np.nan
    repeated = np.arange(4 * outputs.SHARD_ROWS + 500) % 1000
    write_arrays(tmp_path / "data", images[repeated], audio[repeated])
    words = (trained_run, tmp_path / "data", "--format", "full")
    assert predict(Job(trained_run, tmp_path / "data", tmp_path / "alone.csv", full=True)).num_bad == 33
    words = (*words, "--out", "ray.csv", "--engine", "ray")
    before, several = set(workers()), start_verb("kfusion.predict", *words, cwd=tmp_path)
    job, deadline = Work(tmp_path / "ray.csv"), time.monotonic() + 200
    while len(list(job.folder.glob("shard-*.csv"))) < 1 and several.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    mine = set(workers()) - before
    assert mine, several.communicate()
    os.kill(min(mine), signal.SIGKILL)
    said, wrong = several.communicate(timeout=300)
    assert several.returncode == 1, wrong
    assert wrong == "kfusion: 33 rows have no prediction; the reasons are in ray.errors.csv\n"
    assert f"({len(repeated):,} rows in " in said
    compare(tmp_path, "alone.csv", "ray.csv")
    compare(tmp_path, "alone.errors.csv", "ray.errors.csv")
    assert sorted(path.name for path in tmp_path.iterdir() if "alone" not in path.name) == [
        *("data", "ray.csv", "ray.errors.csv")
    ]


@pytest.mark.slow
def test_an_existing_cluster_of_two_machines_answers_alike(trained_run, tmp_path):
    from ray.cluster_utils import Cluster

    write_arrays(tmp_path / "data", *digits(1000))
    words = (trained_run, "data", "--format", "full")
    predict(Job(trained_run, tmp_path / "data", tmp_path / "alone.csv", full=True))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        flags = ("--engine", "ray", "--ray-address", cluster.address)
        several = start_verb("kfusion.predict", *words, "--out", "ray.csv", *flags, cwd=tmp_path)
        _, wrong = several.communicate(timeout=300)
        assert several.returncode == 0, wrong
    finally:
        cluster.shutdown()
    compare(tmp_path, "alone.csv", "ray.csv")


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1:1", "127.0.0.1:1: a Ray cluster must be there. Found: Connection refused"),
        ("somewhere", "'ray_address' must be HOST:PORT. Received: 'somewhere'"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(address, sentence, trained_run, tmp_path, monkeypatch, capsys):
    write_arrays(tmp_path / "data", *digits(10))
    monkeypatch.chdir(tmp_path)
    words = (trained_run, "data", "--engine", "ray", "--ray-address", address)
    assert in_process("kfusion.predict", *words).returncode == 2
    assert capsys.readouterr().err == f"kfusion: {sentence}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
