"""WAV files -> features: the same as the stored ones, row by row, and inside an exported graph."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.signal import lfilter, resample_poly

from kfusion.data import loaders as builtin
from kfusion.modalities.audio.decoding import ragged
from kfusion.modalities.audio.features import (
    LOWEST_HZ,
    can_read_sounds,
    read_sounds,
    stretch,
    without_direct_current,
)
from kfusion.modalities.audio.files import sound_file
from kfusion.modalities.audio.recipe import FSDD_FRONT_END, SPOKEN_DIGITS, to_frames
from kfusion.spec import audio_spec
from tests.media import FSDD, Recordings, wav_bytes

FILES = [tf.TensorSpec((None,), tf.string)]
UNTREATED = replace(SPOKEN_DIGITS, trim=False, denoise=False)
as_it_is = tf.function(lambda files: read_sounds(files, audio_spec(), UNTREATED), input_signature=FILES)
trimmed = tf.function(lambda files: read_sounds(files, audio_spec()), input_signature=FILES)
needs_recordings = pytest.mark.skipif(not FSDD.exists(), reason="the recordings lie in ../shared")


def word(num_samples: int = 4000, seed: int = 0) -> np.ndarray:
    """Something like a voiced word: int16 (n,), harmonics of 120 Hz that swell and fade."""
    time = np.arange(num_samples) / 8000
    rng = np.random.default_rng(seed)
    tones = sum(rng.uniform(0.2, 1) * np.sin(2 * np.pi * 120 * k * time + rng.uniform(0, 6)) for k in range(1, 25))
    shaped = tones * np.sin(np.pi * np.arange(num_samples) / num_samples) ** 0.5
    return np.round(shaped / np.abs(shaped).max() * 12000).astype(np.int16)


@pytest.mark.parametrize("length", [1, 2, 17, 39, 40, 92, 2400])
def test_stretching_is_that_of_the_builtin_sequences(length):
    sequence = np.random.default_rng(length).normal(-20, 100, (length, 13)).astype(np.float32)
    np.testing.assert_allclose(stretch(sequence, 39)[0], to_frames(sequence), rtol=1e-6)
    np.testing.assert_allclose(stretch(sequence, 1)[0], to_frames(sequence, 1), rtol=1e-6)


def check_recordings(rows: range) -> None:
    recordings, stored = Recordings(), builtin.load_builtin()["audio"].values
    audio, reason = as_it_is(tf.constant([wav_bytes(recordings[row]) for row in rows]))
    assert set(reason.numpy()) == {b""}
    np.testing.assert_allclose(audio, stored[rows], atol=1e-3)


@needs_recordings
def test_recordings_give_the_stored_features():
    check_recordings(range(25, 3000, 50))


@pytest.mark.slow
@needs_recordings
def test_all_recordings_give_the_stored_features():
    check_recordings(range(3000))


def test_bad_and_absent_rows_are_zeros_beside_good_ones():
    good, coded = wav_bytes(word()), bytearray(wav_bytes(word()))
    coded[20] = 0x55  # MP3
    audio, reason = trimmed(tf.constant([b"", good, bytes(coded), b"a text file", good[:-2]]))
    assert [text.decode() for text in reason.numpy()] == [
        "",
        "",
        "must be PCM of 8 to 32 bits, float of 32 or 64, A-law or µ-law of 8. Found: 16 bit of coding 85",
        "must be a WAV file. Found: no RIFF/WAVE header",
        "",
    ]
    assert (audio.shape, audio.dtype) == ((5, 507), tf.float32)
    np.testing.assert_array_equal(audio.numpy()[[0, 2, 3]], 0)
    np.testing.assert_array_equal(audio[1], trimmed(tf.constant([good]))[0][0])


def test_no_rows_give_no_rows():
    audio, reason = trimmed(tf.zeros((0,), tf.string))
    assert (audio.shape, reason.shape) == ((0, 507), (0,))


TONE = 6000 * np.sin(np.arange(8000) / 3)
HISS = np.random.default_rng(0).normal(0, 1, 8000)
CLICK = np.where(np.arange(8000) // 40 == 100, 20_000 * HISS / 4, 0)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.zeros(20_000), "silence"),
        (np.full(9000, 32767), "silence"),
        (HISS.clip(-1, 1), "silence"),
        (CLICK, "silence"),
        (np.stack([np.full(8000, 500), np.full(8000, -200)], axis=1), "silence"),
        (50 * HISS, "only a faint and steady noise"),
        (50 * HISS + 9000 + CLICK, "only a faint and steady noise"),
    ],
    ids=["zeros", "direct current", "dither", "click", "stereo", "noise", "noise and a click"],
)
def test_a_sound_in_which_nothing_is_heard_is_refused(values, found):
    audio, reason = trimmed(tf.constant([wav_bytes(np.round(values).astype(np.int16)), wav_bytes(word())]))
    assert [text.decode() for text in reason.numpy()] == [
        f"must hold a sound that stands out from silence. Found: {found}",
        "",
    ]
    assert not audio[0].numpy().any() and audio[1].numpy().any()


@pytest.mark.parametrize(
    "values",
    [
        word() / 364,
        np.pad(word() / 364, 4000) + 0.3 * HISS.repeat(2)[:12_000],
        TONE,
        2000 * HISS,
        TONE[:400],
        np.stack([TONE, -TONE], axis=1),
        word() + 9000,
    ],
    ids=["-60 dB", "-60 dB in dither", "tone", "loud noise", "50 ms", "opposite phase", "on direct current"],
)
def test_what_is_heard_is_taken(values):
    audio, reason = trimmed(tf.constant([wav_bytes(np.round(values).astype(np.int16))]))
    assert reason.numpy().tolist() == [b""] and np.isfinite(audio).all() and audio.numpy().any()


@pytest.mark.parametrize("level", [-1131.0, -900.0, 0.0, 500.0])
def test_a_file_made_from_features_is_heard_however_faint_they_are(level):
    steady = np.tile(np.eye(1, 13, dtype=np.float32)[0] * level, 39)
    assert trimmed(tf.constant([sound_file(steady, audio_spec())]))[1].numpy().tolist() == [b""]


@pytest.mark.parametrize(
    ("num", "rate_hz", "found"), [(1, 8000, 0), (80, 8000, 10), (399, 8000, 49), (882, 44_100, 20)]
)
def test_what_is_too_short_for_a_word_is_refused(num, rate_hz, found):
    _, reason = trimmed(tf.constant([wav_bytes(TONE[:num].astype(np.int16), rate_hz)]))
    assert reason.numpy()[0].decode() == f"must last at least 50 milliseconds. Found: {found}"


def test_direct_current_is_not_heard():
    plain, late = np.pad(word(), 6000), np.pad(word(), 6000) + 1500 * (np.arange(16_000) > 3000)
    for changed in (plain + 3000, late):
        files = tf.constant([wav_bytes(values.astype(np.int16)) for values in (plain, changed)])
        one, other = trimmed(files)[0].numpy().reshape(2, 39, 13)
        assert np.abs(one - other)[:, 1:].mean() < 1


def test_high_pass_filter_is_the_recursive_one():
    samples = np.random.default_rng(3).normal(0.4, 0.1, 5000).astype(np.float32)
    pole = np.exp(-2 * np.pi * LOWEST_HZ / 8000)
    expected = lfilter([(1 + pole) / 2, -(1 + pole) / 2], [1, -pole], samples - samples[0])
    row = ragged(samples, [len(samples)])
    np.testing.assert_allclose(without_direct_current(row, tf.constant([True]))[0].values, expected, atol=1e-5)


def test_stereo_at_another_rate_gives_nearly_the_same_features():
    original = word()
    higher = np.round(resample_poly(original.astype(float), 441, 80)).astype(np.int16)
    files = [wav_bytes(original), wav_bytes(np.stack([higher, higher], axis=1), 44100)]
    one, other = as_it_is(tf.constant(files))[0].numpy().reshape(2, 39, 13)
    # In the first coefficient, where the size of all 128 bands comes together, 11 is one decibel.
    assert np.abs(one - other)[:, 0].mean() < 11
    assert np.abs(one - other)[:, 1:].mean() < 2


def test_eight_bits_give_nearly_the_same_features():
    original = word()
    eight = (np.round(original / 256) + 128).astype(np.uint8)
    one, other = as_it_is(tf.constant([wav_bytes(original), wav_bytes(eight)]))[0].numpy().reshape(2, 39, 13)
    assert np.corrcoef(one[:, 1:].ravel(), other[:, 1:].ravel())[0, 1] > 0.9


def test_grid_of_another_size_is_filled():
    read, file = tf.function(read_sounds), tf.constant([wav_bytes(word())])
    audio, few = (read(file, audio_spec((10, num)), UNTREATED)[0] for num in (20, 13))
    np.testing.assert_array_equal(audio.numpy().reshape(10, 20)[:, :13], few.numpy().reshape(10, 13))


def test_features_are_the_same_inside_an_exported_graph(tmp_path):
    archive = keras.export.ExportArchive()
    archive.add_endpoint("serve", lambda files: read_sounds(files, audio_spec()), FILES)
    archive.write_out(tmp_path / "model", verbose=False)
    files = tf.constant([wav_bytes(word(length, length)) for length in (900, 4000, 12_000)] + [b"", b"none"])
    served, reason = tf.saved_model.load(tmp_path / "model").serve(files)
    np.testing.assert_array_equal(served, trimmed(files)[0])
    assert reason.numpy()[3:].tolist() == [b"", b"must be a WAV file. Found: no RIFF/WAVE header"]


@pytest.mark.parametrize(
    ("front_end", "grid", "readable"),
    [
        (FSDD_FRONT_END, (39, 13), True),
        (SPOKEN_DIGITS.front_end, (39, 13), True),
        (SPOKEN_DIGITS.front_end, (1, 507), False),
        (None, (39, 13), False),
        (UNTREATED.front_end, (39, 13), False),
        ("another", (39, 13), False),
    ],
)
def test_only_known_front_ends_can_read_sounds(front_end, grid, readable):
    assert can_read_sounds(front_end, audio_spec(grid)) == readable


def test_a_recipe_tells_its_name():
    assert SPOKEN_DIGITS.front_end == "wav-8000hz-trimmed-denoised-mfcc-13 + linear-39"
    wide = replace(UNTREATED, sample_rate_hz=16_000, num_coefficients=40, num_frames=64)
    assert wide.front_end == "wav-16000hz-mfcc-40 + linear-64"
    assert (wide.window, wide.hop, wide.grid) == (800, 400, (64, 40))
