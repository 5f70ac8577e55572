"""Images damaged so that a network learns when not to trust one: how many, how far, and what stays whole."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import rotate

from kfusion.config import AugmentConfig
from kfusion.modalities.image.augmentation import RandomDamage, RandomJitter, turned
from kfusion.prepared_data import Augmentation
from kfusion.random_streams import Stream, sample_keys, uniform
from kfusion.spec import ModalitySpec, Spec

NUM = 600


def strokes(num=NUM):
    """Grey bars, bright to the right, that no turn, cover or negative leaves as they are; none is 0 or 255."""
    image = np.full((num, 28, 28, 1), 40, np.float32)
    image[:, 6:22, 11:15] = 100
    image[:, 6:10, 15:20] = 180
    return image


def damaged(share, image, pixel_max=255):
    keys = tf.constant(sample_keys(0, 0, np.arange(len(image))))
    return RandomDamage(share, pixel_max)(image, keys, training=True).numpy()


def kinds(before, after):
    """What happened to each image: 'negative', 'covered', 'turned' or 'whole'."""
    found = []
    for one, other in zip(before, after, strict=True):
        changed = one != other
        if not changed.any():
            found.append("whole")
        elif np.isclose(other[changed], 255 - one[changed]).all():
            found.append("negative")
        elif set(np.unique(other[changed])) <= {0.0, 255.0}:
            found.append("covered")
        else:
            found.append("turned")
    return np.array(found)


def test_the_share_of_the_images_is_damaged_in_three_ways_as_often():
    image = strokes()
    found = kinds(image, damaged(0.3, image))
    assert 0.25 < np.mean(found != "whole") < 0.35
    for kind in ("turned", "covered", "negative"):
        assert 0.06 < np.mean(found == kind) < 0.14, kind
    assert set(kinds(image, damaged(1.0, image))) == {"turned", "covered", "negative"}


def test_outside_training_and_without_a_share_nothing_changes():
    image, keys = strokes(8), tf.constant(sample_keys(0, 0, np.arange(8)))
    np.testing.assert_array_equal(RandomDamage(1.0, 255)(image, keys, training=False), image)
    np.testing.assert_array_equal(damaged(0.0, image), image)
    layers = Augmentation(AugmentConfig(), Spec(), {"audio": np.zeros(507)}).layers
    assert [layer.name for layer in layers["image"]] == ["random_warp"]


def test_a_cover_is_one_rectangle_of_a_third_to_four_fifths_of_each_side():
    image = strokes()
    after = damaged(1.0, image)
    chosen = kinds(image, after) == "covered"
    assert chosen.sum() > 5
    for one, other in zip(image[chosen], after[chosen], strict=True):
        changed = (one != other)[..., 0]
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        for size in (rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1):
            assert 0.3 * 28 - 1 <= size <= 0.8 * 28 + 1


def test_a_negative_reaches_in_from_an_edge_over_whole_columns():
    image = strokes()
    after = damaged(1.0, image)
    chosen = kinds(image, after) == "negative"
    widths = []
    for one, other in zip(image[chosen], after[chosen], strict=True):
        columns = (one != other)[..., 0]
        assert (columns.all(0) == columns.any(0)).all()
        inside = np.flatnonzero(columns.any(0))
        assert inside[0] == 0 or inside[-1] == 27
        assert len(inside) == inside[-1] - inside[0] + 1
        widths.append(len(inside) / 28)
    assert min(widths) < 0.35
    assert max(widths) > 0.85


@pytest.mark.parametrize("degrees", [35.0, -110.0])
def test_a_turn_is_that_of_scipy(degrees):
    image = strokes(2)
    expected = rotate(image, degrees, axes=(2, 1), reshape=False, order=1, mode="constant")
    found = turned(tf.constant(image), tf.constant([degrees, degrees], tf.float32) * (np.pi / 180)).numpy()
    inner = (slice(None), slice(5, 23), slice(5, 23))
    np.testing.assert_allclose(found[inner], expected[inner], atol=0.5)


def test_damage_knows_the_data_s_brightness():
    image = strokes() / 255
    after = damaged(1.0, image, pixel_max=1)
    assert after.min() >= 0
    assert 0.9 < after.max() <= 1


def test_damage_survives_serialisation_and_follows_the_key_alone():
    layer = RandomDamage(0.5, 255)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    image, keys = strokes(32), sample_keys(5, 2, np.arange(32))
    whole = layer(image, tf.constant(keys), training=True).numpy()
    np.testing.assert_array_equal(copy(image[::-1], tf.constant(keys[::-1].copy()), training=True)[::-1], whole)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_outside_0_to_1_is_refused(share):
    with pytest.raises(ValueError, match=r"'image_damage' must be in \[0, 1\]"):
        AugmentConfig(image_damage=share)


def test_colour_jitter_changes_saturation_contrast_and_brightness_by_the_samples_key():
    rng, num = np.random.default_rng(0), 64
    image = rng.uniform(100, 150, (num, 6, 5, 3)).astype(np.float32)
    keys = tf.constant(sample_keys(0, 0, np.arange(num)))
    layer = RandomJitter(0.2, 255)
    found = layer(image, keys, training=True).numpy()
    share = 0.2 * (2 * uniform(keys, Stream.IMAGE_JITTER, 3).numpy().astype(np.float64) - 1)
    assert np.abs(share).max() > 0.19 and np.abs(share.mean(axis=0)).max() < 0.05
    for row in (0, 17):
        saturation, contrast, brightness = share[row]
        grey = image[row].astype(np.float64) @ [0.299, 0.587, 0.114]
        coloured = grey[..., None] + (1 + saturation) * (image[row] - grey[..., None])
        expected = coloured.mean() + (1 + contrast) * (coloured - coloured.mean()) + brightness * 255
        np.testing.assert_allclose(found[row], expected, rtol=1e-4)
    np.testing.assert_allclose(layer(image[17:18], keys[17:18], training=True), found[17:18], rtol=1e-6)
    np.testing.assert_array_equal(layer(image, keys, training=False), image)
    bright = layer(np.full((num, 2, 2, 3), 250, np.float32), keys, training=True).numpy()
    assert bright.max() == 255 and bright.min() > 150
    again = RandomJitter.from_config(layer.get_config())
    np.testing.assert_array_equal(again(image, keys, training=True), found)


def test_colour_jitter_is_of_pictures_in_colour_alone_and_off_unless_asked_for():
    grey, colour = Spec(), Spec({"image": ModalitySpec("image", (8, 8, 3), scale=255)})
    jitter = AugmentConfig(image_jitter=0.3)
    for spec, config, number in ((grey, jitter, 0), (colour, jitter, 1), (colour, AugmentConfig(), 0)):
        layers = Augmentation(config, spec, {"audio": np.zeros(507)}).layers["image"]
        assert sum(isinstance(layer, RandomJitter) for layer in layers) == number
    with pytest.raises(ValueError, match=r"'image_jitter' must be in \[0, 1\)"):
        AugmentConfig(image_jitter=1.0)
