"""What repeats and trials allow one to say: each formula is recomputed another way."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.searches import completed, failed, plan, running
from tuning.trials import best_of, comparable, indistinct, main_effects, mean_and_error, spread


def test_spread_pools_the_repeats_within_trials_by_their_degrees_of_freedom():
    chance = spread([completed(0, 1.0, 3.0), completed(1, 14.0, 16.0, 18.0)])
    assert chance is not None
    # Squared deviations: 1 + 1 and 4 + 0 + 4, over 1 + 2 degrees of freedom.
    assert chance.degrees_of_freedom == 3
    assert chance.sd == pytest.approx(math.sqrt(10 / 3))
    assert chance.repeats == pytest.approx(2.4)  # 2 / (1/2 + 1/3)
    # 3.182: Student's t at 97.5 % for 3 degrees of freedom, from a printed table.
    assert chance.least_difference == pytest.approx(3.182 * math.sqrt(10 / 3) * math.sqrt(2 / 2.4), rel=1e-3)


def test_spread_does_not_see_how_far_the_trials_are_apart():
    near = spread([completed(0, 0.1, 0.2), completed(1, 0.1, 0.4)])
    far = spread([completed(0, 0.1, 0.2), completed(1, 7.1, 7.4)])
    assert near and far and near.sd == pytest.approx(far.sd)


def test_two_settings_that_are_the_least_difference_apart_are_told_apart_at_five_percent():
    scores = np.array([0.970, 0.975, 0.983])
    chance = spread([completed(0, *scores), completed(1, *scores[::-1])])
    assert chance is not None
    other = scores + chance.least_difference
    assert stats.ttest_ind(scores, other).pvalue == pytest.approx(0.05)


def test_spread_of_trials_without_repeats_is_not_known():
    assert spread([]) is None
    assert spread([completed(0, 0.9), completed(1, 0.8), failed(2, "no"), running(3, 1, 0.5, 0.7)]) is None


def test_spread_leaves_out_the_repeats_of_trials_that_were_not_completed():
    pair = completed(0, 0.8, 0.9)
    assert spread([pair, running(1, 2, 0.1, 0.9), failed(2, "no")]) == spread([pair])


def test_main_effects_are_means_and_standard_errors_over_the_trials_at_a_value():
    trials = [
        completed(0, 0.90, 0.92, hidden_dim=128, embed_dim=32),
        completed(1, 0.95, hidden_dim=64, embed_dim=32),
        completed(2, 0.94, 0.96, hidden_dim=128, embed_dim=64),
        completed(3, 0.99, hidden_dim=128, embed_dim=64),
        failed(4, "no", hidden_dim=256),
    ]
    effects = main_effects(trials, "hidden_dim")
    table = pd.DataFrame({"size": [128, 64, 128, 128], "score": [0.91, 0.95, 0.95, 0.99]}).groupby("size")["score"]
    assert [each.value for each in effects] == [64, 128]
    assert [each.mean for each in effects] == pytest.approx(table.mean().tolist())
    assert [each.standard_error for each in effects] == pytest.approx(table.sem().tolist(), nan_ok=True)
    assert [each.num_trials for each in effects] == [1, 3]


def test_main_effects_stand_in_the_order_of_numbers_and_of_words():
    values = [512, 64, 128]
    assert [each.value for each in main_effects([completed(at, 0.9, x=v) for at, v in enumerate(values)], "x")] == [
        64,
        128,
        512,
    ]
    words = ["lstm", "attention", "late"]
    found = main_effects([completed(at, 0.9, x=word) for at, word in enumerate(words)], "x")
    assert [each.value for each in found] == ["attention", "late", "lstm"]


def test_mean_and_error_of_a_single_score_has_no_error():
    mean, error = mean_and_error([0.5])
    assert mean == 0.5
    assert math.isnan(error)


def test_best_is_the_highest_accuracy_or_the_lowest_loss_and_of_equals_the_earlier():
    trials = [completed(0, 0.4), completed(1, 0.7), completed(2, 0.7), running(3, 1), failed(4, "no")]
    assert [trial.number for trial in comparable(trials, plan())] == [1, 2, 0]
    assert [trial.number for trial in comparable(trials, plan(objective="val_loss"))] == [0, 1, 2]
    assert best_of([running(3, 1), failed(4, "no")], plan()) is None


def test_best_of_hyperband_is_sought_among_the_trainings_of_the_most_epochs():
    trials = [completed(0, 0.9, epochs=3), completed(1, 0.7, epochs=20), completed(2, 0.8, epochs=20)]
    assert [trial.number for trial in comparable(trials, plan(tuner="hyperband"))] == [2, 1]
    assert [trial.number for trial in comparable(trials, plan(tuner="random"))] == [0, 2, 1]


def test_indistinct_trials_are_those_within_the_least_difference_of_the_best():
    # Each pair is 0.001 apart, so that sd = 0.001 / √2; t(0.975, 4) = 2.776 from a printed table, and √(2 / n) = 1.
    means = [0.990, 0.9881, 0.985, 0.9872]
    trials = [completed(at, mean - 0.0005, mean + 0.0005) for at, mean in enumerate(means)]
    chance = spread(trials)
    assert chance and chance.least_difference == pytest.approx(2.776 * 0.001 / math.sqrt(2), rel=1e-3)  # 0.00196
    assert [trial.number for trial in indistinct(trials, plan())] == [1]
    assert indistinct([completed(0, 0.9), completed(1, 0.9)], plan()) == []
