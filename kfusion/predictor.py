"""A trained network -> its answers to each view of some pairs."""

import keras
import numpy as np
import tensorflow as tf

from kfusion.data.pairs import Pairs
from kfusion.data.pipeline import evaluation_batches, readers_errors
from kfusion.model.build import with_all_views
from kfusion.rules import UserError, reason
from kfusion.run import Run
from kfusion.spec import VIEWS
from kfusion.system.files import DAMAGED


def load_network(run: Run, which: str = "best") -> keras.Model:
    """The network of a run: {"image", "audio", "present"} -> probabilities.

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
    """Class probabilities of every pair, seen through both modalities and through each alone.

    Returns:
        {view: float32 (n, num_classes)} for each of `VIEWS`, rows in the pairs' order.
    """
    asked = with_all_views(network)
    answer = tf.function(lambda batch: asked(batch, training=False), reduce_retracing=True)
    with readers_errors():
        answers = np.concatenate([answer(batch).numpy() for batch, _ in evaluation_batches(pairs, batch_size)])
    return {view: answers[:, index] for index, view in enumerate(VIEWS)}
