"""Pairs -> tf.data.Dataset: batches of {name: values, "present"} and their labels.

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
from kfusion.random_streams import Stream, epoch_generator, sample_keys, uniform
from kfusion.spec import FUSED, Spec
from kfusion.validation import UserError

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
    """Steps of one pass; the last batch may be smaller, none is dropped."""
    return math.ceil(num_rows / batch_size)


class TrainingReader:
    """Reads the batch of any training step; which rows these are is a pure function of (seed, step).

    Args:
        pairs: the training part.
        batch_size: rows of a step.
        seed: keys order, pairing and augmentation.
        config: `repair`, `wrong_sound` and `wrong_image` are used.
        all_views: give each sample a label for each view, int64 (batch, views), not one; -1 where it lacks the view's
            modality.
    """

    def __init__(
        self, pairs: Pairs, batch_size: int, seed: int, config: AugmentConfig, all_views: bool = False
    ) -> None:
        self.pairs, self.batch_size, self.seed, self.config, self.all_views = pairs, batch_size, seed, config, all_views
        self.steps_per_pass = num_steps(len(pairs), batch_size)
        # Two: while one pass ends, reading ahead begins the next.
        self.plan = lru_cache(maxsize=2)(self._plan)

    def _plan(self, epoch: int) -> tuple[Pairs, np.ndarray, np.ndarray]:
        """The pairs of a pass, their labels and their order; passes are the epochs of `random_streams`."""
        pairs, label, config = self.pairs, self.pairs.label, self.config
        if config.repair:
            rng = epoch_generator(self.seed, epoch, Stream.PAIRING)
            wrong = config.wrong_sound + config.wrong_image
            pairs = pairs.repaired(rng, wrong)
            image_is_wrong = rng.random(len(pairs)) * wrong < config.wrong_image
            label = np.where(image_is_wrong, list(pairs.labels.values())[-1], pairs.label)
        if self.all_views:
            label = np.stack([label, *pairs.labels.values()], axis=1)
            label = without_absent(label, pairs)
        return pairs, label, epoch_generator(self.seed, epoch, Stream.ORDER).permutation(len(pairs))

    def __call__(self, step: np.ndarray) -> tuple[np.ndarray, ...]:
        """The modalities' values, what is present, the labels and the keys of the batch of one step, int ()."""
        epoch, within = divmod(int(step), self.steps_per_pass)
        pairs, label, order = self.plan(epoch)
        rows = order[within * self.batch_size : (within + 1) * self.batch_size]
        keys = sample_keys(self.seed, epoch, rows)
        return (*pairs.read(rows, keys).values(), pairs.seen(rows), label[rows], keys)


def training_batches(
    reader: TrainingReader,
    augment: Augment | None,
    modality_dropout: float,
    first_pass: int,
    passes: int,
    with_keys: bool = False,
) -> tf.data.Dataset:
    """The batches of several passes over the training part, one after the other.

    Args:
        reader: which rows, in which order.
        augment: applied to every batch here; None: not here.
        modality_dropout: probability that a sample loses one modality.
        first_pass: where a training begins or goes on, ≥ 0.
        passes: where it ends, the pass itself not included.
        with_keys: leave the samples' keys in the batch, for augmentation on the device.

    Returns:
        A dataset of ({name: values, "present"[, "keys"]}, label int64 (batch,) or (batch, views)).
    """
    steps, spec = reader.steps_per_pass, reader.pairs.spec

    def read(step: tf.Tensor) -> tuple[Batch, tf.Tensor, tf.Tensor, tf.Tensor]:
        kinds = (*[tf.float32] * len(spec.names), tf.bool, tf.int64, tf.int64)
        *values, own, label, keys = tf.numpy_function(_remembered(reader), [step], kinds, stateful=False)
        own.set_shape([None, len(spec.names)])
        label.set_shape([None, len(spec.views)] if reader.all_views else [None])
        keys.set_shape([None])
        return _named(values, spec), own, label, keys

    def finish(batch: Batch, own: tf.Tensor, label: tf.Tensor, keys: tf.Tensor) -> tuple[Batch, tf.Tensor]:
        batch = augment(batch, keys) if augment else batch
        present = present_modalities(keys, modality_dropout, len(spec.names))
        if reader.pairs.present is not None:
            present = _within(present, own)
        batch = {**batch, "present": present}
        return ({**batch, "keys": keys} if with_keys else batch), label

    dataset = tf.data.Dataset.range(first_pass * steps, passes * steps)
    dataset = dataset.map(read, num_parallel_calls=2, deterministic=True)
    return dataset.map(finish, num_parallel_calls=2, deterministic=True).prefetch(8)


def _named(values: list[tf.Tensor], spec: Spec) -> Batch:
    """The modalities of a batch by their names, with the shapes that NumPy's functions lose."""
    for tensor, shape in zip(values, spec.modalities.values(), strict=True):
        tensor.set_shape([None, *shape.shape])
    return dict(zip(spec.names, values, strict=True))


def present_modalities(keys: tf.Tensor, modality_dropout: float, num_modalities: int) -> tf.Tensor:
    """Which modalities each sample keeps: bool (batch, modalities), never none.

    With probability `modality_dropout` a sample loses one of them, each as likely; a single one is never lost.

    Args:
        keys: int64 (batch,), of the samples.
        modality_dropout: in [0, 1].
        num_modalities: how many there are.
    """
    if num_modalities == 1:
        return tf.ones_like(keys[:, None], tf.bool)
    draws = uniform(keys, Stream.MODALITY_DROPOUT, 2)
    lost = tf.cast(tf.floor(draws[:, 1] * num_modalities), tf.int32)
    lost = tf.where(draws[:, 0] < modality_dropout, lost, -1)
    return lost[:, None] != tf.range(num_modalities)[None]


def _within(view: tf.Tensor, own: tf.Tensor) -> tf.Tensor:
    """What a view lets each sample show of its own modalities, bool (batch, modalities); all, where that is nothing."""
    seen = tf.logical_and(view, own)
    return tf.where(tf.reduce_any(seen, axis=1, keepdims=True), seen, own)


def without_absent(label: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Labels of all views, int64 (n, views), with -1 for those of modalities that a sample lacks.

    Args:
        label: of each sample in each view.
        pairs: the samples.
    """
    if pairs.present is None:
        return label
    present = pairs.seen(np.arange(len(pairs)))
    return np.where(np.concatenate([np.ones((len(pairs), 1), bool), present], axis=1), label, -1)


def evaluation_batches(
    pairs: Pairs, batch_size: int = 256, view: str = FUSED, with_keys: bool = False, all_views: bool = False
) -> tf.data.Dataset:
    """All samples in order, unchanged, seen through one of the views; of long files each window, side by side.

    Args:
        pairs: the samples.
        batch_size: rows of a batch; the last one may be smaller.
        view: one of `spec.views`.
        with_keys: add "keys", for a model that augments by itself, which it does not do outside training.
        all_views: give labels int64 (batch, views), for a model that answers to all views; -1 where a sample lacks the
            view's modality.

    Returns:
        A dataset of ({name: values, "present"}, label int64 (batch,)), `pairs.windowed.num_versions` rows a sample.
    """
    pairs = pairs.windowed
    num = pairs.num_versions
    starts = tf.data.Dataset.range(0, num * len(pairs), batch_size)
    spec = pairs.spec
    labels = pairs.label
    if all_views and pairs.present is not None:
        labels = without_absent(np.repeat(pairs.label[:, None], len(spec.views), axis=1), pairs)

    def rows(start: np.ndarray) -> tuple[np.ndarray, ...]:
        chosen, version = divmod(np.arange(int(start), min(int(start) + batch_size, num * len(pairs))), num)
        return (*pairs.read(chosen, version).values(), pairs.seen(chosen), labels[chosen])

    def read(start: tf.Tensor) -> tuple[Batch, tf.Tensor]:
        kinds = (*[tf.float32] * len(spec.names), tf.bool, tf.int64)
        *values, own, label = tf.numpy_function(_remembered(rows), [start], kinds, stateful=False)
        own.set_shape([None, len(spec.names)])
        label.set_shape([None, *labels.shape[1:]])
        present = tf.repeat(tf.constant([spec.views[view]]), tf.shape(label)[0], axis=0)
        if pairs.present is not None:
            present = _within(present, own)
        batch = {**_named(values, spec), "present": present}
        batch = {**batch, "keys": tf.zeros(tf.shape(label)[:1], tf.int64)} if with_keys else batch
        return batch, tf.repeat(label[:, None], len(spec.views), axis=1) if all_views and labels.ndim == 1 else label

    return starts.map(read, num_parallel_calls=2, deterministic=True).prefetch(2)
