"""A trained network, loaded from its run; and its predictions for each view of some samples."""

import keras
import numpy as np
import tensorflow as tf

from kfusion.cli import without_tracing_advice
from kfusion.data.dataset import Pairs
from kfusion.data.pipeline import evaluation_batches, readers_errors
from kfusion.io import DAMAGED
from kfusion.model.build import Halves, with_all_views
from kfusion.model.trust import MOST_MODALITIES, Trust, codes, fit_trust
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


MOST_FITTED = 10_000
"""Training inputs of a modality from which means and covariance are taken."""


def measure_trust(network: keras.Model, train: Pairs, val: Pairs) -> Trust | None:
    """What the trust in a network rests on; None where a part lacks a modality, or there are too many of them.

    Args:
        network: of a run.
        train: its training part.
        val: its validation part.
    """
    names = train.spec.names
    if len(names) > MOST_MODALITIES:
        return None
    halves = Halves(network)
    fitted, known = dict[str, tuple[np.ndarray, np.ndarray]](), dict[str, np.ndarray]()
    for name in names:
        rows = _each_once(train, name)
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, MOST_FITTED).astype(int))] if len(rows) else rows
        others = _each_once(val, name)
        if not len(rows) or not len(others):
            return None
        fitted[name] = _embedded(halves, train, rows, name), train.labels[name][rows]
        known[name] = _embedded(halves, val, others, name)
    every = np.arange(len(val))
    present, embedded = val.seen(every), {name: _embedded(halves, val, every, name) for name in names}
    probabilities, label = dict[int, np.ndarray](), dict[int, np.ndarray]()
    for code, combination in enumerate(codes(len(names))):
        if code:
            rows = np.flatnonzero((present | ~combination).all(axis=1))
            label[code] = val.label[rows]
            here = {name: each[rows] for name, each in embedded.items()}
            probabilities[code] = halves.answer(here, tuple(map(bool, combination)))
    return fit_trust(fitted, known, probabilities, label)


def _each_once(pairs: Pairs, name: str) -> np.ndarray:
    """The places of samples in which each row of a modality is met for the first time."""
    here = np.flatnonzero(pairs.is_present(name))
    return here[np.unique(pairs.rows[name][here], return_index=True)[1]]


def _embedded(halves: Halves, pairs: Pairs, places: np.ndarray, name: str, batch_size: int = 256) -> np.ndarray:
    with readers_errors():
        blocks = [places[start : start + batch_size] for start in range(0, len(places), batch_size)]
        return np.concatenate([halves.encode(name, pairs.read(block)[name]) for block in blocks])


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
