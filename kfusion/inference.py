"""A trained network, loaded from its run; and its predictions for each view of some samples."""

import keras
import numpy as np
import tensorflow as tf

from kfusion.cli import without_tracing_advice
from kfusion.data.dataset import Pairs
from kfusion.data.pipeline import evaluation_batches, readers_errors
from kfusion.io import DAMAGED
from kfusion.model.build import with_all_views
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
    return dict(zip(pairs.spec.views, np.concatenate(probabilities).swapaxes(0, 1), strict=True))


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
