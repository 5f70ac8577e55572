"""Where a word begins and ends in a recording, by energy; TensorFlow ops only."""

import math
from typing import Any

import tensorflow as tf

WINDOW, HOP = 200, 100
"""In samples at 8 kHz: 25 ms and 12.5 ms."""
EMPHASIS = 0.95
"""Of the difference between neighbouring samples: rooms hum, and consonants hiss."""
QUIET_SHARE = 0.1
"""The frame that this share of frames is quieter than gives the level of the room."""
ABOVE_ROOM_DB, BELOW_PEAK_DB, RANGE_DB = 5.0, 20.0, 40.0
MARGIN = 100
"""In samples, kept before and after."""


def trim_silence(samples: Any) -> tf.Tensor:
    """Cuts off what lies before and after the word.

    Args:
        samples: float32 (n,), n ≥ 1, at 8 kHz.

    Returns:
        float32 (m,), 1 ≤ m ≤ n: from the first to the last frame whose level is over a threshold, with a margin. The
        threshold is `ABOVE_ROOM_DB` over the room's level, but at least `BELOW_PEAK_DB` below the loudest frame, since
        a recording cut close has no room in it, and at most `RANGE_DB` below it.
    """
    num = tf.size(samples)
    sharp = samples - EMPHASIS * tf.concat([[0.0], samples[:-1]], axis=0)
    frames = tf.signal.frame(tf.pad(sharp, [[0, tf.maximum(0, WINDOW - num)]]), WINDOW, HOP)
    power = tf.maximum(tf.reduce_mean(tf.square(frames), axis=1), 1e-10)
    level_db = 10.0 / math.log(10.0) * tf.math.log(power)
    quiet = tf.cast(tf.cast(tf.size(level_db), tf.float32) * QUIET_SHARE, tf.int32)
    room_db, peak_db = tf.sort(level_db)[quiet], tf.reduce_max(level_db)
    threshold_db = tf.maximum(peak_db - RANGE_DB, tf.minimum(room_db + ABOVE_ROOM_DB, peak_db - BELOW_PEAK_DB))
    loud = tf.where(level_db >= threshold_db)[:, 0]
    start = tf.cast(loud[0], tf.int32) * HOP - MARGIN
    end = tf.cast(loud[-1], tf.int32) * HOP + WINDOW + MARGIN
    return samples[tf.maximum(start, 0) : end]
