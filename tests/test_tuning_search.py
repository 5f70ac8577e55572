"""Whole searches in real processes: killed, resumed, failing, refused; on a slice of the built-in data."""

import json
import signal

import pandas as pd
import pytest

from kfusion.run_dir import load_config
from tests.processes import fails, in_process, wait_for
from tests.searches import FOUR, SLICE, TWO, search, start, trials, workers
from tuning.trials import TRIALS, read_trials


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """A grid of two trials, killed with kill -9 in the second one and resumed."""
    cwd = tmp_path_factory.mktemp("grid")
    folder = cwd / "search"
    flags = (*SLICE, *TWO, "--tuner", "grid", "--out", folder)
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
    assert [(trial.number, trial.status) for trial in ended] == [(0, "completed"), (1, "completed")]
    assert [(trial.values["hidden_dim"], trial.values["embed_dim"]) for trial in ended] == [(8, 8), (16, 8)]
    assert before and {path: path.stat().st_mtime_ns for path in before} == before
    assert len(pd.read_csv(folder / "trials.csv")) == 2


def test_the_report_names_the_best_trial_and_how_to_train_it(grid):
    folder, done, _ = grid
    table = pd.read_csv(folder / "trials.csv")
    best = table.loc[table["score"].idxmax()]
    config = load_config(folder / "best.json")
    assert (config.model.hidden_dim, config.model.embed_dim) == (best["hidden_dim"], best["embed_dim"])
    assert f"python -m kfusion.train --config {folder}/best.json" in done.stdout
    assert json.loads((folder / "trials.json").read_text())["completed"] == 2
    assert {path.name for path in (folder / "figures").glob("*.png")} >= {"paper_claim.png", "progress.png"}


@pytest.mark.slow
def test_a_trial_is_the_training_run_that_its_config_describes(grid, tmp_path, deterministic):
    """The same epochs to the last digit, and no look at the test part."""
    folder, _, _ = grid
    number = json.loads((folder / "trials.json").read_text())["best"]
    trial = folder / TRIALS / f"trial_{number}" / "repeat-0"
    done = in_process("kfusion.train", "--config", folder / "best.json", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    unequal = "samples_per_second"
    histories = [pd.read_csv(run / "history.csv").drop(columns=unequal) for run in (trial, tmp_path / "run")]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    assert (tmp_path / "run" / "metrics.json").exists() and not (trial / "metrics.json").exists()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_scores(grid, tmp_path):
    folder, _, _ = grid
    done = search(tmp_path, *SLICE, *TWO, "--tuner", "grid", "--out", "again")
    assert done.returncode == 0, done.stderr
    first, second = (trials(place)[:2] for place in (folder, tmp_path / "again"))
    assert [[(r.score, r.val_loss) for r in trial.repeats] for trial in second] == [
        [(r.score, r.val_loss) for r in trial.repeats] for trial in first
    ]


@pytest.mark.slow
def test_a_search_without_a_completed_trial_ends_with_the_first_error(tmp_path):
    done = search(tmp_path, *SLICE, "--tune", "peak_learning_rate=1e30,1e31", "--out", "search")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "no trial was completed; the first failed with: UserError: 'loss' must stay finite" in done.stderr
    assert "2 failed" in done.stdout and "'loss' must stay finite" in done.stdout
    assert not (tmp_path / "search" / "best.json").exists()


@pytest.mark.slow
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


@pytest.mark.slow
def test_patience_ends_a_training_early(tmp_path):
    done = search(
        tmp_path, *SLICE, "--tune", "peak_learning_rate=1e-9", "--epochs", "9", "--patience", "2", "--out", "search"
    )
    assert done.returncode == 0, done.stderr
    (trial,) = read_trials(tmp_path / "search", (), 9)
    assert trial.repeats[0].epochs < 9


@pytest.mark.slow
def test_a_deadline_ends_a_search_with_a_report(tmp_path):
    done = search(tmp_path, *SLICE, *FOUR, "--epochs", "200", "--deadline", "0.25", "--out", "search")
    assert done.returncode == 1
    assert "the deadline is reached" in done.stdout and "1 unfinished" in done.stdout
    assert done.stderr == "kfusion: no trial was completed\n"
    assert (tmp_path / "search" / "trials.csv").exists()


def test_refused_data_leave_nothing_behind(tmp_path):
    done = in_process("tuning.search", "--data", "nowhere", "--out", "deep/search", cwd=tmp_path)
    fails(done, "'data' must be")
    assert done.stdout == ""
    assert not (tmp_path / "deep" / "search").exists()


@pytest.mark.slow
def test_a_finished_search_is_resumed_by_more_workers_at_once(grid):
    folder, _, _ = grid
    done = search(folder.parent, *SLICE, *TWO, "--tuner", "grid", "--out", folder, "--resume", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert "2 trials completed" in done.stdout
    assert [trial.worker for trial in trials(folder)] == ["worker-0"] * 2


def test_an_existing_search_is_kept(grid):
    folder, _, _ = grid
    flags = ("tuning.search", *SLICE, *TWO, "--out", folder, "--tuner")
    fails(in_process(*flags, "grid"), "an existing search is kept")
    fails(in_process(*flags, "random", "--resume"), "Found: another tuner")
