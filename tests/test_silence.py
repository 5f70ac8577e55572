"""Finding the word in a recording, whatever the room sounds like, and taking the room's noise away."""

import numpy as np
import pytest
import tensorflow as tf

from kfusion.data.mfcc import mel_power, mfcc_sequence
from kfusion.data.silence import find_word, room_power
from tests.benchmarks.listening import room_noise
from tests.test_sounds import word

SAMPLES = tf.TensorSpec((None,), tf.float32)
place_of = tf.function(find_word, input_signature=[SAMPLES])
NEAR = 250
"""Samples, 31 ms: the ends are sought each 12.5 ms, and the word fades in and out."""


def scene(start: int, num_samples: int, fall_db: float | None, height: float = 0.003) -> np.ndarray:
    """A word of half a second from `start` on, in silence or in steady noise: float32 (num_samples,)."""
    samples = np.zeros(num_samples)
    samples[start : start + 4000] = word(4000) / 32768
    if fall_db is not None:
        samples += height * room_noise(num_samples, fall_db, np.random.default_rng(start))
    return samples.astype(np.float32)


@pytest.mark.parametrize("fall_db", [None, 0.0, 3.0, 6.0])
@pytest.mark.parametrize(("start", "num_samples"), [(0, 8000), (1300, 8000), (4000, 8000), (20_000, 40_000)])
def test_word_is_found_in_silence_and_in_steady_noise(start, num_samples, fall_db):
    first, end = place_of(scene(start, num_samples, fall_db))
    assert (abs(int(first) - start) < NEAR, abs(int(end) - start - 4000) < NEAR) == (True, True)


def test_hum_of_a_tenth_of_the_words_power_is_no_word():
    hum = 0.05 * np.sin(2 * np.pi * 50 * np.arange(8000) / 8000)
    first, end = place_of((scene(2000, 8000, 0.0, 0.001) + hum).astype(np.float32))
    assert (abs(int(first) - 2000) < NEAR, abs(int(end) - 6000) < NEAR) == (True, True)


def test_pause_within_a_word_is_kept():
    first, end = place_of(scene(1000, 16_000, 0.0) + scene(7000, 16_000, None))
    assert (abs(int(first) - 1000) < NEAR, abs(int(end) - 11_000) < NEAR) == (True, True)


@pytest.mark.parametrize(
    "samples",
    [
        word(4000) / 32768,
        np.zeros(8000),
        np.ones(1),
        np.ones(7),
        0.01 * room_noise(8000, 0.0, np.random.default_rng(0)),
        scene(300, 4800, 0.0),
    ],
    ids=["cut close", "nothing", "one sample", "seven samples", "noise alone", "little silence"],
)
def test_where_the_room_is_not_known_nothing_is_cut(samples):
    first, end = place_of(samples.astype(np.float32))
    assert (int(first), int(end)) == (0, len(samples))


def test_power_of_the_room_is_that_of_its_noise_alone():
    samples, noise = scene(3000, 40_000, 3.0), 0.003 * room_noise(40_000, 3.0, np.random.default_rng(3000))
    found, expected = room_power(samples, 3000, 7000).numpy(), mel_power(noise.astype(np.float32)).numpy().mean(axis=0)
    filled = expected > 0
    assert np.abs(10 * np.log10(found[filled] / expected[filled])).mean() < 0.5


def test_room_that_is_hardly_heard_is_not_known():
    np.testing.assert_array_equal(room_power(scene(300, 4800, 0.0), 300, 4300), 0)


def test_subtracting_the_room_brings_the_word_closer_to_what_it_was():
    noisy, clean = scene(3000, 12_000, 0.0), word(4000).astype(np.float32) / 32768
    room = room_power(noisy, 3000, 7000)
    wanted = mfcc_sequence(clean).numpy()
    before = np.abs(mfcc_sequence(noisy[3000:7000]).numpy() - wanted).mean()
    after = np.abs(mfcc_sequence(noisy[3000:7000], room=room).numpy() - wanted).mean()
    assert after < 0.9 * before


def test_unknown_room_changes_nothing():
    samples = word(3000).astype(np.float32) / 32768
    np.testing.assert_array_equal(mfcc_sequence(samples, room=tf.zeros(128, tf.float64)), mfcc_sequence(samples))
