"""A trained network, loaded from its run; and its predictions for each view of some samples."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kfusion.cli import without_tracing_advice
from kfusion.data.dataset import Pairs
from kfusion.data.pipeline import evaluation_batches, readers_errors
from kfusion.io import DAMAGED
from kfusion.modalities import modality
from kfusion.model.build import Halves, with_all_views
from kfusion.model.trust import MOST_MODALITIES, Trust, codes, fit_trust
from kfusion.random_streams import sample_keys
from kfusion.run_dir import Run
from kfusion.validation import UserError, reason


def load_network(run: Run, which: str = "best") -> keras.Model:
    """The network of a run: {name: values, "present"} -> probabilities.

    Args:
        run: a run folder.
        which: "best" on validation, or "last".

    Raises:
        UserError: the file is missing or damaged.
    """
    path = run.best if which == "best" else run.last
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (*DAMAGED, TypeError) as error:  # A TypeError is Keras' word for a layer that this version does not know.
        raise UserError(f"{path}: a run's network must be loadable. Found: {reason(error)}") from error


def predict_views(network: keras.Model, pairs: Pairs, batch_size: int = 256) -> dict[str, np.ndarray]:
    """Class probabilities of every sample, seen through all modalities and through each alone.

    Args:
        network: of a run.
        pairs: the samples.
        batch_size: rows of one call.

    Returns:
        {view: float32 (n, num_classes)} for each of `spec.views`, rows in the pairs' order.
    """
    model = with_all_views(network)
    predict = tf.function(lambda batch: model(batch, training=False), reduce_retracing=True)
    with readers_errors(), without_tracing_advice():
        probabilities = [predict(batch).numpy() for batch, _ in evaluation_batches(pairs, batch_size)]
    of_windows = np.concatenate(probabilities)
    pooled = pool(of_windows.reshape(len(pairs), -1, *of_windows.shape[1:]).swapaxes(0, 1))
    return dict(zip(pairs.spec.views, pooled.swapaxes(0, 1), strict=True))


def pool(probabilities: np.ndarray) -> np.ndarray:
    """The answers to windows as one, as `model.answers` pools them: (windows, …, num_classes) -> (…, num_classes)."""
    if len(probabilities) == 1:
        return probabilities[0]
    logs = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)).mean(axis=0)
    joined = np.exp(logs - logs.max(axis=-1, keepdims=True))
    return joined / joined.sum(axis=-1, keepdims=True)


MOST_FITTED, MOST_KNOWN, VERSIONS = 4000, 10_000, 5
"""Training inputs of a modality from which its familiarity is learned: how many, with their changed versions, and how
many versions of one."""
MOST_UNKNOWN, CHUNK, BLOCK = 896, 64, 8
"""Training inputs of which each kind of unknown input is made; how many are held at once; and how many share chance."""
LONG = 1000
"""Steps of a training from which on all effort is made: what a shorter one knows is worth no more time than it took."""
STILL_KNOWN = 0.9
"""Where the network is right on this share of what was made of a class in some way, that is no unknown input."""


def measure_trust(
    network: keras.Model,
    train: Pairs,
    val: Pairs,
    augment: Callable[..., dict[str, Any]] | None = None,
    steps: float = math.inf,
) -> Trust | None:
    """What the trust in a network rests on; None where a part lacks a modality, or there are too many of them.

    Args:
        network: of a run.
        train: its training part.
        val: its validation part.
        augment: ({name: values}, keys) -> {name: values}, as training changes samples; None: they stay as they are.
        steps: that the training took; of one below `LONG` fewer unknown inputs and changed versions are made.
    """
    names = train.spec.names
    if len(names) > MOST_MODALITIES:
        return None
    halves, effort = Halves(network), min(1.0, steps / LONG)
    taught, known = dict[str, tuple[np.ndarray, np.ndarray]](), dict[str, np.ndarray]()
    for name in names:
        rows, others = _each_once(train, name), _each_once(val, name)
        if not len(rows) or not len(others):
            return None
        taught[name] = _known_and_unknown(halves, train, rows, name, augment, effort)
        known[name] = _inner(halves, val, others, name)[1]
    every = np.arange(len(val))
    present, embedded = val.seen(every), {name: _inner(halves, val, every, name)[0] for name in names}
    probabilities, label = dict[int, np.ndarray](), dict[int, np.ndarray]()
    for code, combination in enumerate(codes(len(names))):
        if code:
            rows = np.flatnonzero((present | ~combination).all(axis=1))
            label[code] = val.label[rows]
            here = {name: each[rows] for name, each in embedded.items()}
            probabilities[code] = halves.answer(here, tuple(map(bool, combination)))
    return fit_trust(taught, known, probabilities, label, train.spec.num_classes, effort)


def _known_and_unknown(
    halves: Halves,
    train: Pairs,
    rows: np.ndarray,
    name: str,
    augment: Callable[..., dict[str, Any]] | None,
    effort: float,
) -> tuple[np.ndarray, np.ndarray]:
    """What the encoder tells of inputs of the classes and of none, (n, k), and their classes, int (n,)."""
    spec, rng = train.spec, np.random.default_rng(0)
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, MOST_FITTED).astype(int))]
    label, kind = train.labels[name][rows], modality(spec[name].kind)
    versions = math.ceil(effort * min(VERSIONS, MOST_KNOWN // len(rows))) if augment else 1

    def changed(places: np.ndarray, version: int) -> np.ndarray:
        values = train.read(rows[places])[name]
        if not version or not augment:
            return values
        return augment({name: tf.constant(values)}, tf.constant(sample_keys(0, version, rows[places])))[name].numpy()

    inner, classes = [], []
    for version in range(versions):
        for places in np.array_split(np.arange(len(rows)), -(-len(rows) // 256)):
            inner.append(halves.inner(name, changed(places, version))[1])
            classes.append(label[places])
    made: dict[str, list[tuple[np.ndarray, ...]]] = {}
    some = rng.permutation(len(rows))[: math.ceil(effort * MOST_UNKNOWN)]
    for chunk in np.array_split(some, -(-len(some) // CHUNK)):
        own = label[chunk]
        values = changed(chunk, int(rng.integers(versions)))
        blocks = [
            kind.unknowns(values[at : at + BLOCK], own[at : at + BLOCK], spec[name], rng, spec.class_names)
            for at in range(0, len(chunk), BLOCK)
        ]
        for how in blocks[0]:
            embedding, told = halves.inner(name, np.concatenate([block[how] for block in blocks]))
            made.setdefault(how, []).append((told, own, halves.alone(name, embedding) == own))
    for chunks in made.values():
        told, own, right = (np.concatenate(each) for each in zip(*chunks, strict=True))
        num_right, num = (np.bincount(own, weights, spec.num_classes) for weights in (right, None))
        inner.append(told[num_right[own] < STILL_KNOWN * num[own]])
        classes.append(np.full(len(inner[-1]), spec.num_classes))
    return np.concatenate(inner), np.concatenate(classes)


def _each_once(pairs: Pairs, name: str) -> np.ndarray:
    """The places of samples in which each row of a modality is met for the first time."""
    here = np.flatnonzero(pairs.is_present(name))
    return here[np.unique(pairs.rows[name][here], return_index=True)[1]]


def _inner(halves: Halves, pairs: Pairs, places: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings, and what else the encoder tells."""
    with readers_errors():
        blocks = [
            halves.inner(name, pairs.read(places[start : start + 256])[name]) for start in range(0, len(places), 256)
        ]
        embedding, inner = zip(*blocks, strict=True)
        return np.concatenate(embedding), np.concatenate(inner)


def load_fitting(run: Run) -> keras.Model:
    """The best network of a run, which must take what the run's data.json describes.

    Raises:
        UserError: it is missing, damaged, or another run's.
    """
    network, spec = load_network(run), run.spec()
    wanted = {name: shape.shape for name, shape in spec.modalities.items()} | {"present": (len(spec.names),)}
    inputs = network.input if isinstance(network.input, dict) else {}
    shapes = {name: tuple(inputs[name].shape[1:]) for name in wanted if name in inputs}
    if shapes != wanted or network.output.shape[-1] != spec.num_classes:
        rule = f"must take the run's data, {wanted}, and name {spec.num_classes} classes"
        raise UserError(f"{run.best}: {rule}. Found: {shapes}, {network.output.shape[-1]} classes")
    return network
