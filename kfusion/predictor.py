"""A trained network -> its answers to each view of some pairs."""

import keras
import numpy as np
import tensorflow as tf

from kfusion.data.pairs import Pairs
from kfusion.data.pipeline import evaluation_batches
from kfusion.model import encoders, fusion  # noqa: F401  # registers the layers that a saved network names
from kfusion.run import Run
from kfusion.spec import VIEWS


def load_network(run: Run, which: str = "best") -> keras.Model:
    """The network of a run: {"image", "audio", "present"} -> probabilities.

    Args:
        run: a run folder.
        which: "best" on validation, or "last".

    Raises:
        ValueError: the file is missing or damaged.
    """
    path = run.best if which == "best" else run.last
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: a run's network must be loadable. Found: {str(error).splitlines()[0]}") from error


def predict_views(network: keras.Model, pairs: Pairs, batch_size: int = 512) -> dict[str, np.ndarray]:
    """Class probabilities of every pair, seen through both modalities and through each alone.

    Returns:
        {view: float32 (n, num_classes)} for each of `VIEWS`, rows in the pairs' order.
    """

    @tf.function(reduce_retracing=True)
    def answer(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        like = tf.ones_like(batch["present"])
        seen = {view: tf.logical_and(like, tf.constant([present])) for view, present in VIEWS.items()}
        return {view: network({**batch, "present": present}, training=False) for view, present in seen.items()}

    answers = [answer(batch) for batch, _ in evaluation_batches(pairs, batch_size)]
    return {view: np.concatenate([part[view].numpy() for part in answers]) for view in VIEWS}
