"""Intervals and paired tests: exact small cases, and how often an interval holds the truth."""

from math import comb

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from kfusion.metrics.significance import compare, intervals, mcnemar


def test_mcnemar_of_nine_against_one_is_as_by_hand():
    first = np.array([True] * 9 + [False] + [True] * 5)
    second = np.array([False] * 9 + [True] + [True] * 5)
    found = mcnemar(first, second)
    # Of ten fair coins at most one, or at least nine, show heads.
    assert found["p"] == pytest.approx(2 * (comb(10, 0) + comb(10, 1)) / 2**10)
    assert (found["first_only"], found["second_only"]) == (9, 1)


def test_mcnemar_is_the_same_the_other_way_round_and_1_where_nothing_differs():
    rng = np.random.default_rng(1)
    first, second = rng.random(200) < 0.9, rng.random(200) < 0.8
    assert mcnemar(first, second)["p"] == pytest.approx(mcnemar(second, first)["p"])
    assert mcnemar(first, first) == {"first_only": 0, "second_only": 0, "p": 1.0}


def test_the_bootstrap_of_single_rows_has_the_quantiles_of_a_binomial():
    """Drawing n rows with replacement, of which a share p is right, gives Binomial(n, p) right ones."""
    right = np.arange(400) < 340
    low, high = intervals({"a": right}, np.arange(400))["a"]
    assert low == pytest.approx(binom.ppf(0.025, 400, 0.85) / 400, abs=0.005)
    assert high == pytest.approx(binom.ppf(0.975, 400, 0.85) / 400, abs=0.005)


def test_an_interval_of_rows_that_share_sounds_is_as_wide_as_that_of_the_sounds():
    """Ten copies of each of 100 sounds tell no more than the 100."""
    right = np.arange(100) < 80
    once = intervals({"a": right}, np.arange(100))["a"]
    copied = intervals({"a": np.repeat(right, 10)}, np.repeat(np.arange(100), 10))["a"]
    naive = intervals({"a": np.repeat(right, 10)}, np.arange(1000))["a"]
    assert copied == pytest.approx(once)
    assert naive[1] - naive[0] < 0.4 * (copied[1] - copied[0])


def test_nine_of_ten_intervals_hold_the_truth():
    """95 % are meant; the percentile bootstrap of 150 sounds, two rows each, comes near."""
    rng, held = np.random.default_rng(5), 0
    group = np.repeat(np.arange(150), 2)
    for seed in range(40):
        hard = np.repeat(rng.normal(size=150), 2)
        low, high = intervals({"a": hard + 0.3 * rng.normal(size=300) < 1.0}, group, seed)["a"]
        truth = 0.8310  # Φ(1 / √1.09)
        held += low <= truth <= high
    assert 34 <= held <= 40


def test_where_all_are_right_the_interval_is_clopper_and_pearsons_over_the_sounds():
    low, high = intervals({"a": np.ones(20, bool)}, np.repeat(np.arange(10), 2))["a"]
    assert (low, high) == (pytest.approx(0.025 ** (1 / 10)), 1.0)
    none = intervals({"a": np.zeros(20, bool)}, np.repeat(np.arange(10), 2))["a"]
    assert none == tuple(binomtest(0, 10).proportion_ci(0.95, "exact"))


def test_a_comparison_gives_the_difference_with_an_interval_on_both_sides_of_it():
    right = {"a": np.arange(100) < 90, "b": np.arange(100) < 80, "c": np.arange(100) < 80}
    against_b, same = compare(right, [("a", "b"), ("b", "c")], np.arange(100), seed=0)
    assert against_b["difference"] == pytest.approx(0.1)
    assert 0.03 < against_b["interval"][0] < 0.07 < 0.13 < against_b["interval"][1] < 0.18
    assert (against_b["first_only"], against_b["second_only"]) == (10, 0)
    assert same["difference"] == 0
    assert same["interval"][0] == -same["interval"][1] < 0


def test_the_same_seed_gives_the_same_interval():
    right, group = {"a": np.sqrt(np.arange(60))}, np.arange(60)
    assert intervals(right, group, 3) == intervals(right, group, 3)
    assert intervals(right, group, 3) != intervals(right, group, 4)


def test_other_lengths_are_refused():
    with pytest.raises(ValueError, match=r"^'a' must be of shape \(3,\)\. Received: \(2,\)$"):
        intervals({"a": [True, False]}, [0, 1, 2])
