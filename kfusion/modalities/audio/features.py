"""WAV files -> the features that a network hears: the one way from sound to numbers; TensorFlow operations only.

Training from recordings, prediction on files and the exported graph all go through `read_sounds`, so they cannot
differ. Every number of the features is in the `SoundRecipe`; those of the search for the word are in `word.py`.

A whole batch is one call of the same few operations: the samples of all its sounds, and the frames of these, lie one
after another, without gaps.

References: Davis and Mermelstein 1980 (MFCC); Boll 1979 (subtraction of noise).
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf
from scipy.fft import dct

from kfusion.modalities.audio.decoding import in_sizes, pieces, read_wavs, resample
from kfusion.modalities.audio.recipe import (
    BREAK_HZ,
    FSDD_FRONT_END,
    MEL,
    SPOKEN_DIGITS,
    SoundRecipe,
    neighbours,
    recipe_of,
)
from kfusion.modalities.audio.word import (
    Word,
    are_there,
    find_word,
    frame_power,
    lengths_of,
    level_above_room,
    num_quiet,
    power_of,
    reason_unheard,
    rows_of,
    side_by_side,
    windows,
)
from kfusion.spec import ModalitySpec

MEL_BLOCK = 32
"""Mel bands that are computed together."""


def mfcc_sequence(
    samples: Any,
    num_coefficients: int | None = None,
    room: Any = None,
    recipe: SoundRecipe = SPOKEN_DIGITS,
    lengths: Any = None,
) -> tf.Tensor:
    """The values of sounds, frame by frame: mel-frequency cepstral coefficients, or what the recipe says instead.

    Args:
        samples: float32 (n,), in [-1, 1], at the recipe's rate: all sounds, one after another.
        num_coefficients: the first so many, in [1, recipe.num_mel_bands]; the recipe's if left out.
        room: float64 (sounds, recipe.num_mel_bands), the power of a steady noise in each mel band; it is subtracted,
            down to `recipe.noise_left` of itself. None: nothing is.
        recipe: the numbers.
        lengths: int32 (sounds,), samples of each sound, ≥ 1; None: it is one.

    Returns:
        float32 (frames, num_coefficients): 1 + length // recipe.hop frames of each sound.
    """
    lengths = lengths_of(samples, lengths)
    power, row = mel_power(samples, recipe, lengths), rows_of(1 + lengths // recipe.hop)
    if room is not None:
        steady = tf.gather(room, row)
        power = tf.maximum(power - steady, recipe.noise_left * steady)
    level_db = 10.0 / math.log(10.0) * tf.math.log(tf.maximum(power, recipe.lowest_power))
    loudest_db = tf.math.segment_max(tf.reduce_max(level_db, axis=1), row)
    level_db = tf.maximum(level_db, tf.gather(loudest_db - recipe.range_db, row)[:, None])
    if recipe.values == "log-mel":
        return tf.cast(level_db[:, : num_coefficients or recipe.num_coefficients], tf.float32)
    cosines = dct(np.eye(recipe.num_mel_bands), type=2, norm="ortho", axis=1)
    return tf.cast(
        tf.matmul(level_db, tf.constant(cosines[:, : num_coefficients or recipe.num_coefficients])), tf.float32
    )


def mel_power(samples: Any, recipe: SoundRecipe = SPOKEN_DIGITS, lengths: Any = None) -> tf.Tensor:
    """The power of each window in each mel band.

    Args:
        samples: float32 (n,), at the recipe's rate: all sounds, one after another.
        recipe: the numbers.
        lengths: int32 (sounds,), samples of each sound, ≥ 1; None: it is one.

    Returns:
        float64 (frames, recipe.num_mel_bands): 1 + length // recipe.hop frames of each sound.
    """
    power = window_power(samples, recipe, lengths_of(samples, lengths))
    # Neighbouring bands share few bins: in blocks, most of the zeros are left out.
    bands, blocks = mel_bands(recipe), []
    for first in range(0, recipe.num_mel_bands, MEL_BLOCK):
        block = bands[:, first : first + MEL_BLOCK]
        filled = np.flatnonzero(block.any(axis=1))
        low, high = (filled[0], filled[-1] + 1) if len(filled) else (0, 1)
        blocks.append(tf.matmul(power[:, low:high], tf.constant(block[low:high])))
    return tf.concat(blocks, axis=1)


def window_power(samples: Any, recipe: SoundRecipe, lengths: Any, chosen: Any = None) -> tf.Tensor:
    """The power of each window at each frequency, float64 (frames, recipe.window // 2 + 1).

    Args:
        samples: float32 (n,), at the recipe's rate: all sounds, one after another.
        recipe: the numbers.
        lengths: int32 (sounds,), samples of each sound, ≥ 1.
        chosen: bool (frames,), which of them are wanted; None: all.
    """
    # In double precision: single costs up to 0.0007, and the recipe's own figures lie 0.0009 from the exact ones.
    samples = tf.cast(samples, tf.float64)
    return power_of(tf.signal.rfft(windows(samples, lengths, recipe.window, recipe.hop, chosen)))


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


GAP_MS, FEWEST_ROOM = 25.0, 4
"""Time between the word and the windows that count as the room, and how many windows it takes."""


def room_power(samples: Any, word: Word, recipe: SoundRecipe = SPOKEN_DIGITS, lengths: Any = None) -> tf.Tensor:
    """Mean power outside the word in each mel band.

    Args:
        samples: float32 (n,), whole recordings, one after another.
        word: where the words lie; what else is loud is not the room's.
        recipe: the numbers.
        lengths: int32 (sounds,), samples of each recording, ≥ 1; None: it is one.

    Returns:
        float64 (sounds, recipe.num_mel_bands); zeros where there is too little of the room.
    """
    lengths = lengths_of(samples, lengths)
    half, step, gap, num = recipe.window // 2, recipe.step, recipe.samples(GAP_MS), 1 + lengths // recipe.hop
    centre = tf.range(tf.reduce_max(num)) * recipe.hop
    outside = (centre + half + gap <= word.start[:, None]) | (centre - half - gap >= word.end[:, None])
    total = tf.pad(tf.cumsum(tf.cast(word.loud, tf.int32), axis=1), ((0, 0), (1, 0)))
    reach, most = half + recipe.frame // 2, tf.shape(word.loud)[1]
    low = tf.clip_by_value((centre - reach) // step + 1, 0, most)
    high = tf.clip_by_value((centre + reach - 1) // step + 1, 0, most)
    still = tf.gather(total, low, axis=1) >= tf.gather(total, high, axis=1)
    of_room = outside & still & are_there(num)
    of_room &= tf.reduce_sum(tf.cast(of_room, tf.int32), axis=1, keepdims=True) >= FEWEST_ROOM
    chosen = tf.boolean_mask(of_room, are_there(num))
    power = window_power(samples, recipe, lengths, chosen)
    mean = tf.math.unsorted_segment_mean(power, tf.boolean_mask(rows_of(num), chosen), tf.size(lengths))
    return tf.matmul(mean, tf.constant(mel_bands(recipe)))


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
    # Files are read together, but not more at once than memory has room for.
    cost = tf.strings.length(contents) + FILE_COST
    group = tf.unique(tf.cumsum(tf.cast(cost, tf.int64), exclusive=True) // GROUP_COST)[1]
    num = tf.reduce_max(tf.concat([[-1], group], axis=0)) + 1
    arrays = (
        tf.TensorArray(tf.float32, num, infer_shape=False, element_shape=[None, spec.num_values]),
        tf.TensorArray(tf.string, num, infer_shape=False, element_shape=[None]),
    )

    # Everything here is written for the graph: to have AutoGraph look for loops would take longer than the rest.
    @tf.autograph.experimental.do_not_convert
    def step(number: Any, arrays: Any) -> tuple[Any, Any]:
        parts = _read_group(tf.boolean_mask(contents, group == number), spec, recipe)
        return number + 1, tuple(array.write(number, part) for array, part in zip(arrays, parts, strict=True))

    _, arrays = tf.while_loop(lambda number, _: number < num, step, (0, arrays), parallel_iterations=2)
    audio, reason = (array.concat() for array in arrays)
    return tf.ensure_shape(audio, (None, spec.num_values)), reason


GROUP_COST, FILE_COST = 2**21, 2**12
"""Bytes of files that are read together, a file of more by itself; and bytes as which every file counts besides."""


def _read_group(contents: Any, spec: ModalitySpec, recipe: SoundRecipe) -> tuple[tf.Tensor, tf.Tensor]:
    """`read_sounds` for files that are read together."""
    rows, rate_hz, reason = read_wavs(contents, middle=not recipe.stretch)
    length_ms = tf.cast(rows.row_lengths(), tf.int64) * 1000 // rate_hz
    rule = f"must last at least {recipe.shortest_ms} milliseconds. Found: "
    too_short = tf.strings.join([rule, tf.strings.as_string(length_ms)])
    there = (reason == "") & (contents != "")
    reason = tf.where(there & (length_ms < recipe.shortest_ms), too_short, reason)
    kept = tf.cast(tf.where((reason == "") & there)[:, 0], tf.int32)
    audio, all_kept = tf.zeros((tf.size(contents), spec.num_values)), tf.size(kept) == tf.size(contents)

    def read() -> tuple[tf.Tensor, tf.Tensor]:
        some = tf.cond(all_kept, lambda: rows, lambda: tf.gather(rows, kept))
        changed, order = resample(some, tf.gather(rate_hz, kept), recipe.sample_rate_hz)
        found, place = _features(changed, spec, recipe), tf.gather(kept, order)[:, None]
        update = tf.tensor_scatter_nd_update
        return update(audio, place, found[0]), update(reason, place, found[1])

    return tf.cond(tf.size(kept) > 0, read, lambda: (audio, reason))


def _features(rows: Any, spec: ModalitySpec, recipe: SoundRecipe) -> tuple[tf.Tensor, tf.Tensor]:
    frames, coefficients = spec.grid
    lengths, room = rows.row_lengths(), None
    power, num = frame_power(rows.values, recipe, lengths), 1 + lengths // recipe.step
    treated = recipe.trim or recipe.denoise
    level_db = level_above_room(power, num, recipe) if treated or not recipe.heed_steady else None
    reason = reason_unheard(power, level_db, num, recipe)
    if treated:
        word = find_word(level_db, lengths, recipe)
        rows, order = without_direct_current(rows, word.end - word.start < lengths, recipe)
        lengths, reason = tf.gather(lengths, order), tf.gather(reason, order)
        word = Word(*(tf.gather(each, order) for each in word))
        room = room_power(rows.values, word, recipe, lengths) if recipe.denoise else None
        parts = tf.stack([word.start, word.end - word.start, lengths - word.end], axis=1)
        rows = pieces(rows.values, parts, 1) if recipe.trim else rows
    lengths = rows.row_lengths()
    sequence, num = mfcc_sequence(rows.values, coefficients, room, recipe, lengths), 1 + lengths // recipe.hop
    filled = stretch(sequence, frames, num) if recipe.stretch else middle(sequence, frames, num)
    audio = tf.where((reason == "")[:, None], tf.reshape(filled, [-1, spec.num_values]), 0.0)
    if not treated:
        return audio, reason
    first_order = tf.math.invert_permutation(order)
    return tf.gather(audio, first_order), tf.gather(reason, first_order)


def without_direct_current(rows: Any, cut: Any, recipe: SoundRecipe = SPOKEN_DIGITS) -> tuple[Any, tf.Tensor]:
    """Sounds through a high-pass filter of the first order, so that no offset, and no step of it, is left.

    With a = exp(-2 pi `LOWEST_HZ` / rate), y[t] = a y[t - 1] + (1 + a) / 2 (x[t] - x[t - 1]); computed through the
    spectrum, since TensorFlow has no recursive filter.

    Args:
        rows: float32 (sounds, None), at the recipe's rate; before its first sample, a sound is taken as constant.
        cut: bool (sounds,), the sounds that pass in any case; of the others those that have much direct current.
        recipe: the numbers.

    Returns:
        The sounds in another order, and which each is, int32 (sounds,).
    """
    kept = math.exp(-2.0 * math.pi * LOWEST_HZ / recipe.sample_rate_hz)

    def change(some: Any, place: Any, size: Any) -> Any:
        samples, num, size = some.to_tensor(), some.row_lengths(), tf.cast(size, tf.int32)
        count = tf.cast(num, tf.float32)[:, None]
        mean = tf.reduce_sum(samples, axis=1, keepdims=True) / count
        inside = tf.sequence_mask(num, dtype=tf.float32)
        variance = tf.reduce_sum(tf.square(samples - mean) * inside, axis=1, keepdims=True) / count
        much = (tf.square(mean) > MOST_DIRECT**2 * variance)[:, 0]
        which = tf.where(much | tf.gather(cut, place))
        part = tf.gather_nd(samples, which)
        # What is filled up must be as far from the first sample as before: nothing.
        spectrum = tf.signal.rfft((part - part[:, :1]) * tf.gather_nd(inside, which), [size])
        angle = 2.0 * math.pi * tf.cast(tf.range(size // 2 + 1), tf.float32) / tf.cast(size, tf.float32)
        delay = tf.cast(tf.cos(angle), tf.complex64) - 1j * tf.cast(tf.sin(angle), tf.complex64)
        response = (1.0 + kept) / 2.0 * (1.0 - delay) / (1.0 - kept * delay)
        most = tf.shape(samples)[1]
        samples = tf.tensor_scatter_nd_update(samples, which, tf.signal.irfft(spectrum * response, [size])[:, :most])
        return pieces(tf.reshape(samples, [-1]), tf.stack([num, most - num], axis=1), 0)

    # A size that has small factors is transformed quickly.
    size = (rows.row_lengths() + int(GUARD_S * recipe.sample_rate_hz)) // 1000 * 1000 + 1000
    return in_sizes(rows, tf.cast(size, tf.int64), change)


def stretch(sequence: Any, num_frames: int, lengths: Any = None) -> tf.Tensor:
    """`recipe.to_frames`, as TensorFlow operations.

    Args:
        sequence: float32 (n, coefficients), all sequences, one after another.
        num_frames: frames of each result, ≥ 1.
        lengths: int32 (sequences,), frames of each, ≥ 1; None: it is one.

    Returns:
        float32 (sequences, num_frames, coefficients).
    """
    lengths = tf.convert_to_tensor([tf.shape(sequence)[0]] if lengths is None else lengths)
    low, high, rest = neighbours(tf.range(num_frames), lengths[:, None], num_frames)
    weight = (tf.cast(rest, tf.float32) / np.float32(max(num_frames - 1, 1)))[..., None]
    first = tf.cumsum(lengths, exclusive=True)[:, None]
    before, after = tf.gather(sequence, first + low), tf.gather(sequence, first + high)
    return before + weight * (after - before)


def middle(sequence: Any, num_frames: int, lengths: Any = None) -> tf.Tensor:
    """The frames in the middle of sounds; a short one lies in the middle of its own quiet.

    Args:
        sequence: float32 (n, values), all sounds, one after another.
        num_frames: frames of each result, ≥ 1.
        lengths: int32 (sounds,), frames of each, ≥ 1; None: it is one.

    Returns:
        float32 (sounds, num_frames, values): where a sound has no frames, each value's `QUIET_SHARE` quantile.
    """
    lengths = tf.convert_to_tensor([tf.shape(sequence)[0]] if lengths is None else lengths)
    quiet = tf.gather(tf.sort(side_by_side(sequence, lengths), axis=1), num_quiet(lengths), batch_dims=1)
    num = lengths[:, None]
    place = tf.range(num_frames) + (num - num_frames) // 2
    inside = (place >= 0) & (place < num)
    place = tf.cumsum(lengths, exclusive=True)[:, None] + tf.clip_by_value(place, 0, num - 1)
    return tf.where(inside[..., None], tf.gather(sequence, place), quiet[:, None])
