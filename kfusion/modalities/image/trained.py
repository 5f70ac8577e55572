"""Image encoders that are trained already: a Keras model from a file, or a network of `keras.applications`.

The network stands in the model as one layer, `{name}_body`, so that a saved run needs the file no more. Its batch
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
from kfusion.modalities.encoders import BODY, embedding
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
