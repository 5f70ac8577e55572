"""Searches of several processes: a worker killed, a chief that is not there, machines that share a folder."""

import os
import signal
import socket
import time

import pytest

from tests.processes import wait_for
from tests.searches import FOUR, PROC, SLICE, said, search, start, trials, workers
from tuning.crew import core_shares, free_port
from tuning.worker import address, reachable


@pytest.mark.skipif(not PROC.is_dir(), reason="finds the worker in /proc")
def test_a_worker_that_is_killed_gets_its_trial_back(tmp_path):
    folder = tmp_path / "search"
    process = start(tmp_path, *SLICE, *FOUR, "--epochs", "4", "--workers", "2", "--repeats", "2", "--out", folder)
    trial = wait_for(lambda: [each for each in trials(folder, "running") if each.worker and len(each.repeats) == 1])[0]
    pids = [pid for pid in workers(folder) if f"KERASTUNER_TUNER_ID={trial.worker}\0" in said(pid, "environ")]
    os.kill(pids[0], signal.SIGKILL)
    assert process.wait(timeout=150) == 0, (tmp_path / "output.txt").read_text()
    ended = trials(folder)
    assert [each.status for each in ended] == ["completed"] * 4
    assert [each.attempts for each in ended if each.number == trial.number] == [2]
    assert {repeat.seed for each in ended for repeat in each.repeats} == {0, 1}
    assert {each.worker for each in ended} == {"worker-0", "worker-1"}
    assert not workers(folder)


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


def test_a_chief_that_is_not_there_is_said_within_30_seconds(tmp_path):
    began = time.monotonic()
    where = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(free_port())}
    done = search(tmp_path, KERASTUNER_TUNER_ID="second-machine", **where)
    assert done.returncode == 2 and "a chief must listen there. Found: none in 20 s" in done.stderr
    assert time.monotonic() - began < 30
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
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


def test_cores_are_dealt_and_used_twice_only_where_they_are_too_few(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4})
    assert core_shares(1) == ["0,1,2,3,4"]
    assert core_shares(2) == ["0,2,4", "1,3"]
    assert core_shares(6) == ["0", "1", "2", "3", "4", "0"]
