"""The end of a search: its files say what was found, and what is printed helps to judge it."""

import json
import shlex
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console

from kfusion.config import Config, TrainingConfig
from kfusion.run_dir import load_config
from tests.searches import completed, failed, plan, running
from tuning import report as reports
from tuning.report import show, write_report

TRIALS = [
    failed(2, "OSError: full"),
    completed(0, 0.97, 0.99, hidden_dim=128, embed_dim=32),
    completed(1, 0.98, 1.0, hidden_dim=256, embed_dim=64),
    running(3, 4, hidden_dim=64, embed_dim=32),
]


@pytest.fixture
def undrawn(monkeypatch):
    """Reports without figures, which take longer than all else."""
    monkeypatch.setattr(reports, "DRAWN", {})


def text_of(report, width: int = 80) -> str:
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    with console.capture() as capture:
        show(report, console)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def report_on(folder, trials, *, complete: bool = True, seconds: float = 100.0, tune=(), **settings):
    return write_report(folder, plan(*tune, **settings), trials, seconds=seconds, complete=complete)


def test_the_table_of_trials_has_a_row_per_trial_by_number(tmp_path, undrawn):
    report_on(tmp_path, TRIALS, repeats=2)
    table = pd.read_csv(tmp_path / "trials.csv")
    head = "number status hidden_dim embed_dim score score_sd best_epoch epochs seconds weights attempts worker reason"
    assert list(table) == head.split()
    assert table["number"].tolist() == [0, 1, 2, 3]
    assert table["hidden_dim"].tolist() == [128, 256, 64, 64]
    assert table["status"].tolist() == ["completed", "completed", "failed", "running"]
    assert table["score"].dropna().tolist() == pytest.approx([0.98, 0.99])
    # Of two numbers d apart, the sample standard deviation is d / √2.
    assert table["score_sd"].dropna().tolist() == pytest.approx([0.02 / 2**0.5] * 2)
    assert table["reason"].dropna().tolist() == ["OSError: full"]
    assert (tmp_path / "trials.csv").read_text().splitlines()[1].endswith(",18.0,20,82.0,1000,1,worker-0,")


def test_the_table_has_one_column_of_epochs_where_they_are_tuned(tmp_path, undrawn):
    trial = replace(completed(0, 0.9, epochs=10), values={"hidden_dim": 64, "epochs": 10})
    report_on(tmp_path, [trial], tune=("hidden_dim", "epochs"))
    table = pd.read_csv(tmp_path / "trials.csv")
    assert list(table).count("epochs") == 1
    assert table["epochs"].tolist() == [10]


def test_the_file_of_everything_holds_each_training_and_the_counts(tmp_path, undrawn):
    report_on(tmp_path, TRIALS, repeats=2, complete=False, seconds=12.5)
    found = json.loads((tmp_path / "trials.json").read_text())
    assert {name: found[name] for name in ("complete", "seconds", "completed", "failed", "unfinished", "best")} == {
        "complete": False,
        "seconds": 12.5,
        "completed": 2,
        "failed": 1,
        "unfinished": 1,
        "best": 1,
    }
    assert [each["score"] for each in found["trials"][0]["repeats"]] == [0.97, 0.99]
    assert found["trials"][0]["seconds"] == 82.0
    assert found["spread"]["degrees_of_freedom"] == 2
    assert found["settings"]["repeats"] == 2
    assert found["config"]["model"]["hidden_dim"] == 256


def test_the_config_of_the_best_is_the_plans_with_its_values(tmp_path, undrawn):
    config = Config(training=TrainingConfig(epochs=7))
    best = completed(1, 0.99, hidden_dim=64, filters="16x32", peak_learning_rate=0.003)
    search = replace(plan("hidden_dim", "filters", "peak_learning_rate"), config=config)
    other = completed(0, 0.9, hidden_dim=512, filters="64x128", peak_learning_rate=0.001)
    write_report(tmp_path, search, [other, best], seconds=1.0, complete=True)
    found = load_config(tmp_path / "best.json")
    assert found.model == replace(config.model, hidden_dim=64, filters=(16, 32))
    assert found.training == replace(config.training, peak_learning_rate=0.003)


def test_without_a_completed_trial_there_is_no_best_and_no_figure_and_old_ones_go(tmp_path):
    figures = tmp_path / "figures"
    figures.mkdir()
    old = [tmp_path / "best.json", figures / "progress.png", figures / "progress.svg", figures / "mine.png"]
    for path in old:
        path.write_text("old")
    report = report_on(tmp_path, TRIALS[:1])
    assert [path.name for path in old if path.exists()] == ["mine.png"]
    assert report.best is None
    assert "0 trials completed, 1 failed" in text_of(report)
    assert "--config" not in text_of(report)


def test_the_report_draws_the_figures_that_have_a_meaning(tmp_path):
    report_on(tmp_path, [completed(0, 0.98, embed_dim=32), completed(1, 0.99, embed_dim=64)], tune=("embed_dim",))
    names = [path.name for path in sorted((tmp_path / "figures").iterdir())]
    drawn = ("progress", "score_by_parameter")
    assert names == [f"{name}.{kind}" for name in drawn for kind in ("png", "svg")]


def test_what_is_printed_is_what_the_file_holds(tmp_path, undrawn):
    report = report_on(tmp_path, TRIALS, repeats=2, complete=False)
    text = (tmp_path / "report.txt").read_text()
    assert text == text_of(report) == text_of(report, width=200)
    assert "2 trials completed, 1 failed, 1 unfinished, in 1 min 40 s\n" in text
    assert "is not complete; the same command with --resume goes on" in text
    assert "best: hidden_dim 256, embed_dim 64\n" in text
    assert "val_accuracy 0.9900 ± 0.0141 (± sd of 2 repeats; best epoch 18), trial 1\n" in text


def test_the_five_best_are_listed_best_first(tmp_path, undrawn):
    scores = [0.91, 0.97, 0.93, 0.99, 0.95, 0.98]
    text = text_of(report_on(tmp_path, [completed(at, score) for at, score in enumerate(scores)]))
    table = text.split("time\n")[1].splitlines()[1:6]
    assert [row.split()[:4] for row in table] == [
        [str(number), "256", "128", score]
        for number, score in ((3, "0.9900"), (5, "0.9800"), (1, "0.9700"), (4, "0.9500"), (2, "0.9300"))
    ]


def test_the_best_of_many_parameters_stand_in_columns_of_80_characters(tmp_path, undrawn):
    names = ("hidden_dim", "filters", "fusion", "modality_dropout", "peak_learning_rate", "weight_decay")
    values = dict(zip(names, (256, "64x128", "attention", 0.15, 0.0003, 0.05), strict=True))
    trials = [completed(at, 0.9, 0.8, **values) for at in range(100, 106)]
    lines = text_of(report_on(tmp_path, trials, tune=names, repeats=2)).splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("trial "))
    assert lines[start].split() == ["trial", "100", "101", "102", "103", "104"]
    assert lines[start + 2].split() == ["score", *["0.8500"] * 5]
    assert lines[start + 3].split() == ["±", "0.0707"] * 5
    assert lines[start + 6].split() == ["fusion", *["attention"] * 5]
    assert max(len(line) for line in lines[: start + 12]) <= 80


def test_repeats_tell_how_many_settings_cannot_be_told_from_the_best(tmp_path, undrawn):
    means = [0.990, 0.9881, 0.985, 0.9872]
    trials = [completed(at, mean - 0.0005, mean + 0.0005) for at, mean in enumerate(means)]
    text = text_of(report_on(tmp_path, trials, repeats=2))
    assert "scatter by 0.0007 (standard deviation, 4 degrees of freedom)" in text
    assert "more than 0.0020 apart" in text
    assert "1 of the 3 other settings cannot be told from the best" in text
    assert "--repeats" not in text


def test_single_trainings_are_told_how_chance_could_be_known(tmp_path, undrawn):
    assert "`--repeats 3` would tell" in text_of(report_on(tmp_path, [completed(0, 0.9)]))


def test_the_best_of_hyperband_is_one_of_the_longest_trainings(tmp_path, undrawn):
    trials = [completed(0, 0.99, epochs=3, hidden_dim=64), completed(1, 0.9, epochs=20, hidden_dim=512)]
    report = report_on(tmp_path, trials, tuner="hyperband", tune=("hidden_dim",))
    assert load_config(tmp_path / "best.json").model.hidden_dim == 512
    text = text_of(report)
    assert "The best is that of the 1 trial of 20 epochs" in text
    assert "--repeats" not in text


def test_each_reason_of_failure_is_named_once_with_its_count(tmp_path, undrawn):
    trials = [completed(0, 0.9), failed(1, "rare"), failed(2, "[red]often"), failed(3, "[red]often")]
    text = text_of(report_on(tmp_path, trials))
    assert "3 trials failed:\n  2 × [red]often\n  1 × rare\n" in text


def test_the_command_that_trains_the_best_can_be_copied_whatever_the_folder_is_called(tmp_path, undrawn):
    folder = tmp_path / ("a long name with spaces & 'quotes' " * 3)
    folder.mkdir()
    text = text_of(report_on(folder, [completed(0, 0.9)]))
    (command,) = [line for line in text.splitlines() if "kfusion.train" in line]
    expected = ["python", "-m", "kfusion.train", "--config", str(folder / "best.json"), "--out", "runs/best"]
    assert shlex.split(command) == expected
