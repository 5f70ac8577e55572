"""Features and encoder for sounds of any kind, against computations written down a second time."""

from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.signal import get_window, resample_poly

from kfusion.config import AugmentConfig, ModelConfig
from kfusion.exporting.verify import ALLOWED
from kfusion.modalities.audio import Audio
from kfusion.modalities.audio.augmentation import layers_of, mix_and_amplify
from kfusion.modalities.audio.decoding import ragged, resample
from kfusion.modalities.audio.encoder import by_band
from kfusion.modalities.audio.features import mel_bands, mfcc_sequence, middle, read_sounds
from kfusion.modalities.audio.files import wav_file
from kfusion.modalities.audio.recipe import SPOKEN_DIGITS, SoundRecipe, any_sound, word_bands
from kfusion.model.build import as_float32, build_model
from kfusion.spec import Spec, audio_spec, image_spec

RECIPE = any_sound(2.0, 16_000, 20, 24)


def hum(seconds: float, rate_hz: int = 16_000, level: float = 0.1) -> np.ndarray:
    rng, time = np.random.default_rng(0), np.arange(round(seconds * rate_hz)) / rate_hz
    tones = np.sin(2 * np.pi * 220 * time) + 0.5 * np.sin(2 * np.pi * 1310 * time * (1 + 0.1 * time))
    return (level * (tones + 0.1 * rng.normal(size=len(time)))).astype(np.float32)


def as_wav(samples: np.ndarray, rate_hz: int = 16_000) -> bytes:
    return wav_file(np.round(samples * 32768).astype("<i2").tobytes(), sample_rate_hz=rate_hz)


def log_mel_again(samples: np.ndarray) -> np.ndarray:
    """Windows of 100 ms at 16 kHz, centred each 100 ms, in 24 bands, whose triangles are drawn one by one."""
    padded = np.pad(samples.astype(np.float64), 800, mode="reflect")
    pieces = np.lib.stride_tricks.sliding_window_view(padded, 1600)[::1600] * get_window("hann", 1600)
    power = np.abs(np.fft.fft(pieces)[:, :801]) ** 2
    corners_hz = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 26) / 2595) - 1)
    weight = np.stack([np.interp(np.arange(801) * 10.0, corners_hz[k : k + 3], [0, 1, 0]) for k in range(24)], axis=1)
    return 10 * np.log10(np.maximum(power @ weight, 1e-10))


def test_values_are_the_decibels_of_mel_bands():
    samples = hum(2.0)
    found = mfcc_sequence(samples, recipe=RECIPE).numpy()
    assert found.shape == (21, 24)
    np.testing.assert_allclose(found, log_mel_again(samples), atol=1e-3)


def test_a_longer_stretch_of_time_has_longer_windows_and_the_same_grid():
    second, ten = any_sound(1.0, 8000), any_sound(10.0, 22_050)
    assert second.grid == ten.grid == (50, 40)
    assert (second.window, second.hop) == (200, 160) and (ten.window, ten.hop) == (4410, 4410)
    assert ten.front_end == "wav-22050hz-log-mel-40 + middle-10s-50"
    assert SPOKEN_DIGITS.front_end == "wav-8000hz-trimmed-denoised-mfcc-13 + linear-39"


def test_a_band_narrower_than_the_bins_takes_the_nearest():
    bands = mel_bands(any_sound(1.0, 8000, num_bands=64))
    assert bands.max(axis=0).min() > 0
    assert mel_bands(SoundRecipe(num_mel_bands=256)).max(axis=0).min() == 0


@pytest.mark.parametrize(("num", "first"), [(9, 2), (8, 1), (5, 0)])
def test_of_a_long_sound_the_middle_is_taken(num, first):
    sequence = np.arange(num * 2, dtype=np.float32).reshape(num, 2)
    np.testing.assert_array_equal(middle(sequence, 5)[0], sequence[first : first + 5])


def test_a_short_sound_lies_in_the_middle_of_its_own_quiet():
    sequence = np.array([[3, 9], [1, 7], [2, 8]], np.float32)
    np.testing.assert_array_equal(middle(sequence, 6)[0], [[1, 7], [1, 7], [3, 9], [1, 7], [2, 8], [1, 7]])
    np.testing.assert_array_equal(middle(sequence[:1], 3)[0], np.tile(sequence[:1], (3, 1)))


def test_files_are_read_in_a_graph_of_allowed_operations():
    spec = audio_spec(RECIPE.grid)
    read = tf.function(
        partial(read_sounds, spec=spec, recipe=RECIPE), input_signature=[tf.TensorSpec([None], tf.string)]
    )
    samples = hum(2.0)
    files = [as_wav(samples), b"", as_wav(np.zeros(16_000)), as_wav(hum(2.0, level=0.002)), as_wav(hum(5.0)), b"text"]
    values, reasons = (part.numpy() for part in read(tf.constant(files)))
    quantised = (np.round(samples * 32768) / 32768).astype(np.float32)
    np.testing.assert_allclose(values[0].reshape(20, 24), mfcc_sequence(quantised, recipe=RECIPE)[:20], atol=1e-3)
    assert [bool(reason) for reason in reasons] == [False, False, True, False, False, True]
    assert b"Found: silence" in reasons[2] and not values[[1, 2, 5]].any()
    functions = read.get_concrete_function().graph.as_graph_def()
    used = {node.op for body in [functions, *functions.library.function] for node in getattr(body, "node_def", [])}
    assert used | {node.op for node in functions.node} <= ALLOWED | Audio.ops | {"_Arg", "_Retval"}


def test_a_lower_rate_is_raised_and_gains_no_frequencies():
    low = hum(1.0, 8000)
    row = ragged(low, [len(low)])
    raised = resample(row, tf.constant([8000], tf.int64), 16_000)[0].values.numpy()
    assert raised.shape == (16_000,)
    expected = resample_poly(low.astype(np.float64), 2, 1, window=("kaiser", 12.0))
    inner = slice(400, -400)
    assert np.mean((raised - expected)[inner] ** 2) < 1e-3 * np.mean(expected[inner] ** 2)
    spectrum = np.abs(np.fft.rfft(raised * np.hanning(16_000))) ** 2
    assert spectrum[4100:].sum() < 1e-6 * spectrum.sum()


def test_another_sound_lies_beneath_and_the_gain_is_that_of_all_bands():
    grid = np.random.default_rng(0).normal(-40, 12, (3, 6, 4)).astype(np.float32)
    draws = np.array([[0.1, 0.5, 0.75], [0.6, 0.0, 0.5], [0.2, 1.0, 0.0]], np.float32)
    changed = mix_and_amplify(tf.constant(grid), tf.constant(draws), 0.5, 6.0).numpy()
    peak = grid.mean(axis=2).max(axis=1)
    for row, (other, below_db, gain_db) in enumerate([(2, 25, 3.0), (0, None, 0.0), (1, 45, -6.0)]):
        power = 10 ** (grid[row].astype(float) / 10)
        if below_db is not None:
            power = power + 10 ** ((grid[other] - peak[other] + peak[row] - below_db) / 10)
        np.testing.assert_allclose(changed[row], 10 * np.log10(power) + gain_db, atol=1e-3)


@pytest.mark.parametrize("unit", ["bands", "coefficients"])
def test_level_and_other_sounds_change_bands_alone(unit):
    layers = layers_of(AugmentConfig(gain=6.0, mix=1.0), (5, 4), np.zeros(20), unit)
    assert len(layers) == (unit == "bands")
    sounds = tf.random.stateless_normal((8, 20), (1, 2))
    for layer in layers:
        changed = layer(sounds, tf.range(8, dtype=tf.int64), training=True)
        assert np.abs(changed - sounds).max(axis=1).min() > 0.01
        np.testing.assert_array_equal(layer(sounds, tf.range(8, dtype=tf.int64), training=False), sounds)


def small(**settings) -> tuple[keras.Model, dict[str, np.ndarray]]:
    """A network with the convolutional encoder, and a batch for it."""
    spec = Spec({"image": image_spec((6, 6, 1)), "audio": audio_spec((12, 10))}, ("a", "b"))
    config = ModelConfig(
        filters=(2,), embed_dim=8, hidden_dim=8, audio_encoder="conv", audio_filters=(3, 4), **settings
    )
    rng = np.random.default_rng(0)
    values = rng.normal(-40, 12, (5, 120)).astype(np.float32)
    keras.utils.set_random_seed(0)
    network = build_model(config, spec, values.mean(axis=0), values.var(axis=0))
    image = rng.uniform(0, 255, (5, 6, 6, 1)).astype(np.float32)
    return network, {"image": image, "audio": values, "present": np.ones((5, 2), bool)}


def test_bands_are_standardised_over_all_frames():
    values = np.random.default_rng(1).normal(0, 2, (50, 3, 4)) + np.arange(12).reshape(3, 4)
    flat = values.reshape(50, 12)
    mean, variance = by_band(flat.mean(axis=0), flat.var(axis=0), (3, 4))
    np.testing.assert_allclose(mean, values.mean(axis=(0, 1)))
    np.testing.assert_allclose(variance, values.var(axis=(0, 1)))


def test_a_sound_that_comes_later_is_heard_alike():
    spec = Spec({"image": image_spec((6, 6, 1)), "audio": audio_spec((100, 10))}, ("a", "b"))
    config = ModelConfig(filters=(2,), embed_dim=8, hidden_dim=8, audio_encoder="conv", audio_filters=(3, 4))
    network = build_model(config, spec, np.full(1000, -40.0), np.full(1000, 144.0))
    encoder = keras.Model(network.input["audio"], network.get_layer("audio_embedding").output)
    # By a multiple of what the poolings divide by, and far from the borders.
    heard = np.full((2, 100, 10), -60.0, np.float32)
    heard[0, 40:48] = heard[1, 48:56] = np.random.default_rng(2).normal(-30, 10, (8, 10))
    early, late = encoder(heard.reshape(2, 1000)).numpy()
    np.testing.assert_allclose(early, late, atol=1e-5)
    assert early.max() > 0.01


def test_centred_it_does_not_hear_a_microphones_colour():
    network, batch = small(audio_centre=True)
    coloured = batch["audio"] + np.tile(np.linspace(-6, 6, 10), 12).astype(np.float32)
    np.testing.assert_allclose(network({**batch, "audio": coloured}), network(batch), atol=1e-4)
    plain, batch = small()
    assert np.abs(plain({**batch, "audio": coloured}) - plain(batch)).max() > 1e-4


def test_of_words_the_colour_is_never_heard():
    audio = replace(audio_spec(word_bands().grid), front_end=word_bands().front_end)
    spec = Spec({"image": image_spec((6, 6, 1)), "audio": audio}, ("a", "b"))
    config = ModelConfig(filters=(2,), embed_dim=8, hidden_dim=8, audio_filters=(3, 4))
    network = build_model(config, spec, np.full(4000, -40.0), np.full(4000, 144.0))
    heard = np.random.default_rng(0).normal(-40, 12, (3, 4000)).astype(np.float32)
    batch = {"image": np.zeros((3, 6, 6, 1), np.float32), "audio": heard, "present": np.tile([[False, True]], (3, 1))}
    coloured = heard + np.tile(np.linspace(-6, 6, 40), 100).astype(np.float32)
    np.testing.assert_allclose(network({**batch, "audio": coloured}), network(batch), atol=1e-4)


def test_saved_with_its_averages_it_answers_the_same(tmp_path):
    network, batch = small()
    network.compile("adam", "sparse_categorical_crossentropy")
    network.fit(batch, np.array([0, 1, 0, 1, 1]), epochs=2, verbose=0)
    as_float32(network).save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(loaded(batch), network(batch))


def test_one_frame_keeps_the_dense_encoder():
    spec = Spec({"image": image_spec((6, 6, 1)), "audio": audio_spec((1, 12))}, ("a", "b"))
    network = build_model(ModelConfig(filters=(2,), audio_encoder="conv"), spec, np.zeros(12), np.ones(12))
    assert "audio_dense1" in [layer.name for layer in network.layers]
