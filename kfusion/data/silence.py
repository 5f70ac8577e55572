"""Where the word lies in a recording, and what the room sounds like around it; TensorFlow ops only.

The quietest frames show the room. Each frequency is measured in multiples of the room's own power there, so that a hum
or a hiss counts as silence, and a faint consonant above it does not. Where too little of a recording is silence to know
the room by, it was cut close already (as the built-in recordings were), and is left as it is. The constants were chosen
on the validation recordings of `tests/benchmarks/listening.py`.
"""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from kfusion.data.mfcc import HOP, NUM_MEL_BANDS, WINDOW, mel_power

FRAME, STEP = 200, 100
"""In samples at 8 kHz: 25 ms and 12.5 ms."""
QUIET_SHARE = 0.1
"""Of the frames, taken as the room's."""
EMPHASIS = 0.95
"""Of the difference between neighbouring samples, where the quietest frames are sought: rooms hum."""
ABOVE_ROOM_DB, BELOW_PEAK_DB, RANGE_DB = 4.0, 20.0, 40.0
"""A frame of the word lies so far above the room; at most and at least so far below the loudest frame."""
INSIDE = 50
"""In samples: how far within the first and the last frame above the threshold the word is taken to begin and to end."""
FEWEST_QUIET = 16
"""Frames of silence, 0.2 s, below which nothing is cut."""
GAP, FEWEST_ROOM = 200, 4
"""Samples between the word and the windows that count as the room, and how many windows it takes."""


def find_word(samples: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """First and last sample of the word, by energy.

    Args:
        samples: float32 (n,), n ≥ 1, at 8 kHz.

    Returns:
        start and end, int32 scalars, 0 ≤ start < end ≤ n; 0 and n where there is too little silence.
        Reference: Rabiner and Sambur 1975, for endpoints by energy.
    """
    num = tf.size(samples)
    level_db = level_above_room(samples)
    lowest = tf.sort(level_db)[tf.cast(tf.cast(tf.size(level_db), tf.float32) * QUIET_SHARE, tf.int32)]
    peak_db = tf.reduce_max(level_db)
    threshold_db = tf.maximum(peak_db - RANGE_DB, tf.minimum(lowest + ABOVE_ROOM_DB, peak_db - BELOW_PEAK_DB))
    loud = tf.cast(tf.where(level_db >= threshold_db)[:, 0], tf.int32)
    first, last = loud[0], loud[-1]
    start, end = first * STEP + INSIDE, tf.minimum(last * STEP + FRAME, num) - INSIDE
    known = (first + tf.size(level_db) - 1 - last >= FEWEST_QUIET) & (start < end)
    return tf.where(known, start, 0), tf.where(known, end, num)


def level_above_room(samples: Any) -> tf.Tensor:
    """Mean over the frequencies of each frame's power over the room's, in decibels: float32 (frames,)."""
    frames = tf.signal.frame(tf.pad(samples, [[0, tf.maximum(0, FRAME - tf.size(samples))]]), FRAME, STEP)
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(FRAME) / FRAME)
    power = tf.square(tf.abs(tf.signal.rfft(frames * tf.constant(hann, tf.float32)))) / np.sum(hann**2)
    response = np.abs(1.0 - EMPHASIS * np.exp(-2j * np.pi * np.arange(FRAME // 2 + 1) / FRAME)) ** 2
    sharp = tf.linalg.matvec(power, tf.constant(response, tf.float32))
    count = tf.cast(tf.math.ceil(QUIET_SHARE * tf.cast(tf.size(sharp), tf.float32)), tf.int32)
    room = tf.reduce_mean(tf.gather(power, tf.math.top_k(-sharp, count).indices), axis=0)
    above = tf.reduce_mean(power / (room + 1e-9), axis=1)
    return 10.0 / math.log(10.0) * tf.math.log(above + 1e-10)


def room_power(samples: Any, start: Any, end: Any) -> tf.Tensor:
    """Mean power outside the word in each mel band: float64 (128,); zeros where there is too little of it.

    Args:
        samples: float32 (n,), the whole recording.
        start: int32 scalar, where the word begins.
        end: int32 scalar, where it ends.
    """
    power = mel_power(samples)
    centre = tf.range(tf.shape(power)[0]) * HOP
    reach = WINDOW // 2 + GAP
    outside = (centre + reach <= start) | (centre - reach >= end)
    weight = tf.cast(outside, tf.float64)
    count = tf.reduce_sum(weight)
    mean = tf.linalg.matvec(power, weight, transpose_a=True) / tf.maximum(count, 1.0)
    return tf.where(count >= FEWEST_ROOM, mean, tf.zeros(NUM_MEL_BANDS, tf.float64))
