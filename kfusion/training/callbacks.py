"""What happens around each epoch: progress, history, the checkpoint, the best weights, TensorBoard's scalars.

All state of a training run is one file, so that a resumed run goes on bit for bit. Keras' own `BackupAndRestore` leaves
out the seed generators of dropout layers; here every variable of the model and of the optimizer is saved, and the
history. The order of samples and their augmentation need no state: they are functions of (seed, epoch, sample).
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from kfusion.io import is_live, read_arrays
from kfusion.validation import UserError

Row = dict[str, float]
SaveFile = Callable[[Path, Callable[[Path], object]], None]

BEST_BY = {
    "accuracy": ("val_accuracy", "val_loss"),
    "macro_f1": ("val_macro_f1", "val_loss"),
    "loss": ("val_loss",),
}
"""The figures that decide which epoch is the best, for each `best_by`: the first, then the second where it is equal."""
FIGURES = ("val_accuracy", "val_macro_f1", "val_loss")
NUM_SMOOTHED = 5
"""Epochs over which the figures are averaged that choose the best weights."""
VALIDATION = "val_"
"""How the names of validation figures begin, as Keras has it."""


@dataclass(frozen=True)
class TrainingState:
    """How far a run has come.

    Args:
        epoch: epochs completed.
        history: one row of figures per completed epoch.
    """

    epoch: int = 0
    history: tuple[Row, ...] = ()


def _variables(model: keras.Model) -> dict[str, Any]:
    optimizer: Any = model.optimizer
    named = {f"model/{n}": variable for n, variable in enumerate(model.variables)}
    return named | {f"optimizer/{n}": variable for n, variable in enumerate(optimizer.variables)}


def save_state(path: Path, model: keras.Model, progress: TrainingState, save_file: SaveFile) -> None:
    """Writes everything that a later process needs to go on from here.

    Args:
        path: the checkpoint.
        model: compiled.
        progress: how far the run has come.
        save_file: writes a file atomically.
    """
    arrays = {name: np.asarray(variable) for name, variable in _variables(model).items()}
    facts = {"epoch": progress.epoch, "history": list(progress.history)}
    arrays["progress"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    save_file(path, lambda partial: np.savez(partial, allow_pickle=False, **arrays))


def load_state(path: Path, model: keras.Model) -> TrainingState:
    """Sets the model's and the optimizer's variables to what `save_state` wrote.

    Args:
        path: the checkpoint.
        model: compiled.

    Raises:
        UserError: the file is damaged or belongs to another model.
    """
    optimizer: Any = model.optimizer
    optimizer.build(model.trainable_variables)
    arrays = read_arrays(path, "a checkpoint must be whole")
    if "progress" not in arrays:
        raise UserError(f"{path}: a checkpoint must say how far it has come. Found: none of it")
    facts = json.loads(arrays.pop("progress").tobytes())
    variables = _variables(model)
    if {n: tuple(v.shape) for n, v in variables.items()} != {n: a.shape for n, a in arrays.items()}:
        raise UserError(f"{path}: a checkpoint must fit the model that resumes. Found: other variables")
    for name, variable in variables.items():
        variable.assign(arrays[name])
    return TrainingState(facts["epoch"], tuple(facts["history"]))


class EpochLog(keras.callbacks.Callback):
    """Adds the epoch's last learning rate and its samples per second to the logs, first of all callbacks.

    Args:
        num_rows: samples of one epoch.
        steps_per_epoch: its steps.
        schedule: step, from 0 -> learning rate.
    """

    def __init__(self, num_rows: int, steps_per_epoch: int, schedule: Callable[[int], Any]) -> None:
        super().__init__()
        self.num_rows, self.steps_per_epoch, self.schedule = num_rows, steps_per_epoch, schedule
        self.seconds = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock."""
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stops the clock: validation comes after the last batch and is not training."""
        self.seconds = time.perf_counter() - self.started

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the two figures."""
        if logs is not None:
            logs["learning_rate"] = float(self.schedule((epoch + 1) * self.steps_per_epoch - 1))
            logs["samples_per_second"] = self.num_rows / max(self.seconds, 1e-9)


class Keep(keras.callbacks.Callback):
    """Keeps the history, the checkpoint and the best weights, in an order that a kill at any moment cannot break.

    An epoch counts once its checkpoint is written. A run killed before that repeats the epoch, maybe with another
    result where it is not deterministic: so the best weights are replaced only afterwards. A run killed between the two
    writes them when it is resumed (`restore`), since the checkpoint holds them.

    Args:
        paths: the files "best", "history" and "checkpoint".
        state: how far the run has come.
        save_file: writes a file atomically.
        save_network: writes the network into a path.
        best_by: which figure decides, see `best_epoch`.
    """

    def __init__(
        self,
        paths: dict[str, Path],
        state: TrainingState,
        save_file: SaveFile,
        save_network: Callable[[Path], object],
        best_by: str = "accuracy",
    ) -> None:
        super().__init__()
        self.paths, self.state, self.save_file, self.save_network = paths, state, save_file, save_network
        self.best_by = best_by

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes history, checkpoint and, where this epoch is the best, the weights.

        Raises:
            UserError: the loss is not finite any more.
        """
        row: Row = {"epoch": epoch + 1.0, **{name: float(value) for name, value in (logs or {}).items()}}
        if not math.isfinite(row["loss"] + row["val_loss"]):
            found = f"Received: {row['loss']} in epoch {epoch + 1}"
            raise UserError(f"'loss' must stay finite; try a lower 'peak_learning_rate'. {found}")
        self.state = replace(self.state, epoch=epoch + 1, history=(*self.state.history, row))
        self._save_history()
        save_state(self.paths["checkpoint"], self.model, self.state, self.save_file)
        self._save_best()

    def restore(self) -> None:
        """Makes the other files those of the checkpoint that has just been loaded."""
        self._save_history()
        self._save_best()

    def _save_history(self) -> None:
        self.save_file(self.paths["history"], history_table(self.state.history).to_csv)

    def _save_best(self) -> None:
        """Writes the network as it is now where the last epoch is the best one."""
        if best_epoch(history_table(self.state.history), self.best_by) == self.state.epoch:
            self.save_file(self.paths["best"], self.save_network)


def history_table(history: tuple[Row, ...]) -> pd.DataFrame:
    """One line per epoch, indexed by the epoch's number from 1."""
    return pd.DataFrame(list(history)).astype({"epoch": int}).set_index("epoch")


def best_epoch(history: pd.DataFrame, best_by: str = "accuracy") -> int:
    """The epoch whose weights are kept: the highest validation accuracy, then the lowest loss, then the latest.

    All figures are means over the epoch and up to `NUM_SMOOTHED` - 1 before it: a validation part of a few hundred rows
    ranks single epochs by chance, and the luckiest is seldom the best.

    Args:
        history: of the run.
        best_by: the setting: "accuracy"; or "macro_f1" in its place, or "loss" alone.
    """
    figures = list(BEST_BY[best_by])
    lowest_last = [name != "val_loss" for name in figures]
    ranked = smoothed(history).sort_values(figures, ascending=lowest_last, kind="stable")
    return int(ranked.index[-1])


def smoothed(history: pd.DataFrame) -> pd.DataFrame:
    """`val_accuracy`, `val_loss` and other figures of each epoch, averaged as `best_epoch` compares them."""
    return history[[name for name in FIGURES if name in history]].rolling(NUM_SMOOTHED, min_periods=1).mean().round(9)


def read_history(path: Path) -> pd.DataFrame:
    """What `history_table` looked like when it was written."""
    return pd.read_csv(path, index_col="epoch")


class EpochBars(keras.callbacks.Callback):
    """A progress bar per epoch: loss, accuracy, validation figures, learning rate, samples per second.

    Args:
        console: where.
        epochs: of the run.
        steps: of an epoch.
    """

    def __init__(self, console: Console, epochs: int, steps: int) -> None:
        super().__init__()
        self.epochs, self.steps, self.console = epochs, steps, console
        self.task = TaskID(0)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the bar of an epoch."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(20),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(True),
        )
        self.bar = Progress(*columns, console=self.console, transient=True, disable=not is_live(self.console))
        self.bar.start()
        self.task = self.bar.add_task(f"epoch {epoch + 1:>3}/{self.epochs}", total=self.steps, figures="")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Moves the bar on."""
        logs = logs or {}
        figures = f"loss {float(logs['loss']):.4f}  acc {float(logs['accuracy']):.4f}"
        self.bar.update(self.task, completed=min(batch + 1, self.steps), figures=figures)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Prints the line of an epoch in place of its bar."""
        self.bar.stop()
        self.console.print(epoch_line(epoch + 1, self.epochs, logs or {}), soft_wrap=True)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Stops the bar, also where training broke off."""
        if hasattr(self, "bar"):
            self.bar.stop()


def epoch_line(epoch: int, epochs: int, logs: dict[str, Any]) -> str:
    """One epoch in one line of 79 characters.

    Args:
        epoch: its number, from 1.
        epochs: of the run.
        logs: its figures.
    """
    return (
        f"{epoch:>4}/{epochs}  loss {logs['loss']:.4f}  acc {logs['accuracy']:.4f}"
        f"  val {logs['val_loss']:.4f} {logs['val_accuracy']:.4f}"
        f"  lr {logs['learning_rate']:.1e}  {logs['samples_per_second']:>6,.0f}/s"
    )


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
        """Replaces earlier events by those of the history."""
        for old in self.folder.glob("*/events.out.tfevents.*"):
            old.unlink()
        places = {name: str(self.folder / name) for name in ("train", "validation")}
        self.writers = {name: tf.summary.create_file_writer(place) for name, place in places.items()}
        if self.history.exists():
            for epoch, row in read_history(self.history).iterrows():
                self._write(int(str(epoch)), {str(name): float(value) for name, value in row.items()})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the points of an epoch."""
        self._write(epoch + 1, {name: float(value) for name, value in (logs or {}).items()})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the files."""
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
