"""`python -m kfusion.predict` on files: manifests, folders, damaged pictures and sounds, exported versions."""

import csv

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from kfusion.io import read_json, write_json
from kfusion.modalities.front_ends import file_reader
from kfusion.prediction import inputs as contents
from kfusion.prediction.job import Job, predict, run_job
from kfusion.prediction.models import load_model
from kfusion.spec import FUSED, Spec, audio_spec
from tests.exports import copied, views
from tests.inputs import digits, wav, write_arrays, write_media
from tests.media import encoded
from tests.processes import in_process


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(contents, "BATCH_ROWS", 8)


@pytest.fixture(scope="module")
def model(trained_run):
    """The trained run's network, loaded once."""
    return load_model(trained_run, True)


def write_manifest(path, rows, columns=("image", "audio")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def sounds(num_rows):
    """The features of the sounds that `write_media` writes."""
    files = tf.constant([wav(200 + 40 * row) for row in range(num_rows)])
    return file_reader(audio_spec())(files)[0].numpy()


def test_a_folder_of_files_is_matched_by_stem(trained_run, model, tmp_path):
    images = write_media(tmp_path / "media", 12)
    (tmp_path / "media" / "row004.wav").unlink()
    (tmp_path / "media" / "row007.png").rename(tmp_path / "media" / "ROW999.PNG")
    (tmp_path / "media" / "notes.txt").write_text("not a picture")
    run_job(Job(trained_run, tmp_path / "media", tmp_path / "out.csv", full=True), model)
    table = pd.read_csv(tmp_path / "out.csv", dtype={"label": "Int64"})
    stems = table["image"].fillna(table["audio"]).str[:-4].tolist()
    assert stems == ["ROW999", *(f"row{row:03d}" for row in range(12))]
    assert table["row_id"].tolist() == list(range(13))
    expected = views(trained_run, images, sounds(12))
    fused, image, audio = (answer.argmax(axis=1) for answer in expected.values())
    by_name = table.set_index(pd.Series(stems))
    assert by_name["label"]["ROW999"] == image[7] and by_name["label"]["row007"] == audio[7]
    assert by_name["label"]["row004"] == image[4] and pd.isna(by_name["audio_label"]["row004"])
    both = [row for row in range(12) if row not in (4, 7)]
    assert [by_name["label"][f"row{row:03d}"] for row in both] == fused[both].tolist()


def test_a_manifest_names_files_beside_it_and_either_may_be_missing(trained_run, tmp_path, monkeypatch):
    images = write_media(tmp_path / "media", 10)
    rows = [(f"media/row{row:03d}.png", f"media/row{row:03d}.wav") for row in (3, 1, 2, 9, 0)]
    rows += [(str(tmp_path / "media" / "row005.png"), ""), ("", "media/row006.wav")]
    write_manifest(tmp_path / "rows.csv", rows)
    monkeypatch.chdir("/")
    words = (trained_run, tmp_path / "rows.csv", "--out", tmp_path / "out.csv")
    assert in_process("kfusion.predict", *words).returncode == 0
    fused, image, audio = (each.argmax(axis=1) for each in views(trained_run, images, sounds(10)).values())
    expected = [*fused[[3, 1, 2, 9, 0]], image[5], audio[6]]
    assert pd.read_csv(tmp_path / "out.csv")["label"].tolist() == expected


def test_each_unreadable_file_costs_its_own_row_alone(trained_run, tmp_path, monkeypatch, capsys):
    images = write_media(tmp_path / "media", 8)
    media, whole = tmp_path / "media", encoded(images[0])
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    (media / "damaged.png").write_bytes(damaged)
    (media / "cut.wav").write_bytes(wav(300)[:40])
    (media / "empty.png").touch()
    monkeypatch.setattr(contents, "MAX_BYTES", 8500)
    (media / "big.wav").write_bytes(wav(300) + bytes(9000))
    rows = [(f"media/row{row:03d}.png", f"media/row{row:03d}.wav") for row in range(8)]
    bad = [("media/damaged.png", ""), ("media/gone.png", ""), ("media/empty.png", ""), ("media", ""), ("", "")]
    bad += [("media/row000.png", "media/cut.wav"), ("", "media/big.wav"), ("media/row000.wav", "")]
    mixed = [row for pair in zip(rows, bad, strict=True) for row in pair]
    write_manifest(tmp_path / "rows.csv", mixed)
    words = (trained_run, tmp_path / "rows.csv", "--out", tmp_path / "out.csv")
    assert in_process("kfusion.predict", *words).returncode == 1
    assert "8 rows have no prediction" in capsys.readouterr().err
    label, errors = pd.read_csv(tmp_path / "out.csv")["label"], pd.read_csv(tmp_path / "out.errors.csv")
    assert label[0::2].tolist() == views(trained_run, images, sounds(8))[FUSED].argmax(axis=1).tolist()
    assert label[1::2].isna().all()
    assert errors["row_id"].tolist() == list(range(1, 16, 2))
    assert errors[["image", "audio"]].fillna("").values.tolist() == [list(row) for row in bad]
    told = (
        "image: ",
        "No such file",
        "1 to 8500 bytes. Found: 0",
        "directory",
        "neither",
        "audio: ",
        "8500",
        "image: ",
    )
    for reason, words in zip(errors["reason"], told, strict=True):
        assert words in reason


def test_a_decoder_that_fails_a_whole_batch_is_asked_row_by_row(trained_run, tmp_path, monkeypatch):
    """`read_images` leaves damaged rows out by itself; another front end may fail as TensorFlow's decoders do."""
    images = write_media(tmp_path / "media", 5)
    (tmp_path / "media" / "row002.png").write_bytes(b"no picture")

    def plain(files):
        decoded = tf.map_fn(lambda file: tf.cast(tf.io.decode_png(file, 1), tf.float32), files, tf.float32)
        return tf.ensure_shape(decoded, (None, 28, 28, 1)), tf.fill(tf.shape(files), "")

    readers = {"image": tf.function(plain), "audio": file_reader(audio_spec())}
    monkeypatch.setattr("kfusion.modalities.front_ends.file_reader", lambda spec, raw=False: readers[spec.kind])
    monkeypatch.setattr("kfusion.modalities.image.Image.standard_file", lambda _, content: content)
    outcome = predict(Job(trained_run, tmp_path / "media", tmp_path / "out.csv"))
    assert (outcome.num_rows, outcome.num_bad) == (5, 1)
    label = pd.read_csv(tmp_path / "out.csv")["label"]
    expected = views(trained_run, images, sounds(5))[FUSED].argmax(axis=1)
    assert np.flatnonzero(label.isna()).tolist() == [2]
    assert (label.drop(2) == np.delete(expected, 2)).all()


def test_a_file_of_another_format_becomes_a_png_and_its_fault_a_reason(tmp_path):
    picture = np.arange(64, dtype=np.uint8).reshape(8, 8)
    (tmp_path / "a.tiff").write_bytes(encoded(picture, "TIFF"))
    (tmp_path / "b.tiff").write_bytes(encoded(picture, "TIFF")[:40])
    rows = contents.read_contents(tmp_path, {"image": ["a.tiff", "b.tiff"]}, Spec())
    assert np.array_equal(tf.io.decode_png(rows.contents["image"][0])[..., 0], picture)
    assert rows.reason[0] == "" and rows.reason[1].startswith("image: ") and rows.contents["image"][1] == b""
    assert rows.present.tolist() == [[True, False], [False, False]]


def test_parquet_in_and_out_say_the_same_as_csv(trained_run, model, tmp_path):
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    write_media(tmp_path / "media", 6)
    rows = [(f"media/row{row:03d}.png", f"media/row{row:03d}.wav" if row % 2 else None) for row in range(6)]
    rows.append(("media/gone.png", None))
    pd.DataFrame(rows, columns=["image", "audio"]).to_parquet(tmp_path / "rows.parquet")
    write_manifest(tmp_path / "rows.csv", [(image, audio or "") for image, audio in rows])
    for manifest, out in (("rows.parquet", "a.parquet"), ("rows.csv", "b.csv")):
        assert run_job(Job(trained_run, tmp_path / manifest, tmp_path / out, full=True), model).num_bad == 1
    one, other = pd.read_parquet(tmp_path / "a.parquet"), pd.read_csv(tmp_path / "b.csv")
    assert list(one) == list(other) and str(one["label"].dtype) == "Int64" and str(one["agree"].dtype) == "boolean"
    for name in one:
        column = one[name].replace("", pd.NA)  # A CSV knows no difference between no text and an empty one.
        assert column.isna().tolist() == other[name].isna().tolist()
        pairs = zip(column.dropna(), other[name].dropna(), strict=True)
        assert all(a == (pytest.approx(b, abs=2e-6) if isinstance(a, float) else b) for a, b in pairs)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file,label\na,b\n", "must have the columns image and audio, or one of them. Found: 'file', 'label'"),
        ("image,audio\na\n", "each line must have 2 fields, as the header has. Found: 1 in line 2"),
        ("image,audio\n", "must name at least one file. Found: no rows"),
        ("", "must have the columns image and audio"),
        ('image,audio\n"a,b\n', "must be a CSV file"),
        (b"image,audio\n\xff,b\n", "must be text in UTF-8, which spreadsheets call 'CSV UTF-8'"),
    ],
)
def test_a_wrong_manifest_is_one_line_and_leaves_nothing(text, sentence, trained_run, tmp_path, monkeypatch, capsys):
    (tmp_path / "rows.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    words = (trained_run, tmp_path / "rows.csv", "--out", tmp_path / "out.csv")
    assert in_process("kfusion.predict", *words).returncode == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_two_pictures_of_one_stem_are_refused(trained_run, tmp_path, monkeypatch, capsys):
    write_media(tmp_path / "media", 2)
    (tmp_path / "media" / "row001.jpg").touch()
    assert in_process("kfusion.predict", trained_run, tmp_path / "media", "--out", tmp_path / "out.csv").returncode == 2
    assert "must hold one picture for each stem. Found: two of 'row001'" in capsys.readouterr().err


def test_an_exported_version_answers_and_refuses_as_the_run_does(model, exported_model, tmp_path):
    version = load_model(exported_model, True)
    media = tmp_path / "media"
    write_media(media, 20)
    (media / "row003.wav").unlink()
    (media / "row005.png").unlink()
    (media / "row011.png").write_bytes(b"no picture")
    (media / "row012.wav").write_bytes(b"no sound")
    images, audio = digits(20)
    audio[7, 0] = np.nan
    write_arrays(tmp_path / "arrays", images, audio)
    for source, bad in ((media, [11, 12]), (tmp_path / "arrays", [7])):
        tables, errors = [], []
        for name, asked in (("run", model), ("version", version)):
            run_job(Job(asked.folder, source, tmp_path / f"{name}.csv", full=True, overwrite=True), asked)
            tables.append(pd.read_csv(tmp_path / f"{name}.csv"))
            errors.append(pd.read_csv(tmp_path / f"{name}.errors.csv"))
        pd.testing.assert_frame_equal(*tables, atol=2e-6, rtol=0)
        pd.testing.assert_frame_equal(*errors)
        assert errors[0]["row_id"].tolist() == bad


def test_an_exported_version_knows_the_scale_of_its_training_sounds(exported_model, tmp_path, monkeypatch, capsys):
    images, audio = digits(20)
    write_arrays(tmp_path / "data", images, audio / 100)
    words = (exported_model, tmp_path / "data", "--out", tmp_path / "out.csv")
    assert in_process("kfusion.predict", *words).returncode == 2
    assert "audio features must be on the scale of the training data (-7" in capsys.readouterr().err
    assert in_process("kfusion.predict", *words, "--force").returncode == 0


def test_files_that_a_model_cannot_read_are_refused_at_once(trained_run, tmp_path, monkeypatch, capsys):
    run = copied(trained_run, tmp_path / "run")
    facts = read_json(run / "data.json")
    facts["source"]["front_end"] = None
    write_json(run / "data.json", facts)
    write_media(tmp_path / "media", 3)
    (tmp_path / "media" / "row001.wav").unlink()
    words = (run, tmp_path / "media", "--out", tmp_path / "out.csv")
    assert in_process("kfusion.predict", *words).returncode == 2
    rule = "this model cannot read sound files: the front end of its training sounds is not known"
    instead = "give it arrays like those that it was trained on: {'audio': …}, or audio.npy"
    assert f"{rule}; {instead}. Found: 2 rows with a sound\n" in capsys.readouterr().err
    for sound in (tmp_path / "media").glob("*.wav"):
        sound.unlink()
    assert in_process("kfusion.predict", *words).returncode == 0
