"""Resampling to 8 kHz, checked against scipy's polyphase filter and against what the signal is known to be."""

from functools import partial
from math import gcd
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from scipy.signal import resample_poly

from kfusion.modalities.audio.decoding import ragged, resample
from tests.media import FSDD, Recordings

SIGNATURE = [tf.TensorSpec((None,), tf.float32), tf.TensorSpec((), tf.int64)]


@partial(tf.function, input_signature=SIGNATURE)
def to_8000(samples: Any, rate_hz: Any) -> Any:
    """One sound at 8 kHz."""
    return resample(ragged(samples, tf.shape(samples)), rate_hz[None], 8000)[0].values


def difference_db(one: np.ndarray, other: np.ndarray) -> float:
    """Power of the difference over the power of the second signal."""
    return float(10 * np.log10(np.mean((one - other) ** 2) / np.mean(other**2)))


@pytest.mark.parametrize("rate_hz", [8001, 11025, 16000, 22050, 44100, 47999, 48000])
def test_tone_in_the_band_keeps_its_height_and_place(rate_hz):
    time = np.arange(rate_hz // 2) / rate_hz
    changed = to_8000((0.5 * np.sin(2 * np.pi * 1234.5 * time + 0.3)).astype(np.float32), rate_hz).numpy()
    expected = 0.5 * np.sin(2 * np.pi * 1234.5 * np.arange(len(changed)) / 8000 + 0.3)
    assert len(changed) == -(-len(time) * 8000 // rate_hz)
    np.testing.assert_allclose(changed[400:-400], expected[400:-400], atol=2e-3)


@pytest.mark.parametrize("rate_hz", [11025, 22050, 44100, 48000])
def test_tone_above_the_band_is_removed(rate_hz):
    time = np.arange(rate_hz) / rate_hz
    tone = np.sin(2 * np.pi * 4500 * time) * np.hanning(len(time))
    assert np.abs(to_8000(tone.astype(np.float32), rate_hz)).max() < 1e-4


def test_equal_rates_change_nothing():
    samples = np.random.default_rng(0).normal(size=777).astype(np.float32)
    np.testing.assert_array_equal(to_8000(samples, 8000), samples)


@pytest.mark.parametrize("num_samples", [1, 5, 6, 7, 12])
def test_shortest_sounds_keep_their_duration(num_samples):
    assert to_8000(np.ones(num_samples, np.float32), 48000).shape == (-(-num_samples // 6),)


def test_end_does_not_come_round_to_the_start():
    step = np.zeros(44100, np.float32)
    step[-1000:] = 1
    assert np.abs(to_8000(step, 44100)[:4000]).max() < 1e-3


@pytest.mark.skipif(not FSDD.exists(), reason="the recordings lie in ../shared")
@pytest.mark.parametrize("rate_hz", [11025, 16000, 22050, 44100, 48000])
def test_speech_agrees_with_scipys_polyphase_filter(rate_hz):
    recordings, step = Recordings(), gcd(rate_hz, 8000)
    for row in (0, 777, 2999):
        original = recordings[row] / 32768
        higher = resample_poly(original, rate_hz // step, 8000 // step)
        changed = to_8000(higher.astype(np.float32), rate_hz).numpy()
        polyphase = resample_poly(higher, 8000 // step, rate_hz // step)
        assert len(changed) == len(polyphase)
        assert difference_db(changed, polyphase) < -35
        # Scipy's filter, which was used to go up, already lost some of what lies close to 4000 Hz.
        assert (
            difference_db(changed[: len(original)], original) < difference_db(polyphase[: len(original)], original) + 3
        )
