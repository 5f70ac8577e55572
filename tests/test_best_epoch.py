"""Which epoch's weights are kept."""

import pandas as pd
import pytest

from kfusion.training.callbacks import best_epoch


def history(accuracy, loss=None):
    loss = loss or [1.0] * len(accuracy)
    return pd.DataFrame({"epoch": range(1, len(accuracy) + 1), "val_accuracy": accuracy, "val_loss": loss}).set_index(
        "epoch"
    )


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        ([0.5], 1),
        ([0.5, 0.6, 0.7], 3),
        # One lucky epoch early on counts for little against a steady end.
        ([0.5, 0.5, 0.5, 0.95, 0.5, 0.5, 0.9, 0.9, 0.9, 0.9, 0.9], 11),
        # Equal means: the latest.
        ([0.9] * 8, 8),
        # A decline after the peak.
        ([0.9] * 6 + [0.1, 0.1], 6),
    ],
)
def test_the_best_mean_of_five_epochs_wins(accuracy, expected):
    assert best_epoch(history(accuracy)) == expected


def test_among_equal_accuracies_the_lower_loss_wins():
    assert best_epoch(history([0.9] * 6, [1.0, 0.9, 0.1, 0.1, 0.1, 3.0])) == 5
