"""Features of words or of any sound: chosen from the files, kept in the run, the same wherever files are read."""

import io
import json
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from kfusion.config import Config, DataConfig, ModelConfig, config_from_json
from kfusion.data.loaders import load
from kfusion.data.pipeline import evaluation_batches
from kfusion.inference import pool
from kfusion.modalities import modality
from kfusion.modalities.audio.augmentation import AROUND_S, MOST_SPEED, QUIETER_DB, add_background, varied_files, vary
from kfusion.modalities.audio.corruption import Surroundings, add_white_noise, fitting
from kfusion.modalities.audio.files import WINDOW_DATA, is_longer, lengths, window_files, windows
from kfusion.modalities.audio.recipe import SPOKEN_DIGITS, any_sound, chosen_recipe, recipe_named, word_bands
from kfusion.model.build import build_model
from kfusion.spec import ModalitySpec, Spec, audio_spec
from kfusion.validation import UserError
from tests.media import wav_bytes

AUDIO = modality("audio")
ENGINE = any_sound(3.0, 16_000)


def spec_of(recipe) -> ModalitySpec:
    return replace(audio_spec(recipe.grid), front_end=recipe.front_end)


def noise(seconds: float, rate: int, seed: int = 0, colour: float = 0.0) -> np.ndarray:
    """int16 (n,): noise through a filter of the first order."""
    rng, n = np.random.default_rng(seed), round(seconds * rate)
    spectrum = np.fft.rfft(rng.normal(size=n)) / (1 - colour * np.exp(-1j * np.linspace(0, np.pi, n // 2 + 1)))
    samples = np.fft.irfft(spectrum, n)
    return np.round(samples / np.abs(samples).max() * 20_000).astype(np.int16)


def folder_of(place: Path, seconds: float, rate: int, num: int = 12) -> Path:
    """Two classes of noise: a hum and a hiss."""
    for number, (name, colour) in enumerate((("hiss", -0.9), ("hum", 0.9))):
        (place / name).mkdir(parents=True)
        for row in range(num):
            content = wav_bytes(noise(seconds, rate, 100 * number + row, colour), rate)
            (place / name / f"{row:02}.wav").write_bytes(content)
    return place


@pytest.mark.parametrize(
    ("settings", "found", "recipe", "words"),
    [
        ({}, [(0.6, 8000), (1.0, 8000), (30.0, 44_100)], None, "taken for words"),
        ({}, [(10.0, 22_050), (10.0, 22_050), (0.3, 8000)], any_sound(10, 22_050), "10 s of each are heard at 22,050"),
        ({}, [(31.0, 96_000)], any_sound(31, 48_000, 200), "up to 31 s"),
        ({}, [], None, ""),
        ({"sound": "word"}, [(10.0, 22_050)], None, ""),
        ({"sound": "sound"}, [(0.3, 4000)], any_sound(0.5, 8000), "0.5 s of each"),
        ({"sound_seconds": 2.5}, [(0.6, 16_000)], any_sound(2.5, 16_000), "2.5 s of each"),
        ({}, [(34.0, 16_000)], any_sound(34, 16_000, 200), "as 200 frames"),
        ({"sound_frames": 70}, [(34.0, 16_000)], any_sound(34, 16_000, 70), "as 70 frames"),
        ({"sound_rate_hz": 12_000}, [(4.0, 16_000)], any_sound(4, 12_000), "at 12,000 Hz"),
    ],
)
def test_the_recipe_fits_the_recordings_unless_somebody_says_otherwise(settings, found, recipe, words):
    config = DataConfig(**settings)
    chosen, note = chosen_recipe(config.sound, config.sound_seconds, config.sound_rate_hz, found, config.sound_frames)
    assert chosen == recipe and words in note and bool(words) == bool(note) and "\n" not in note


@pytest.mark.parametrize(
    ("seconds", "rate"), [(0.5, 8000), (1.0, 16_000), (2.37, 44_100), (10.0, 22_050), (59.99, 48_000)]
)
def test_a_front_end_has_its_numbers_in_its_name(seconds, rate):
    recipe = any_sound(seconds, rate, 50)
    assert recipe_named(recipe.front_end) == recipe
    settings = AUDIO.file_settings(spec_of(recipe))
    again, note = AUDIO.spec_of_files(DataConfig(**settings), [])
    assert again == spec_of(recipe) and note == "" and AUDIO.front_end(again) == recipe.front_end


def test_words_are_bands_where_that_is_asked_for():
    for config in (DataConfig(sound="word"), DataConfig(sound="word", word_features="log-mel")):
        spec, _ = AUDIO.spec_of_files(config, [])
        assert AUDIO.spec_of_files(DataConfig(**AUDIO.file_settings(spec)), [])[0] == spec
    assert recipe_named(spec.front_end) == word_bands() and spec.grid == (100, 40)
    assert AUDIO.hears(spec) == {"grid": (100, 40), "unit": "log-mel bands", "rate_hz": 8000, "seconds": 1.0}
    assert not AUDIO.unreadable(AUDIO.front_end(spec), spec)
    # Runs before 2026-11-29 have half as many frames, and are read as they were.
    earlier = replace(audio_spec((50, 40)), front_end="wav-8000hz-trimmed-log-mel-40 + middle-1s-50")
    assert AUDIO.spec_of_files(DataConfig(**AUDIO.file_settings(earlier)), [])[0] == earlier
    assert AUDIO.front_end(earlier) == earlier.front_end and AUDIO.variants(earlier)
    with pytest.raises(UserError, match="sound_frames"):
        DataConfig(sound="word", sound_frames=50)
    other = DataConfig(sound="sound", word_features="log-mel", sound_seconds=3, sound_rate_hz=16_000)
    assert AUDIO.spec_of_files(other, [])[0] == spec_of(ENGINE)


def test_copies_of_a_word_differ_in_length_and_loudness_and_are_decided_by_their_seed():
    rate, tone = 8000, np.sin(np.arange(4000) * 0.5).astype(np.float32)
    copies = [vary(tone, rate, np.random.default_rng(seed)) for seed in range(30)]
    np.testing.assert_array_equal(vary(tone, rate, np.random.default_rng(3)), copies[3])
    speeds = np.array([4000 / (len(copy) - 2 * AROUND_S * rate) for copy in copies])
    assert np.abs(np.log(speeds)).max() == pytest.approx(MOST_SPEED, abs=0.05) and speeds.min() < 1 < speeds.max()
    peaks = np.array([np.abs(copy).max() for copy in copies])
    assert 10 ** (-QUIETER_DB / 20) <= peaks.min() < 0.1 and 0.5 < peaks.max() <= 1
    # A word is still there: its tone, moved by the speed, is the loudest of all.
    for copy, speed in zip(copies, speeds, strict=True):
        spectrum = np.abs(np.fft.rfft(copy, 2 * rate))
        assert spectrum.argmax() / (0.5 * speed * rate / np.pi) == pytest.approx(1, abs=0.02)


def test_what_is_no_sound_has_empty_copies():
    assert varied_files(b"no sound", 3, 0) == [b""] * 3 == varied_files(wav_bytes(np.zeros(0, np.int16), 8000), 3, 0)
    assert len(set(varied_files(wav_bytes(noise(0.5, 8000), 8000), 3, 0))) == 3


def test_names_of_other_versions_are_no_recipe():
    for name in (SPOKEN_DIGITS.front_end, "wav-16000hz-log-mel-40 + middle-1.234s-50", "sentences"):
        assert recipe_named(name) is None
    unknown = replace(audio_spec(), front_end="sentences")
    assert "is none that reads files" in AUDIO.unreadable("sentences", unknown)
    with pytest.raises(UserError, match=r"must be known to this version\. Received: 'sentences'"):
        AUDIO.front_end(unknown)


def test_headers_tell_length_and_rate_of_any_format(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_bytes(noise(1.6, 11_025), 11_025))
    soundfile.write(tmp_path / "b.flac", noise(3.0, 22_050), 22_050)
    (tmp_path / "c.wav").write_bytes(b"no sound at all")
    streamed = bytearray(wav_bytes(noise(2.0, 8000), 8000))
    streamed[40:44] = b"\xff\xff\xff\xff"
    (tmp_path / "d.wav").write_bytes(bytes(streamed))
    found = lengths(sorted(tmp_path.iterdir()))
    assert found[:2] == [(1.6, 11_025), (3.0, 22_050)] and found[2][1] == 8000
    assert found[2][0] == pytest.approx(2.0, abs=0.01)
    assert len(lengths([tmp_path / "a.wav"] * 1000)) <= 200 and lengths([]) == []


def test_settings_that_contradict_each_other_or_the_data_are_refused(tmp_path):
    wrong: list[dict[str, Any]] = [{"sound": "word", "sound_seconds": 3.0}, {"sound_rate_hz": 4000}]
    for settings in [*wrong, {"sound_seconds": 0.1}]:
        with pytest.raises(UserError, match="must be 0"):
            DataConfig(**settings)
    with pytest.raises(UserError, match=r"'sound' must be left out unless the data are sound files\. Received: 'word'"):
        load(DataConfig(sound="word"))


def test_the_shape_of_words_is_written_as_ever_and_another_front_end_beside_it():
    assert "front_end" not in json.dumps(Spec().to_json())
    pair = Spec({"image": Spec()["image"], "audio": spec_of(ENGINE)})
    assert Spec.from_json(json.loads(json.dumps(pair.to_json()))) == pair


def test_files_are_heard_as_the_data_are_and_the_run_reads_them_so_again(tmp_path, monkeypatch):
    monkeypatch.setenv("KFUSION_CACHE", str(tmp_path / "cache"))
    place = folder_of(tmp_path / "engines", 3.0, 16_000, 2)
    source = load(DataConfig(str(place)))
    assert source.spec["audio"] == spec_of(ENGINE) and source.info["front_end"] == ENGINE.front_end
    assert any("the middle 3 s of each are heard at 16,000 Hz" in note for note in source.notes)
    fixed = load(DataConfig(str(place), **AUDIO.file_settings(source.spec["audio"])))
    np.testing.assert_array_equal(fixed["audio"].values, source["audio"].values)
    assert fixed.info["keys"] == source.info["keys"] and len(list((tmp_path / "cache").glob("*.npy"))) == 1
    word = AUDIO.spec_of_files(DataConfig(sound="word"), [])[0]
    assert word == audio_spec() and AUDIO.front_end(word) == SPOKEN_DIGITS.front_end


@pytest.mark.parametrize(("encoder", "recipe", "conv"), [("auto", 1, True), ("auto", 0, False), ("dense", 1, False)])
def test_convolutions_are_for_any_sound_and_the_papers_layers_for_words(encoder, recipe, conv):
    shape = spec_of(ENGINE) if recipe else audio_spec()
    config = ModelConfig(audio_encoder=encoder, utterance_trim=0.3, audio_filters=(2, 3), audio_units=(4,))
    network = build_model(config, Spec({"audio": shape}), np.zeros(shape.num_values), np.ones(shape.num_values))
    names = {layer.name for layer in network.layers}
    # What is cut off and subtracted of words is part of any other sound.
    assert ("audio_conv0" in names) == conv and ("utterance_norm" in names) == (not recipe)


def test_background_is_added_to_the_power_of_each_band():
    levels = np.full((2, 5, 40), -30.0, np.float32)
    levels[:, 2] = 10.0
    draws = np.array([[0.2, 0.5, 0.5, 0.5, 0.5, 0.5], [0.9, 0.5, 0.5, 0.5, 0.5, 0.5]], np.float32)
    noisy = add_background(levels, draws, 0.5, "bands").numpy()
    np.testing.assert_array_equal(noisy[1], levels[1])
    # 25 dB below the loudest frame, white, since the draws are in the middle: -15 dB in each band.
    np.testing.assert_allclose(noisy[0, 0], 10 * np.log10(10**-3 + 10**-1.5), atol=1e-3)
    np.testing.assert_allclose(noisy[0, 2], 10 * np.log10(10 + 10**-1.5), atol=1e-3)


def test_corruptions_treat_bands_as_bands():
    grid, rng = ENGINE.grid, np.random.default_rng(0)
    sounds = rng.normal(-20, 5, (3, *grid)).astype(np.float32)
    around = Surroundings(np.ones(grid), sounds, ENGINE)
    known = fitting(grid, True, True)
    draws = rng.random((3, known["white_noise"].num_draws(grid)))
    noisy = add_white_noise(sounds, 10.0, draws, around)
    added = 10 ** (noisy.astype(np.float64) / 10) - 10 ** (sounds.astype(np.float64) / 10)
    ratio = (10 ** (sounds / 10)).mean(axis=(1, 2)) / added.mean(axis=(1, 2))
    np.testing.assert_allclose(10 * np.log10(ratio), 10.0, atol=0.05)
    sounds[:, 7] = -60.0
    late = known["clipped_start"].apply(sounds, 0.1, rng.random((3, 1)), around)
    np.testing.assert_array_equal(late[:, 0], sounds[:, 7])
    babble = known["babble"].apply(sounds, 0.0, rng.random((3, 4)), around)
    assert (babble > sounds).all()


def test_a_file_made_from_features_has_about_these_features():
    shape = spec_of(ENGINE)
    slope = np.broadcast_to(np.linspace(10, -20, ENGINE.num_coefficients), ENGINE.grid).astype(np.float32)
    content = AUDIO.sample_file(slope.ravel(), shape)
    with wave.open(io.BytesIO(content)) as file:
        assert file.getframerate() == 16_000 and file.getnframes() / 16_000 == pytest.approx(3.0, abs=0.1)
    assert AUDIO.hears(shape) == {"grid": (50, 40), "unit": "log-mel bands", "rate_hz": 16_000, "seconds": 3.0}
    assert AUDIO.hears(audio_spec())["unit"] == "MFCC" and AUDIO.shape_in_words(shape) == "50 frames × 40 bands"


def ways_to_write(seconds: float) -> dict[str, bytes]:
    """A recording in ways that differ in what stands before the samples, and in how many bytes a sample has."""
    plain = wav_bytes(noise(seconds, 16_000), 16_000)
    contents = {"plain": plain, "text": b"This is no sound.", "absent": b""}
    contents["no sizes"] = plain[:4] + b"\xff" * 4 + plain[8:40] + b"\xff" * 4 + plain[44:]
    contents["another chunk"] = plain[:36] + b"JUNK\4\0\0\0abcd" + plain[36:]
    for subtype, rate, channels, form in (
        ("PCM_24", 44_100, 2, "WAV"),
        ("FLOAT", 8000, 3, "WAVEX"),
        ("ALAW", 11_025, 1, "WAV"),
    ):
        file = io.BytesIO()
        samples = np.repeat(noise(seconds, rate)[:, None] / 32768, channels, axis=1)
        soundfile.write(file, samples, rate, subtype, format=form)
        contents[subtype] = file.getvalue()
    return contents


def test_a_long_recording_is_cut_alike_by_python_and_in_the_graph():
    import tensorflow as tf

    from kfusion.modalities.audio.decoding import cut

    contents = list(ways_to_write(7.4).values())
    pieces, counts = tf.function(lambda files: cut(files, ENGINE), autograph=False)(tf.constant(contents))
    parts = [windows(content, ENGINE) for content in contents]
    assert counts.numpy().tolist() == [len(part) for part in parts] == [4, 1, 1, 4, 4, 4, 4, 4]
    assert pieces.numpy().tolist() == [window.content for part in parts for window in part]
    for part in (parts[0], *parts[3:]):
        assert [window.start_s for window in part] == pytest.approx([0, 4.4 / 3, 8.8 / 3, 4.4], abs=1e-3)
        assert [window.end_s - window.start_s for window in part] == pytest.approx([3.0] * 4)
    samples = noise(7.4, 16_000)
    third = parts[0][2].content.partition(WINDOW_DATA)[2]
    np.testing.assert_array_equal(np.frombuffer(third, np.int16), samples[46_933 : 46_933 + 48_000])


@pytest.mark.parametrize(
    ("seconds", "num"), [(2.0, 1), (3.0, 1), (3.05, 1), (3.07, 2), (4.5, 2), (4.6, 3), (600.0, 120)]
)
def test_windows_overlap_by_half_at_least_and_end_with_the_recording(seconds, num):
    found = windows(wav_bytes(noise(seconds, 8000), 8000), ENGINE)
    starts = [window.start_s for window in found]
    assert len(found) == num and starts[0] == 0 and found[-1].end_s == pytest.approx(seconds, abs=0.01)
    assert num in (1, 120) or np.diff(starts).max() <= 1.5 + 1e-3


def test_training_draws_windows_of_long_recordings_and_short_ones_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("KFUSION_CACHE", str(tmp_path / "cache"))
    place = folder_of(tmp_path / "engines", 1.0, 8000, num=4)
    long = noise(3.0, 8000)
    long[8000:16_000] //= 50
    (place / "hum" / "long.wav").write_bytes(wav_bytes(long, 8000))
    config = DataConfig(data=str(place), sound="sound", sound_seconds=1.0, sound_rate_hz=8000, word_copies=5)
    source = load(config)
    data, recipe = source["audio"], any_sound(1.0, 8000)
    pairs = source.pairs({"audio": np.arange(len(data))})
    assert data.copies is not None and data.copies.shape == (9, 5, *spec_of(recipe).shape)
    draws = [pairs.read(np.arange(9), np.full(9, key))["audio"] for key in range(6)]
    same = np.array([[np.array_equal(one, draws[0][row]) for row, one in enumerate(draw)] for draw in draws])
    longer = np.flatnonzero(~same.all(axis=0))
    assert len(longer) == 1 and same[1:, longer[0]].sum() == 0
    # The first and the last second are loud, the middle one, which is the recording's own row, is faint.
    level = [draw[longer[0]].mean() for draw in draws]
    assert min(level[1], level[5]) > level[0] + 20
    # Where they are evaluated, the windows of one recording follow each other, and are pooled.
    rows = [(batch["audio"].numpy(), label.numpy()) for batch, label in evaluation_batches(pairs, 16)]
    values, label = (np.concatenate(each) for each in zip(*rows, strict=True))
    np.testing.assert_array_equal(values, np.stack(draws, axis=1).reshape(9 * 6, -1))
    np.testing.assert_array_equal(label, np.repeat(pairs.label, 6))
    pooled = pool(np.array([[[0.5, 0.5]], [[0.9, 0.1]]]))
    np.testing.assert_allclose(pooled, [[0.75, 0.25]], rtol=1e-6)
    assert load(replace(config, word_copies=0))["audio"].copies is None
    assert not is_longer(place / "hum" / "00.wav", recipe) and is_longer(place / "hum" / "long.wav", recipe)
    assert window_files((place / "hum" / "00.wav").read_bytes(), 3, 0, recipe) == [b""] * 3


@pytest.mark.slow
def test_training_prediction_and_the_exported_graph_hear_the_same(tmp_path, monkeypatch):
    import tensorflow as tf

    from kfusion.exporting.exporter import Options, export
    from kfusion.exporting.model_store import store_of
    from kfusion.inference import load_fitting
    from kfusion.prediction.inputs import Files
    from kfusion.prediction.models import RunModel, VersionModel
    from kfusion.prepared_data import load_own
    from kfusion.training.trainer import train

    monkeypatch.setenv("KFUSION_CACHE", str(tmp_path / "cache"))
    place = folder_of(tmp_path / "engines", 2.5, 22_050)
    values = {
        "data": {"data": str(place), "val_share": 0.2, "test_share": 0.2},
        "model": {"audio_filters": [4, 6], "embed_dim": 8},
        "training": {"epochs": 2, "batch_size": 8},
    }
    run = train(config_from_json(values), tmp_path / "run")
    source, parts = load_own(run)
    recipe = any_sound(2.5, 22_050)
    assert run.data()["source"]["front_end"] == recipe.front_end and run.spec()["audio"] == spec_of(recipe)
    paths = sorted(place.rglob("*.wav"))[:4]
    contents = [path.read_bytes() for path in paths]
    model = RunModel(run.folder, all_views=False)
    rows = Files({"audio": contents}, [""] * 4)
    read, reasons = model._read("audio", contents)
    np.testing.assert_array_equal(read, source["audio"].values[source["audio"].row[:4]])
    assert reasons == [""] * 4 and parts.test.spec == run.spec()
    version = export(run, load_fitting(run), store_of(tmp_path / "served", "engines", "savedmodel"), Options())
    graph = tf.saved_model.load(str(version)).signatures["read_bytes"]  # pyright: ignore[reportAttributeAccessIssue]
    heard = graph(audio_bytes=tf.constant(contents))["audio"].numpy()
    np.testing.assert_allclose(heard, read, atol=1e-3)
    expected = model.answer(rows)["fused"]
    np.testing.assert_allclose(VersionModel(version, False).answer(rows)["fused"], expected, atol=1e-4)
    _long_recordings_are_pooled(run.folder, version, paths[:2], tmp_path)
    noted = json.loads((version / "assets.extra" / "data.json").read_text())
    assert noted["hears"]["audio"]["rate_hz"] == 22_050
    # A run of a version that knew words only says nothing of sounds in its settings, and reads on as it did.
    old = train(replace(run.config(), data=replace(run.config().data, sound="word")), tmp_path / "old")
    settings = json.loads((old.folder / "config.json").read_text())
    for name in ("sound", "sound_seconds", "sound_rate_hz", "sound_frames"):
        del settings["data"][name]
    (old.folder / "config.json").write_text(json.dumps(settings))
    assert load_own(old)[0].spec["audio"] == audio_spec() and old.config() != Config()


def _long_recordings_are_pooled(run: Path, version: Path, paths: list[Path], tmp_path: Path) -> None:
    """The answer to a long recording is pooled from its windows but silent ones, by class, job and version."""
    import pandas as pd

    from kfusion import load as load_classifier
    from kfusion.prediction.job import Job, predict

    first, second = (soundfile.read(path, dtype="int16")[0] for path in paths)
    long, files = tmp_path / "long", [str(tmp_path / "long" / "a.wav"), str(paths[0])]
    long.mkdir()
    silence = np.zeros(6 * 22_050, np.int16)
    soundfile.write(files[0], np.concatenate([first, silence, second]), 22_050, "PCM_16")
    soundfile.write(long / "b.wav", np.zeros(9 * 22_050, np.int16), 22_050, "PCM_16")
    soundfile.write(long / "c.wav", first, 22_050, "PCM_16")
    found = {}
    for folder in (run, version):
        classifier = load_classifier(folder)
        table = classifier.windows({"audio": files})
        heard = table[table["reason"] == ""]
        assert len(table) == 8 + 1 and len(heard[heard["row_id"] == 0]) == 6
        assert table["audio_end_s"].iloc[7] == pytest.approx(11.0) and table["window"].tolist() == [*range(8), 0]
        probabilities = classifier.predict_proba({"audio": files})
        label = heard[heard["row_id"] == 0]["label"] == classifier.classes_[1]
        of_second = np.where(label, heard["confidence"][:-1], 1 - heard["confidence"][:-1]).astype(float)
        joined = np.exp([np.log(1 - of_second).mean(), np.log(of_second).mean()])
        np.testing.assert_allclose(probabilities[0], joined / joined.sum(), atol=1e-4)
        np.testing.assert_allclose(probabilities[1], classifier.predict_proba({"audio": files[1:]})[0], atol=1e-6)
        why = classifier.explain({"audio": files[:1]})
        assert why.num_windows == len(heard) - 1 or folder == version
        assert why.label == classifier.predict({"audio": files})[0]
        out, each = tmp_path / f"{folder.name}.csv", tmp_path / f"{folder.name}-windows.csv"
        done = predict(Job(folder, long, out, full=True, windows=each))
        assert done.num_bad == 1 and "silence" in done.errors.read_text()
        answered, parts = pd.read_csv(out), pd.read_csv(each)
        assert parts["row_id"].value_counts().sort_index().tolist() == [8, 7, 1]
        assert answered["confidence"][0] == pytest.approx(probabilities[0].max(), abs=1e-4)
        found[folder] = probabilities
    np.testing.assert_allclose(found[run], found[version], atol=1e-4)
