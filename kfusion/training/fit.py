"""The training loop: `Model.fit` with exact resume."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from kfusion.config import TrainingConfig
from kfusion.training.callbacks import EpochBars, EpochLog, Keep, SaveFile, TrainingState, load_state
from kfusion.training.optimizers import compile_model, schedule_of
from kfusion.validation import UserError, reason

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
