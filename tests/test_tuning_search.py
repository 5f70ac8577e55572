"""Whole searches in real processes: killed, resumed, in parallel, failing; on a slice of the built-in data."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from kfusion.config_file import load_config
from tests.conftest import ROOT, SMALL
from tuning.crew import core_shares, free_port
from tuning.trials import TRIALS, read_trials
from tuning.worker import address, reachable

FOUR = ("--tune", "hidden_dim=8,16", "embed_dim=8,16")
NAMES = ("hidden_dim", "embed_dim")
SLICE = (*SMALL, "--limit", "300", "--epochs", "1", "--deterministic")


def command(*flags):
    return [sys.executable, "-m", "tuning.search", *map(str, flags)]


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **more}


def search(cwd, *flags, **env):
    return subprocess.run(command(*flags), cwd=cwd, env=environment(**env), capture_output=True, text=True, timeout=150)


def start(cwd, *flags, **env):
    """A search that goes on beside the test; its output is in a file."""
    with (cwd / "output.txt").open("ab") as output:
        return subprocess.Popen(command(*flags), cwd=cwd, env=environment(**env), stdout=output, stderr=output)


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


def trials(folder, status=None):
    return [trial for trial in read_trials(folder, NAMES, 1) if status in (None, trial.status)]


def workers(folder):
    """The processes of the search in a folder, by their number."""
    found = subprocess.run(["pgrep", "-f", f"tuning.worker {folder}"], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """A grid of four trials, killed with kill -9 in its second trial and resumed."""
    cwd = tmp_path_factory.mktemp("grid")
    folder = cwd / "search"
    flags = (*SLICE, *FOUR, "--tuner", "grid", "--out", folder)
    process = start(cwd, *flags)
    wait_for(lambda: len(trials(folder, "completed")) == 1 and (folder / TRIALS / "trial_1" / "attempts.json").exists())
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not workers(folder))
    before = {path: path.stat().st_mtime_ns for path in folder.glob("trials/trial_0/repeat-0*")}
    done = search(cwd, *flags, "--resume")
    assert done.returncode == 0, done.stderr
    return folder, done, before


def test_a_killed_search_loses_no_trial_and_counts_none_twice(grid):
    folder, _, before = grid
    ended = trials(folder)
    assert [(trial.number, trial.status) for trial in ended] == [(n, "completed") for n in range(4)]
    assert [(t.values["hidden_dim"], t.values["embed_dim"]) for t in ended] == [(8, 8), (8, 16), (16, 8), (16, 16)]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(pd.read_csv(folder / "trials.csv")) == 4


def test_the_report_names_the_best_trial_and_how_to_train_it(grid):
    folder, done, _ = grid
    table = pd.read_csv(folder / "trials.csv")
    best = table.loc[table["score"].idxmax()]
    config = load_config(folder / "best.json")
    assert (config.model.hidden_dim, config.model.embed_dim) == (best["hidden_dim"], best["embed_dim"])
    assert f"python -m kfusion.train --config {folder}/best.json" in done.stdout
    assert json.loads((folder / "trials.json").read_text())["completed"] == 4
    assert {path.name for path in (folder / "figures").glob("*.png")} >= {"paper_claim.png", "progress.png"}


def test_a_trial_is_the_training_run_that_its_config_describes(grid, tmp_path):
    """The same epochs to the last digit, and no look at the test part."""
    folder, _, _ = grid
    number = json.loads((folder / "trials.json").read_text())["best"]
    trial = folder / TRIALS / f"trial_{number}" / "repeat-0"
    train = [
        sys.executable,
        "-m",
        "kfusion.train",
        "--config",
        str(folder / "best.json"),
        "--out",
        str(tmp_path / "run"),
    ]
    subprocess.run(train, check=True, env=environment(), capture_output=True, timeout=120)
    unequal = "samples_per_second"
    histories = [pd.read_csv(run / "history.csv").drop(columns=unequal) for run in (trial, tmp_path / "run")]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    assert (tmp_path / "run" / "metrics.json").exists() and not (trial / "metrics.json").exists()


def test_the_same_seed_gives_the_same_scores(grid, tmp_path):
    folder, _, _ = grid
    done = search(tmp_path, *SLICE, *FOUR, "--tuner", "grid", "--trials", "2", "--out", "again")
    assert done.returncode == 0, done.stderr
    first, second = (trials(place)[:2] for place in (folder, tmp_path / "again"))
    assert [[(r.score, r.val_loss) for r in trial.repeats] for trial in second] == [
        [(r.score, r.val_loss) for r in trial.repeats] for trial in first
    ]


def test_a_worker_that_is_killed_gets_its_trial_back(tmp_path):
    folder = tmp_path / "search"
    process = start(tmp_path, *SLICE, *FOUR, "--epochs", "4", "--workers", "2", "--repeats", "2", "--out", folder)
    trial = wait_for(lambda: [each for each in trials(folder, "running") if each.worker and len(each.repeats) == 1])[0]
    pids = [pid for pid in workers(folder) if f"KERASTUNER_TUNER_ID={trial.worker}\0" in environ(pid)]
    os.kill(pids[0], signal.SIGKILL)
    assert process.wait(timeout=150) == 0, (tmp_path / "output.txt").read_text()
    ended = trials(folder)
    assert [each.status for each in ended] == ["completed"] * 4
    assert [each.attempts for each in ended if each.number == trial.number] == [2]
    assert {repeat.seed for each in ended for repeat in each.repeats} == {0, 1}
    assert {each.worker for each in ended} == {"worker-0", "worker-1"}
    assert not workers(folder)


def environ(pid):
    return Path(f"/proc/{pid}/environ").read_text()


def test_a_search_without_a_completed_trial_ends_with_the_first_error(tmp_path):
    done = search(tmp_path, *SLICE, "--tune", "peak_learning_rate=1e30,1e31", "--out", "search")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "no trial was completed; the first failed with: ValueError: 'loss' must stay finite" in done.stderr
    assert "2 failed" in done.stdout and "'loss' must stay finite" in done.stdout
    assert not (tmp_path / "search" / "best.json").exists()


def test_hyperband_goes_on_from_the_weights_of_a_shorter_trial(tmp_path):
    flags = ("--tuner", "hyperband", "--epochs", "3", "--tune", "hidden_dim=4..40", "--out", "search")
    done = search(tmp_path, *SLICE, *flags)
    assert done.returncode == 0, done.stderr
    ended = read_trials(tmp_path / "search", ("hidden_dim",), 3)
    assert {trial.status for trial in ended} == {"completed"} and {trial.epochs for trial in ended} == {1, 3}
    places = [path for path in (tmp_path / "search" / TRIALS).glob("trial_*")]
    states = [json.loads((path / "trial.json").read_text())["hyperparameters"]["values"] for path in places]
    pairs = [(place, state) for place, state in zip(places, states, strict=True) if "tuner/trial_id" in state]
    assert pairs
    for place, state in pairs:
        parent = place.parent / f"trial_{state['tuner/trial_id']}"
        old, new = (pd.read_csv(each / "repeat-0" / "history.csv") for each in (parent, place))
        assert (len(old), len(new)) == (1, 3)
        pd.testing.assert_frame_equal(old, new[:1], check_exact=True)


def test_patience_ends_a_training_early(tmp_path):
    done = search(
        tmp_path, *SLICE, "--tune", "peak_learning_rate=1e-9", "--epochs", "9", "--patience", "2", "--out", "search"
    )
    assert done.returncode == 0, done.stderr
    (trial,) = read_trials(tmp_path / "search", (), 9)
    assert trial.repeats[0].epochs < 9


def test_a_deadline_ends_a_search_with_a_report(tmp_path):
    done = search(tmp_path, *SLICE, *FOUR, "--epochs", "200", "--deadline", "0.25", "--out", "search")
    assert done.returncode == 1
    assert "the deadline is reached" in done.stdout and "1 unfinished" in done.stdout
    assert done.stderr == "kfusion: no trial was completed\n"
    assert (tmp_path / "search" / "trials.csv").exists()


def test_refused_data_leave_nothing_behind(tmp_path):
    done = search(tmp_path, "--data", "nowhere", "--out", "deep/search")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("kfusion: 'data' must be") and done.stderr.count("\n") == 1
    assert not (tmp_path / "deep" / "search").exists()


def test_a_port_in_use_and_half_an_environment_are_one_line(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        chief = {"KERASTUNER_TUNER_ID": "chief", "KERASTUNER_ORACLE_IP": "127.0.0.1"}
        done = search(tmp_path, KERASTUNER_ORACLE_PORT=port, **chief)
        assert done.returncode == 2 and f"127.0.0.1:{port}: the chief must be able to listen there" in done.stderr
    done = search(tmp_path, **chief)
    assert done.returncode == 2 and "Missing: KERASTUNER_ORACLE_PORT" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["KERASTUNER_ORACLE_IP", "KERASTUNER_TUNER_ID"])
def test_an_environment_with_a_part_missing_is_refused(missing, monkeypatch):
    names = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID")
    for name in names:
        monkeypatch.setenv(name, "8000")
    assert address() == ("8000", 8000)
    monkeypatch.delenv(missing)
    with pytest.raises(ValueError, match=f"Missing: {missing}"):
        address()


def test_a_finished_search_is_resumed_by_more_workers_at_once(grid):
    folder, _, _ = grid
    done = search(folder.parent, *SLICE, *FOUR, "--tuner", "grid", "--out", folder, "--resume", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert "4 trials completed" in done.stdout
    assert [trial.worker for trial in trials(folder)] == ["worker-0"] * 4


def test_a_chief_that_is_not_there_is_said_within_30_seconds(tmp_path):
    began = time.monotonic()
    where = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(free_port())}
    done = search(tmp_path, KERASTUNER_TUNER_ID="second-machine", **where)
    assert done.returncode == 2 and "a chief must listen there. Found: none in 20 s" in done.stderr
    assert time.monotonic() - began < 30
    assert list(tmp_path.iterdir()) == []


def test_two_machines_share_a_search(tmp_path):
    """Here two commands on one machine: a chief that trains nothing, and a worker."""
    where = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(free_port())}
    flags = (*SLICE, *FOUR, "--trials", "2", "--out", tmp_path / "search")
    chief = start(tmp_path, *flags, KERASTUNER_TUNER_ID="chief", **where)
    wait_for(lambda: reachable((where["KERASTUNER_ORACLE_IP"], int(where["KERASTUNER_ORACLE_PORT"])), 0.0))
    helper = search(tmp_path, *flags, KERASTUNER_TUNER_ID="second", **where)
    assert helper.returncode == 0, helper.stderr
    assert chief.wait(timeout=60) == 0
    assert [trial.worker for trial in trials(tmp_path / "search", "completed")] == ["second", "second"]
    assert "2 trials completed" in (tmp_path / "output.txt").read_text()


def test_an_existing_search_is_kept(grid, tmp_path):
    folder, _, _ = grid
    done = search(tmp_path, *SLICE, *FOUR, "--tuner", "grid", "--out", folder)
    assert done.returncode == 2 and "an existing search is kept" in done.stderr
    done = search(tmp_path, *SLICE, *FOUR, "--tuner", "random", "--out", folder, "--resume")
    assert done.returncode == 2 and "Found: another tuner" in done.stderr


def test_cores_are_dealt_and_used_twice_only_where_they_are_too_few(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4})
    assert core_shares(1) == ["0,1,2,3,4"]
    assert core_shares(2) == ["0,2,4", "1,3"]
    assert core_shares(6) == ["0", "1", "2", "3", "4", "0"]
