"""Samples -> mel-frequency cepstral coefficients, by the recipe of the built-in sounds; TensorFlow ops only.

    8000 Hz; windows of 50 ms each 25 ms, periodic Hann, centred, the sound mirrored at its ends; power spectrum;
    128 triangular mel bands (HTK) from 0 to 4000 Hz; decibels, at most 80 below the sound's loudest band and at least
    -100; orthonormal DCT-II.

Reference: Davis and Mermelstein 1980; Boll 1979 for the subtraction of noise.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf
from scipy.fft import dct

SAMPLE_RATE_HZ = 8000
WINDOW, HOP = 400, 200
"""In samples: 50 ms and 25 ms."""
NUM_MEL_BANDS = 128
NUM_COEFFICIENTS = 13
QUIETEST_POWER = 1e-10
RANGE_DB = 80.0
NOISE_LEFT = 0.1


def mfcc_sequence(samples: Any, num_coefficients: int = NUM_COEFFICIENTS, room: Any = None) -> tf.Tensor:
    """The coefficients of one sound, frame by frame.

    Args:
        samples: float32 (n,), n ≥ 1, in [-1, 1], at `SAMPLE_RATE_HZ`.
        num_coefficients: the first so many, in [1, 128].
        room: float64 (128,), the power of a steady noise in each mel band; it is subtracted, down to
            `NOISE_LEFT` of itself.

    Returns:
        float32 (1 + n // 200, num_coefficients).
    """
    power = mel_power(samples)
    if room is not None:
        power = tf.maximum(power - room, NOISE_LEFT * room)
    level_db = 10.0 / math.log(10.0) * tf.math.log(tf.maximum(power, QUIETEST_POWER))
    level_db = tf.maximum(level_db, tf.reduce_max(level_db) - RANGE_DB)
    cosines = dct(np.eye(NUM_MEL_BANDS), type=2, norm="ortho", axis=1)[:, :num_coefficients]
    return tf.cast(tf.matmul(level_db, tf.constant(cosines)), tf.float32)


def mel_power(samples: Any) -> tf.Tensor:
    """The power of each window in each mel band, float64 (1 + n // 200, 128)."""
    # In double precision: single costs up to 0.0007, and the recipe's own figures lie 0.0009 from the exact ones.
    return tf.matmul(tf.square(tf.abs(tf.signal.rfft(windows(tf.cast(samples, tf.float64))))), tf.constant(mel_bands()))


def windows(samples: Any, size: int = WINDOW, hop: int = HOP) -> tf.Tensor:
    """Overlapping pieces of a sound under a Hann window, centred at samples 0, hop, 2 hop, …: (1 + n // hop, size).

    Args:
        samples: floats (n,), n ≥ 1; of their type are the pieces.
        size: samples of a piece.
        hop: samples from one to the next.
    """
    num = tf.size(samples)
    place = tf.range(0, num + 1, hop)[:, None] + tf.range(-size // 2, size // 2)
    # Mirrored as often as it takes: the sound may be shorter than half a window.
    period = tf.maximum(2 * (num - 1), 1)
    place = tf.math.floormod(place, period)
    place = tf.minimum(place, period - place)
    return tf.gather(samples, place) * tf.constant(hann(size), samples.dtype)


def hann(size: int) -> np.ndarray:
    """A periodic Hann window, float64 (size,)."""
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(size) / size)


@lru_cache
def mel_bands() -> np.ndarray:
    """The triangles over the bins of the power spectrum, each with its peak at 1: float64 (201, 128).

    Mel of f Hz: 2595 log10(1 + f / 700); the corners are evenly spaced in mel, the sides straight in Hz.
    """
    bins_hz = np.linspace(0.0, SAMPLE_RATE_HZ / 2, WINDOW // 2 + 1)
    top_mel = 2595.0 * np.log10(1.0 + SAMPLE_RATE_HZ / 2 / 700.0)
    corners_hz = 700.0 * (10.0 ** (np.linspace(0.0, top_mel, NUM_MEL_BANDS + 2) / 2595.0) - 1.0)
    width_hz, beyond_hz = np.diff(corners_hz), bins_hz[:, None] - corners_hz
    rising, falling = beyond_hz[:, :-2] / width_hz[:-1], -beyond_hz[:, 2:] / width_hz[1:]
    return np.maximum(0.0, np.minimum(rising, falling))
