"""Which epoch's weights are kept, also where training is killed between two files of one epoch."""

import keras
import numpy as np
import pandas as pd
import pytest

from kfusion.io import write_atomically
from kfusion.training.fit import Keep, TrainingState, best_epoch, load_state, read_history


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


@pytest.mark.parametrize(("best_by", "expected"), [("accuracy", 1), ("macro_f1", 2), ("loss", 3)])
def test_what_best_means_is_a_setting(best_by, expected):
    figures = history([0.9, 0.8, 0.7], [1.0, 0.9, 0.8]).assign(val_macro_f1=[0.5, 0.8, 0.3])
    assert best_epoch(figures, best_by) == expected


class Killed(Exception):
    pass


class OneWeight:
    """A network of one weight, the files of its training, and a kill before one of these is written."""

    def __init__(self, folder):
        self.paths = {name: folder / file for name, file in FILES.items()}
        self.model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        self.model.compile("sgd", "mse")
        self.keep = Keep(self.paths, TrainingState(), write_atomically, self.model.save)
        self.keep.set_model(self.model)

    def train(self, epoch, weight, val_accuracy, kill_before=None):
        def save(path, write):
            if kill_before and path == self.paths[kill_before]:
                raise Killed
            write_atomically(path, write)

        self.model.set_weights([np.array([[weight]])])
        self.keep.save_file = save
        logs = {"loss": 1.0, "val_loss": 1.0, "val_accuracy": val_accuracy}
        if kill_before:
            with pytest.raises(Killed):
                self.keep.on_epoch_end(epoch - 1, logs)
        else:
            self.keep.on_epoch_end(epoch - 1, logs)

    def resume(self):
        progress = load_state(self.paths["checkpoint"], self.model)
        self.keep = Keep(self.paths, progress, write_atomically, self.model.save)
        self.keep.set_model(self.model)
        self.keep.restore()

    def kept(self):
        """The weight in best.keras, and the validation accuracies in history.csv."""
        best = keras.saving.load_model(self.paths["best"], compile=False).get_weights()[0].item()
        return best, read_history(self.paths["history"])["val_accuracy"].tolist()


FILES = {"best": "best.keras", "history": "history.csv", "checkpoint": "checkpoint.npz"}


@pytest.mark.parametrize("killed", ["history", "checkpoint"])
def test_an_epoch_that_was_lost_leaves_no_weights_behind(tmp_path, killed):
    """Repeated, it comes out otherwise: worse than the first epoch, whose weights then are the best."""
    run = OneWeight(tmp_path)
    run.train(1, weight=1.0, val_accuracy=0.5)
    run.train(2, weight=2.0, val_accuracy=0.9, kill_before=killed)
    run.resume()
    assert run.kept() == (1.0, [0.5])
    run.train(2, weight=3.0, val_accuracy=0.4)
    assert run.kept() == (1.0, [0.5, 0.4])


def test_an_epoch_whose_checkpoint_is_written_keeps_its_weights(tmp_path):
    run = OneWeight(tmp_path)
    run.train(1, weight=1.0, val_accuracy=0.5)
    run.train(2, weight=2.0, val_accuracy=0.9, kill_before="best")
    run.resume()
    assert run.kept() == (2.0, [0.5, 0.9])
    run.train(3, weight=3.0, val_accuracy=0.1)
    run.resume()
    assert run.kept() == (2.0, [0.5, 0.9, 0.1])
