"""WAV files -> the features that a network hears: the one way from sound to numbers; TensorFlow operations only.

Training from recordings, prediction on files and the exported graph all go through `read_sounds`, so they cannot
differ. Every number of the features is in the `SoundRecipe`; the thresholds of the search for the word are here.

The search takes the quietest frames for the room. Each frequency is measured in multiples of the room's own power
there, so that a hum or a hiss counts as silence, and a faint consonant above it does not. Where too little of a
recording is silence to know the room by, it was cut close already (as the built-in recordings were), and is left as it
is. What is loud but short and apart from the word (clicks of a mouse, taps of keys, thuds, breaths) is neither the word
nor the room. The thresholds were chosen on the validation recordings of `tests/benchmarks/listening.py`.

References: Davis and Mermelstein 1980 (MFCC); Boll 1979 (subtraction of noise); Rabiner and Sambur 1975 (endpoints by
energy); Lamel, Rabiner, Rosenberg and Wilpon 1981 (bursts).
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from scipy.fft import dct

from kfusion.modalities.audio.decoding import read_wav, resample
from kfusion.modalities.audio.recipe import (
    BREAK_HZ,
    FSDD_FRONT_END,
    MEL,
    SPOKEN_DIGITS,
    SoundRecipe,
    neighbours,
    recipe_of,
)
from kfusion.spec import ModalitySpec


def mfcc_sequence(
    samples: Any, num_coefficients: int | None = None, room: Any = None, recipe: SoundRecipe = SPOKEN_DIGITS
) -> tf.Tensor:
    """The values of one sound, frame by frame: mel-frequency cepstral coefficients, or what the recipe says instead.

    Args:
        samples: float32 (n,), n ≥ 1, in [-1, 1], at the recipe's rate.
        num_coefficients: the first so many, in [1, recipe.num_mel_bands]; the recipe's if left out.
        room: float64 (recipe.num_mel_bands,), the power of a steady noise in each mel band; it is subtracted, down to
            `recipe.noise_left` of itself. None: nothing is.
        recipe: the numbers.

    Returns:
        float32 (1 + n // recipe.hop, num_coefficients).
    """
    power = mel_power(samples, recipe)
    if room is not None:
        power = tf.maximum(power - room, recipe.noise_left * room)
    level_db = 10.0 / math.log(10.0) * tf.math.log(tf.maximum(power, recipe.lowest_power))
    level_db = tf.maximum(level_db, tf.reduce_max(level_db) - recipe.range_db)
    if recipe.values == "log-mel":
        return tf.cast(level_db[:, : num_coefficients or recipe.num_coefficients], tf.float32)
    cosines = dct(np.eye(recipe.num_mel_bands), type=2, norm="ortho", axis=1)
    return tf.cast(
        tf.matmul(level_db, tf.constant(cosines[:, : num_coefficients or recipe.num_coefficients])), tf.float32
    )


def mel_power(samples: Any, recipe: SoundRecipe = SPOKEN_DIGITS) -> tf.Tensor:
    """The power of each window in each mel band.

    Args:
        samples: float32 (n,), n ≥ 1, at the recipe's rate.
        recipe: the numbers.

    Returns:
        float64 (1 + n // recipe.hop, recipe.num_mel_bands).
    """
    # In double precision: single costs up to 0.0007, and the recipe's own figures lie 0.0009 from the exact ones.
    pieces = windows(tf.cast(samples, tf.float64), recipe.window, recipe.hop)
    return tf.matmul(tf.square(tf.abs(tf.signal.rfft(pieces))), tf.constant(mel_bands(recipe)))


def windows(samples: Any, size: int, hop: int) -> tf.Tensor:
    """Overlapping pieces of a sound under a Hann window, centred at samples 0, hop, 2 hop, …: (1 + n // hop, size).

    Args:
        samples: floats (n,), n ≥ 1; of their type are the pieces.
        size: samples of a piece.
        hop: samples from one to the next.
    """
    num = tf.size(samples)
    # Mirrored as often as it takes: the sound may be shorter than half a window.
    period = tf.maximum(2 * (num - 1), 1)
    ends = [tf.math.floormod(place, period) for place in (tf.range(-size // 2, 0), num + tf.range(size // 2))]
    before, after = (tf.gather(samples, tf.minimum(place, period - place)) for place in ends)
    padded, count = tf.concat([before, samples, after], axis=0), 1 + num // hop
    if size % hop:
        pieces = tf.gather(padded, tf.range(count)[:, None] * hop + tf.range(size))
    else:  # Whole steps side by side, which are faster copied.
        steps = tf.reshape(padded[: (count - 1) * hop + size], (-1, hop))
        pieces = tf.concat([steps[first : first + count] for first in range(size // hop)], axis=1)
    return pieces * tf.constant(hann(size), samples.dtype)


def hann(size: int) -> np.ndarray:
    """A periodic Hann window, float64 (size,)."""
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(size) / size)


@lru_cache
def mel_bands(recipe: SoundRecipe = SPOKEN_DIGITS) -> np.ndarray:
    """The triangles over the bins of the power spectrum, each with its peak at 1: float64 (bins, bands).

    Mel of f Hz: 2595 log10(1 + f / 700); the corners are evenly spaced in mel, the sides straight in Hz.
    """
    bins_hz = np.linspace(0.0, recipe.sample_rate_hz / 2, recipe.window // 2 + 1)
    corners_hz = BREAK_HZ * (10.0 ** (np.linspace(0.0, recipe.top_mel, recipe.num_mel_bands + 2) / MEL) - 1.0)
    width_hz, beyond_hz = np.diff(corners_hz), bins_hz[:, None] - corners_hz
    rising, falling = beyond_hz[:, :-2] / width_hz[:-1], -beyond_hz[:, 2:] / width_hz[1:]
    bands = np.maximum(0.0, np.minimum(rising, falling))
    if recipe.values == "log-mel":
        # A band narrower than the bins are apart may hold none of them: it takes the nearest.
        empty = np.flatnonzero(bands.max(axis=0) == 0)
        bands[np.abs(beyond_hz[:, 1:-1][:, empty]).argmin(axis=0), empty] = 1.0
    return bands


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
GAP_MS, FEWEST_ROOM = 25.0, 4
"""Time between the word and the windows that count as the room, and how many windows it takes."""
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
        loud: bool (1 + n // recipe.step,), the frames too loud to be the room's: the word, and bursts beside it.
    """

    start: Any
    end: Any
    loud: Any


def find_word(power: Any, num: Any, recipe: SoundRecipe = SPOKEN_DIGITS) -> Word:
    """First and last sample of the word, by energy; clicks, thuds and breaths apart from it are left outside.

    Args:
        power: from `frame_power`.
        num: int32 scalar, how many samples the recording has.
        recipe: the numbers.

    Returns:
        The word, 0 ≤ start < end ≤ n; 0 and n where there is too little silence.
    """
    level_db, step, reach = level_above_room(power, recipe), recipe.step, recipe.samples(REACH_MS)
    room_db, peak_db = room_level(level_db), sustained(level_db)
    threshold_db = tf.maximum(peak_db - WORD_RANGE_DB, tf.minimum(room_db + ABOVE_ROOM_DB, peak_db - BELOW_PEAK_DB))
    loud = level_db >= threshold_db
    near = _any_near(_spoken(loud, level_db - threshold_db), GAP_AFTER, GAP_BEFORE)
    kept = tf.cast(tf.where(loud & near)[:, 0], tf.int32)
    first, last = kept[0], kept[-1]
    start, end = tf.maximum(first * step - reach, 0), tf.minimum(last * step + reach, num)
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


def reason_unheard(power: Any, recipe: SoundRecipe = SPOKEN_DIGITS) -> tf.Tensor:
    """Why a sound holds nothing that could be a word, string (); empty where it holds something.

    Args:
        power: from `frame_power`.
        recipe: the numbers.
    """
    loudest_db, found = sustained(_decibels(2.0 / recipe.frame * tf.reduce_sum(power, axis=1))), tf.constant("")
    if not recipe.heed_steady:
        level_db = level_above_room(power, recipe)
        steady = (sustained(level_db) - room_level(level_db) < STEADY_DB) & (tf.size(level_db) >= FEWEST_STEADY)
        found = tf.where(steady & (loudest_db < FAINT_DB), "only a faint and steady noise", found)
    found = tf.where(loudest_db < SILENT_DB, "silence", found)
    return tf.where(found == "", "", tf.strings.join([_UNHEARD, found]))


def room_level(level_db: Any) -> tf.Tensor:
    """The level that a tenth of the frames stay below: (frames,) -> ()."""
    return tf.sort(level_db)[tf.cast(tf.cast(tf.size(level_db), tf.float32) * QUIET_SHARE, tf.int32)]


def level_above_room(power: Any, recipe: SoundRecipe = SPOKEN_DIGITS) -> tf.Tensor:
    """Mean over the frequencies of each frame's power over the room's.

    Args:
        power: (frames, bins), from `frame_power`.
        recipe: the numbers.

    Returns:
        float32 (frames,), in decibels.
    """
    bins = np.arange(LOWEST_BIN, recipe.frame // 2 + 1)
    response = np.abs(1.0 - EMPHASIS * np.exp(-2j * np.pi * bins / recipe.frame)) ** 2
    sharp = tf.linalg.matvec(power, tf.constant(response, tf.float32))
    count = tf.cast(tf.math.ceil(QUIET_SHARE * tf.cast(tf.size(sharp), tf.float32)), tf.int32)
    room = tf.reduce_mean(tf.gather(power, tf.math.top_k(-sharp, count).indices), axis=0)
    return _decibels(tf.reduce_mean(power / (room + 1e-9), axis=1))


def frame_power(samples: Any, recipe: SoundRecipe = SPOKEN_DIGITS) -> tf.Tensor:
    """The power of each frame of a recording at each frequency from `LOWEST_BIN` on.

    Args:
        samples: float32 (n,), n ≥ 1, at the recipe's rate.
        recipe: the numbers.

    Returns:
        float32 (1 + n // recipe.step, bins).
    """
    spectrum = tf.signal.rfft(windows(samples, recipe.frame, recipe.step))[:, LOWEST_BIN:]
    return tf.square(tf.abs(spectrum)) / np.sum(hann(recipe.frame) ** 2)


def _decibels(power: Any) -> tf.Tensor:
    return 10.0 / math.log(10.0) * tf.math.log(power + 1e-10)


def room_power(samples: Any, word: Word, recipe: SoundRecipe = SPOKEN_DIGITS) -> tf.Tensor:
    """Mean power outside the word in each mel band.

    Args:
        samples: float32 (n,), the whole recording.
        word: where the word lies; what else is loud is not the room's.
        recipe: the numbers.

    Returns:
        float64 (recipe.num_mel_bands,); zeros where there is too little of the room.
    """
    power = mel_power(samples, recipe)
    half, step, gap = recipe.window // 2, recipe.step, recipe.samples(GAP_MS)
    centre = tf.range(tf.shape(power)[0]) * recipe.hop
    outside = (centre + half + gap <= word.start) | (centre - half - gap >= word.end)
    total = tf.concat([[0], tf.cumsum(tf.cast(word.loud, tf.int32))], axis=0)
    reach = half + recipe.frame // 2
    low = tf.clip_by_value((centre - reach) // step + 1, 0, tf.size(word.loud))
    high = tf.clip_by_value((centre + reach - 1) // step + 1, 0, tf.size(word.loud))
    weight = tf.cast(outside & (tf.gather(total, low) >= tf.gather(total, high)), tf.float64)
    count = tf.reduce_sum(weight)
    mean = tf.linalg.matvec(power, weight, transpose_a=True) / tf.maximum(count, 1.0)
    return tf.where(count >= FEWEST_ROOM, mean, tf.zeros(recipe.num_mel_bands, tf.float64))


MOST_DIRECT = 0.5
"""Direct current, in standard deviations of a sound, above which it is taken out; the built-in ones have up to 0.48."""
LOWEST_HZ, GUARD_S = 20.0, 0.05
"""Where the filter that takes it out has lost half the power, and how long it may ring."""


def can_read_sounds(front_end: str | None, spec: ModalitySpec, recipe: SoundRecipe = SPOKEN_DIGITS) -> bool:
    """Whether WAV files can be turned into the features that a network was trained on.

    Args:
        front_end: what made those features; None where nobody knows.
        spec: their shape.
        recipe: the numbers by which files are read.
    """
    known = (recipe.front_end, FSDD_FRONT_END) if recipe == SPOKEN_DIGITS else (recipe.front_end,)
    return front_end in known and spec.grid == recipe.grid


@tf.autograph.experimental.do_not_convert
def read_sounds(contents: Any, spec: ModalitySpec, recipe: SoundRecipe = SPOKEN_DIGITS) -> tuple[tf.Tensor, tf.Tensor]:
    """The features of WAV files; see `decoding.read_wav` for those that are read.

    A spec that names a front end is read by that one's recipe.

    Args:
        contents: string (batch,), each a file; an empty string is a sound that is absent.
        spec: its `grid` is filled.
        recipe: the numbers for a spec that names none.

    Returns:
        audio float32 (batch, spec.num_values), zeros where the sound is absent or has a reason.
        reason string (batch,), the rule that a file breaks and what was found; empty where all is well, or absent.
    """

    recipe = recipe_of(spec, recipe)

    def row(content: Any) -> tuple[tf.Tensor, tf.Tensor]:
        samples, rate_hz, reason = read_wav(content, middle=not recipe.stretch)
        length_ms = tf.size(samples, tf.int64) * 1000 // rate_hz
        rule = f"must last at least {recipe.shortest_ms} milliseconds. Found: "
        too_short = tf.strings.join([rule, tf.strings.as_string(length_ms)])
        reason = tf.where((reason == b"") & (length_ms < recipe.shortest_ms), too_short, reason)
        zeros = tf.zeros(spec.num_values)
        audio, reason = tf.cond(
            reason == b"", lambda: _features(samples, rate_hz, spec, recipe), lambda: (zeros, reason)
        )
        return audio, tf.where(content == b"", "", reason)

    signature = (tf.TensorSpec((spec.num_values,), tf.float32), tf.TensorSpec((), tf.string))
    # Everything here is written for the graph: to have AutoGraph look for loops would take longer than the rest.
    row = tf.autograph.experimental.do_not_convert(row)
    return tf.map_fn(row, contents, fn_output_signature=signature)


def _features(samples: Any, rate_hz: Any, spec: ModalitySpec, recipe: SoundRecipe) -> tuple[tf.Tensor, tf.Tensor]:
    frames, coefficients = spec.grid
    samples = resample(samples, rate_hz, recipe.sample_rate_hz)
    power, room = frame_power(samples, recipe), None
    reason = reason_unheard(power, recipe)
    if recipe.trim or recipe.denoise:
        word = find_word(power, tf.size(samples), recipe)
        cut = word.end - word.start < tf.size(samples)
        samples = tf.cond(
            cut | _has_direct_current(samples), lambda: without_direct_current(samples, recipe), lambda: samples
        )
        room = room_power(samples, word, recipe) if recipe.denoise else None
        samples = samples[word.start : word.end] if recipe.trim else samples
    sequence = mfcc_sequence(samples, coefficients, room, recipe)
    filled = stretch(sequence, frames) if recipe.stretch else middle(sequence, frames)
    audio = tf.reshape(filled, [spec.num_values])
    return tf.where(reason == b"", audio, 0.0), reason


def _has_direct_current(samples: Any) -> tf.Tensor:
    """Whether a sound that is not cut has so much direct current that it must go all the same."""
    return tf.square(tf.reduce_mean(samples)) > MOST_DIRECT**2 * tf.math.reduce_variance(samples)


def without_direct_current(samples: Any, recipe: SoundRecipe = SPOKEN_DIGITS) -> tf.Tensor:
    """A sound through a high-pass filter of the first order, so that no offset, and no step of it, is left.

    With a = exp(-2 pi `LOWEST_HZ` / rate), y[t] = a y[t - 1] + (1 + a) / 2 (x[t] - x[t - 1]); computed through the
    spectrum, since TensorFlow has no recursive filter.

    Args:
        samples: float32 (n,), n ≥ 1, at the recipe's rate; before its first, the sound is taken as constant.
        recipe: the numbers.
    """
    num = tf.size(samples)
    # A size that has small factors is transformed quickly.
    size = (num + int(GUARD_S * recipe.sample_rate_hz)) // 1000 * 1000 + 1000
    spectrum = tf.signal.rfft(tf.pad(samples - samples[0], [[0, size - num]]))
    angle = 2.0 * math.pi * tf.cast(tf.range(size // 2 + 1), tf.float32) / tf.cast(size, tf.float32)
    delay = tf.cast(tf.cos(angle), tf.complex64) - 1j * tf.cast(tf.sin(angle), tf.complex64)
    kept = math.exp(-2.0 * math.pi * LOWEST_HZ / recipe.sample_rate_hz)
    response = (1.0 + kept) / 2.0 * (1.0 - delay) / (1.0 - kept * delay)
    return tf.signal.irfft(spectrum * response, [size])[:num]


def stretch(sequence: Any, num_frames: int) -> tf.Tensor:
    """`recipe.to_frames`, as TensorFlow operations.

    Args:
        sequence: float32 (n, coefficients), n ≥ 1.
        num_frames: frames of the result, ≥ 1.

    Returns:
        float32 (num_frames, coefficients).
    """
    low, high, rest = neighbours(tf.range(num_frames), tf.shape(sequence)[0], num_frames)
    weight = (tf.cast(rest, tf.float32) / np.float32(max(num_frames - 1, 1)))[:, None]
    before, after = tf.gather(sequence, low), tf.gather(sequence, high)
    return before + weight * (after - before)


def middle(sequence: Any, num_frames: int) -> tf.Tensor:
    """The frames in the middle of a sound; a short one lies in the middle of its own quiet.

    Args:
        sequence: float32 (n, values), n ≥ 1.
        num_frames: frames of the result, ≥ 1.

    Returns:
        float32 (num_frames, values): where the sound has no frames, each value's `QUIET_SHARE` quantile.
    """
    num = tf.shape(sequence)[0]
    quiet = tf.sort(sequence, axis=0)[tf.cast(tf.cast(num, tf.float32) * QUIET_SHARE, tf.int32)]
    place = tf.range(num_frames) + (num - num_frames) // 2
    inside = (place >= 0) & (place < num)
    return tf.where(inside[:, None], tf.gather(sequence, tf.clip_by_value(place, 0, num - 1)), quiet)
