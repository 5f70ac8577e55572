"""Pairs -> tf.data.Dataset: batches of {"image", "audio", "present"} and their labels.

Rows are read by NumPy (from memory or from mapped files), everything after that is TensorFlow.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from typing import Any

import numpy as np
import tensorflow as tf

from kfusion.config import AugmentConfig
from kfusion.data.dataset import Pairs
from kfusion.random_streams import sample_keys, uniform
from kfusion.spec import FUSED, MODALITIES, VIEWS
from kfusion.validation import UserError

MODALITY_DROPOUT = 0
"""The use of random numbers (`random_streams.uniform`) that dropping a modality has."""
ORDER, PAIRING = 1, 2
"""Domains of NumPy's generators, keyed by (seed, epoch, domain)."""

Batch = dict[str, tf.Tensor]
Augment = Callable[[Batch, tf.Tensor], Batch]


_refused: list[Exception] = []
"""What readers raised last inside TensorFlow, which makes errors of its own of them."""


def _remembered(read: Callable[..., Any]) -> Callable[..., Any]:
    """The same reader; what the user's files made it raise is remembered for `readers_errors`."""

    @wraps(read)
    def remembering(*args: Any) -> Any:
        try:
            return read(*args)
        except (UserError, OSError) as error:
            _refused[:] = [error]
            raise

    return remembering


@contextmanager
def readers_errors() -> Iterator[None]:
    """Within the block, whatever a reader of batches raises is raised as it is, not as TensorFlow's error.

    Raises:
        UserError, OSError: a file changed or went away while it was read.
    """
    _refused.clear()
    try:
        yield
    except tf.errors.OpError:
        if _refused:
            raise _refused.pop() from None
        raise


def num_steps(num_rows: int, batch_size: int) -> int:
    """Steps of one epoch; the last batch may be smaller, none is dropped."""
    return math.ceil(num_rows / batch_size)


class TrainingReader:
    """Reads the batch of any training step; which rows these are is a pure function of (seed, step).

    Args:
        pairs: the training part.
        batch_size: rows of a step.
        seed: keys order, pairing and augmentation.
        config: `repair`, `wrong_sound` and `wrong_image` are used.
        all_views: give each sample a label for each of the `VIEWS`, int64 (batch, 3), not one.
    """

    def __init__(
        self, pairs: Pairs, batch_size: int, seed: int, config: AugmentConfig, all_views: bool = False
    ) -> None:
        self.pairs, self.batch_size, self.seed, self.config, self.all_views = pairs, batch_size, seed, config, all_views
        self.steps_per_epoch = num_steps(len(pairs), batch_size)
        # Two: while one epoch ends, reading ahead begins the next.
        self.plan = lru_cache(maxsize=2)(self._plan)

    def _plan(self, epoch: int) -> tuple[Pairs, np.ndarray, np.ndarray]:
        """The pairs of an epoch, their labels and their order."""
        pairs, label, config = self.pairs, self.pairs.label, self.config
        if config.repair:
            rng = np.random.default_rng([self.seed, epoch, PAIRING])
            wrong = config.wrong_sound + config.wrong_image
            pairs = pairs.repaired(rng, wrong)
            image_is_wrong = rng.random(len(pairs)) * wrong < config.wrong_image
            label = np.where(image_is_wrong, pairs.audio_label, pairs.label)
        if self.all_views:
            each = {FUSED: label, "image": pairs.label, "audio": pairs.audio_label}
            label = np.stack([each[view] for view in VIEWS], axis=1)
        return pairs, label, np.random.default_rng([self.seed, epoch, ORDER]).permutation(len(pairs))

    def __call__(self, step: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        epoch, within = divmod(int(step), self.steps_per_epoch)
        pairs, label, order = self.plan(epoch)
        rows = order[within * self.batch_size : (within + 1) * self.batch_size]
        image, audio = pairs.read(rows)
        return image, audio, label[rows], sample_keys(self.seed, epoch, rows)


def training_batches(
    reader: TrainingReader,
    augment: Augment | None,
    modality_dropout: float,
    first_epoch: int,
    epochs: int,
    with_keys: bool = False,
) -> tf.data.Dataset:
    """The batches of epochs `first_epoch` to `epochs`, one after the other.

    Args:
        reader: which rows, in which order.
        augment: applied to every batch here; None: not here.
        modality_dropout: probability that a sample loses one modality.
        with_keys: leave the samples' keys in the batch, for augmentation on the device.

    Returns:
        A dataset of ({"image", "audio", "present"[, "keys"]}, label int64 (batch,) or (batch, 3)).
    """
    steps, spec = reader.steps_per_epoch, reader.pairs.spec

    def read(step: tf.Tensor) -> tuple[Batch, tf.Tensor, tf.Tensor]:
        kinds = (tf.float32, tf.float32, tf.int64, tf.int64)
        image, audio, label, keys = tf.numpy_function(_remembered(reader), [step], kinds, stateful=False)
        image.set_shape([None, *spec.image_shape])
        audio.set_shape([None, spec.num_audio])
        label.set_shape([None, len(VIEWS)] if reader.all_views else [None])
        keys.set_shape([None])
        return {"image": image, "audio": audio}, label, keys

    def finish(batch: Batch, label: tf.Tensor, keys: tf.Tensor) -> tuple[Batch, tf.Tensor]:
        batch = augment(batch, keys) if augment else batch
        batch = {**batch, "present": present_modalities(keys, modality_dropout)}
        return ({**batch, "keys": keys} if with_keys else batch), label

    dataset = tf.data.Dataset.range(first_epoch * steps, epochs * steps)
    dataset = dataset.map(read, num_parallel_calls=2, deterministic=True)
    return dataset.map(finish, num_parallel_calls=2, deterministic=True).prefetch(8)


def present_modalities(keys: tf.Tensor, modality_dropout: float) -> tf.Tensor:
    """Which modalities each sample keeps: bool (batch, 2), never none.

    With probability `modality_dropout` a sample loses one of the two, either as likely.
    """
    draws = uniform(keys, MODALITY_DROPOUT, 2)
    lost = tf.cast(tf.floor(draws[:, 1] * len(MODALITIES)), tf.int32)
    lost = tf.where(draws[:, 0] < modality_dropout, lost, -1)
    return lost[:, None] != tf.range(len(MODALITIES))[None]


def evaluation_batches(
    pairs: Pairs, batch_size: int = 256, view: str = FUSED, with_keys: bool = False, all_views: bool = False
) -> tf.data.Dataset:
    """All pairs in order, unchanged, seen through one of the `VIEWS`.

    Returns:
        A dataset of ({"image", "audio", "present"}, label int64 (batch,)), the last batch maybe smaller. With "keys"
        for a model that augments by itself, which it does not do outside training; with labels int64 (batch, 3) for one
        that answers to all views.
    """
    starts = tf.data.Dataset.range(0, len(pairs), batch_size)
    spec = pairs.spec

    def rows(start: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        chosen = np.arange(int(start), min(int(start) + batch_size, len(pairs)))
        return (*pairs.read(chosen), pairs.label[chosen])

    def read(start: tf.Tensor) -> tuple[Batch, tf.Tensor]:
        image, audio, label = tf.numpy_function(
            _remembered(rows), [start], (tf.float32, tf.float32, tf.int64), stateful=False
        )
        image.set_shape([None, *spec.image_shape])
        audio.set_shape([None, spec.num_audio])
        label.set_shape([None])
        present = tf.repeat(tf.constant([VIEWS[view]]), tf.shape(label)[0], axis=0)
        batch = {"image": image, "audio": audio, "present": present}
        batch = {**batch, "keys": tf.zeros_like(label)} if with_keys else batch
        return batch, tf.repeat(label[:, None], len(VIEWS), axis=1) if all_views else label

    return starts.map(read, num_parallel_calls=2, deterministic=True).prefetch(2)
