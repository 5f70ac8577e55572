"""Samples at one rate -> samples at a lower one; TensorFlow ops only.

The spectrum is cut to the new band and transformed back to fewer points: a windowed sinc as long as the sound, in two
transforms. A polyphase filter would need a table for each pair of rates, which a graph that takes any rate cannot hold.
"""

import math
from typing import Any

import tensorflow as tf

PASSED = 0.95
"""Share of the new band that passes unchanged; from there a raised cosine falls to nothing at the band's end."""
GUARD_S = 0.05
"""Silence behind the sound: the transform is circular, and the filter's ringing must not come round to the start."""


def resample(samples: Any, rate_hz: Any, new_rate_hz: int) -> tf.Tensor:
    """Changes the sample rate, with an anti-alias filter.

    Sample k of the result lies at k / new_rate_hz seconds; beyond its ends, the sound is taken as silent.

    Args:
        samples: float32 (n,), n ≥ 1.
        rate_hz: int64 scalar, ≥ new_rate_hz.
        new_rate_hz: samples a second of the result.

    Returns:
        float32 (ceil(n · new_rate_hz / rate_hz),); the samples themselves where the rates are equal.
    """
    rate_hz = tf.convert_to_tensor(rate_hz, tf.int64)
    return tf.cond(rate_hz == new_rate_hz, lambda: samples, lambda: _through_spectrum(samples, rate_hz, new_rate_hz))


def _through_spectrum(samples: Any, rate_hz: Any, new_rate_hz: int) -> tf.Tensor:
    num = tf.size(samples, tf.int64)
    # In whole seconds, both rates have a whole number of samples.
    seconds = 1 + (num + tf.cast(tf.cast(rate_hz, tf.float32) * GUARD_S, tf.int64)) // rate_hz
    spectrum = tf.signal.rfft(tf.pad(samples, [[0, seconds * rate_hz - num]]))
    num_new = seconds * new_rate_hz
    frequency = tf.range(num_new // 2 + 1, dtype=tf.int64) * 2 / num_new
    share = tf.clip_by_value((tf.cast(frequency, tf.float32) - PASSED) / (1.0 - PASSED), 0.0, 1.0)
    kept = (0.5 + 0.5 * tf.cos(math.pi * share)) * tf.cast(new_rate_hz / rate_hz, tf.float32)
    spectrum = spectrum[: num_new // 2 + 1] * tf.cast(kept, tf.complex64)
    changed = tf.signal.irfft(spectrum, [tf.cast(num_new, tf.int32)])
    return changed[: -(-num * new_rate_hz // rate_hz)]
