"""The figures of each epoch as scalars that TensorBoard shows: `tensorboard --logdir RUN/tensorboard`."""

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kfusion.training.callbacks import read_history

VALIDATION = "val_"
"""How the names of validation figures begin, as Keras has it."""


class Scalars(keras.callbacks.Callback):
    """Writes one point per epoch and figure; as Keras' own callback does, into `train` and `validation`.

    The events are always those of the run's history: a run that goes on writes the epochs before it anew, so that a
    killed run neither lacks an epoch nor has one twice.

    Args:
        folder: where the events go.
        history: the run's `history.csv`.
    """

    def __init__(self, folder: Path, history: Path) -> None:
        super().__init__()
        self.folder, self.history = folder, history
        self.writers: dict[str, Any] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        for old in self.folder.glob("*/events.out.tfevents.*"):
            old.unlink()
        places = {name: str(self.folder / name) for name in ("train", "validation")}
        self.writers = {name: tf.summary.create_file_writer(place) for name, place in places.items()}
        if self.history.exists():
            for epoch, row in read_history(self.history).iterrows():
                self._write(int(str(epoch)), {str(name): float(value) for name, value in row.items()})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._write(epoch + 1, {name: float(value) for name, value in (logs or {}).items()})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        for writer in self.writers.values():
            writer.close()

    def _write(self, epoch: int, figures: dict[str, float]) -> None:
        """One epoch's points, on the disk when this returns; epochs count from 1, as in the history."""
        for name, value in figures.items():
            writer = self.writers["validation" if name.startswith(VALIDATION) else "train"]
            with writer.as_default():
                tf.summary.scalar(f"epoch_{name.removeprefix(VALIDATION)}", value, step=epoch)
        for writer in self.writers.values():
            writer.flush()
