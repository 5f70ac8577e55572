"""Config and spec -> keras.Model; and a model taken apart again, into encoders, head and embeddings."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from numpy.typing import ArrayLike

from kfusion.config import ModelConfig
from kfusion.modalities.encoders import encode_audio, encode_image, utterance_norm
from kfusion.model.fusion import HEADS
from kfusion.spec import FUSED, MODALITIES, VIEWS, Spec

LAYERS = {**{name: f"{name}_embedding" for name in MODALITIES}, FUSED: "fusion"}
"""Which layer's output is which embedding."""


def with_embeddings(network: keras.Model) -> keras.Model:
    """The network cut off at its embeddings, sharing its weights; one forward pass gives all three.

    Args:
        network: as `build_model` made it, maybe loaded from a file.

    Returns:
        A model: {"image", "audio", "present"} -> {"image": float32 (batch, embed_dim), "audio": the same, "fused":
        (batch, k)}. The fused one is what the softmax reads: the LSTM's state, k = `hidden_dim`; the transformer's
        class token, k = `embed_dim`; or late fusion's sum of log posteriors, k = `num_classes`.
    """
    outputs = {name: network.get_layer(layer).output for name, layer in LAYERS.items()}
    return keras.Model(network.input, outputs, name=f"{network.name}_embeddings")


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


def build_model(config: ModelConfig, spec: Spec, mean: ArrayLike, variance: ArrayLike) -> keras.Model:
    """Image encoder and audio encoder, their embeddings as a sequence, a fusion head, a softmax.

    Args:
        config: the widths and the head's name.
        spec: the shapes and the number of classes.
        mean, variance: (num_audio,), of each audio feature over the training part, after `utterance_norm` where the
            config has it; they become part of the graph.

    Returns:
        A functional model: {"image": float32 (batch, height, width, channels) in 0 to `spec.pixel_max`, "audio":
        float32 (batch, num_audio), "present": bool (batch, 2)} -> probabilities float32 (batch, num_classes).

    Raises:
        ValueError: `mean` or `variance` has another length than the spec's audio.
    """
    for name, values in (("mean", mean), ("variance", variance)):
        if np.shape(values) != (spec.num_audio,):
            raise ValueError(
                f"'{name}' must have {spec.num_audio} values, one per feature. Received: {np.size(values)}"
            )
    image = keras.Input(spec.image_shape, name="image")
    audio = keras.Input((spec.num_audio,), name="audio")
    present = keras.Input((len(MODALITIES),), dtype="bool", name="present")
    norm = utterance_norm(config, spec)
    embedded = {
        "image": encode_image(image, config, spec),
        "audio": encode_audio(norm(audio) if norm else audio, config, mean, variance),
    }
    stacked = ops.stack([embedded[name] for name in MODALITIES], axis=1)
    steps = layers.Identity(name="steps")(stacked)
    # An absent modality may hold anything, NaN too: no head gets to see it.
    steps = ops.where(ops.expand_dims(present, -1), steps, 0.0)
    probabilities = HEADS[config.fusion](steps, present, config, spec.num_classes)
    inputs = {"image": image, "audio": audio, "present": present}
    return keras.Model(inputs, probabilities, name=f"kfusion_{config.fusion}")


def with_all_views(network: keras.Model) -> keras.Model:
    """The network asked in each of the `VIEWS` at once; the encoders, which cost the most, run once.

    Returns:
        A model with the network's inputs and weights -> probabilities float32 (batch, 3, num_classes). Where a sample
        lacks the modality that a view asks for, the view's answer is that to all it has. To save the network afterwards
        save `as_float32(network)`: Keras loses track of a model whose layers have been shared since it was made.
    """
    steps, present = network.get_layer("steps").output, network.input["present"]
    ask = AskedInEachView(keras.Model([steps, present], network.output), name="all_views")
    return keras.Model(network.input, ask(steps, present), name=f"{network.name}_all_views")


class AskedInEachView(layers.Layer):
    """Steps (batch, 2, embed_dim) and present (batch, 2) -> the head's answers to each view, stacked on axis 1.

    A layer, not plain operations: these would take names that a network loaded from a file has already.
    """

    def __init__(self, head: keras.Model, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.head = head

    def call(self, steps: Any, present: Any, training: bool | None = None) -> Any:
        answers = []
        for view in VIEWS.values():
            asked = ops.logical_and(present, ops.convert_to_tensor([view]))
            asked = ops.where(ops.any(asked, axis=1, keepdims=True), asked, present)
            answers.append(self.head([steps, asked], training=training))
        return ops.stack(answers, axis=1)

    def compute_output_shape(self, steps_shape: Any, present_shape: Any) -> Any:
        return (steps_shape[0], len(VIEWS), self.head.output_shape[-1])


def as_float32(network: keras.Model) -> keras.Model:
    """The same network with the same weights, every layer computing in float32, without an optimizer.

    A run trained under a mixed-precision policy is kept like this, so that any machine can answer with it.
    """
    if all(layer.dtype_policy.name == "float32" for layer in network.layers):
        return keras.Model(network.input, network.output, name=network.name)

    def in_float32(operation: keras.Operation) -> keras.Operation:
        dtype = {"dtype": "float32"} if isinstance(operation, layers.Layer) else {}
        return operation.__class__.from_config({**operation.get_config(), **dtype})

    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        copy = keras.models.clone_model(network, clone_function=in_float32)
    finally:
        keras.config.set_dtype_policy(policy)
    copy.set_weights(network.get_weights())
    return copy
