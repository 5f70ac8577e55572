"""The encoders that modalities share: one modality in, one embedding (batch, embed_dim) out. Functional API.

Layers are named after the modality; the names `{name}_embedding` and `{name}_embedding_dropout` are the contract
with whoever takes a network apart (`kfusion.model.build`).
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import ArrayLike, NDArray

from kfusion.config import ModelConfig
from kfusion.spec import ModalitySpec, Spec

BODY = "_body"
"""What the name of the layer ends in that is the trained network."""
MOST_FLATTENED = 4096
"""Values that the convolution blocks leave, at most, where their number fits the shape."""
WIDEST = 128
"""Filters of the blocks that are added."""
PLAIN_BLOCKS = 2
"""The paper's blocks; those beyond have batch normalisation, without which a few hundred steps teach them nothing."""
MOMENTUM = 0.95
"""Of batch normalisation's averages: short trainings of small data end before those of Keras' 0.99 are right."""
POOLED_FILTERS = (24, 48, 96)
LARGEST_MAP = 8
"""Pixels along a side that the last of the pooled blocks may have, where their number fits the shape."""
FARTHEST = 3.0
"""Standard deviations beyond which a value is as far off as can be: of larger ones float32 keeps too few digits."""
SIMILARITY_BLOCK = 64
"""Prototypes that are compared at once."""
KERNEL_SIZES = (5, 3)
"""Pixels: the first block's kernels, and those of every later block."""


def fitted_filters(filters: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Filters of as many blocks as leave at most `MOST_FLATTENED` values of an image.

    Args:
        filters: of the first blocks; each that is added has twice as many as the one before it, `WIDEST` at most.
        shape: height, width and channels.

    Example:
        >>> fitted_filters((32, 64), (28, 28, 1)), fitted_filters((32, 64), (64, 64, 3))
        ((32, 64), (32, 64, 128, 128))
    """
    while math.prod(-(-side // 2 ** len(filters)) for side in shape[:2]) * filters[-1] > MOST_FLATTENED:
        filters = (*filters, max(filters[-1], min(2 * filters[-1], WIDEST)))
        if 2 ** len(filters) >= 2 * max(shape[:2]):
            break
    return filters


def encode_convolutional(values: Any, name: str, spec: ModalitySpec, config: ModelConfig) -> Any:
    """Blocks of two convolutions and a max-pooling, then a dense layer.

    The first block's kernels are 5 × 5, the others' 3 × 3 (the paper's section on the image encoder). Values are
    divided by `spec.scale` in here, so that no caller has to remember it.

    Args:
        values: float32 (batch, height, width, channels), in the data's own units, 0 to `spec.scale`.
        name: of the modality.
        spec: its shape and scale.
        config: filters, dropout and the embedding's size.

    Returns:
        float32 (batch, embed_dim), ≥ 0.
    """
    x = layers.Rescaling(1.0 / spec.scale, name=f"{name}_scaling")(values)
    for block, filters in enumerate(config.filters):
        kernel = KERNEL_SIZES[min(block, len(KERNEL_SIZES) - 1)]
        for half in ("a", "b"):
            conv = f"{name}_conv{block + 1}{half}"
            if block < PLAIN_BLOCKS:
                x = layers.Conv2D(filters, kernel, padding="same", activation="relu", name=conv)(x)
                continue
            x = layers.Conv2D(filters, kernel, padding="same", use_bias=False, name=conv)(x)
            x = layers.BatchNormalization(momentum=MOMENTUM, name=f"{conv}_norm")(x)
            x = layers.ReLU(name=f"{conv}_relu")(x)
        # Same padding: an image of any size, down to one pixel, keeps at least one value.
        x = layers.MaxPooling2D(padding="same", name=f"{name}_pool{block + 1}")(x)
    x = layers.Flatten(name=f"{name}_flatten")(x)
    x = layers.Dropout(config.image_dropout, name=f"{name}_dropout")(x)
    return embedding(x, name, config)


def convolve(x: Any, name: str, filters: tuple[int, ...], strides: tuple[int, int]) -> Any:
    """Convolutions with batch normalisation: 5 × 5, then a block of 3 × 3 for each of the filters.

    The first block is one convolution, each other one a max-pooling of both axes and two convolutions.

    Args:
        x: float32 (batch, height, width, channels).
        name: of the modality.
        filters: of each block.
        strides: of the first convolution.

    Returns:
        float32 (batch, fewer rows, fewer columns, filters[-1]), ≥ 0.
    """

    def convolved(x: Any, filters: int, step: str, size: int = 3, strides: tuple[int, int] = (1, 1)) -> Any:
        conv = layers.Conv2D(filters, size, strides, padding="same", use_bias=False, name=f"{name}_conv{step}")
        x = layers.BatchNormalization(momentum=MOMENTUM, name=f"{name}_norm{step}")(conv(x))
        return layers.ReLU(name=f"{name}_relu{step}")(x)

    x = convolved(x, filters[0], "0", 5, strides)
    for block, num in enumerate(filters, 1):
        if block > 1:
            x = layers.MaxPooling2D(padding="same", name=f"{name}_pool{block - 1}")(x)
            x = convolved(x, num, f"{block}a")
        x = convolved(x, num, f"{block}b")
    return x


def pooled_filters(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Filters of as many pooled blocks as leave at most `LARGEST_MAP` rows and columns of an image.

    Args:
        shape: height, width and channels.

    Example:
        >>> pooled_filters((48, 48, 3)), pooled_filters((128, 96, 3))
        ((24, 48, 96), (24, 48, 96, 128))
    """
    filters = POOLED_FILTERS
    while max(shape[:2]) > LARGEST_MAP * 2 ** len(filters):
        filters = (*filters, WIDEST)
    return filters


def encode_pooled(values: Any, name: str, spec: ModalitySpec, config: ModelConfig) -> Any:
    """Convolutions whose features are averaged over the image, and their maxima; then a dense layer.

    What a photo shows may lie anywhere in it. A few hundred photos of three classes taught the blocks of
    `encode_convolutional`, which know each place by itself and no normalisation, next to nothing.

    Args:
        values: float32 (batch, height, width, channels), in the data's own units, 0 to `spec.scale`.
        name: of the modality.
        spec: its shape and scale.
        config: filters, dropout and the embedding's size.

    Returns:
        float32 (batch, embed_dim), ≥ 0.
    """
    x = layers.Rescaling(1.0 / spec.scale, name=f"{name}_scaling")(values)
    # Each channel by its mean and spread, so that what is padded with 0 is of usual brightness.
    x = layers.BatchNormalization(center=False, scale=False, momentum=MOMENTUM, name=f"{name}_standard")(x)
    x = convolve(x, name, config.filters, (2, 2))
    x = ops.concatenate([ops.mean(x, axis=(1, 2)), ops.max(x, axis=(1, 2))], axis=-1)
    x = layers.Dropout(config.image_dropout, name=f"{name}_dropout")(x)
    return embedding(x, name, config)


@keras.saving.register_keras_serializable("kfusion")
class MeanForMissing(layers.Layer):
    """Vectors (batch, num_values) -> the same, with a mean in place of each number that is missing, which is NaN.

    Args:
        mean: of each value over the training part, (num_values,).
    """

    def __init__(self, mean: ArrayLike, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mean = np.asarray(mean, np.float32).tolist()

    def call(self, values: Any) -> Any:
        """The filled vectors."""
        # NaN alone differs from itself; unlike IsNan, every runtime knows this operation.
        missing = ops.not_equal(values, values)
        return ops.where(missing, ops.convert_to_tensor(self.mean, values.dtype), values)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same layer, for saving."""
        return {**super().get_config(), "mean": self.mean}


@keras.saving.register_keras_serializable("kfusion")
class Similarity(layers.Layer):
    """Standardised values (batch, k) -> exp(-g · mean (x - p)²) for each prototype p, (batch, prototypes), in [0, 1].

    Args:
        num_prototypes: rows to which values are compared; they are the layer's weights, (k, num_prototypes).
        falloff: g.
    """

    def __init__(self, num_prototypes: int, falloff: float, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.num_prototypes, self.falloff = num_prototypes, falloff

    def build(self, input_shape: Any) -> None:
        """Makes the weights."""
        shape = (input_shape[-1], self.num_prototypes)
        self.prototypes = self.add_weight(shape=shape, trainable=False, name="prototypes")

    def call(self, values: Any) -> Any:
        """See the class."""
        values = ops.clip(values, -FARTHEST, FARTHEST)
        # Not |x|² + |p|² - 2 x·p, whose digits cancel in float32; in blocks, for the memory's sake.
        apart = []
        for start in range(0, self.num_prototypes, SIMILARITY_BLOCK):
            block = ops.transpose(self.prototypes[:, start : start + SIMILARITY_BLOCK])
            apart.append(ops.mean(ops.square(ops.expand_dims(values, 1) - block), axis=2))
        return ops.exp(ops.concatenate(apart, axis=1) * -self.falloff)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same layer, for saving."""
        return {**super().get_config(), "num_prototypes": self.num_prototypes, "falloff": self.falloff}


def encode_dense(values: Any, name: str, config: ModelConfig, mean: ArrayLike, variance: ArrayLike) -> Any:
    """Standardisation, then dense layers with dropout that narrow to the embedding.

    Args:
        values: float32 (batch, num_values), in the data's own units.
        name: of the modality.
        config: the layers' widths, dropout and the embedding's size.
        mean: of each value over the training part alone, after the modality's normalisation.
        variance: of each value, likewise.

    Returns:
        float32 (batch, embed_dim), ≥ 0.
    """
    x = layers.Normalization(
        mean=np.asarray(mean).tolist(), variance=np.asarray(variance).tolist(), name=f"{name}_scaling"
    )(values)
    for number, units in enumerate(config.audio_units, 1):
        x = layers.Dense(units, activation="relu", name=f"{name}_dense{number}")(x)
        x = layers.Dropout(config.dropout, name=f"{name}_dropout{number}")(x)
    return embedding(x, name, config)


def averaging(size: int, num_parts: int) -> NDArray[np.float32]:
    """The matrix (size, parts) by which an axis becomes the means of neighbouring parts of about the same length.

    Args:
        size: of the axis.
        num_parts: that it is divided into; a shorter one stays as it is.
    """
    starts = np.linspace(0, size, min(num_parts, size) + 1).astype(int)
    part = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    return (np.eye(len(starts) - 1)[part] / np.diff(starts)).astype(np.float32)


def interpolating(size: int, shares: Sequence[float]) -> NDArray[np.float32]:
    """The matrix (size, shares) by which an axis of sorted values becomes their quantiles, as in `numpy.quantile`.

    Args:
        size: of the axis.
        shares: of the values that are below each quantile, in [0, 1].
    """
    places = np.asarray(shares) * (size - 1)
    return np.maximum(0, 1 - np.abs(np.arange(size)[:, None] - places)).astype(np.float32)


def encode_image(image: Any, config: ModelConfig, spec: Spec) -> Any:
    """The usual image's encoder, for somebody's own model.

    Args:
        image: float32 (batch, height, width, channels), in the data's own units.
        config: see `encode_convolutional`.
        spec: whose image it is.

    Returns:
        float32 (batch, embed_dim), ≥ 0.
    """
    return encode_convolutional(image, "image", spec["image"], config)


def encode_audio(audio: Any, config: ModelConfig, mean: ArrayLike, variance: ArrayLike) -> Any:
    """The usual sound's encoder, for somebody's own model.

    Args:
        audio: float32 (batch, frames · coefficients), in the data's own units.
        config: see `encode_dense`.
        mean: of each value over the training part.
        variance: of each value, likewise.

    Returns:
        float32 (batch, embed_dim), ≥ 0.
    """
    return encode_dense(audio, "audio", config, mean, variance)


def embedding(x: Any, name: str, config: ModelConfig) -> Any:
    """The last two layers of every encoder, under the names by which others find them.

    Args:
        x: float32 (batch, features).
        name: of the modality.
        config: the embedding's size and its dropout.
    """
    x = layers.Dense(config.embed_dim, activation="relu", name=f"{name}_embedding")(x)
    return layers.Dropout(config.embed_dropout, name=f"{name}_embedding_dropout")(x)


def trained_variables(network: keras.Model, config: ModelConfig) -> list[Any]:
    """The variables of the encoders that were trained before; none where all begins with this training.

    Args:
        network: as `build_model` made it.
        config: its settings.
    """
    if not (config.image_weights or config.image_encoder.endswith(".keras")):
        return []
    bodies = [layer for layer in network.layers if isinstance(layer, keras.Model) and layer.name.endswith(BODY)]
    return [variable for body in bodies for variable in body.trainable_variables]
