"""Searches of several processes: a worker killed, a chief that is not there, machines that share a folder."""

import os
import signal
import socket
import sys
import time

import pytest

from kfusion.prepared_data import gather
from tests.processes import fails, in_process, wait_for
from tests.searches import FOUR, PROC, SLICE, said, search, start, trials, workers
from tuning.process_pool import (
    MAX_DEATHS,
    PATIENCE_SECONDS,
    PoolError,
    PoolProcess,
    ProcessPool,
    address,
    core_shares,
    free_port,
    reachable,
)
from tuning.space import read_plan
from tuning.tuner import FusionHyperModel, SearchTuner


@pytest.mark.slow
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


@pytest.fixture
def played_by(tmp_path, monkeypatch):
    """Puts a line of shell in the place of every worker."""

    def play(line: str) -> None:
        script = tmp_path / "worker.sh"
        script.write_text(f"#!/bin/sh\n{line}\n")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))

    return play


def died(process: PoolProcess) -> bool:
    return process.status() is not None


def test_a_worker_that_dies_is_started_again_under_its_name_but_not_for_ever(tmp_path, played_by):
    played_by("echo $KERASTUNER_TUNER_ID; exec sleep 60")
    pool = ProcessPool(tmp_path, ["worker-0", "worker-1"])
    pool.start()
    victim, other = pool.processes
    pids = {each.process.pid for each in pool.processes if each.process}
    try:
        for deaths in range(1, MAX_DEATHS + 1):
            assert victim.process and other.process
            wait_for(lambda: victim.log.read_text().count("\n") == deaths)  # noqa: B023
            victim.process.kill()
            wait_for(lambda: died(victim))
            assert pool.check(num_ended=0) is False
            assert victim.process.pid not in pids and other.process.pid in pids
        wait_for(lambda: victim.log.read_text() == "worker-0\n" * (MAX_DEATHS + 1))
        assert victim.process
        victim.process.kill()
        wait_for(lambda: died(victim))
        with pytest.raises(PoolError, match=f"worker-0 died {MAX_DEATHS + 1} times in a row.* ends with: worker-0"):
            pool.check(num_ended=0)
        # A trial that has ended since makes good for the deaths before it.
        assert pool.check(num_ended=1) is False
    finally:
        pool.stop()
    assert all(died(each) for each in pool.processes)


def test_a_worker_that_refuses_its_input_ends_the_search_with_its_words_and_status(tmp_path, played_by):
    played_by("echo kfusion: it is all wrong; exit 2")
    done = in_process("tuning.search", *SLICE, *FOUR, "--out", tmp_path / "search")
    fails(done, "kfusion: it is all wrong")
    assert not (tmp_path / "search").exists()


class Alone(ProcessPool):
    """One worker that runs all trials in this process, at once."""

    def start(self) -> None:
        plan = read_plan(self.folder)
        SearchTuner(plan, self.folder, gather(plan.config)).search()

    def check(self, num_ended: int) -> bool:
        return True


def test_a_search_without_a_completed_trial_ends_with_the_first_error(tmp_path, monkeypatch):
    def diverge(*_):
        raise ValueError("'loss' must\nstay finite")

    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker-0")
    monkeypatch.setattr(FusionHyperModel, "build", diverge)
    monkeypatch.setattr("tuning.search.ProcessPool", Alone)
    done = in_process("tuning.search", *SLICE, "--tune", "peak_learning_rate=1e30,1e31", "--out", tmp_path / "search")
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()  # Above it lie the worker's tracebacks, elsewhere in its log.
    assert last == "kfusion: no trial was completed; the first failed with: ValueError: 'loss' must stay finite"
    assert "2 failed" in done.stdout and "'loss' must stay finite" in done.stdout
    assert not (tmp_path / "search" / "best.json").exists()


def test_a_port_in_use_and_half_an_environment_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        with monkeypatch.context() as patch:
            patch.setenv("KERASTUNER_ORACLE_PORT", port)
            done = in_process("tuning.search", cwd=tmp_path)
        fails(done, f"127.0.0.1:{port}: the chief must be able to listen there")
    fails(in_process("tuning.search", cwd=tmp_path), "Missing: KERASTUNER_ORACLE_PORT")
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


def test_a_chief_that_is_not_there_is_waited_for_a_while_and_told(tmp_path, monkeypatch):
    assert 10 <= PATIENCE_SECONDS <= 30
    monkeypatch.setattr("tuning.search.PATIENCE_SECONDS", 0.5)
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "second-machine")
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(free_port()))
    began = time.monotonic()
    fails(in_process("tuning.search", cwd=tmp_path), "a chief must listen there. Found: none in 0.5 s")
    assert 0.5 < time.monotonic() - began < 10
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
