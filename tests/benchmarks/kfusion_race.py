"""kfusion in the race of `time_to_accuracy`: its real training, stopped once the validation accuracy is there.

Run by the benchmark: `python -m tests.benchmarks.kfusion_race`.
"""

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kfusion.recipes import recipe
from kfusion.training.trainer import train
from tests.benchmarks.answering import answer
from tests.benchmarks.arrays import Arrays, read


class Finish(keras.callbacks.Callback):
    """Stops the training after the first epoch whose fused answer reaches an accuracy on the validation rows."""

    def __init__(self, accuracy: float, validation: Arrays) -> None:
        super().__init__()
        self.accuracy = accuracy
        self.best, self.epochs = 0.0, 0
        self.label = validation.labels
        self.batch = {
            "image": tf.constant(validation.images[..., None], tf.float32),
            "audio": tf.constant(validation.audio, tf.float32),
            "present": tf.ones((len(self.label), 2), tf.bool),
        }

    def fused_accuracy(self) -> float:
        """A recipe that trains all views answers each sample three times, the fused answer first."""
        answer = np.asarray(self.model(self.batch, training=False))
        fused = answer[:, 0] if answer.ndim == 3 else answer
        return float(np.mean(fused.argmax(-1) == self.label))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.best, self.epochs = max(self.best, self.fused_accuracy()), epoch + 1
        self.training = time.perf_counter() - self.began
        if self.best >= self.accuracy:
            raise Reached


class Reached(Exception):
    """The race is won: what a run does after its last epoch is not part of it."""


class Race:
    """Args: recipe_name; epochs of the schedule; run_folder, which must not exist yet; seed."""

    def __init__(self, recipe_name: str, epochs: int, run_folder: str, seed: int) -> None:
        config = recipe(recipe_name)
        self.config = replace(config, training=replace(config.training, epochs=epochs, seed=seed))
        self.run_folder = Path(run_folder)

    def reach(self, accuracy: float, val_folder: str, **_: Any) -> dict[str, float]:
        """Train on the built-in digits until the validation accuracy is reached, or to the end."""
        finish = Finish(accuracy, read(val_folder))
        with contextlib.suppress(Reached):
            train(self.config, self.run_folder, callbacks=(finish,))
        return {
            "reached": finish.best >= accuracy,
            "accuracy": finish.best,
            "epochs": finish.epochs,
            "training": finish.training,
        }


if __name__ == "__main__":
    answer(Race)
