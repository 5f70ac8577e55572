"""Config and spec -> keras.Model; and a model taken apart again, into encoders, head and embeddings.

A model maps {name: float32 (batch, *shape) for each modality, "present": bool (batch, modalities)} to probabilities,
float32 (batch, num_classes). `kfusion.model.fusion` says which layers are found in it by their names.
"""

from collections.abc import Mapping, Sequence
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


CELLS, WIDEST = 2, 1024
"""Into how many parts each side of a map of features is divided, whose means stand for it; and the most values of a
layer that are told as they are."""


def encoder_of(network: keras.Model, name: str) -> keras.Model:
    """One modality's encoder, which tells what it computes on the way.

    Args:
        network: as `build_model` made it, maybe loaded from a file.
        name: of the modality.

    Returns:
        A model sharing the network's weights: values -> [the embedding, (batch, embed_dim); what its dense, pooling
        and standardising layers give, the embedding too, (batch, k)]. A map of features is told by its means over
        `CELLS` × `CELLS` parts; where there is no such layer, what the embedding is made of is told.
    """
    embedding, last = (network.get_layer(f"{name}_embedding{end}") for end in ("", "_dropout"))
    values, told = network.input[name], []
    for layer in keras.Model(values, embedding.output).layers:
        if isinstance(layer, layers.MaxPooling2D):
            sides = [-(-int(size) // CELLS) for size in layer.output.shape[1:3]]
            cells = layers.AveragePooling2D(sides, padding="same", dtype="float32", name=f"{layer.name}_cells")
            told.append(layers.Flatten(dtype="float32", name=f"{layer.name}_told")(cells(layer.output)))
        elif layer is embedding or not isinstance(layer, layers.Dense | layers.Normalization):
            continue
        elif len(layer.output.shape) == 2 and layer.output.shape[1] <= WIDEST:
            told.append(layer.output)
    if not told and len(getattr(embedding.input, "shape", ())) == 2:
        told.append(embedding.input)
    inner = layers.Concatenate(dtype="float32", name=f"{name}_inner")([*told, embedding.output])
    return keras.Model(values, [last.output, inner])


class Halves:
    """The encoders and the head of a network, each to be called alone.

    Encoding costs many times what the head does: where many combinations of the same samples are predicted, each
    sample is encoded once.

    Args:
        network: as `build_model` made it, maybe loaded from a file.
    """

    def __init__(self, network: keras.Model) -> None:
        steps, present = network.get_layer("steps").output, network.input["present"]
        head = keras.Model([steps, present], network.output)
        self._head = _compiled(lambda steps, present: head([steps, present], training=False), [steps, present])
        self._encoders, self._inner = {}, {}
        for name in modalities_of(network):
            encoder = encoder_of(network, name)
            self._encoders[name] = _compiled(_without_training(encoder, 0), [network.input[name]])
            self._inner[name] = _compiled(_without_training(encoder, slice(2)), [network.input[name]])

    def encode(self, modality: str, values: np.ndarray) -> np.ndarray:
        """Samples of one modality -> their embeddings.

        Args:
            modality: its name.
            values: float32 (n, *shape).

        Returns:
            float32 (n, embed_dim).
        """
        return self._encoders[modality](values).numpy()

    def inner(self, modality: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Samples of one modality -> their embeddings, and all that `encoder_of` tells, (n, k).

        Args:
            modality: its name.
            values: float32 (n, *shape).
        """
        embedding, inner = self._inner[modality](values)
        return embedding.numpy(), inner.numpy()

    def alone(self, modality: str, embedding: np.ndarray) -> np.ndarray:
        """The classes that one modality names by itself, int (n,).

        Args:
            modality: its name.
            embedding: from `encode`.
        """
        names = tuple(self._encoders)
        embeddings = {name: embedding if name == modality else np.zeros_like(embedding) for name in names}
        return self.answer(embeddings, tuple(name == modality for name in names)).argmax(axis=1)

    def answer(self, embeddings: Mapping[str, np.ndarray], present: tuple[bool, ...] | np.ndarray) -> np.ndarray:
        """Embeddings -> class probabilities.

        Args:
            embeddings: from `encode`, (n, embed_dim) for each modality, in the network's order.
            present: which of them the head may see, in each row or in all: bool (modalities,) or (n, modalities).

        Returns:
            float32 (n, num_classes).
        """
        steps = np.stack(list(embeddings.values()), axis=1)
        seen = np.array(present)
        return self._head(steps, seen if seen.ndim == 2 else np.tile(seen, (len(steps), 1))).numpy()


def _without_training(encoder: keras.Model, which: int | slice) -> Any:
    return lambda values: encoder(values, training=False)[which]


def _compiled(function: Any, inputs: list[Any]) -> Any:
    """One graph for any number of rows."""
    signature = [tf.TensorSpec([None, *each.shape[1:]], each.dtype) for each in inputs]
    return tf.function(function, input_signature=signature, autograph=False)


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
        mean: for each standardised modality (num_values,), of each value over the training part, after the
            modality's `normalisation` where it has one; it becomes part of the graph. An array: of the only one.
        variance: likewise.

    Returns:
        A functional model: {name: float32 (batch, *shape) for each modality, in the data's own unit, "present": bool
        (batch, modalities)} -> probabilities float32 (batch, num_classes).

    Raises:
        ValueError: `mean` or `variance` has another length than the modality's values, or a head or an encoder breaks
            its contract.

    Example:
        >>> network = build_model(ModelConfig(), Spec(), np.zeros(507), np.ones(507))
        >>> sorted(network.input)
        ['audio', 'image', 'present']
    """
    parts = list(each_of(spec))
    standardised = {name: shape.num_values for name, kind, shape in parts if kind.standardised}
    means, variances = _by_name("mean", mean, standardised), _by_name("variance", variance, standardised)
    inputs = {name: keras.Input(shape.shape, name=name) for name, _, shape in parts}
    present = keras.Input((len(parts),), dtype="bool", name="present")
    # All before the encoders, as in the first version: each layer takes the next seed.
    norms = {name: kind.normalisation(config, name, shape) for name, kind, shape in parts}
    embeddings = []
    for name, kind, shape in parts:
        norm = norms[name]
        values = norm(inputs[name]) if norm else inputs[name]
        embeddings.append(kind.encode(values, name, shape, config, means.get(name), variances.get(name)))
    steps = layers.Identity(name="steps")(ops.stack(embeddings, axis=1))
    # An absent modality may hold anything, NaN too: no head gets to see it.
    steps = ops.where(ops.expand_dims(present, -1), steps, 0.0)
    probabilities = HEADS[config.fusion](steps, present, config, spec)
    network = keras.Model({**inputs, "present": present}, probabilities, name=f"kfusion_{config.fusion}")
    _check_contract(network, config, spec)
    return network


def _check_contract(network: keras.Model, config: ModelConfig, spec: Spec) -> None:
    """Whether a head, and each kind's encoder, built what `kfusion.model.fusion` and `Modality.encode` promise.

    Raises:
        ValueError: a layer is missing, or gives another shape, or the answers are no softmax in float32.
    """
    outputs = {layer.name: layer.output for layer in network.layers}

    def check(rule: bool, layer: str, text: str, received: object) -> None:
        if not rule:
            raise ValueError(f"fusion {config.fusion!r}: the layer {layer!r} must {text}. Received: {received}")

    embedding = dict.fromkeys([f"{name}_embedding{end}" for name in spec.names for end in ("", "_dropout")])
    for layer in (*embedding, "steps", "fusion", "probabilities"):
        check(layer in outputs, layer, "be there", f"layers {', '.join(outputs)}")
    for layer in embedding:
        width = (None, config.embed_dim)
        check(outputs[layer].shape == width, layer, f"have the shape {width}", outputs[layer].shape)
    check(len(outputs["fusion"].shape) == 2, "fusion", "have the shape (None, k)", outputs["fusion"].shape)
    last, wanted = network.get_layer("probabilities"), (None, spec.num_classes)
    softmax = isinstance(last, layers.Softmax) or getattr(last, "activation", None) is keras.activations.softmax
    check(network.output is last.output, "probabilities", "be the last one", network.output.name)
    check(softmax, "probabilities", "be a softmax", type(last).__name__)
    received = (last.output.shape, last.output.dtype)
    check(received == (wanted, "float32"), "probabilities", f"give float32 of the shape {wanted}", received)


def _by_name(what: str, values: Any, sizes: dict[str, int]) -> dict[str, Any]:
    """The statistics of each standardised modality, of the right length."""
    named = dict(values) if isinstance(values, Mapping) else dict.fromkeys(list(sizes)[:1], values)
    for name, size in sizes.items():
        vector = named.get(name)
        if vector is None or np.shape(vector) != (size,):
            received = f"none of {name!r}" if vector is None else np.size(vector)
            raise ValueError(f"'{what}' must have {size} values, one per feature. Received: {received}")
    return named


def with_all_views(network: keras.Model) -> keras.Model:
    """Wraps a network so that one call returns the fused and every single-modality prediction.

    The encoders, which cost the most, run once; only the head runs once per view.

    Args:
        network: as `build_model` made it, maybe loaded from a file.

    Returns:
        A model with the network's inputs and weights -> probabilities float32 (batch, views, num_classes), in the order
        of `spec.views`. Where a sample lacks the modality of a view, that row holds the prediction from all it has. To
        save the network afterwards save `as_float32(network)`: Keras loses track of a model whose layers have
        been shared since it was made.
    """
    steps, present = network.get_layer("steps").output, network.input["present"]
    all_views = HeadInEachView(keras.Model([steps, present], network.output), name="all_views")
    return keras.Model(network.input, all_views(steps, present), name=f"{network.name}_all_views")


class HeadInEachView(layers.Layer):
    """Steps (batch, modalities, embed_dim) and present -> the head's predictions for each view, stacked on axis 1.

    A layer, not plain operations: these would take names that a network loaded from a file has already.

    Args:
        head: (steps, present) -> probabilities (batch, num_classes).
    """

    def __init__(self, head: keras.Model, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.head = head

    def call(self, steps: Any, present: Any, training: bool | None = None) -> Any:
        """Predictions of every view; see the class."""
        predictions = []
        for view in views_of(tuple(map(str, range(steps.shape[1])))).values():
            seen = ops.logical_and(present, ops.convert_to_tensor([view]))
            seen = ops.where(ops.any(seen, axis=1, keepdims=True), seen, present)
            predictions.append(self.head([steps, seen], training=training))
        return ops.stack(predictions, axis=1)

    def compute_output_shape(self, steps_shape: Any, present_shape: Any) -> Any:
        """The shape of the output, for Keras."""
        return (steps_shape[0], steps_shape[1] + 1, self.head.output_shape[-1])


def as_float32(network: keras.Model) -> keras.Model:
    """The same network with the same weights, every layer computing in float32, without an optimizer.

    A run trained under a mixed-precision policy is saved like this, so that any machine can load it.
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
