"""Where the word lies in a recording, if one is heard, and what the room sounds like; TensorFlow ops only.

The quietest frames show the room. Each frequency is measured in multiples of the room's own power there, so that a hum
or a hiss counts as silence, and a faint consonant above it does not. Where too little of a recording is silence to know
the room by, it was cut close already (as the built-in recordings were), and is left as it is. What is loud but short
and apart from the word (clicks of a mouse, taps of keys, thuds, breaths) is neither the word nor the room. The
constants were chosen on the validation recordings of `tests/benchmarks/listening.py`.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from kfusion.data.mfcc import HOP, NUM_MEL_BANDS, WINDOW, hann, mel_power, windows

FRAME, STEP = 200, 100
"""In samples at 8 kHz: 25 ms and 12.5 ms."""
QUIET_SHARE = 0.1
"""Of the frames, taken as the room's."""
EMPHASIS = 0.95
"""Of the difference between neighbouring samples, where the quietest frames are sought: rooms hum."""
LOWEST_BIN = 2
"""Of a frame's spectrum, 80 Hz: below lies direct current, which is not heard."""
ABOVE_ROOM_DB, BELOW_PEAK_DB, RANGE_DB = 4.0, 20.0, 40.0
"""A frame of the word lies so far above the room; at most and at least so far below the highest sustained level."""
REACH = 50
"""In samples: how far beyond the centres of its first and last frame the word is taken to reach."""
FEWEST_QUIET = 16
"""Frames of silence, 0.2 s, below which nothing is cut."""
SPEECH = 6
"""Loud frames in a row, 75 ms, that are more than a click."""
PART = 0.5
"""Of the length and of the area of the main run of loud frames: what another must have to be a part of the word."""
GAP_BEFORE, GAP_AFTER = 6, 10
"""In frames, 75 and 125 ms: what is short but no further from the word belongs to it, as the t of "eight" does."""
GAP, FEWEST_ROOM = 200, 4
"""Samples between the word and the windows that count as the room, and how many windows it takes."""
SILENT_DB = -90.0
"""Of full scale: no sustained level above it is silence. Dither of one step of 16 bits lies at -92."""
FAINT_DB, STEADY_DB, FEWEST_STEADY = -40.0, 3.0, 32
"""A sustained level so low, and no further above the room, is the room's own noise, if there are so many frames."""

_UNHEARD = "must hold a sound that stands out from silence. Found: "


class Word(NamedTuple):
    """Where the word lies in a recording.

    Args:
        start: int32 scalar, its first sample.
        end: int32 scalar, the sample after its last.
        loud: bool (1 + n // STEP,), the frames too loud to be the room's: the word, and bursts that are not of it.
    """

    start: Any
    end: Any
    loud: Any


def find_word(power: Any, num: Any) -> Word:
    """First and last sample of the word, by energy; clicks, thuds and breaths apart from it are left outside.

    Args:
        power: from `frame_power`.
        num: int32 scalar, how many samples the recording has.

    Returns:
        The word, 0 ≤ start < end ≤ n; 0 and n where there is too little silence.

    Reference: Rabiner and Sambur 1975, for endpoints by energy; Lamel, Rabiner, Rosenberg and Wilpon 1981, for bursts.
    """
    level_db = level_above_room(power)
    room_db, peak_db = room_level(level_db), sustained(level_db)
    threshold_db = tf.maximum(peak_db - RANGE_DB, tf.minimum(room_db + ABOVE_ROOM_DB, peak_db - BELOW_PEAK_DB))
    loud = level_db >= threshold_db
    near = _any_near(_spoken(loud, level_db - threshold_db), GAP_AFTER, GAP_BEFORE)
    kept = tf.cast(tf.where(loud & near)[:, 0], tf.int32)
    first, last = kept[0], kept[-1]
    start, end = tf.maximum(first * STEP - REACH, 0), tf.minimum(last * STEP + REACH, num)
    known = (first + tf.size(level_db) - 1 - last >= FEWEST_QUIET) & (start < end)
    return Word(tf.where(known, start, 0), tf.where(known, end, num), loud)


def sustained(level_db: Any) -> tf.Tensor:
    """The highest level, (frames,) -> (), that `SPEECH` frames in a row keep up: a click's is that of the room."""
    num = tf.size(level_db)
    count = tf.minimum(SPEECH, num)
    place = tf.range(num - count + 1)[:, None] + tf.range(count)
    return tf.reduce_max(tf.reduce_min(tf.gather(level_db, place), axis=1))


def _spoken(loud: Any, above_db: Any) -> tf.Tensor:
    """The frames of the main run of loud frames, and of those that have half its length and half its area at least.

    Args:
        loud: bool (frames,), at least one of them.
        above_db: float32 (frames,), how far each lies above the threshold.
    """
    begins = tf.logical_and(loud, tf.logical_not(tf.concat([[False], loud[:-1]], axis=0)))
    run, num = tf.cumsum(tf.cast(begins, tf.int32)), tf.size(loud) + 1
    length = tf.math.unsorted_segment_sum(tf.cast(loud, tf.float32), run, num)
    area = tf.math.unsorted_segment_sum(tf.where(loud, above_db, 0.0), run, num)
    long = length >= tf.cast(tf.minimum(SPEECH, tf.size(loud)), tf.float32)
    main = tf.argmax(tf.where(long, area, -1.0))
    spoken = long & (length >= PART * length[main]) & (area >= PART * area[main])
    return loud & tf.gather(spoken, run)


def _any_near(mask: Any, back: int, ahead: int) -> tf.Tensor:
    """Whether any place from `back` before each to `ahead` after it is set: bool (n,), as the mask."""
    before = tf.concat([[0], tf.cumsum(tf.cast(mask, tf.int32))], axis=0)
    place, num = tf.range(tf.size(mask)), tf.size(mask)
    low, high = tf.maximum(place - back, 0), tf.minimum(place + ahead + 1, num)
    return tf.gather(before, high) > tf.gather(before, low)


def reason_unheard(power: Any) -> tf.Tensor:
    """Why a sound holds nothing that could be a word, string (); empty where it holds something.

    Args:
        power: from `frame_power`.
    """
    level_db = level_above_room(power)
    loudest_db = sustained(_decibels(2.0 / FRAME * tf.reduce_sum(power, axis=1)))
    steady = (sustained(level_db) - room_level(level_db) < STEADY_DB) & (tf.size(level_db) >= FEWEST_STEADY)
    found = tf.where(steady & (loudest_db < FAINT_DB), "only a faint and steady noise", "")
    found = tf.where(loudest_db < SILENT_DB, "silence", found)
    return tf.where(found == "", "", tf.strings.join([_UNHEARD, found]))


def room_level(level_db: Any) -> tf.Tensor:
    """The level that a tenth of the frames stay below: (frames,) -> ()."""
    return tf.sort(level_db)[tf.cast(tf.cast(tf.size(level_db), tf.float32) * QUIET_SHARE, tf.int32)]


def level_above_room(power: Any) -> tf.Tensor:
    """Mean over the frequencies of each frame's power over the room's, in decibels: (frames, bins) -> (frames,)."""
    bins = np.arange(LOWEST_BIN, FRAME // 2 + 1)
    response = np.abs(1.0 - EMPHASIS * np.exp(-2j * np.pi * bins / FRAME)) ** 2
    sharp = tf.linalg.matvec(power, tf.constant(response, tf.float32))
    count = tf.cast(tf.math.ceil(QUIET_SHARE * tf.cast(tf.size(sharp), tf.float32)), tf.int32)
    room = tf.reduce_mean(tf.gather(power, tf.math.top_k(-sharp, count).indices), axis=0)
    return _decibels(tf.reduce_mean(power / (room + 1e-9), axis=1))


def frame_power(samples: Any) -> tf.Tensor:
    """The power of each frame of a recording at each frequency from `LOWEST_BIN` on.

    Args:
        samples: float32 (n,), n ≥ 1, at 8 kHz.

    Returns:
        float32 (1 + n // STEP, bins).
    """
    spectrum = tf.signal.rfft(windows(samples, FRAME, STEP))[:, LOWEST_BIN:]
    return tf.square(tf.abs(spectrum)) / np.sum(hann(FRAME) ** 2)


def _decibels(power: Any) -> tf.Tensor:
    return 10.0 / math.log(10.0) * tf.math.log(power + 1e-10)


def room_power(samples: Any, word: Word) -> tf.Tensor:
    """Mean power outside the word in each mel band: float64 (128,); zeros where there is too little of it.

    Args:
        samples: float32 (n,), the whole recording.
        word: where the word lies; what else is loud is not the room's.
    """
    power = mel_power(samples)
    centre = tf.range(tf.shape(power)[0]) * HOP
    reach = WINDOW // 2 + GAP
    outside = (centre + reach <= word.start) | (centre - reach >= word.end)
    total = tf.concat([[0], tf.cumsum(tf.cast(word.loud, tf.int32))], axis=0)
    low = tf.clip_by_value((centre - WINDOW // 2 - FRAME // 2) // STEP + 1, 0, tf.size(word.loud))
    high = tf.clip_by_value((centre + WINDOW // 2 + FRAME // 2 - 1) // STEP + 1, 0, tf.size(word.loud))
    weight = tf.cast(outside & (tf.gather(total, low) >= tf.gather(total, high)), tf.float64)
    count = tf.reduce_sum(weight)
    mean = tf.linalg.matvec(power, weight, transpose_a=True) / tf.maximum(count, 1.0)
    return tf.where(count >= FEWEST_ROOM, mean, tf.zeros(NUM_MEL_BANDS, tf.float64))
