"""The encoders: one modality in, one embedding (batch, embed_dim) out. Functional API."""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import layers
from numpy.typing import ArrayLike

from kfusion.config import ModelConfig
from kfusion.modalities.audio.encoder import UtteranceNorm
from kfusion.spec import Spec

KERNEL_SIZES = (5, 3)
"""Pixels: the first block's kernels, and those of every later block."""


def encode_image(image: Any, config: ModelConfig, spec: Spec) -> Any:
    """Two blocks of two convolutions and a max-pooling, then a dense layer.

    The first block's kernels are 5 × 5, the second's 3 × 3 (the paper's section on the image encoder). Pixels are
    divided by `spec.pixel_max` in here, so that no caller has to remember it.

    Args:
        image: float32 (batch, height, width, channels), in the data's own units, 0 to `spec.pixel_max`.

    Returns:
        float32 (batch, embed_dim), ≥ 0.
    """
    x = layers.Rescaling(1.0 / spec.pixel_max, name="image_scaling")(image)
    for block, filters in enumerate(config.filters):
        kernel = KERNEL_SIZES[min(block, len(KERNEL_SIZES) - 1)]
        for half in ("a", "b"):
            name = f"image_conv{block + 1}{half}"
            x = layers.Conv2D(filters, kernel, padding="same", activation="relu", name=name)(x)
        # Same padding: an image of any size, down to one pixel, keeps at least one value.
        x = layers.MaxPooling2D(padding="same", name=f"image_pool{block + 1}")(x)
    x = layers.Flatten(name="image_flatten")(x)
    x = layers.Dropout(config.image_dropout, name="image_dropout")(x)
    x = layers.Dense(config.embed_dim, activation="relu", name="image_embedding")(x)
    return layers.Dropout(config.embed_dropout, name="image_embedding_dropout")(x)


def encode_audio(audio: Any, config: ModelConfig, mean: ArrayLike, variance: ArrayLike) -> Any:
    """Standardisation, then dense layers with dropout that narrow to the embedding.

    Args:
        audio: float32 (batch, num_audio), in the data's own units.
        mean, variance: one of each per feature, of the training part alone, after `utterance_norm`.

    Returns:
        float32 (batch, embed_dim), ≥ 0.
    """
    x = layers.Normalization(
        mean=np.asarray(mean).tolist(), variance=np.asarray(variance).tolist(), name="audio_scaling"
    )(audio)
    for number, units in enumerate(config.audio_units, 1):
        x = layers.Dense(units, activation="relu", name=f"audio_dense{number}")(x)
        x = layers.Dropout(config.dropout, name=f"audio_dropout{number}")(x)
    x = layers.Dense(config.embed_dim, activation="relu", name="audio_embedding")(x)
    return layers.Dropout(config.embed_dropout, name="audio_embedding_dropout")(x)


def utterance_norm(config: ModelConfig, spec: Spec) -> Callable[[Any], Any] | None:
    """The layer that normalises each sound by itself, float32 (batch, num_audio) to the same; None if switched off."""
    if config.utterance_trim < 0:
        return None
    return UtteranceNorm(spec.audio_grid, config.utterance_trim, config.utterance_jitter, name="utterance_norm")
