"""Background noise, added to sounds that are known by their MFCC alone.

The cepstrum is turned back into a smooth spectrum in decibels, a noise floor is added in the power domain, and the
difference is turned into a cepstrum again: what the first coefficients cannot hold stays as it was.
"""

import math
from typing import Any

import numpy as np
import tensorflow as tf
from scipy.fft import dct

NUM_MEL_BANDS = 128
"""Of the features' recipe; with fewer bands here, levels in decibels must be scaled to agree."""
NUM_BANDS = 32
QUIETEST_DB, LOUDEST_DB = 45.0, 5.0
"""How far the noise lies below the loudest frame, in decibels."""
TILTS_DB = (4.0, 4.0, 3.0, 2.0)
"""Standard deviations of the noise spectrum's first cosine terms: rooms hum, hiss and everything between."""


def cosines(num: int) -> np.ndarray:
    """The first rows of the orthonormal DCT-II over `NUM_BANDS` bands: float32 (num, NUM_BANDS)."""
    return dct(np.eye(NUM_BANDS), type=2, norm="ortho", axis=0)[:num].astype(np.float32)


def add_background(grid: Any, draws: Any, probability: float) -> tf.Tensor:
    """Adds a steady noise of random level and colour to some of the sounds.

    Args:
        grid: float32 (batch, frames, coefficients), orthonormal DCT-II of decibels in 128 mel bands.
        draws: float32 (batch, 6) in [0, 1): whether, how loud, and four cosine terms of the noise's spectrum.
        probability: that a sound gets noise.
    """
    coefficients = min(int(grid.shape[2]), NUM_BANDS)
    scale = math.sqrt(NUM_MEL_BANDS / NUM_BANDS)
    to_bands = tf.constant(cosines(coefficients))
    level_db = tf.einsum("btc,cm->btm", grid[..., :coefficients], to_bands) / scale
    loudest = tf.reduce_max(tf.reduce_mean(level_db, axis=2), axis=1)
    below = LOUDEST_DB + (QUIETEST_DB - LOUDEST_DB) * draws[:, 1]
    # Away from 0 and 1, where the inverse of the normal distribution is infinite.
    terms = tf.math.ndtri(draws[:, 2:] * (1.0 - 2e-6) + 1e-6) * tf.constant(TILTS_DB)
    colour = tf.constant(cosines(len(TILTS_DB) + 1)[1:] * math.sqrt(NUM_BANDS / 2))
    noise_db = (loudest - below)[:, None] + tf.einsum("bc,cm->bm", terms, colour)
    summed_db = _add_power(level_db, noise_db[:, None])
    change = tf.einsum("btm,cm->btc", summed_db - level_db, to_bands) * scale
    change = tf.pad(change, [[0, 0], [0, 0], [0, int(grid.shape[2]) - coefficients]])
    return tf.where((draws[:, 0] < probability)[:, None, None], grid + change, grid)


def _add_power(one_db: tf.Tensor, other_db: tf.Tensor) -> tf.Tensor:
    """10 log10(10^(a/10) + 10^(b/10)), without overflow."""
    larger, smaller = tf.maximum(one_db, other_db), tf.minimum(one_db, other_db)
    return larger + tf.math.log1p(tf.exp((smaller - larger) * (math.log(10.0) / 10.0))) * (10.0 / math.log(10.0))
