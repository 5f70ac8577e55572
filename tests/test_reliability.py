"""Calibration numbers, each against a case worked out by hand or by scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from kfusion.metrics.classification import bin_sums, calibration_error, confidence_of, reliability

# Four answers: .9 right, .8 wrong, .6 right, .6 right. In bins of width .1: .9 and .8 stand alone, both .6 together.
SURE, RIGHT = np.array([0.9, 0.8, 0.6, 0.6]), np.array([True, False, True, True])


def drawn(num_rows: int = 30000, num_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Labels that are drawn from the probabilities themselves: a calibrated model."""
    rng = np.random.default_rng(3)
    answers = rng.dirichlet(np.full(num_classes, 0.4), num_rows)
    return answers, (answers.cumsum(axis=1) > rng.random((num_rows, 1))).argmax(axis=1)


def test_calibration_error_of_four_answers_is_as_by_hand():
    sums = bin_sums(SURE, RIGHT, 10)
    by_hand = 1 / 4 * abs(1 - 0.9) + 1 / 4 * abs(0 - 0.8) + 2 / 4 * abs(1 - 0.6)
    assert calibration_error(sums) == pytest.approx(by_hand)
    assert sums[0].tolist() == [0, 0, 0, 0, 0, 2, 0, 1, 1, 0]


def test_a_confidence_on_the_edge_of_a_bin_belongs_below_it_and_one_of_zero_to_the_first():
    assert bin_sums([0.5, 0.0, 1.0], [True] * 3, 2)[0].tolist() == [2, 1]


def test_sums_of_two_halves_add_up_to_those_of_the_whole():
    whole = bin_sums(SURE, RIGHT)
    np.testing.assert_allclose(bin_sums(SURE[:1], RIGHT[:1]) + bin_sums(SURE[1:], RIGHT[1:]), whole)


def test_brier_and_log_loss_of_two_rows_are_as_by_hand():
    facts = reliability([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]], [0, 2])
    by_hand = ((0.3**2 + 0.2**2 + 0.1**2) + (0.5**2 + 0.25**2 + 0.75**2)) / 2
    assert facts["brier"] == pytest.approx(by_hand)
    assert facts["nll"] == pytest.approx(-(np.log(0.7) + np.log(0.25)) / 2)


def test_brier_and_log_loss_are_those_of_scikit_learn():
    answers, label = drawn()
    facts = reliability(answers, label)
    assert facts["nll"] == pytest.approx(log_loss(label, answers))
    of_each = [brier_score_loss(label == k, answers[:, k]) for k in range(4)]
    assert facts["brier"] == pytest.approx(np.sum(of_each))


def test_a_calibrated_model_has_little_calibration_error_and_an_overconfident_one_much():
    answers, label = drawn()
    surer = answers**3 / (answers**3).sum(axis=1, keepdims=True)
    assert reliability(answers, label)["ece"] < 0.01
    assert reliability(surer, label)["ece"] > 0.1


def test_empty_bins_have_no_accuracy():
    bins = reliability([[0.7, 0.3], [0.35, 0.65]], [0, 0])["bins"]
    assert bins["count"] == [0] * 9 + [1, 1, 0, 0, 0, 0]
    assert bins["accuracy"][9:11] == [0.0, 1.0]
    assert bins["accuracy"][0] is None


def test_confidence_is_the_probability_of_the_class_named():
    sure, right = confidence_of([[0.7, 0.3], [0.4, 0.6]], [0, 0])
    assert sure.tolist() == [0.7, 0.6]
    assert right.tolist() == [True, False]


def test_other_lengths_are_refused():
    with pytest.raises(ValueError, match=r"^'label' must be as long as 'probabilities', 1\. Received: 2$"):
        reliability([[0.7, 0.3]], [0, 1])
