"""Corruptions of real images and sounds: the higher the severity the farther from the original, repeatably."""

import numpy as np
import pytest
from scipy.fft import dct

from kfusion.data.loaders import load_builtin
from kfusion.evaluation.inference import draw
from kfusion.modalities.audio.corruption import AUDIO_CORRUPTIONS, Surroundings, _levels_db, fitting
from kfusion.modalities.base import SEVERITIES, corrupt
from kfusion.modalities.image.corruption import IMAGE_CORRUPTIONS

ROWS = np.arange(60)


@pytest.fixture(scope="module")
def samples():
    """60 real images in [0, 1] and sounds, and the surroundings of the latter."""
    source = load_builtin()
    images = (source["image"].values[::80][:60] / 255).astype(np.float32)[..., None]
    sounds = source["audio"].values.reshape(-1, 39, 13)
    std = sounds.std(axis=0)
    return images, sounds[::50].copy(), Surroundings(std, sounds[5:700:11].copy())


def spoilt(name, severity, samples, seed=0):
    images, sounds, around = samples
    if name in IMAGE_CORRUPTIONS:
        kind, values, more = IMAGE_CORRUPTIONS[name], images, ()
    else:
        kind, values, more = AUDIO_CORRUPTIONS[name], sounds, (around,)
    draws = draw(seed, ROWS, 5, kind.num_draws(values.shape[1:]))
    return values, corrupt(kind, values, severity, draws, more)


@pytest.mark.parametrize("name", [*IMAGE_CORRUPTIONS, *AUDIO_CORRUPTIONS])
def test_each_severity_is_farther_from_the_original_than_the_one_before(name, samples):
    distance = [0.0]
    for severity in SEVERITIES:
        before, after = spoilt(name, severity, samples)
        assert after.shape == before.shape
        assert after.dtype == np.float32
        assert np.isfinite(after).all()
        distance.append(float(np.sqrt(np.mean((after - before) ** 2))))
    assert np.diff(distance).min() > 0.02 * distance[-1], distance


@pytest.mark.parametrize("name", IMAGE_CORRUPTIONS)
def test_images_stay_in_their_range(name, samples):
    after = spoilt(name, 5, samples)[1]
    assert -1e-6 <= after.min() <= after.max() <= 1 + 1e-6


@pytest.mark.parametrize("name", ["noise", "occlusion", "rotation", "babble", "dropped_frames"])
def test_a_sample_is_corrupted_alike_in_any_company_and_otherwise_with_another_seed(name, samples):
    images, sounds, around = samples
    whole = spoilt(name, 3, samples)[1]
    kind = {**IMAGE_CORRUPTIONS, **AUDIO_CORRUPTIONS}[name]
    values, more = (images, ()) if name in IMAGE_CORRUPTIONS else (sounds, (around,))
    few = np.array([40, 7])
    alone = corrupt(kind, values[few], 3, draw(0, few, 5, kind.num_draws(values.shape[1:])), more)
    np.testing.assert_allclose(alone, whole[few], atol=1e-5)
    assert not np.allclose(spoilt(name, 3, samples, seed=1)[1], whole)


def test_severity_0_changes_nothing(samples):
    before, after = spoilt("noise", 0, samples)
    np.testing.assert_array_equal(before, after)


def test_the_highest_inversion_is_the_negative_and_the_lowest_that_of_a_fifth(samples):
    before, after = spoilt("inverted", 5, samples)
    np.testing.assert_allclose(after, 1 - before)
    before, after = spoilt("inverted", 1, samples)
    changed = (np.abs(after - before) > 0).any(axis=(1, 3)).sum(axis=1)
    assert set(changed) == {6}  # 28 columns, a fifth of them to the nearest whole: centres below .2 · 28


def test_a_rotation_by_30_degrees_undone_by_another_gives_the_image_back(samples):
    image = samples[0][:8]
    turned = IMAGE_CORRUPTIONS["rotation"].apply(image, 30, np.zeros((8, 1)))
    back = IMAGE_CORRUPTIONS["rotation"].apply(turned, 30, np.ones((8, 1)))
    centre = np.s_[:, 9:19, 9:19]
    assert np.abs(turned - image)[centre].mean() > 3 * np.abs(back - image)[centre].mean()


def test_occlusion_blackens_a_square_of_the_stated_side(samples):
    _, after = spoilt("occlusion", 5, (np.ones((60, 28, 28, 1), np.float32), *samples[1:]))
    hidden = (after == 0).sum(axis=(1, 2, 3))
    assert (np.abs(np.sqrt(hidden) - 0.6 * 28) < 1.3).all()


@pytest.mark.parametrize("name", ["white_noise", "babble"])
def test_noise_is_as_far_below_the_sound_as_stated(name, samples):
    """The power that was added, measured in the bands; with 32 coefficients, which hold all of the new spectrum."""
    images, sounds, around = samples
    whole = np.pad(sounds.astype(np.float64), [(0, 0), (0, 0), (0, 19)])
    for severity, ratio_db in ((1, 20), (5, 0)):
        before, after = spoilt(name, severity, (images, whole, around))
        clean, noisy = (10 ** (_levels_db(each) / 10) for each in (before, after))
        added = noisy.mean(axis=(1, 2)) - clean.mean(axis=(1, 2))
        np.testing.assert_allclose(-10 * np.log10(added / clean.mean(axis=(1, 2))), ratio_db, atol=0.05)


def test_white_noise_is_flat_over_the_frequencies_so_the_wider_high_bands_gather_more(samples):
    """A sound that is far quieter in all bands but the first, so that the others show the noise alone."""
    sound = dct(np.where(np.arange(32) == 0, 0.0, -150.0), norm="ortho") * 2
    sounds = np.tile(sound, (60, 39, 1))
    noise_db = _levels_db(spoilt("white_noise", 5, (samples[0], sounds, samples[2]))[1]).mean(axis=(0, 1))
    # The HTK mel scale: bands at 4000 Hz are (1 + 4000 / 700) times as wide as at 0 Hz, 8.3 dB; evenly per mel.
    assert noise_db[-1] - noise_db[1] == pytest.approx(10 * np.log10(1 + 4000 / 700) * 30 / 31, abs=0.2)


def test_what_is_cut_off_at_the_start_is_as_quiet_as_the_quietest_frame(samples):
    before, after = spoilt("clipped_start", 5, samples)
    lost = round(0.5 * 39)
    np.testing.assert_array_equal(after[:, lost:], before[:, lost:])
    assert (after[:, :lost, 0] == before[..., 0].min(axis=1, keepdims=True)).all()


def test_a_shift_moves_the_frames_and_fills_with_silence(samples):
    around = samples[2]
    sound = np.arange(10.0)[None, :, None] + np.array([[[0.0, 100.0]]])
    earlier = AUDIO_CORRUPTIONS["time_shift"].apply(sound, 0.2, np.zeros((1, 1)), around)
    later = AUDIO_CORRUPTIONS["time_shift"].apply(sound, 0.2, np.ones((1, 1)), around)
    assert earlier[0, :, 0].tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 0, 0]
    assert later[0, :, 0].tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 6, 7]


def test_the_stated_share_of_frames_is_dropped(samples):
    before, after = spoilt("dropped_frames", 4, samples)
    gone = (np.abs(after - before) > 0).any(axis=2).mean()
    assert gone == pytest.approx(0.5, abs=0.05)


def test_sounds_get_the_corruptions_that_make_sense_for_them():
    assert list(fitting((39, 13), True)) == ["white_noise", "babble", "time_shift", "clipped_start", "dropped_frames"]
    assert "white_noise" not in fitting((39, 13), False) and "feature_noise" in fitting((39, 13), False)
    assert list(fitting((1, 20), False)) == ["feature_noise"]


def test_draws_of_one_use_do_not_depend_on_how_many_are_asked_for():
    few, many = draw(0, ROWS, 2, 5000), draw(0, ROWS, 2, 9000)
    np.testing.assert_array_equal(few, many[:, :5000])
    assert 0 <= many.min() < 0.001 < 0.999 < many.max() < 1
    assert abs(np.corrcoef(many[:, 0], many[:, 4096])[0, 1]) < 0.4
    assert not np.array_equal(few, draw(0, ROWS, 3, 5000))
