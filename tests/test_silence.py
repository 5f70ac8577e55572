"""Finding the word in a recording, whatever the room sounds like, and taking the room's noise away."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from kfusion.modalities.audio.features import mel_power, mfcc_sequence, room_power
from kfusion.modalities.audio.word import Word, find_word, frame_power, level_above_room
from tests.benchmarks.listening import room_noise
from tests.test_sounds import word

QUIET = tf.zeros((1, 0), tf.bool)
"""For the places of loud frames: there are none."""
SAMPLES = tf.TensorSpec((None,), tf.float32)


@partial(tf.function, input_signature=[SAMPLES])
def place_of(samples: Any) -> Word:
    """Of the word in one recording."""
    power = frame_power(samples)
    return find_word(level_above_room(power, [tf.shape(power)[0]]), tf.shape(samples))


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
    first, end, _ = place_of(scene(start, num_samples, fall_db))
    assert (abs(int(first[0]) - start) < NEAR, abs(int(end[0]) - start - 4000) < NEAR) == (True, True)


def test_hum_of_a_tenth_of_the_words_power_is_no_word():
    hum = 0.05 * np.sin(2 * np.pi * 50 * np.arange(8000) / 8000)
    first, end, _ = place_of((scene(2000, 8000, 0.0, 0.001) + hum).astype(np.float32))
    assert (abs(int(first[0]) - 2000) < NEAR, abs(int(end[0]) - 6000) < NEAR) == (True, True)


def test_pause_within_a_word_is_kept():
    first, end, _ = place_of(scene(1000, 16_000, 0.0) + scene(7000, 16_000, None))
    assert (abs(int(first[0]) - 1000) < NEAR, abs(int(end[0]) - 11_000) < NEAR) == (True, True)


def burst(num_samples: int, height: float) -> np.ndarray:
    """Noise that fades away."""
    return (
        height
        * np.random.default_rng(num_samples).normal(size=num_samples)
        * np.exp(-5 * np.linspace(0, 1, num_samples))
    )


@pytest.mark.parametrize("height", [0.02, 0.6])
@pytest.mark.parametrize(
    ("places", "length"),
    [((4000,), 40), ((11_600,), 40), ((0, 15_960), 40), ((2000, 2700, 3400), 240), ((12_500,), 700)],
    ids=["before", "after", "both ends", "three keys", "thud"],
)
def test_clicks_and_thuds_apart_from_the_word_are_not_of_it_nor_of_the_room(places, length, height):
    clean = scene(6000, 16_000, 0.0)
    samples = clean.copy()
    for place in places:
        samples[place : place + length] += burst(length, height).astype(np.float32)
    word_found = place_of(samples)
    assert [int(value[0]) for value in word_found[:2]] == pytest.approx([6000, 10_000], abs=NEAR)
    room, expected = room_power(samples, word_found).numpy()[0], room_power(clean, place_of(clean)).numpy()[0]
    assert np.abs(10 * np.log10(room[1:] / expected[1:])).mean() < 1.5


def test_a_step_of_direct_current_is_no_word():
    samples = scene(6000, 16_000, 0.0) + 0.1 * (np.arange(16_000) > 2500)
    first, end, _ = place_of(samples.astype(np.float32))
    assert (int(first[0]), int(end[0])) == pytest.approx([6000, 10_000], abs=NEAR)


def test_a_burst_that_follows_closely_is_of_the_word_as_the_t_of_eight():
    samples = scene(6000, 16_000, 0.0)
    samples[10_500:10_900] += burst(400, 0.3).astype(np.float32)
    assert abs(int(place_of(samples).end[0]) - 10_800) < NEAR


def test_a_breath_after_the_word_is_not_of_it():
    samples = scene(3000, 16_000, 0.0)
    samples[9000:11_400] += (0.012 * np.random.default_rng(0).normal(size=2400) * np.hanning(2400)).astype(np.float32)
    assert abs(int(place_of(samples).end[0]) - 7000) < NEAR


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
    first, end, _ = place_of(samples.astype(np.float32))
    assert (int(first[0]), int(end[0])) == (0, len(samples))


def test_power_of_the_room_is_that_of_its_noise_alone():
    samples, noise = scene(3000, 40_000, 3.0), 0.003 * room_noise(40_000, 3.0, np.random.default_rng(3000))
    found, expected = (
        room_power(samples, Word(tf.constant([3000]), tf.constant([7000]), QUIET)).numpy()[0],
        mel_power(noise.astype(np.float32)).numpy().mean(axis=0),
    )
    filled = expected > 0
    assert np.abs(10 * np.log10(found[filled] / expected[filled])).mean() < 0.5


def test_room_that_is_hardly_heard_is_not_known():
    np.testing.assert_array_equal(room_power(scene(300, 4800, 0.0), Word(np.array([300]), np.array([4300]), QUIET)), 0)


def test_subtracting_the_room_brings_the_word_closer_to_what_it_was():
    noisy, clean = scene(3000, 12_000, 0.0), word(4000).astype(np.float32) / 32768
    room = room_power(noisy, Word(tf.constant([3000]), tf.constant([7000]), QUIET))
    wanted = mfcc_sequence(clean).numpy()
    before = np.abs(mfcc_sequence(noisy[3000:7000]).numpy() - wanted).mean()
    after = np.abs(mfcc_sequence(noisy[3000:7000], room=room).numpy() - wanted).mean()
    assert after < 0.9 * before


def test_unknown_room_changes_nothing():
    samples = word(3000).astype(np.float32) / 32768
    np.testing.assert_array_equal(mfcc_sequence(samples, room=tf.zeros((1, 128), tf.float64)), mfcc_sequence(samples))
