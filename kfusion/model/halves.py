"""A network taken apart: its two encoders, and the head that joins what they found."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kfusion.spec import MODALITIES


class Halves:
    """Asks the encoders and the head of a network on their own.

    Encoding costs many times what the head does: whoever wants to know how a network answers to many combinations of
    the same images and sounds encodes each once.

    Args:
        network: as `build_model` made it, maybe loaded from a file.
    """

    def __init__(self, network: keras.Model) -> None:
        steps, present = network.get_layer("steps").output, network.input["present"]
        head = keras.Model([steps, present], network.output)
        self._head = _compiled(lambda steps, present: head([steps, present], training=False), [steps, present])
        self._encoders = {}
        for name in MODALITIES:
            encoder = keras.Model(network.input[name], network.get_layer(f"{name}_embedding_dropout").output)
            self._encoders[name] = _compiled(_without_training(encoder), [network.input[name]])

    def encode(self, modality: str, values: np.ndarray) -> np.ndarray:
        """Images float32 (n, height, width, channels), or sounds float32 (n, num_audio) -> (n, embed_dim)."""
        return self._encoders[modality](values).numpy()

    def answer(self, image: np.ndarray, audio: np.ndarray, present: tuple[bool, bool]) -> np.ndarray:
        """Embeddings (n, embed_dim) each -> class probabilities float32 (n, num_classes).

        Args:
            image, audio: from `encode`.
            present: which of the two the head may see, in the order of `MODALITIES`.
        """
        steps = np.stack([image, audio], axis=1)
        return self._head(steps, np.tile(np.array(present), (len(steps), 1))).numpy()


def _without_training(encoder: keras.Model) -> Any:
    return lambda values: encoder(values, training=False)


def _compiled(function: Any, inputs: list[Any]) -> Any:
    """One graph for any number of rows."""
    signature = [tf.TensorSpec([None, *each.shape[1:]], each.dtype) for each in inputs]
    return tf.function(function, input_signature=signature, autograph=False)
