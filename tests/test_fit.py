"""The training loop with a tiny network: any number of steps an epoch, and files that belong together."""

import gc
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kfusion.config import TrainingConfig
from kfusion.io import write_atomically
from kfusion.training import optimizers
from kfusion.training.fit import Task, TrainingState, fit, one_epoch, read_history

STEPS, BATCH_ROWS, EPOCHS = 37, 4, 2


def test_each_iteration_is_the_next_epoch_whatever_was_begun_in_vain():
    batches = one_epoch(tf.data.Dataset.range(12), 4)
    read = []
    for _ in range(3):
        iter(batches)  # Keras makes one at an epoch's end, and never reads it.
        gc.collect()
        read.append([int(batch) for batch in batches])
    assert read == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert int(batches.cardinality()) == 4


class Returns(keras.callbacks.Callback):
    """Counts how often an epoch comes back to Python."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.batches.append(batch)


def trained(folder: Path, epochs: int = EPOCHS) -> tuple[np.ndarray, TrainingState, list[int]]:
    """A classifier of two numbers: its weights, its progress, and the last step of each return to Python."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax")])
    rng = np.random.default_rng(0)
    x = rng.normal(size=(epochs * STEPS, BATCH_ROWS, 2)).astype("float32")
    y = rng.integers(0, 2, x.shape[:2])
    task = Task(
        batches=lambda first: tf.data.Dataset.from_tensor_slices((x, y)).skip(first * STEPS),
        validation=tf.data.Dataset.from_tensors((x[0], y[0])),
        num_rows=STEPS * BATCH_ROWS,
        steps_per_epoch=STEPS,
        prior=np.full(2, 0.5),
        temperature=(),
        paths={"best": folder / "best.keras", "history": folder / "history.csv", "checkpoint": folder / "state.npz"},
        save_file=write_atomically,
        save_network=model.save,
    )
    returns = Returns()
    progress = fit(model, TrainingConfig(epochs=epochs), task, callbacks=(returns,))
    return np.concatenate([np.ravel(values) for values in model.get_weights()]), progress, returns.batches


def figures(progress: TrainingState) -> list[tuple[float, ...]]:
    return [tuple(row[name] for name in ("loss", "accuracy", "val_loss", "learning_rate")) for row in progress.history]


def test_a_prime_number_of_steps_runs_in_few_pieces_to_the_same_weights(tmp_path, monkeypatch):
    weights, progress, returns = trained(tmp_path)
    assert returns == [31, 63] * EPOCHS
    monkeypatch.setattr(optimizers, "STEPS_PER_EXECUTION", 1)
    (tmp_path / "singly").mkdir()
    same_weights, same, singly = trained(tmp_path / "singly")
    assert singly == [*range(STEPS)] * EPOCHS
    np.testing.assert_array_equal(weights, same_weights)
    assert figures(progress) == figures(same)


def test_killed_before_the_last_weights_were_kept_a_run_keeps_them_when_it_goes_on(tmp_path):
    weights, progress, _ = trained(tmp_path, epochs=1)
    for name in ("best.keras", "history.csv"):
        (tmp_path / name).unlink()
    assert trained(tmp_path, epochs=1)[1:] == (progress, [])
    best = keras.saving.load_model(tmp_path / "best.keras", compile=False)
    np.testing.assert_array_equal(np.concatenate([np.ravel(values) for values in best.get_weights()]), weights)
    assert len(read_history(tmp_path / "history.csv")) == 1
