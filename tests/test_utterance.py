"""Normalisation of each sound by itself, on grids small enough to see."""

import keras
import numpy as np
import pytest

from kfusion.modalities.audio.encoder import UtteranceNorm


def grid(energy, second=None):
    energy = np.asarray(energy, np.float32)
    second = np.zeros_like(energy) if second is None else np.asarray(second, np.float32)
    return np.stack([energy, second], axis=1).reshape(1, -1)


def word(silence_before, silence_after, frames=40):
    """A bump of energy with a second coefficient that rises through it, in silence."""
    length = frames - silence_before - silence_after
    energy = np.full(frames, -100.0)
    energy[silence_before : frames - silence_after] = 0.0
    second = np.zeros(frames)
    second[silence_before : frames - silence_after] = np.linspace(-1, 1, length)
    return grid(energy, second)


def test_the_same_word_earlier_or_later_becomes_the_same():
    layer = UtteranceNorm((40, 2), trim=0.3)
    early, late = (np.asarray(layer(word(before, 16 - before))) for before in (4, 12))
    np.testing.assert_allclose(early, late, atol=1e-4)
    assert np.abs(word(4, 12) - word(12, 4)).max() > 50


def test_loudness_microphone_and_scale_of_energy_do_not_matter():
    layer = UtteranceNorm((40, 2), trim=0.3)
    plain = word(6, 9)
    other = plain.reshape(1, 40, 2) * (2.5, 1.0) + (37.0, -5.0)
    np.testing.assert_allclose(layer(plain), layer(other.reshape(1, -1).astype(np.float32)), atol=1e-4)


def test_each_coefficient_has_mean_zero_and_the_energy_deviation_one():
    rng = np.random.default_rng(0)
    normed = np.asarray(UtteranceNorm((39, 13), 0.3)(rng.normal(5, 3, (8, 507)).astype(np.float32))).reshape(8, 39, 13)
    np.testing.assert_allclose(normed.mean(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(normed[..., 0].std(axis=1), 1, atol=1e-3)


@pytest.mark.parametrize("value", [0.0, -80.0])
def test_a_silent_sound_becomes_zeros_not_nan(value):
    silent = np.full((2, 80), value, np.float32)
    np.testing.assert_allclose(UtteranceNorm((40, 2), 0.3)(silent), 0, atol=1e-4)


def test_a_single_frame_is_left_alone():
    values = np.arange(12, dtype=np.float32).reshape(2, 6)
    np.testing.assert_array_equal(UtteranceNorm((1, 6), 0.3)(values), values)


def test_the_cuts_move_in_training_only_and_as_the_seed_says():
    values = word(6, 9)
    layer, same = UtteranceNorm((40, 2), 0.3, 2.0, seed=1), UtteranceNorm((40, 2), 0.3, 2.0, seed=1)
    np.testing.assert_array_equal(layer(values), layer(values))
    first, second = np.asarray(layer(values, training=True)), np.asarray(layer(values, training=True))
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_array_equal(first, same(values, training=True))


def test_the_layer_survives_serialisation():
    layer = UtteranceNorm((40, 2), 0.25, 2.0, seed=3, name="norm")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert copy.get_config() == layer.get_config()
