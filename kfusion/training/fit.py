"""The training loop, with exact resume; and what happens around each epoch: progress, history, the checkpoint, the best
weights, TensorBoard's scalars.

All state of a training run is one file, so that a resumed run goes on bit for bit. Keras' own `BackupAndRestore` leaves
out the seed generators of dropout layers; here every variable of the model and of the optimizer is saved, and the
history. The order of samples and their augmentation need no state: they are functions of (seed, epoch, sample).
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from kfusion.config import TrainingConfig
from kfusion.io import is_live, read_arrays
from kfusion.training.optimizers import compile_model, schedule_of
from kfusion.validation import UserError, reason

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


Augment = Callable[[dict[str, Any], Any, None], dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """What a run is fitted on, and where its files go.

    Args:
        batches: first epoch -> the batches of that epoch and all later ones.
        validation: finite batches.
        num_rows: samples of one epoch.
        steps_per_epoch: its steps.
        prior: (num_classes,), the classes' shares of the training part.
        class_weight: (num_classes,), the classes' weights in the loss; None: all the same.
        temperature: of each modality's prediction, for the loss's teacher.
        paths: the files "best", "history" and "checkpoint".
        save_file: writes a file atomically.
        save_network: writes the network into a path.
        trained: variables that were trained before.
        freeze_share: the share of all steps in which these stay as they are.
        some_lack: whether samples may lack modalities, so that labels of their views are -1.
    """

    batches: Callable[[int], tf.data.Dataset]
    validation: tf.data.Dataset
    num_rows: int
    steps_per_epoch: int
    prior: np.ndarray
    temperature: tuple[float, ...]
    paths: dict[str, Path]
    save_file: SaveFile
    save_network: Callable[[Path], object]
    class_weight: np.ndarray | None = None
    some_lack: bool = False
    trained: Sequence[Any] = ()
    freeze_share: float = 0.0


def seed_everything(seed: int, deterministic: bool) -> None:
    """Seeds the initial weights and the dropout layers.

    Args:
        seed: in [0, 2^31).
        deterministic: also fix the order of every sum.
    """
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def with_augmentation(network: keras.Model, augment: Augment | None) -> keras.Model:
    """The model to be fitted: the network with the augmentation in front, or as it is.

    Args:
        network: {name: values, "present"} -> probabilities.
        augment: (batch, keys, training) -> batch, made of Keras layers; None where the pipeline augments.

    Returns:
        With augmentation, a model that takes "keys" int64 (batch,) beside the network's inputs and shares its weights.
    """
    if augment is None:
        return network
    inputs = {name: keras.Input(x.shape[1:], dtype=x.dtype, name=name) for name, x in network.input.items()}
    keys = keras.Input((), dtype="int64", name="keys")
    batch = augment({name: values for name, values in inputs.items() if name != "present"}, keys, None)
    return keras.Model({**inputs, "keys": keys}, network({**batch, "present": inputs["present"]}))


def one_epoch(batches: tf.data.Dataset, steps: int) -> tf.data.Dataset:
    """A dataset that ends with each epoch and goes on with the next one when it is iterated again.

    Keras runs many steps between two returns to Python, and stops early only where a dataset ends: with one endless
    dataset the number of these steps would have to divide the epoch's, and a prime number would run step by step. All
    iterations share one iterator over `batches`, which goes on reading ahead while validation runs.

    Args:
        batches: those of all epochs, one after the other.
        steps: batches of an epoch.
    """
    following = iter(batches)
    epoch = tf.data.Dataset.range(steps).map(lambda _: following.get_next())
    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False  # The shared iterator reads ahead, and nobody else.
    return epoch.with_options(options)


def fit(
    model: keras.Model,
    config: TrainingConfig,
    task: Task,
    console: Console | None = None,
    callbacks: tuple[keras.callbacks.Callback, ...] = (),
) -> TrainingState:
    """Fits the model from where its checkpoint stands, or from the start.

    Args:
        model: from `with_augmentation`.
        config: epochs, learning rate and the rest.
        task: the batches and the files.
        console: where the progress is shown; None: nowhere.
        callbacks: more of them, called last.

    Returns:
        How far the run has come: all epochs and their history, unless a callback stopped it.

    Raises:
        UserError: the loss is not finite any more, or there is no memory for a batch.
    """
    compile_model(model, config, task.steps_per_epoch, task.prior, task.temperature, task.class_weight, task.some_lack)
    if task.trained:
        optimizer: Any = model.optimizer
        first = round(task.freeze_share * config.epochs * task.steps_per_epoch)
        optimizer.tune(task.trained, config.encoder_rate, first)
    resumed = task.paths["checkpoint"].exists()
    progress = load_state(task.paths["checkpoint"], model) if resumed else TrainingState()
    keep = Keep(task.paths, progress, task.save_file, task.save_network, config.best_by)
    if resumed:
        keep.restore()
    if progress.epoch >= config.epochs:
        return progress
    log = EpochLog(task.num_rows, task.steps_per_epoch, schedule_of(config, task.steps_per_epoch))
    shown = (EpochBars(console, config.epochs, task.steps_per_epoch),) if console else ()
    try:
        model.fit(
            one_epoch(task.batches(progress.epoch), task.steps_per_epoch),
            epochs=config.epochs,
            initial_epoch=progress.epoch,
            validation_data=task.validation,
            callbacks=[log, keep, *shown, *callbacks],
            shuffle=False,  # The batches come in their final order.
            verbose=0,
        )
    except tf.errors.ResourceExhaustedError as error:
        rule = "'batch_size' must be one for which there is memory"
        raise UserError(f"{rule}. Received: {config.batch_size} ({reason(error)})") from error
    finally:
        for bars in shown:
            bars.on_train_end()  # Gives the cursor back, also when training is broken off.
    return keep.state
