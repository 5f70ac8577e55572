"""What is seen while a search runs: the table fits, says what is so, and takes no orders from what it shows."""

from typing import Any

import pytest
from rich.console import Console

from tests.searches import completed, failed, plan, running
from tuning.report import chosen, line, live_table, rows_for, seconds_left

FIVE = ("hidden_dim", "embed_dim", "peak_learning_rate", "fusion", "modality_dropout")
VALUES = {
    "hidden_dim": 256,
    "embed_dim": 128,
    "peak_learning_rate": 0.0003,
    "fusion": "attention",
    "modality_dropout": 0.15,
}


def printed(shown, width: int = 80, **given: Any) -> list[str]:
    settings: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, **given}
    console = Console(width=width, **settings)
    with console.capture() as capture:
        console.print(shown)
    return [each.rstrip() for each in capture.get().splitlines()]


def test_the_table_has_a_row_per_trial_with_its_state():
    trials = [
        completed(0, 0.9913, 0.9937, hidden_dim=256, embed_dim=128),
        running(1, 3, 0.98, hidden_dim=512, embed_dim=64),
        completed(2, 0.98, 0.98, hidden_dim=64, embed_dim=32),
    ]
    head, _, *rows = printed(live_table(trials, plan(repeats=2, trials=9), 723.0, 1))
    assert head.split() == ["#", "hidden", "embed", "epoch", "score", "time", "status"]
    assert rows[0].split() == ["*0", "256", "128", "18", "0.9925", "±", "0.0017", "1:22", "completed"]
    assert rows[1].split() == ["1", "512", "64", "3/20", "-", "0:41", "running,", "repeat", "2/2"]
    assert rows[2].split() == ["2", "64", "32", "18", "0.9800", "±", "0.0000", "1:22", "completed"]
    # 82 s · (7 trials left - (1 + 3/20) / 2 of the running one), one at a time: 526.9 s.
    assert rows[3] == "2/9 done, 0 failed | best 0.9925 | elapsed 12:03, left 8:47"


def test_the_table_marks_the_best_row_alone_and_in_bold():
    trials = [completed(0, 0.91), completed(1, 0.99), completed(2, 0.95)]
    rows = printed(live_table(trials, plan(), 1.0, 1), force_terminal=True, color_system="standard")[2:5]
    assert ["\x1b[1m" in row for row in rows] == [False, True, False]
    assert ["*" in row for row in rows] == [False, True, False]


@pytest.mark.parametrize("objective", ["val_accuracy", "val_loss"])
def test_the_table_of_the_default_parameters_fits_80_columns_and_cuts_no_cell_but_the_reason(objective):
    trials = [completed(at, 0.99, 0.9, 0.98, seconds=1300.0) for at in range(97, 101)]
    trials += [running(101, 19, 0.9, 0.8), failed(102, "ValueError: " + "a long story " * 20)]
    lines = printed(live_table(trials, plan(repeats=3, objective=objective), 40000.0, 1))
    assert max(map(len, lines)) <= 80
    assert ["…" in each for each in lines] == [False] * 7 + [True, False]
    assert "failed: ValueError" in lines[7]
    assert lines[6].endswith("running, repeat 3/3")


def test_the_table_of_five_parameters_fits_120_columns_and_cuts_no_cell():
    trials = [completed(at, 0.99, 0.9, seconds=1300.0, **VALUES) for at in range(99, 102)]
    lines = printed(
        live_table([*trials, running(102, 9, 0.9, **VALUES)], plan(*FIVE, repeats=2), 40000.0, 1), width=120
    )
    assert len(lines) == 7
    assert max(map(len, lines)) <= 120
    assert "…" not in "".join(lines)
    assert lines[0].split()[:8] == ["#", "hidden", "embed", "peak", "lr", "fusion", "mod", "drop"]
    assert lines[2].split()[:6] == ["*99", "256", "128", "0.0003", "attention", "0.15"]
    assert "| best 0.9450 | elapsed 11:06:40, left" in lines[-1]


def test_the_table_of_more_than_fits_is_cut_by_rich_and_stays_on_one_line_each():
    lines = printed(live_table([completed(0, 0.99, 0.9, **VALUES)], plan(*FIVE, repeats=2), 1.0, 1), width=60)
    assert max(map(len, lines)) <= 60
    assert len(lines) == 4
    assert "…" in lines[2]


def test_the_table_is_no_higher_than_the_terminal_and_says_how_much_is_hidden():
    trials = [completed(0, 0.99), running(1, 2), *(completed(number, 0.9) for number in range(2, 60))]
    lines = printed(live_table(trials, plan(trials=80), 1.0, 1, rows_for(12)))
    assert len(lines) < 12
    assert [row.split()[0] for row in lines[2:-2]] == ["*0", "1", "55", "56", "57", "58", "59"]
    assert lines[-2] == "53 trials not shown"


def test_trials_are_chosen_in_the_order_best_running_latest():
    trials = [completed(0, 0.9), running(1, 2), completed(2, 0.99), completed(3, 0.9), running(4, 2), failed(5, "no")]
    expected = {1: [2], 2: [2, 4], 3: [1, 2, 4], 4: [1, 2, 4, 5], 5: [1, 2, 3, 4, 5], 9: [0, 1, 2, 3, 4, 5]}
    for rows, numbers in expected.items():
        assert [trial.number for trial in chosen(trials, plan(), rows)] == numbers


def test_the_table_shows_markup_and_steering_characters_of_a_reason_as_plain_text():
    trials = [failed(0, "[red]no[/red] :smile:\x1b[31m\x07\nmore")]
    lines = printed(live_table(trials, plan(trials=9), 1.0, 1), width=100, markup=True, emoji=True)
    assert lines[2].endswith("failed: [red]no[/red] :smile: [31m more")
    assert lines[3].startswith("1/9 done, 1 failed | best - |")


def test_the_table_before_the_first_trial_knows_no_time():
    assert printed(live_table([], plan(trials=9), 5.0, 1))[-1] == "0/9 done, 0 failed | best - | elapsed 0:05, left -"


def test_the_table_of_hyperband_promises_no_end():
    trials = [completed(0, 0.99, epochs=3), completed(1, 0.98, epochs=20)]
    lines = printed(live_table(trials, plan(tuner="hyperband"), 5.0, 1))
    assert lines[-1] == "2 done, 0 failed | best 0.9800 | elapsed 0:05, left -"
    assert lines[3].startswith("*1")


def test_the_time_left_is_that_of_the_trials_to_come_shared_among_workers():
    trials = [completed(0, 0.9, seconds=10.0), completed(1, 0.9, seconds=30.0), running(2, 5), failed(3, "no")]
    # Of 10 trials, 7 are left, and a quarter of one is done: 6.75 · 20 s.
    assert seconds_left(trials, plan(trials=10), 1) == pytest.approx(135)
    assert seconds_left(trials, plan(trials=10), 3) == pytest.approx(45)
    # The last one is not quicker for idle workers.
    assert seconds_left(trials, plan(trials=4), 3) == pytest.approx(15)
    assert seconds_left(trials[:2], plan(trials=2), 3) == 0


def test_the_time_left_is_not_known_without_a_completed_trial_or_a_number_of_trials():
    assert seconds_left([running(0, 5), failed(1, "no")], plan(trials=10), 1) is None
    assert seconds_left([completed(0, 0.9)], plan(tuner="hyperband"), 1) is None


def test_a_line_tells_of_a_completed_trial():
    expected = "trial 7 completed: hidden_dim 256, embed_dim 128; val_accuracy 0.9925 ± 0.0012 "
    trial = completed(7, 0.9913, 0.9925, 0.9937, seconds=41 / 3)
    assert line(trial, plan(repeats=3)) == expected + "(3 repeats, best epoch 18), 41 s"


def test_a_line_of_a_single_training_claims_no_scatter():
    trial = completed(7, 0.03125, seconds=75.0, peak_learning_rate=1e-3 / 3)
    expected = "trial 7 completed: peak_learning_rate 0.0003333; val_loss 0.0312 (best epoch 18), 1 min 15 s"
    assert line(trial, plan(objective="val_loss")) == expected


def test_a_line_tells_why_a_trial_failed():
    assert line(failed(2, "OSError: full\x1b"), plan()) == "trial 2 failed: hidden_dim 64, embed_dim 32; OSError: full"
