"""The oracles: the same seed gives the same trials, and a kill between any two files loses none and repeats none."""

import json
from typing import Any

import pytest

from kfusion.config import Config
from tuning.space import Plan, Settings
from tuning.tuner import make_oracle

FOUR = ("hidden_dim=8,16", "embed_dim=8,16")


def oracle_of(folder, tuner: Any = "random", **settings):
    oracle = make_oracle(Plan(Settings(tuner, **{"tune": FOUR, **settings}), Config()))
    oracle._set_project_dir(str(folder), "trials")
    return oracle


def reloaded(folder, *args, **settings):
    oracle = oracle_of(folder, *args, **settings)
    oracle.reload()
    return oracle


def finish(oracle, trial, score=0.5):
    oracle.update_trial(trial.trial_id, {"val_accuracy": score})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)


def values(trial):
    return trial.hyperparameters.values


def drain(oracle, tuner_id="w"):
    """Runs all that is left; the values of each trial by name."""
    ran = {}
    while (trial := oracle.create_trial(tuner_id)).status == "RUNNING":
        ran[trial.trial_id] = dict(values(trial))
        finish(oracle, trial, score=0.1 * len(ran))
    assert trial.status == "STOPPED"
    return ran


@pytest.mark.parametrize("tuner", ["random", "bayesian", "grid"])
def test_all_settings_are_tried_once(tuner, tmp_path):
    ran = drain(oracle_of(tmp_path, tuner))
    assert sorted(tuple(each.values()) for each in ran.values()) == [(8, 8), (8, 16), (16, 8), (16, 16)]


def test_a_grid_goes_through_the_last_parameter_first(tmp_path):
    ran = drain(oracle_of(tmp_path, "grid"))
    assert [(each["hidden_dim"], each["embed_dim"]) for each in ran.values()] == [(8, 8), (8, 16), (16, 8), (16, 16)]


@pytest.mark.parametrize("tuner", ["random", "bayesian", "hyperband"])
def test_the_same_seed_gives_the_same_trials_seed_0_too(tuner, tmp_path):
    settings = {"tune": ("dropout=0..0.5", "hidden_dim"), "trials": 6}
    first = drain(oracle_of(tmp_path / "a", tuner, **settings))
    assert len(first) == 6
    assert drain(oracle_of(tmp_path / "b", tuner, **settings)) == first


@pytest.mark.parametrize("tuner", ["random", "bayesian", "grid", "hyperband"])
def test_a_restart_after_each_trial_changes_no_trial(tuner, tmp_path):
    settings = {} if tuner == "grid" else {"tune": ("dropout=0..0.5", "hidden_dim"), "trials": 6}
    whole = drain(oracle_of(tmp_path / "whole", tuner, **settings))
    ran = {}
    oracle_of(tmp_path / "cut", tuner, **settings).save()
    while (trial := (oracle := reloaded(tmp_path / "cut", tuner, **settings)).create_trial("w")).status == "RUNNING":
        ran[trial.trial_id] = dict(values(trial))
        finish(oracle, trial, score=0.1 * len(ran))
    assert ran == whole


@pytest.mark.parametrize("tuner", ["random", "grid"])
def test_a_trial_that_was_running_is_run_again_and_counts_once(tuner, tmp_path):
    oracle = oracle_of(tmp_path, tuner)
    finish(oracle, oracle.create_trial("a"))
    running = oracle.create_trial("a")
    again = reloaded(tmp_path, tuner)
    trial = again.create_trial("another")
    assert (trial.trial_id, values(trial)) == (running.trial_id, values(running))
    finish(again, trial)
    assert len(drain(again)) == 2


def test_a_trial_that_ended_just_before_the_kill_is_not_run_again(tmp_path):
    oracle = oracle_of(tmp_path)
    trial = oracle.create_trial("a")
    finish(oracle, trial)  # keras-tuner's file still lists it as running here.
    assert json.loads((tmp_path / "trials" / "oracle.json").read_text())["ongoing_trials"] == {"a": trial.trial_id}
    again = reloaded(tmp_path)
    assert len(drain(again)) == 3
    assert again.trials[trial.trial_id].score == 0.5


def test_a_trial_that_had_been_drawn_but_not_listed_is_drawn_again(tmp_path):
    oracle = oracle_of(tmp_path)
    finish(oracle, oracle.create_trial("a"))
    before = (tmp_path / "trials" / "oracle.json").read_text()
    drawn = oracle.create_trial("a")
    (tmp_path / "trials" / "oracle.json").write_text(before)  # As if killed between the two files.
    trial = reloaded(tmp_path).create_trial("a")
    assert (trial.trial_id, values(trial)) == (drawn.trial_id, values(drawn))


def test_a_worker_that_asks_again_under_its_name_gets_its_trial_back(tmp_path):
    oracle = oracle_of(tmp_path)
    trial = oracle.create_trial("a")
    assert oracle.create_trial("b").trial_id != trial.trial_id
    assert oracle.create_trial("a").trial_id == trial.trial_id


def test_a_damaged_file_is_named(tmp_path):
    oracle = oracle_of(tmp_path)
    finish(oracle, oracle.create_trial("a"))
    (tmp_path / "trials" / "oracle.json").write_text('{"half')
    with pytest.raises(ValueError, match="must be the state of a search"):
        reloaded(tmp_path)


def test_who_goes_on_may_have_another_name_than_who_began(tmp_path, monkeypatch):
    """Alone first, then as the chief of several: the same search."""
    from tuning.tuner import SearchTuner

    plan = Plan(Settings("bayesian", tune=FOUR), Config())
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker-0")
    alone = SearchTuner(plan, tmp_path)
    alone.on_search_begin()
    finish(alone.oracle, alone.oracle.create_trial("worker-0"))
    alone.save()
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "1")
    chief = SearchTuner(plan, tmp_path)
    assert list(chief.oracle.trials) == list(alone.oracle.trials)
    assert len(drain(chief.oracle)) == 3
