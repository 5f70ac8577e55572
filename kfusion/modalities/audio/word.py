"""Where the word lies in a recording, and whether there is a sound in it at all; TensorFlow operations only.

The search takes the quietest frames for the room. Each frequency is measured in multiples of the room's own power
there, so that a hum or a hiss counts as silence, and a faint consonant above it does not. Where too little of a
recording is silence to know the room by, it was cut close already (as the built-in recordings were), and is left as it
is. What is loud but short and apart from the word (clicks of a mouse, taps of keys, thuds, breaths) is neither the word
nor the room. The thresholds were chosen on the validation recordings of `tests/benchmarks/listening.py`.

All sounds of a batch are searched together. Their samples and the frames of these lie one after another, without gaps;
what is compared along time lies side by side, one sound a row, filled up behind its last frame.

References: Rabiner and Sambur 1975 (endpoints by energy); Lamel, Rabiner, Rosenberg and Wilpon 1981 (bursts).
"""

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from kfusion.modalities.audio.decoding import ragged
from kfusion.modalities.audio.recipe import SPOKEN_DIGITS, SoundRecipe

QUIET_SHARE = 0.1
"""Of the frames, taken as the room's."""
EMPHASIS = 0.95
"""Of the difference between neighbouring samples, where the quietest frames are sought: rooms hum."""
LOWEST_BIN = 2
"""Of a frame's spectrum, 80 Hz: below lies direct current, which is not heard."""
ABOVE_ROOM_DB, BELOW_PEAK_DB, WORD_RANGE_DB = 4.0, 20.0, 40.0
"""A frame of the word lies so far above the room; at most and at least so far below the highest sustained level."""
REACH_MS = 6.25
"""How far beyond the centres of its first and last frame the word is taken to reach."""
FEWEST_QUIET = 16
"""Frames of silence, 0.2 s, below which nothing is cut."""
SPEECH = 6
"""Loud frames in a row, 75 ms, that are more than a click."""
PART = 0.5
"""Of the length and of the area of the main run of loud frames: what another must have to be a part of the word."""
GAP_BEFORE, GAP_AFTER = 6, 10
"""In frames, 75 and 125 ms: what is short but no further from the word belongs to it, as the t of "eight" does."""
SILENT_DB = -90.0
"""Of full scale: no sustained level above it is silence. Dither of one step of 16 bits lies at -92."""
FAINT_DB, STEADY_DB, FEWEST_STEADY = -40.0, 3.0, 32
"""A sustained level so low, and no further above the room, is the room's own noise, if there are so many frames."""

_UNHEARD = "must hold a sound that stands out from silence. Found: "


class Word(NamedTuple):
    """Where the word lies in each recording.

    Args:
        start: int32 (sounds,), its first sample.
        end: int32 (sounds,), the sample after its last.
        loud: bool (sounds, frames), the frames too loud to be the room's: the word, and bursts beside it.
    """

    start: Any
    end: Any
    loud: Any


def find_word(level_db: Any, lengths: Any, recipe: SoundRecipe = SPOKEN_DIGITS) -> Word:
    """First and last sample of the word, by energy; clicks, thuds and breaths apart from it are left outside.

    Args:
        level_db: from `level_above_room`.
        lengths: int32 (sounds,), how many samples each recording has.
        recipe: the numbers.

    Returns:
        The words, 0 ≤ start < end ≤ n; 0 and n where there is too little silence.
    """
    step, reach, num = recipe.step, recipe.samples(REACH_MS), 1 + lengths // recipe.step
    room_db, peak_db = room_level(level_db, num), sustained(level_db, num)
    threshold_db = tf.maximum(peak_db - WORD_RANGE_DB, tf.minimum(room_db + ABOVE_ROOM_DB, peak_db - BELOW_PEAK_DB))
    loud = (level_db >= threshold_db[:, None]) & are_there(num)
    near = _any_near(_spoken(loud, level_db - threshold_db[:, None], num), GAP_AFTER, GAP_BEFORE)
    kept = tf.cast(loud & near, tf.int32)
    first = tf.argmax(kept, axis=1, output_type=tf.int32)
    last = tf.shape(kept)[1] - 1 - tf.argmax(kept[:, ::-1], axis=1, output_type=tf.int32)
    start, end = tf.maximum(first * step - reach, 0), tf.minimum(last * step + reach, lengths)
    known = (first + num - 1 - last >= FEWEST_QUIET) & (start < end)
    return Word(tf.where(known, start, 0), tf.where(known, end, lengths), loud)


def sustained(level_db: Any, num: Any) -> tf.Tensor:
    """The highest level that `SPEECH` frames in a row keep up: a click's is that of the room.

    Args:
        level_db: float32 (sounds, frames), infinite behind each sound's last frame.
        num: int32 (sounds,), frames of each sound.

    Returns:
        float32 (sounds,).
    """
    most = tf.shape(level_db)[1]
    padded = tf.pad(level_db, ((0, 0), (0, SPEECH - 1)), constant_values=math.inf)
    lowest = tf.reduce_min(tf.stack([padded[:, place : place + most] for place in range(SPEECH)]), axis=0)
    whole = tf.range(most) <= tf.maximum(num - SPEECH, 0)[:, None]
    return tf.reduce_max(tf.where(whole, lowest, -math.inf), axis=1)


def _spoken(loud: Any, above_db: Any, num: Any) -> tf.Tensor:
    """The frames of the main run of loud frames, and of those that have half its length and half its area at least.

    Args:
        loud: bool (sounds, frames), at least one of each.
        above_db: float32 (sounds, frames), how far each lies above the threshold.
        num: int32 (sounds,), frames of each sound.
    """
    shape = tf.shape(loud)
    begins = tf.logical_and(loud, tf.logical_not(tf.pad(loud, ((0, 0), (1, 0)))[:, :-1]))
    run, most = tf.cumsum(tf.cast(begins, tf.int32), axis=1), shape[1] + 1
    run += tf.range(shape[0])[:, None] * most

    def of_runs(values: Any) -> tf.Tensor:
        sums = tf.math.unsorted_segment_sum(tf.where(loud, values, 0.0), run, shape[0] * most)
        return tf.reshape(sums, (shape[0], most))

    length, area = of_runs(tf.ones_like(above_db)), of_runs(above_db)
    long = length >= tf.cast(tf.minimum(SPEECH, num), tf.float32)[:, None]
    main = tf.argmax(tf.where(long, area, -1.0), axis=1)[:, None]
    least_length, least_area = (PART * tf.gather(each, main, batch_dims=1) for each in (length, area))
    spoken = long & (length >= least_length) & (area >= least_area)
    return loud & tf.gather(tf.reshape(spoken, [-1]), run)


def _any_near(mask: Any, back: int, ahead: int) -> tf.Tensor:
    """Whether any place from `back` before each to `ahead` after it is set: bool (rows, n), as the mask."""
    before, num = tf.pad(tf.cumsum(tf.cast(mask, tf.int32), axis=1), ((0, 0), (1, 0))), tf.shape(mask)[1]
    low, high = tf.maximum(tf.range(num) - back, 0), tf.minimum(tf.range(num) + ahead + 1, num)
    return tf.gather(before, high, axis=1) > tf.gather(before, low, axis=1)


def reason_unheard(power: Any, level_db: Any, num: Any, recipe: SoundRecipe = SPOKEN_DIGITS) -> tf.Tensor:
    """Why each sound holds nothing that could be a word, string (sounds,); empty where it holds something.

    Args:
        power: from `frame_power`.
        level_db: from `level_above_room`; not looked at where the recipe heeds steady noises.
        num: int32 (sounds,), frames of each sound.
        recipe: the numbers.
    """
    frame_db = _decibels(2.0 / recipe.frame * tf.reduce_sum(power, axis=1))
    loudest_db, found = sustained(side_by_side(frame_db, num), num), tf.constant("")
    if not recipe.heed_steady:
        steady = (sustained(level_db, num) - room_level(level_db, num) < STEADY_DB) & (num >= FEWEST_STEADY)
        found = tf.where(steady & (loudest_db < FAINT_DB), "only a faint and steady noise", found)
    found = tf.where(loudest_db < SILENT_DB, "silence", found)
    return tf.where(found == "", "", tf.strings.join([_UNHEARD, found]))


def room_level(level_db: Any, num: Any) -> tf.Tensor:
    """The level that a tenth of the frames stay below, float32 (sounds,).

    Args:
        level_db: float32 (sounds, frames), infinite behind each sound's last frame.
        num: int32 (sounds,), frames of each sound.
    """
    return tf.gather(tf.sort(level_db, axis=1), num_quiet(num), batch_dims=1)


def num_quiet(num: Any) -> tf.Tensor:
    return tf.cast(tf.cast(num, tf.float32) * QUIET_SHARE, tf.int32)


def level_above_room(power: Any, num: Any, recipe: SoundRecipe = SPOKEN_DIGITS) -> tf.Tensor:
    """Mean over the frequencies of each frame's power over the room's.

    Args:
        power: (frames of all sounds, bins), from `frame_power`.
        num: int32 (sounds,), frames of each sound.
        recipe: the numbers.

    Returns:
        float32 (sounds, frames), in decibels; infinite behind a sound's last frame.
    """
    bins = np.arange(LOWEST_BIN, recipe.frame // 2 + 1)
    response = np.abs(1.0 - EMPHASIS * np.exp(-2j * np.pi * bins / recipe.frame)) ** 2
    sharp = side_by_side(tf.linalg.matvec(power, tf.constant(response, tf.float32)), num)
    count = tf.cast(tf.math.ceil(QUIET_SHARE * tf.cast(num, tf.float32)), tf.int32)
    rank = tf.argsort(tf.argsort(sharp, axis=1, stable=True), axis=1)
    quiet, row = tf.boolean_mask(rank < count[:, None], are_there(num)), rows_of(num)
    room = tf.math.segment_mean(tf.boolean_mask(power, quiet), tf.boolean_mask(row, quiet))
    return side_by_side(_decibels(tf.reduce_mean(power / tf.gather(room + 1e-9, row), axis=1)), num)


def frame_power(samples: Any, recipe: SoundRecipe = SPOKEN_DIGITS, lengths: Any = None) -> tf.Tensor:
    """The power of each frame of recordings at each frequency from `LOWEST_BIN` on.

    Args:
        samples: float32 (n,), at the recipe's rate: all sounds, one after another.
        recipe: the numbers.
        lengths: int32 (sounds,), samples of each sound, ≥ 1; None: it is one.

    Returns:
        float32 (frames, bins): 1 + length // recipe.step frames of each sound.
    """
    pieces_of = windows(samples, lengths_of(samples, lengths), recipe.frame, recipe.step)
    return power_of(tf.signal.rfft(pieces_of)[:, LOWEST_BIN:]) / np.sum(hann(recipe.frame) ** 2)


def _decibels(power: Any) -> tf.Tensor:
    return 10.0 / math.log(10.0) * tf.math.log(power + 1e-10)


def windows(samples: Any, lengths: Any, size: int, hop: int, chosen: Any = None) -> tf.Tensor:
    """Overlapping pieces of sounds under a Hann window, centred at samples 0, hop, 2 hop, … of each: (frames, size).

    Args:
        samples: floats (n,), all sounds, one after another; of their type are the pieces.
        lengths: int32 (sounds,), samples of each sound, ≥ 1; it has 1 + length // hop frames.
        size: samples of a piece.
        hop: samples from one to the next.
        chosen: bool (frames,), which of them are wanted; None: all.
    """
    num, step = tf.size(lengths), math.gcd(size, hop)
    first, filled = tf.cumsum(lengths, exclusive=True), size // 2 + tf.math.floormod(-lengths - size, step)
    # Mirrored as often as it takes: the sound may be shorter than half a window.
    period = tf.maximum(2 * (lengths - 1), 1)[:, None]
    most_after = size // 2 + step - 1
    ends = []
    for place in (tf.range(-size // 2, 0)[None], lengths[:, None] + tf.range(most_after)):
        place = tf.math.floormod(place, period)
        ends.append(tf.reshape(tf.gather(samples, first[:, None] + tf.minimum(place, period - place)), [-1]))
    # Each sound between its mirrored ends, filled up to whole steps.
    after = tf.reshape(tf.stack([filled, most_after - filled], axis=1), [-1])
    parts = [tf.fill([num], size - size // 2), lengths, after]
    values, parts = tf.concat([ends[0], samples, ends[1]], axis=0), tf.concat(parts, axis=0)
    order = tf.range(num)[:, None] * [1, 1, 2] + num * [0, 1, 2]
    cut = ragged(values, parts)
    steps = tf.reshape(tf.gather(cut, tf.reshape(order, [-1])).values, (-1, step))
    # Steps are copied as a whole: that is faster than to pick each sample.
    row = rows_of(1 + lengths // hop)
    from_first = tf.range(tf.size(row)) - tf.gather(tf.cumsum(1 + lengths // hop, exclusive=True), row)
    begin = tf.gather(tf.cumsum((size - size // 2 + lengths + filled) // step, exclusive=True), row)
    begin += from_first * (hop // step)
    begin = begin if chosen is None else tf.boolean_mask(begin, chosen)
    joined = tf.gather(steps, begin[:, None] + tf.range(size // step))
    return tf.reshape(joined, (-1, size)) * tf.constant(hann(size), samples.dtype)


def hann(size: int) -> np.ndarray:
    """A periodic Hann window, float64 (size,)."""
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(size) / size)


def power_of(spectrum: Any) -> tf.Tensor:
    return tf.square(tf.math.real(spectrum)) + tf.square(tf.math.imag(spectrum))


def lengths_of(samples: Any, lengths: Any) -> tf.Tensor:
    return tf.convert_to_tensor([tf.size(samples)] if lengths is None else lengths)


def rows_of(counts: Any) -> tf.Tensor:
    """Which row each frame belongs to, where each row has so many: int32 (frames,)."""
    return tf.repeat(tf.range(tf.size(counts)), counts)


def side_by_side(values: Any, counts: Any, filled: float = math.inf) -> tf.Tensor:
    """(frames, …), so many of each row, -> (rows, most frames, …), filled up."""
    return ragged(values, counts).to_tensor(filled)


def are_there(counts: Any) -> tf.Tensor:
    """bool (rows, most frames): where `side_by_side` filled nothing up."""
    return tf.sequence_mask(counts)
