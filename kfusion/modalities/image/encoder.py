"""Image encoders that are trained already: a Keras model from a file, or a network of `keras.applications`.

And pictures in a few hundred numbers, by which a linear model tells them apart: what a network has to beat.

A trained network stands in the model as one layer, `{name}_body`, so that a saved run needs the file no more. Its batch
normalisation and dropout stay as in inference, as is usual where few pictures train a network that has seen many.
What it expects is put before it: its size, its channels, and its range.
"""

from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from kfusion.config import ModelConfig
from kfusion.io import DAMAGED
from kfusion.modalities.encoders import BODY, averaging, embedding, interpolating
from kfusion.spec import ModalitySpec
from kfusion.validation import UserError, broken, reason

BRIGHTEST = 255.0
FROM_GREY, TO_GREY = np.ones((1, 3)), np.array([[0.299], [0.587], [0.114]])


def encode_by_trained(values: Any, name: str, spec: ModalitySpec, config: ModelConfig) -> Any:
    """The trained network, then dropout and the embedding's dense layer.

    Args:
        values: float32 (batch, height, width, channels), in the data's own unit.
        name: of the modality.
        spec: its shape and scale.
        config: which network, dropout and the embedding's size.

    Returns:
        float32 (batch, embed_dim), ≥ 0.

    Raises:
        UserError: the network cannot be had, or takes or gives something else.
    """
    if config.image_encoder.endswith(".keras"):
        body, brightest = _from_file(Path(config.image_encoder))
        weights, bias = np.eye(body.input_shape[-1]), np.zeros(body.input_shape[-1])
    else:
        body, weights, bias = _from_applications(config, spec)
        brightest = BRIGHTEST
    *size, channels = body.input_shape[1:]
    x = layers.Rescaling(brightest / spec.scale, name=f"{name}_scaling")(values)
    if channels != spec.shape[2]:
        weights = (FROM_GREY if spec.shape[2] == 1 else TO_GREY) @ weights
    if weights.shape != (channels, channels) or np.any(weights != np.eye(channels)) or np.any(bias):
        x = _fixed(weights, bias, f"{name}_colours")(x)
    if None not in size and tuple(size) != spec.shape[:2]:
        x = layers.Resizing(*size, antialias=True, name=f"{name}_resizing")(x)
    body = keras.Model(body.inputs[0], body.outputs[0], name=f"{name}{BODY}")
    x = body(x, training=False)
    if len(x.shape) == 4:
        x = layers.GlobalAveragePooling2D(name=f"{name}_pool")(x)
    x = layers.Dropout(config.image_dropout, name=f"{name}_dropout")(x)
    return embedding(x, name, config)


def _fixed(weights: np.ndarray, bias: np.ndarray, name: str) -> layers.Layer:
    """A layer of colours in, colours out, that is never trained."""
    constant = keras.initializers.Constant
    return layers.Dense(
        weights.shape[1],
        kernel_initializer=constant(weights.tolist()),
        bias_initializer=constant(bias.tolist()),
        trainable=False,
        name=name,
    )


def _from_file(path: Path) -> tuple[keras.Model, float]:
    """A model from images to features, and the number that it takes for full brightness."""
    try:
        model: Any = keras.saving.load_model(path, compile=False, safe_mode=True)
    except (*DAMAGED, TypeError) as error:
        raise broken(path, "an image encoder must be a Keras model that can be loaded", reason(error)) from error
    if "present" in [x.name for x in getattr(model, "inputs", None) or []]:
        model = _encoder_of(model, path)
    _check(model, str(path))
    return model, _brightest(model.layers[:3])


def _brightest(first: list[Any]) -> float:
    """What a model's first layers take for full brightness: 255 where they make the numbers smaller, else 1."""
    for layer in first:
        if isinstance(layer, layers.Rescaling):
            return BRIGHTEST if np.max(layer.scale) < 0.5 else 1.0
        if isinstance(layer, layers.Normalization):
            return BRIGHTEST if np.max(layer.mean) > 1 else 1.0
    return 1.0


def _encoder_of(network: keras.Model, path: Path) -> keras.Model:
    """The encoder of pictures of one of kfusion's own networks, up to what its embedding reads."""
    for name, tensor in network.input.items():
        if len(tensor.shape) == 4:
            return keras.Model(tensor, network.get_layer(f"{name}_embedding").input)
    raise broken(path, "an image encoder must take pictures", f"a network of {', '.join(network.input)}")


def _check(model: Any, what: str) -> None:
    sides = (getattr(model, name, None) or [] for name in ("inputs", "outputs"))
    shapes = [tuple(x.shape) for side in sides for x in side]
    right = len(shapes) == 2 and len(shapes[0]) == 4 and shapes[0][-1] in (1, 3) and len(shapes[1]) in (2, 4)
    if not right or shapes[1][-1] is None:
        rule = "an image encoder must take (batch, height, width, 1 or 3) and give (batch[, height, width], features)"
        raise UserError(f"{what}: {rule}. Found: {' -> '.join(map(str, shapes))}")


def _from_applications(config: ModelConfig, spec: ModalitySpec) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """A network without its top, and the map of colours in 0-255 that it wants: weights (3, 3) and bias (3,)."""
    name, weights = config.image_encoder, config.image_weights
    build = getattr(keras.applications, name, None)
    if not (callable(build) and name[0].isupper()):
        known = sorted(each for each in dir(keras.applications) if each[0].isupper())
        rule = f"auto, conv, pooled, a .keras file, or one of keras.applications: {', '.join(known)}"
        raise UserError(f"'image_encoder' must be {rule}. Received: {name!r}")
    if weights and not Path(weights).is_file():
        raise broken(Path(weights), "must be a file of weights", "none")
    try:
        body = build(include_top=False, weights=weights or None, input_shape=(*spec.shape[:2], 3), pooling="avg")
    except (*DAMAGED, TypeError) as error:
        rule = f"'image_encoder' {name} must take pictures of {spec.shape[0]} × {spec.shape[1]} and the weights"
        raise UserError(f"{rule}. Found: {reason(error)}") from error
    module = next(
        part
        for part in map(partial(getattr, keras.applications), dir(keras.applications))
        if hasattr(part, "preprocess_input") and getattr(part, name, None) is build
    )
    # Each changes colours linearly: black and the three colours say all of it.
    probes = np.concatenate([np.zeros((1, 3)), np.eye(3)])[:, None, None].astype("float32") * 255
    black, *colours = ops.convert_to_numpy(module.preprocess_input(probes.copy(), "channels_last"))[:, 0, 0]
    return body, (np.stack(colours) - black) / 255, black


NUM_DIRECTIONS, EDGE_CELLS, COLOUR_CELLS = 9, 4, 8
"""Directions of an edge, in half a turn; and how many cells a side has for edges and for colours."""
BRIGHTNESS = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
"""Steps of brightness that are told apart."""
FAINT = 0.02
"""What is added to the length of a cell's edges before they are divided by it: a plain cell has none."""


@keras.saving.register_keras_serializable("kfusion")
class PictureSummary(layers.Layer):
    """Histograms of edges by direction in 4 × 4 cells, mean colours in 8 × 8, and quantiles of each colour.

    Pixels (batch, height, width, channels) -> (batch, k), k = 144 + 71 channels for pictures of 8 × 8 pixels and more.
    An edge counts for the two directions between which it lies. The histogram of a cell is divided by its length, so
    that contrast does not matter.

    Args:
        scale: the brightest value a pixel may have.

    Reference: Dalal and Triggs 2005, without their overlapping blocks.
    """

    def __init__(self, scale: int, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.scale = scale

    def call(self, pixels: Any) -> Any:
        """See the class."""
        # An absent picture may hold NaN, which no sorting puts in order. Whole numbers are added up without rounding:
        # every runtime finds the same edges in a plain cell.
        pixels = ops.round(ops.where(ops.equal(pixels, pixels), pixels, 0.0) * (BRIGHTEST / self.scale))
        height, width, channels = pixels.shape[1:]
        colours = ops.transpose(pixels, (0, 3, 1, 2))
        grey = ops.sum(colours, axis=1)
        down = ops.matmul(_slopes(height), grey)
        right = ops.matmul(grey, _slopes(width).T)
        strength = ops.sqrt(down * down + right * right) / (BRIGHTEST * channels)
        colours = colours / BRIGHTEST
        direction = ops.arctan2(down, right) * (NUM_DIRECTIONS / np.pi)
        shares = []
        for each in range(NUM_DIRECTIONS):
            apart = ops.abs(ops.mod(direction - each + NUM_DIRECTIONS / 2, NUM_DIRECTIONS) - NUM_DIRECTIONS / 2)
            shares.append(strength * ops.relu(1 - apart))
        edges = _cells(ops.stack(shares, axis=1), EDGE_CELLS)
        edges = edges / (ops.sqrt(ops.sum(edges * edges, axis=1, keepdims=True)) + FAINT)
        flat = ops.reshape(colours, (-1, channels, height * width))
        bright = ops.matmul(ops.sort(flat), interpolating(height * width, BRIGHTNESS))
        parts = [edges, _cells(colours, COLOUR_CELLS), bright]
        return ops.concatenate([ops.reshape(part, (-1, int(np.prod(part.shape[1:])))) for part in parts], axis=1)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same layer, for saving."""
        return {**super().get_config(), "scale": self.scale}


def _slopes(size: int) -> np.ndarray:
    """The matrix that takes differences along an axis: of both neighbours, halved; at the ends of one."""
    return np.asarray(np.gradient(np.eye(size, dtype=np.float32), axis=0)) if size > 1 else np.zeros((1, 1), np.float32)


def _cells(values: Any, num_cells: int) -> Any:
    """(batch, channels, height, width) -> the mean of each of `num_cells` × `num_cells` cells."""
    height, width = values.shape[2:]
    return ops.matmul(ops.matmul(averaging(height, num_cells).T, values), averaging(width, num_cells))
