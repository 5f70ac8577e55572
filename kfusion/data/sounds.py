"""WAV files -> the features that a network hears: the one way from sound to numbers.

Training from recordings, prediction on files and the exported graph all go through `read_sounds`, so they cannot
differ. TensorFlow ops only, and any number of rows.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from kfusion.data.builtin import FRONT_END
from kfusion.data.frames import NUM_FRAMES, neighbours
from kfusion.data.mfcc import NUM_COEFFICIENTS, SAMPLE_RATE_HZ, mfcc_sequence
from kfusion.data.resample import resample
from kfusion.data.silence import find_word, room_power
from kfusion.data.wav import read_wav
from kfusion.spec import Spec

SOUND_FRONT_END = "wav-8000hz-trimmed-denoised-mfcc-13 + linear-39"
"""How `read_sounds` makes features, as a run's data.json names it."""


def can_read_sounds(front_end: str | None, spec: Spec) -> bool:
    """Whether WAV files can be turned into the features that a network was trained on.

    Args:
        front_end: what made those features; None where nobody knows.
        spec: their shape.
    """
    return front_end in (FRONT_END, SOUND_FRONT_END) and spec.audio_grid == (NUM_FRAMES, NUM_COEFFICIENTS)


def read_sounds(contents: Any, spec: Spec, trim: bool = True) -> tuple[tf.Tensor, tf.Tensor]:
    """The features of WAV files: 8 or 16 bit PCM, mono or stereo, 8 to 48 kHz, up to a minute.

    Args:
        contents: string (batch,), each a file; an empty string is a sound that is absent.
        spec: its `audio_grid` is filled.
        trim: cut off the silence before and after the word, and subtract the steady noise that is heard in it.

    Returns:
        audio float32 (batch, spec.num_audio), zeros where the sound is absent or cannot be read.
        reason string (batch,), the rule that a file breaks and what was found; empty where all is well, or absent.
    """

    def row(content: Any) -> tuple[tf.Tensor, tf.Tensor]:
        samples, rate_hz, reason = read_wav(content)
        zeros = tf.zeros(spec.num_audio)
        # A file that can be read has at least one sample.
        audio = tf.cond(tf.size(samples) > 0, lambda: _features(samples, rate_hz, spec, trim), lambda: zeros)
        return audio, tf.where(content == b"", "", reason)

    signature = (tf.TensorSpec((spec.num_audio,), tf.float32), tf.TensorSpec((), tf.string))
    return tf.map_fn(row, contents, fn_output_signature=signature)


def _features(samples: Any, rate_hz: Any, spec: Spec, trim: bool) -> tf.Tensor:
    frames, coefficients = spec.audio_grid
    samples = resample(samples, rate_hz, SAMPLE_RATE_HZ)
    if trim:
        start, end = find_word(samples)
        sequence = mfcc_sequence(samples[start:end], coefficients, room_power(samples, start, end))
    else:
        sequence = mfcc_sequence(samples, coefficients)
    return tf.reshape(stretch(sequence, frames), [spec.num_audio])


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
