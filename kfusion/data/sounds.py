"""WAV files -> the features that a network hears: the one way from sound to numbers.

Training from recordings, prediction on files and the exported graph all go through `read_sounds`, so they cannot
differ. TensorFlow ops only, and any number of rows.
"""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from kfusion.data.builtin import FRONT_END
from kfusion.data.frames import NUM_FRAMES, neighbours
from kfusion.data.mfcc import NUM_COEFFICIENTS, SAMPLE_RATE_HZ, mfcc_sequence
from kfusion.data.resample import resample
from kfusion.data.silence import find_word, frame_power, reason_unheard, room_power
from kfusion.data.wav import read_wav
from kfusion.spec import Spec

SHORTEST_MS = 50
"""The shortest built-in recording lasts 143."""
MOST_DIRECT = 0.5
"""Direct current, in standard deviations of a sound, above which it is taken out; the built-in ones have up to 0.48."""
LOWEST_HZ, GUARD_S = 20.0, 0.05
"""Where the filter that takes it out has lost half the power, and how long it may ring."""
SOUND_FRONT_END = "wav-8000hz-trimmed-denoised-mfcc-13 + linear-39"
"""How `read_sounds` makes features, as a run's data.json names it."""


def can_read_sounds(front_end: str | None, spec: Spec) -> bool:
    """Whether WAV files can be turned into the features that a network was trained on.

    Args:
        front_end: what made those features; None where nobody knows.
        spec: their shape.
    """
    return front_end in (FRONT_END, SOUND_FRONT_END) and spec.audio_grid == (NUM_FRAMES, NUM_COEFFICIENTS)


@tf.autograph.experimental.do_not_convert
def read_sounds(contents: Any, spec: Spec, trim: bool = True) -> tuple[tf.Tensor, tf.Tensor]:
    """The features of WAV files: 8 or 16 bit PCM, mono or stereo, 8 to 48 kHz, up to a minute.

    Args:
        contents: string (batch,), each a file; an empty string is a sound that is absent.
        spec: its `audio_grid` is filled.
        trim: cut off the silence before and after the word, and subtract the steady noise that is heard in it.

    Returns:
        audio float32 (batch, spec.num_audio), zeros where the sound is absent or has a reason.
        reason string (batch,), the rule that a file breaks and what was found; empty where all is well, or absent.
    """

    def row(content: Any) -> tuple[tf.Tensor, tf.Tensor]:
        samples, rate_hz, reason = read_wav(content)
        length_ms = tf.size(samples, tf.int64) * 1000 // rate_hz
        short = [f"must last at least {SHORTEST_MS} milliseconds. Found: ", tf.strings.as_string(length_ms)]
        reason = tf.where((reason == b"") & (length_ms < SHORTEST_MS), tf.strings.join(short), reason)
        zeros = tf.zeros(spec.num_audio)
        audio, reason = tf.cond(reason == b"", lambda: _features(samples, rate_hz, spec, trim), lambda: (zeros, reason))
        return audio, tf.where(content == b"", "", reason)

    signature = (tf.TensorSpec((spec.num_audio,), tf.float32), tf.TensorSpec((), tf.string))
    # Everything here is written for the graph: to have AutoGraph look for loops would take longer than the rest.
    row = tf.autograph.experimental.do_not_convert(row)
    return tf.map_fn(row, contents, fn_output_signature=signature)


def _features(samples: Any, rate_hz: Any, spec: Spec, trim: bool) -> tuple[tf.Tensor, tf.Tensor]:
    frames, coefficients = spec.audio_grid
    samples = resample(samples, rate_hz, SAMPLE_RATE_HZ)
    power = frame_power(samples)
    reason = reason_unheard(power)
    if trim:
        word = find_word(power, tf.size(samples))
        cut = word.end - word.start < tf.size(samples)
        samples = tf.cond(cut | _direct(samples), lambda: without_direct_current(samples), lambda: samples)
        sequence = mfcc_sequence(samples[word.start : word.end], coefficients, room_power(samples, word))
    else:
        sequence = mfcc_sequence(samples, coefficients)
    audio = tf.reshape(stretch(sequence, frames), [spec.num_audio])
    return tf.where(reason == b"", audio, 0.0), reason


def _direct(samples: Any) -> tf.Tensor:
    """Whether a sound that is not cut has so much direct current that it must go all the same."""
    return tf.square(tf.reduce_mean(samples)) > MOST_DIRECT**2 * tf.math.reduce_variance(samples)


def without_direct_current(samples: Any) -> tf.Tensor:
    """A sound through a high-pass filter of the first order, so that no offset, and no step of it, is left.

    With a = exp(-2 pi `LOWEST_HZ` / 8000), y[t] = a y[t - 1] + (1 + a) / 2 (x[t] - x[t - 1]); computed through the
    spectrum, since TensorFlow has no recursive filter.

    Args:
        samples: float32 (n,), n ≥ 1, at 8 kHz; before its first, the sound is taken as constant.
    """
    num = tf.size(samples)
    # A size that has small factors is transformed quickly.
    size = (num + int(GUARD_S * SAMPLE_RATE_HZ)) // 1000 * 1000 + 1000
    spectrum = tf.signal.rfft(tf.pad(samples - samples[0], [[0, size - num]]))
    angle = 2.0 * math.pi * tf.cast(tf.range(size // 2 + 1), tf.float32) / tf.cast(size, tf.float32)
    delay = tf.cast(tf.cos(angle), tf.complex64) - 1j * tf.cast(tf.sin(angle), tf.complex64)
    kept = math.exp(-2.0 * math.pi * LOWEST_HZ / SAMPLE_RATE_HZ)
    response = (1.0 + kept) / 2.0 * (1.0 - delay) / (1.0 - kept * delay)
    return tf.signal.irfft(spectrum * response, [size])[:num]


def stretch(sequence: Any, num_frames: int = NUM_FRAMES) -> tf.Tensor:
    """`frames.to_frames`, as TensorFlow ops.

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
