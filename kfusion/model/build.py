"""Config and spec -> keras.Model; and a model taken apart again, into encoders, head and embeddings."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from numpy.typing import ArrayLike

from kfusion.config import ModelConfig
from kfusion.modalities import each_of
from kfusion.model.fusion import HEADS
from kfusion.spec import FUSED, Spec, views_of


def modalities_of(network: keras.Model) -> tuple[str, ...]:
    """The names of the modalities that a network takes, in their order."""
    return tuple(name for name in network.input if name not in ("present", "keys"))


def embedding_layers(names: Sequence[str]) -> dict[str, str]:
    """Which layer's output is which embedding: each modality's, and the fused one."""
    return {**{name: f"{name}_embedding" for name in names}, FUSED: "fusion"}


def with_embeddings(network: keras.Model) -> keras.Model:
    """The network cut off at its embeddings, sharing its weights; one forward pass gives all of them.

    Args:
        network: as `build_model` made it, maybe loaded from a file.

    Returns:
        A model: {name: values, "present"} -> {name: float32 (batch, embed_dim) for each modality, "fused": (batch, k)}.
        The fused one is what the softmax reads: the LSTM's state, k = `hidden_dim`; the transformer's class token,
        k = `embed_dim`; or late fusion's sum of log posteriors, k = `num_classes`.
    """
    named = embedding_layers(modalities_of(network))
    outputs = {name: network.get_layer(layer).output for name, layer in named.items()}
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
        for name in modalities_of(network):
            encoder = keras.Model(network.input[name], network.get_layer(f"{name}_embedding_dropout").output)
            self._encoders[name] = _compiled(_without_training(encoder), [network.input[name]])

    def encode(self, modality: str, values: np.ndarray) -> np.ndarray:
        """Samples of one modality -> their embeddings.

        Args:
            modality: its name.
            values: float32 (n, *shape).

        Returns:
            float32 (n, embed_dim).
        """
        return self._encoders[modality](values).numpy()

    def answer(self, embedded: Mapping[str, np.ndarray], present: tuple[bool, ...]) -> np.ndarray:
        """Embeddings -> class probabilities.

        Args:
            embedded: from `encode`, (n, embed_dim) for each modality, in the network's order.
            present: which of them the head may see.

        Returns:
            float32 (n, num_classes).
        """
        steps = np.stack(list(embedded.values()), axis=1)
        return self._head(steps, np.tile(np.array(present), (len(steps), 1))).numpy()


def _without_training(encoder: keras.Model) -> Any:
    return lambda values: encoder(values, training=False)


def _compiled(function: Any, inputs: list[Any]) -> Any:
    """One graph for any number of rows."""
    signature = [tf.TensorSpec([None, *each.shape[1:]], each.dtype) for each in inputs]
    return tf.function(function, input_signature=signature, autograph=False)


def normalisations(config: ModelConfig, spec: Spec) -> dict[str, Callable[[Any], Any] | None]:
    """For each modality the layer that normalises its samples one by one; None: there is none.

    Args:
        config: the network's settings.
        spec: the modalities.
    """
    return {name: kind.normalisation(config, name, shape) for name, kind, shape in each_of(spec)}


def build_model(
    config: ModelConfig,
    spec: Spec,
    mean: Mapping[str, ArrayLike] | ArrayLike,
    variance: Mapping[str, ArrayLike] | ArrayLike,
) -> keras.Model:
    """An encoder for each modality, their embeddings as a sequence, a fusion head, a softmax.

    Args:
        config: the widths and the head's name.
        spec: the modalities and the number of classes.
        mean, variance: for each standardised modality (num_values,), of each value over the training part, after
            `normalisations` where the config has them; they become part of the graph. An array: of the only one.

    Returns:
        A functional model: {name: float32 (batch, *shape) for each modality, in the data's own unit, "present": bool
        (batch, modalities)} -> probabilities float32 (batch, num_classes).

    Raises:
        ValueError: `mean` or `variance` has another length than the modality's values.

    Example:
        >>> network = build_model(ModelConfig(), Spec(), np.zeros(507), np.ones(507))
        >>> sorted(network.input)
        ['audio', 'image', 'present']
    """
    scaled = [name for name, kind, _ in each_of(spec) if kind.standardised]
    means, variances = _by_name("mean", mean, scaled, spec), _by_name("variance", variance, scaled, spec)
    inputs = {name: keras.Input(shape.shape, name=name) for name, shape in spec.modalities.items()}
    present = keras.Input((len(spec.names),), dtype="bool", name="present")
    norms, embedded = normalisations(config, spec), []
    for name, kind, shape in each_of(spec):
        norm = norms[name]
        values = norm(inputs[name]) if norm else inputs[name]
        embedded.append(kind.encode(values, name, shape, config, means.get(name), variances.get(name)))
    steps = layers.Identity(name="steps")(ops.stack(embedded, axis=1))
    # An absent modality may hold anything, NaN too: no head gets to see it.
    steps = ops.where(ops.expand_dims(present, -1), steps, 0.0)
    probabilities = HEADS[config.fusion](steps, present, config, spec)
    return keras.Model({**inputs, "present": present}, probabilities, name=f"kfusion_{config.fusion}")


def _by_name(what: str, given: Any, scaled: list[str], spec: Spec) -> dict[str, Any]:
    """The statistics of each standardised modality, of the right length."""
    found = dict(given) if isinstance(given, Mapping) else dict.fromkeys(scaled[:1], given)
    for name in scaled:
        size = spec[name].num_values
        if np.shape(found.get(name)) != (size,):
            received = np.size(found[name]) if name in found else f"none of {name!r}"
            raise ValueError(f"'{what}' must have {size} values, one per feature. Received: {received}")
    return found


def with_all_views(network: keras.Model) -> keras.Model:
    """The network asked in each view at once; the encoders, which cost the most, run once.

    Returns:
        A model with the network's inputs and weights -> probabilities float32 (batch, views, num_classes), in the order
        of `spec.views`. Where a sample lacks the modality that a view asks for, the view's answer is that to all it
        has. To save the network afterwards save `as_float32(network)`: Keras loses track of a model whose layers have
        been shared since it was made.
    """
    steps, present = network.get_layer("steps").output, network.input["present"]
    ask = AskedInEachView(keras.Model([steps, present], network.output), name="all_views")
    return keras.Model(network.input, ask(steps, present), name=f"{network.name}_all_views")


class AskedInEachView(layers.Layer):
    """Steps (batch, modalities, embed_dim) and present -> the head's answers to each view, stacked on axis 1.

    A layer, not plain operations: these would take names that a network loaded from a file has already.
    """

    def __init__(self, head: keras.Model, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.head = head

    def call(self, steps: Any, present: Any, training: bool | None = None) -> Any:
        answers = []
        for view in _views(steps.shape[1]):
            asked = ops.logical_and(present, ops.convert_to_tensor([view]))
            asked = ops.where(ops.any(asked, axis=1, keepdims=True), asked, present)
            answers.append(self.head([steps, asked], training=training))
        return ops.stack(answers, axis=1)

    def compute_output_shape(self, steps_shape: Any, present_shape: Any) -> Any:
        return (steps_shape[0], steps_shape[1] + 1, self.head.output_shape[-1])


def _views(num_modalities: int) -> list[tuple[bool, ...]]:
    """What each view may see of so many modalities."""
    return list(views_of(tuple(map(str, range(num_modalities)))).values())


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
