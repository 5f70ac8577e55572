"""The fused warp against Keras' own layers, and its randomness."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kfusion.config import AugmentConfig
from kfusion.modalities.audio.augmentation import (
    RandomSound,
    add_background,
    cosines,
    hidden_span,
    warp_frequency,
    warp_time,
)
from kfusion.modalities.image.augmentation import RandomWarp, warp_coefficients
from kfusion.modalities.image.augmentation import warp as warp_all
from kfusion.prepared_data import Augmentation
from kfusion.random_streams import sample_keys
from kfusion.spec import Spec


def images(num=6, height=28, width=28):
    """Smooth blobs away from the edge, so that interpolation and frames hardly matter."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    centres = rng.uniform(0.4, 0.6, (num, 2)) * (height, width)
    blobs = [np.exp(-((y - cy) ** 2 / 18 + (x - cx) ** 2 / 8)) for cy, cx in centres]
    return tf.constant(np.stack(blobs)[..., None].astype(np.float32))


def warp(image, draws, **settings):
    config = AugmentConfig(**{"flip": "none", "rotation": 0.0, "crop": 0, **settings})
    draws = tf.tile(tf.constant([draws], tf.float32), (len(image), 1))
    return warp_all(image, warp_coefficients(draws, config, *image.shape[1:3])).numpy()


NO_CHANGE = [0.9, 0.9, 0.5, 0.5, 0.5, 0.5, 0.5]


def test_draws_in_the_middle_change_nothing():
    image = images()
    still = warp(image, NO_CHANGE, flip="horizontal_and_vertical", rotation=0.3, crop=3, zoom=0.2, shear=0.3)
    np.testing.assert_allclose(still, image, atol=1e-5)


def test_flips_mirror_exactly():
    image = images().numpy()
    np.testing.assert_allclose(
        warp(images(), [0.1, 0.9, 0.5, 0, 0, 0.5, 0.5], flip="horizontal"), image[:, :, ::-1], atol=1e-6
    )
    np.testing.assert_allclose(
        warp(images(), [0.9, 0.1, 0.5, 0, 0, 0.5, 0.5], flip="vertical"), image[:, ::-1], atol=1e-6
    )


@pytest.mark.parametrize("size", [(28, 28), (21, 32)])
@pytest.mark.parametrize("turns", [0.1, -0.07])
def test_rotation_equals_that_of_keras(turns, size):
    image = images(4, *size)
    keras_layer = keras.layers.RandomRotation((turns, turns), fill_mode="constant", interpolation="bilinear")
    expected = keras_layer(image, training=True)
    draws = [0.9, 0.9, 1.0 if turns > 0 else 0.0, 0.5, 0.5, 0.5, 0.5]
    np.testing.assert_allclose(warp(image, draws, rotation=abs(turns)), expected, atol=2e-3)


def test_crop_cuts_a_window_out_of_the_padded_image():
    image = images().numpy()
    padded = np.pad(image, ((0, 0), (2, 2), (2, 2), (0, 0)))
    for x, y in ((0, 0), (4, 1), (2, 3)):
        moved = warp(images(), [0.9, 0.9, 0.5, (x + 0.5) / 5, (y + 0.5) / 5, 0.5, 0.5], crop=2)
        np.testing.assert_allclose(moved, padded[:, y : y + 28, x : x + 28], atol=1e-5)


def test_all_three_equal_keras_layers_one_after_the_other():
    image = images()
    turned = keras.layers.RandomRotation((0.05, 0.05), fill_mode="constant", interpolation="bilinear")(
        tf.reverse(image, [2]), training=True
    )
    padded = np.pad(turned, ((0, 0), (2, 2), (2, 2), (0, 0)))
    fused = warp(image, [0.1, 0.9, 1.0, 0.5 / 5, 3.5 / 5, 0.5, 0.5], flip="horizontal", rotation=0.05, crop=2)
    np.testing.assert_allclose(fused, padded[:, 3:31, 0:28], atol=5e-3)


def test_samples_of_a_batch_change_differently_and_each_epoch_anew():
    layer = RandomWarp(AugmentConfig())
    image = tf.repeat(images(1), 64, axis=0)
    first = layer(image, tf.constant(sample_keys(0, 0, np.arange(64))), training=True).numpy()
    second = layer(image, tf.constant(sample_keys(0, 1, np.arange(64))), training=True).numpy()
    assert len(np.unique(first.reshape(64, -1).round(5), axis=0)) == 64
    assert (np.abs(first - second).max(axis=(1, 2, 3)) > 1e-3).all()


def test_half_of_the_samples_are_flipped_inside_a_mapped_dataset():
    config = AugmentConfig(flip="horizontal", rotation=0.0, crop=0)
    layer = RandomWarp(config)
    left = np.zeros((1, 5, 5, 1), np.float32)
    left[0, :, 0] = 1.0
    keys = sample_keys(0, 0, np.arange(2000))
    data = (
        tf.data.Dataset.from_tensor_slices(keys)
        .batch(50)
        .map(lambda k: layer(tf.repeat(left, 50, axis=0), k, training=True))
    )
    flipped = np.concatenate([batch.numpy()[:, 2, 4, 0] for batch in data])
    assert 0.46 < flipped.mean() < 0.54


def sound(num=4, frames=5, coefficients=3):
    return tf.reshape(tf.range(num * frames * coefficients, dtype=tf.float32), (num, frames, coefficients))


def test_shift_repeats_the_edge_frame():
    grid, config = sound(3), AugmentConfig(time_shift=2.0)
    draws = np.full((3, 4), 0.5, np.float32)
    draws[:, 1] = (0.0, 0.5, 1.0)
    moved = warp_time(grid, tf.constant(draws), config).numpy()
    np.testing.assert_allclose(moved[0], grid.numpy()[0][[0, 0, 0, 1, 2]], atol=1e-4)
    np.testing.assert_allclose(moved[1], grid[1], atol=1e-4)
    np.testing.assert_allclose(moved[2], grid.numpy()[2][[2, 3, 4, 4, 4]], atol=1e-4)


def test_stretch_reads_faster_or_slower_about_the_middle():
    line = tf.reshape(tf.range(41.0), (1, 41, 1))
    fast = warp_time(line, tf.constant([[1.0, 0.5, 0.5, 0.5]]), AugmentConfig(time_stretch=0.5)).numpy().ravel()
    np.testing.assert_allclose(fast, np.clip(20 + (np.arange(41) - 20) * 1.5, 0, 40), atol=1e-4)


def test_warp_moves_the_middle_by_its_share_and_never_runs_backwards():
    line = tf.reshape(tf.range(41.0), (1, 41, 1))
    warped = warp_time(line, tf.constant([[0.5, 0.5, 1.0, 0.0]]), AugmentConfig(time_warp=0.25)).numpy().ravel()
    assert warped[20] == pytest.approx(20 + 40 * 0.25 / np.pi, abs=1e-3)
    assert (np.diff(warped) >= 0).all()


def test_background_lifts_every_band_to_the_sum_of_powers():
    """Flat spectra: level and noise are then plain numbers, and the sum of their powers is known."""
    grid = np.zeros((1, 2, 13), np.float32)
    grid[0, :, 0] = np.array([-20.0, -50.0]) * np.sqrt(128)  # Two frames at -20 dB and -50 dB in every band.
    draws = np.array([[0.0, 0.5, 0.5, 0.5, 0.5, 0.5]], np.float32)  # On; (5 + 45) / 2 dB below; no colour.
    louder = add_background(tf.constant(grid), tf.constant(draws), 0.5).numpy()[0]
    expected = [10 * np.log10(10 ** (level / 10) + 10 ** (-45 / 10)) for level in (-20.0, -50.0)]
    np.testing.assert_allclose(louder[:, 0] / np.sqrt(128), expected, atol=1e-3)
    np.testing.assert_allclose(louder[:, 1:], 0, atol=1e-2)


def test_background_comes_at_its_rate_and_only_to_decibels():
    config = AugmentConfig(background=0.3)
    audio = tf.random.normal((2000, 507), seed=0)
    keys = tf.constant(sample_keys(0, 0, np.arange(2000)))
    noisy = RandomSound(config, (39, 13), np.zeros(507), "coefficients")(audio, keys, training=True)
    assert np.mean(np.any(noisy != audio, axis=1)) == pytest.approx(0.3, abs=0.03)
    unknown = RandomSound(config, (39, 13), np.zeros(507), "unknown")(audio, keys, training=True)
    np.testing.assert_array_equal(unknown, audio)


def test_a_frequency_warp_reads_the_mel_axis_elsewhere():
    bands = np.tile(np.arange(8, dtype=np.float32), (4, 2, 1))
    draws = tf.constant([[0.0], [0.5], [0.75], [1.0]])
    moved = warp_frequency(tf.constant(bands), draws, np.log(2.0), "bands").numpy()
    for row, factor in enumerate((0.5, 1.0, 2.0**0.25, 2.0)):
        np.testing.assert_allclose(moved[row, 1], np.clip((np.arange(8) + 0.5) * factor - 0.5, 0, 7), atol=1e-5)


def test_a_cepstrum_is_warped_as_the_bands_that_it_stands_for():
    grid = np.random.default_rng(0).normal(size=(4, 5, 13)).astype(np.float32)
    draws, rows = tf.constant([[0.0], [0.3], [0.5], [1.0]]), cosines(13)
    moved = warp_frequency(tf.constant(grid), draws, 0.15).numpy()
    expected = warp_frequency(tf.constant(grid @ rows), draws, 0.15, "bands").numpy() @ rows.T
    np.testing.assert_allclose(moved, expected, atol=1e-5)
    np.testing.assert_allclose(moved[2], grid[2], atol=1e-5)
    layer = RandomSound(AugmentConfig(frequency_warp=0.15), (5, 13), np.zeros(65), "unknown")
    audio = grid.reshape(4, 65)
    np.testing.assert_array_equal(layer(audio, tf.constant(sample_keys(0, 0, np.arange(4))), training=True), audio)


def test_hidden_spans_are_contiguous_and_never_longer_than_asked():
    draws = tf.constant(np.random.default_rng(0).random((500, 2)), tf.float32)
    hidden = hidden_span(draws, 3, 10).numpy()
    lengths = hidden.sum(axis=1)
    assert set(lengths) == {0, 1, 2, 3}
    assert (np.abs(np.diff(hidden.astype(int), axis=1)).sum(axis=1) <= 2).all()
    assert hidden.any(axis=0).all()


def test_masks_fill_with_the_mean():
    mean = np.arange(15.0) + 100
    layer = RandomSound(AugmentConfig(time_mask=5, frequency_mask=3), (5, 3), mean, "coefficients")
    audio = tf.zeros((300, 15))
    changed = layer(audio, tf.constant(sample_keys(0, 0, np.arange(300))), training=True).numpy()
    masked = changed != 0
    assert 0.2 < masked.mean() < 0.8
    np.testing.assert_array_equal(changed[masked], np.broadcast_to(mean, (300, 15))[masked])


@pytest.mark.parametrize("layer", [
    RandomWarp(AugmentConfig(crop=3)),
    RandomSound(AugmentConfig(time_mask=4), (5, 3), np.arange(15.0), "coefficients"),
])  # fmt: skip
def test_layers_survive_serialisation(layer):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert copy.get_config() == layer.get_config()
    value = images(2) if isinstance(layer, RandomWarp) else tf.random.normal((2, 15), seed=0)
    keys = tf.constant(sample_keys(0, 0, np.arange(2)))
    np.testing.assert_array_equal(copy(value, keys, training=True), layer(value, keys, training=True))


def test_pipeline_and_device_give_the_same_batch():
    """The layers inside a mapped dataset against the same layers inside a compiled functional model."""
    changes = {"background": 0.5, "time_shift": 2, "time_warp": 0.2, "time_mask": 8, "frequency_mask": 3}
    config = AugmentConfig(frequency_warp=0.1, **changes)
    augment = Augmentation(config, Spec(), {"audio": np.zeros(507)}, front_end="known")
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.random((16, 28, 28, 1), np.float32),
        "audio": rng.standard_normal((16, 507), np.float32),
    }
    keys = sample_keys(0, 3, np.arange(16))
    data = tf.data.Dataset.from_tensors((batch, keys)).map(lambda b, k: augment(b, k))
    mapped = next(iter(data))
    inputs = {name: keras.Input(value.shape[1:], name=name) for name, value in batch.items()}
    model_keys = keras.Input((), dtype="int64", name="keys")
    model = keras.Model({**inputs, "keys": model_keys}, augment(inputs, model_keys, None))
    on_device = tf.function(model)({**batch, "keys": keys}, training=True)
    unchanged = tf.function(model)({**batch, "keys": keys}, training=False)
    for name in batch:
        # Not bit for bit: the compiled graph folds constants, and noise magnifies a rounded coordinate.
        np.testing.assert_allclose(mapped[name], on_device[name], atol=2e-4)
        np.testing.assert_array_equal(unchanged[name], batch[name])
