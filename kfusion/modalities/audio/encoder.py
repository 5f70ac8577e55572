"""What makes one speaker, microphone or room sound like another; and the encoder that looks for shapes on the grid.

`UtteranceNorm` normalises each sound by itself, before any encoder. `encode_grid` is the alternative to the dense
encoder: a word or an engine is the same a moment later or a little higher, and a convolution knows that beforehand.
"""

from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import ArrayLike

from kfusion.config import ModelConfig
from kfusion.modalities.encoders import averaging, convolve, embedding, interpolating
from kfusion.spec import ModalitySpec


@keras.saving.register_keras_serializable("kfusion")
class UtteranceNorm(layers.Layer):
    """Cuts the silence off a sound, stretches the rest, and takes its own average spectrum away.

    1. Frames before the first and after the last whose energy (coefficient 0) exceeds low + trim · (high - low) of the
       same sound are cut off, less `MARGIN` frames, and the rest is stretched linearly to the old number of frames.
    2. Each coefficient's mean over the frames is subtracted (cepstral mean subtraction: a microphone or a room adds a
       constant to the cepstrum), and the energy is divided by its standard deviation.

    In training the cuts are moved by normally distributed noise, as a dropout of where a word begins and ends; its
    seed is part of the layer's state, like a dropout layer's.
    Reference: Furui 1981 for the subtraction; Rabiner and Sambur 1975 for endpoints by energy.

    Args:
        grid: frames and coefficients; with a single frame the layer changes nothing.
        trim: share of the energy's range, in [0, 1).
        jitter: standard deviation of the cuts in training, in frames.
        seed: of that noise.

    Input shape:
        float32 (batch, frames · coefficients), frame-major.

    Output shape:
        The same.
    """

    MARGIN = 1.5
    SHORTEST = 8.0

    def __init__(self, grid: Any, trim: float, jitter: float = 0.0, seed: int | None = None, **kwargs: Any) -> None:
        # Indices of frames do not survive 8 bits of mantissa.
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.grid = (int(grid[0]), int(grid[1]))
        self.trim, self.jitter, self.seed = trim, jitter, seed
        self.noise = keras.random.SeedGenerator(seed)

    def call(self, audio: Any, training: bool | None = None) -> Any:
        """Normalises sounds, float32 (batch, frames · coefficients)."""
        frames, coefficients = self.grid
        if frames < 2:
            return audio
        grid = ops.reshape(audio, (-1, frames, coefficients))
        start, end = self._ends(grid[..., 0])
        if training and self.jitter:
            noise = keras.random.normal(
                ops.shape(ops.concatenate([start, end], 1)), stddev=self.jitter, seed=self.noise
            )
            start, end = start + noise[:, :1], end + noise[:, 1:]
        grid = _stretch(grid, start, ops.maximum(end, start + min(self.SHORTEST, frames - 1.0)))
        grid = grid - ops.mean(grid, axis=1, keepdims=True)
        energy = grid[..., :1] / (ops.std(grid[..., :1], axis=1, keepdims=True) + 1e-6)
        return ops.reshape(ops.concatenate([energy, grid[..., 1:]], axis=-1), (-1, frames * coefficients))

    def _ends(self, energy: Any) -> tuple[Any, Any]:
        """First and last frame of the word, float32 (batch, 1) each, margin included."""
        low, high = ops.min(energy, axis=1, keepdims=True), ops.max(energy, axis=1, keepdims=True)
        loud = energy >= low + self.trim * (high - low)
        place = ops.expand_dims(ops.arange(self.grid[0], dtype="float32"), 0)
        start = ops.min(ops.where(loud, place, float(self.grid[0])), axis=1, keepdims=True)
        end = ops.max(ops.where(loud, place, -1.0), axis=1, keepdims=True)
        return start - self.MARGIN, end + self.MARGIN

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments, ready for JSON."""
        own = {"grid": list(self.grid), "trim": self.trim, "jitter": self.jitter, "seed": self.seed}
        return {**super().get_config(), **own}


def _stretch(grid: Any, start: Any, end: Any) -> Any:
    """Reads (batch, frames, coefficients) at as many places, evenly from `start` to `end`; past the edge, the edge."""
    frames = grid.shape[1]
    share = ops.expand_dims(ops.arange(frames, dtype="float32"), 0) / (frames - 1.0)
    place = ops.clip(start + (end - start) * share, 0.0, frames - 1.0)
    left = ops.minimum(ops.floor(place), frames - 2.0)
    weight = ops.expand_dims(place - left, -1)
    left = ops.expand_dims(ops.cast(left, "int32"), -1)
    before, after = ops.take_along_axis(grid, left, axis=1), ops.take_along_axis(grid, left + 1, axis=1)
    return before * (1.0 - weight) + after * weight


def encode_grid(
    values: Any, name: str, spec: ModalitySpec, config: ModelConfig, mean: ArrayLike, variance: ArrayLike
) -> Any:
    """Convolutions over time and frequency, mean and maximum over time, then the embedding.

    The first of the convolutions (`encoders.convolve`) halves the frequencies. Each value is standardised by the
    training part's mean and variance of its band over all frames: a word may lie anywhere in its window.

    Args:
        values: float32 (batch, frames · bands), frame-major.
        name: of the modality.
        spec: its grid.
        config: filters, dropout and the embedding's size.
        mean: of each value over the training part, (frames · bands,).
        variance: likewise.

    Returns:
        float32 (batch, embed_dim), ≥ 0.
    """
    x = layers.Reshape((*spec.grid, 1), name=f"{name}_grid")(values)
    band_mean, band_variance = by_band(mean, variance, spec.grid)
    x = layers.Normalization(axis=2, mean=band_mean.tolist(), variance=band_variance.tolist(), name=f"{name}_scaling")(
        x
    )
    if config.audio_centre:
        x = x - ops.mean(x, axis=1, keepdims=True)
    x = convolve(x, name, config.audio_filters, (1, 2))
    x = ops.concatenate([ops.mean(x, axis=1), ops.max(x, axis=1)], axis=-1)
    x = layers.Dropout(config.dropout, name=f"{name}_dropout")(layers.Flatten(name=f"{name}_flatten")(x))
    return embedding(x, name, config)


def by_band(mean: ArrayLike, variance: ArrayLike, grid: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each band over all frames, from those of each value.

    Args:
        mean: (frames · bands,), frame-major.
        variance: likewise.
        grid: frames and bands.

    Returns:
        float64 (bands,) each: E[x], and E[x²] - E[x]² = E[variance] + E[mean²] - E[mean]².
    """
    means, variances = np.reshape(mean, grid), np.reshape(variance, grid)
    return means.mean(axis=0), variances.mean(axis=0) + means.var(axis=0)


QUANTILES, NUM_PARTS, LEAST_FRAMES = (0.1, 0.5, 0.9), 10, 4
"""What `SoundSummary` tells of a sound; of one of fewer frames it could tell nothing that its values do not."""


@keras.saving.register_keras_serializable("kfusion")
class SoundSummary(layers.Layer):
    """Quantiles of each coefficient over the sound, and, for words, its means in ten parts of the time.

    (batch, frames · coefficients) -> (batch, coefficients · (3 + 10)), without the parts (batch, 3 · coefficients).

    Args:
        grid: frames and coefficients.
        course: whether the parts are told too.
    """

    def __init__(self, grid: Any, course: bool, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.grid, self.course = (int(grid[0]), int(grid[1])), course

    def call(self, sounds: Any) -> Any:
        """See the class."""
        frames, coefficients = self.grid
        # An absent sound may hold NaN, which no sorting puts in order.
        sounds = ops.where(ops.equal(sounds, sounds), sounds, 0.0)
        tracks = ops.transpose(ops.reshape(sounds, (-1, frames, coefficients)), (0, 2, 1))
        told = ops.matmul(ops.sort(tracks), interpolating(frames, QUANTILES))
        if self.course:
            told = ops.concatenate([told, ops.matmul(tracks, averaging(frames, NUM_PARTS))], axis=2)
        return ops.reshape(told, (-1, coefficients * told.shape[2]))

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same layer, for saving."""
        return {**super().get_config(), "grid": self.grid, "course": self.course}
