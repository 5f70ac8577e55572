"""`python -m kfusion.predict` on arrays: what it reads, what it answers, what it refuses."""

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kfusion.io import write_json
from kfusion.metrics.classification import temper
from kfusion.prediction import inputs as stream
from kfusion.prediction.job import Job, predict
from kfusion.spec import FUSED
from kfusion.validation import UserError
from tests.exports import copied, views
from tests.inputs import digits, write_arrays
from tests.processes import in_process

COMPETITION = ("x_test_wr.npy", "x_test_sp.npy")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """So that a few rows make several batches, the last one smaller."""
    monkeypatch.setattr(stream, "BATCH_ROWS", 16)


def test_a_submission_is_the_runs_answers_in_the_inputs_order(trained_run, tmp_path, monkeypatch, capsys):
    images, audio = digits(40)
    write_arrays(tmp_path / "data", images, audio)
    assert in_process("kfusion.predict", trained_run, tmp_path / "data", "--out", tmp_path / "out.csv").returncode == 0
    expected = views(trained_run, images, audio)[FUSED].argmax(axis=1)
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines == ["row_id,label", *(f"{row},{label}" for row, label in enumerate(expected))]
    assert len(set(expected)) > 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out.csv"]
    assert "images.npy and audio.npy of" in capsys.readouterr().out


def test_the_full_format_tells_each_vote_and_whether_they_agree(trained_run, tmp_path):
    images, audio = digits(40)
    write_arrays(tmp_path / "data", images, audio)
    predict(Job(trained_run, tmp_path / "data", tmp_path / "out.csv", full=True))
    table, expected = pd.read_csv(tmp_path / "out.csv"), views(trained_run, images, audio)
    columns = ["label", "confidence", "image_label", "image_confidence", "audio_label", "audio_confidence", "agree"]
    assert list(table) == ["row_id", *columns, "image_share", "audio_share"]
    for view, prefix in ((FUSED, ""), ("image", "image_"), ("audio", "audio_")):
        assert table[f"{prefix}label"].tolist() == expected[view].argmax(axis=1).tolist()
        np.testing.assert_allclose(table[f"{prefix}confidence"], expected[view].max(axis=1), atol=2e-6)
    assert table["agree"].tolist() == (table["image_label"] == table["audio_label"]).tolist()
    assert 0 < table["agree"].sum() < 40


def test_calibration_tempers_confidences_and_changes_no_label(trained_run, tmp_path, monkeypatch, capsys):
    run, (images, audio) = copied(trained_run, tmp_path / "run"), digits(20)
    write_arrays(tmp_path / "data", images, audio)
    # Not below 1.3, to which the temperature of what is unfamiliar rises.
    temperature = {"fused": 2.0, "image": 3.0, "audio": 1.5}
    write_json(run / "calibration.json", {"temperature": temperature})
    flags = (run, tmp_path / "data", "--out", tmp_path / "out.csv", "--format", "full")
    assert in_process("kfusion.predict", *flags).returncode == 0
    assert "tempered by calibration.json" in capsys.readouterr().out
    table, expected = pd.read_csv(tmp_path / "out.csv"), views(run, images, audio)
    assert table["label"].tolist() == expected[FUSED].argmax(axis=1).tolist()
    for view, column in ((FUSED, "confidence"), ("image", "image_confidence"), ("audio", "audio_confidence")):
        tempered = temper(expected[view], temperature[view]).max(axis=1)
        np.testing.assert_allclose(table[column], tempered, atol=1e-5)


@pytest.mark.parametrize(
    ("scale", "kind", "order"),
    [(1, np.uint8, np.asarray), (1, np.float64, np.asfortranarray), (1 / 255, np.float32, np.asarray)],
)
def test_pixels_may_be_on_either_scale_and_files_in_either_order(scale, kind, order, trained_run, tmp_path):
    images, audio = digits(20)
    write_arrays(tmp_path / "data", order((images.reshape(20, 784) * scale).astype(kind)), order(audio))
    predict(Job(trained_run, tmp_path / "data", tmp_path / "out.csv"))
    expected = views(trained_run, images, audio)[FUSED].argmax(axis=1)
    assert pd.read_csv(tmp_path / "out.csv")["label"].tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("test_names", "train_names"),
    [
        (COMPETITION, ("x_train_wr.npy", "x_train_sp.npy")),
        (("data_wr_test.npy", "data_sp_test.npy"), ("data_wr_train.npy", "data_sp_train.npy")),
    ],
)
def test_the_test_files_are_read_unless_others_are_asked_for(
    test_names, train_names, trained_run, tmp_path, monkeypatch, capsys
):
    images, audio = digits(30)
    write_arrays(tmp_path / "data", images[:10], audio[:10], test_names)
    write_arrays(tmp_path / "data", images[10:], audio[10:], train_names)
    expected = views(trained_run, images, audio)[FUSED].argmax(axis=1).tolist()
    for flags, name, wanted in (
        ((), test_names[0], expected[:10]),
        (("--part", "train"), train_names[0], expected[10:]),
    ):
        flags = (*flags, "--out", tmp_path / f"{name}.csv")
        assert in_process("kfusion.predict", trained_run, tmp_path / "data", *flags).returncode == 0
        assert f"input: {name} and " in capsys.readouterr().out
        assert pd.read_csv(tmp_path / f"{name}.csv")["label"].tolist() == wanted


def test_images_alone_are_answered(trained_run, tmp_path):
    images, audio = digits(20)
    write_arrays(tmp_path / "data", images, audio)
    (tmp_path / "data" / "audio.npy").unlink()
    predict(Job(trained_run, tmp_path / "data", tmp_path / "out.csv", full=True))
    table = pd.read_csv(tmp_path / "out.csv")
    expected = views(trained_run, images, audio)["image"].argmax(axis=1).tolist()
    assert table["label"].tolist() == table["image_label"].tolist() == expected
    assert table[["audio_label", "audio_confidence", "agree"]].isna().all(axis=None)


@pytest.mark.parametrize("model", ["trained_run", "exported_model"])
def test_bad_rows_are_listed_and_cost_nobody_elses_answer(model, trained_run, tmp_path, capsys, request):
    model = request.getfixturevalue(model)
    images, audio = digits(40)
    expected = views(trained_run, images, audio)[FUSED].argmax(axis=1)
    audio[3, 100], audio[25, 7], pixels = np.nan, -3e38, images.astype(np.float32)
    pixels[17, 5, 5], pixels[33, 0, 0] = np.inf, 300
    write_arrays(tmp_path / "data", pixels, audio)
    assert in_process("kfusion.predict", model, tmp_path / "data", "--out", tmp_path / "out.csv").returncode == 1
    said = capsys.readouterr().err
    assert said == f"kfusion: 4 rows have no prediction; the reasons are in {tmp_path}/out.errors.csv\n"
    errors = pd.read_csv(tmp_path / "out.errors.csv")
    assert errors["row_id"].tolist() == [3, 17, 25, 33]
    assert errors["reason"][0] == "audio: values must be finite (and within float32). Found: NaN or infinity"
    assert errors["reason"][2].startswith("audio: values must be within -720000 and 720000. Found: -3e+38 to ")
    assert errors["reason"][3].startswith("image: pixels must be in 0-255, as most of the input's are. Found: ")
    label = pd.read_csv(tmp_path / "out.csv")["label"]
    assert np.flatnonzero(label.isna()).tolist() == [3, 17, 25, 33]
    assert (label.dropna() == expected[label.notna()]).all()


def test_strict_stops_at_the_first_bad_row(trained_run, tmp_path, monkeypatch, capsys):
    images, audio = digits(40)
    audio[[20, 30]] = np.nan
    write_arrays(tmp_path / "data", images, audio)
    words = (trained_run, tmp_path / "data", "--out", tmp_path / "out.csv", "--strict")
    assert in_process("kfusion.predict", *words).returncode == 2
    said = capsys.readouterr().err
    assert "Found: row 20: audio: values must be finite" in said and said.count("\n") == 1
    assert not (tmp_path / "out.csv").exists()


def test_sounds_on_another_scale_are_refused_with_both_ranges(trained_run, tmp_path, monkeypatch, capsys):
    images, audio = digits(40)
    scaled = (audio - audio.min(axis=0)) / (audio.max(axis=0) - audio.min(axis=0))
    write_arrays(tmp_path / "data", images, scaled)
    flags = (trained_run, tmp_path / "data", "--out", tmp_path / "out.csv")
    assert in_process("kfusion.predict", *flags).returncode == 2
    said = capsys.readouterr().err
    assert "audio.npy: audio features must be on the scale of the training data (-7" in said
    assert "Found: 0 to 1" in said and said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert in_process("kfusion.predict", *flags, "--force").returncode == 0


@pytest.mark.parametrize(("package", "words"), [("ray", ("--engine", "ray")), ("pyarrow", ("--out", "out.parquet"))])
def test_a_missing_extra_is_one_line_that_names_the_command(package, words, trained_run, tmp_path, monkeypatch, capsys):
    write_arrays(tmp_path / "data", *digits(4))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)  # Python's own way to say that it is not installed.
    assert in_process("kfusion.predict", trained_run, "data", *words).returncode == 2
    said, extra = capsys.readouterr().err, {"pyarrow": "parquet"}.get(package, package)
    assert f"need{'s' * (package == 'ray')} the extra: pip install 'kfusion[{extra}]'" in said
    assert said.endswith(f"Found: no package {package}\n") and said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("gone", "data"), "gone: MODEL must be a run folder or an exported version. Found: no such folder"),
        (("data", "data"), "data: MODEL must be a run folder or an exported version. Found: neither"),
        (("models", "data"), "Found: versions 1, 12; name one of them"),
        (("RUN", "gone"), "gone: INPUT must exist. Found: no such file or folder"),
        (("RUN", "models"), "models: INPUT must hold the .npy files of a layout, or PNG, JPEG, WebP, "),
        (("RUN", "text.txt"), "text.txt: must have the columns image and audio, or one of them. Found: no columns"),
        (("RUN", "wide"), "images.npy: rows must have the model's 28 × 28 × 1 values. Found: shape (4, 30, 30)"),
        (("RUN", "uneven"), "audio.npy: must have as many rows as images.npy (4). Found: 3 rows"),
        (("RUN", "between"), "images.npy: pixels must be in 0-1 or in 0-255. Found: -1 to 1"),
        (("RUN", "data", "--out", "folder/out.csv"), "folder/out.csv.partial: a job needs a folder of its own"),
        (("RUN", "data", "--out", "out.txt"), "'out' must end in .csv or .parquet. Received: 'out.txt'"),
        (("RUN", "data", "--out", "gone/out.csv"), "gone: the output's folder must exist"),
        (
            ("RUN", "data", "--out", "d.d/a.csv", "--overwrite"),
            "'out' must be a file. Received: 'd.d/a.csv'",
        ),
        (("RUN", "data", "--out", "old.csv"), "old.csv: existing predictions are kept"),
        (("RUN", "data", "--ray-address", "x"), "'ray_address' needs '--engine ray'. Received: 'x'"),
        (("RUN", "data", "--workers", "0"), "'workers' must be ≥ 1. Received: 0"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(words, sentence, trained_run, tmp_path, monkeypatch, capsys):
    images, audio = digits(4)
    write_arrays(tmp_path / "data", images, audio)
    write_arrays(tmp_path / "wide", np.zeros((4, 30, 30)), audio)
    write_arrays(tmp_path / "uneven", images, audio[:3])
    write_arrays(tmp_path / "between", images / 127.5 - 1, audio)
    for name in ("models/1", "models/12", "folder/out.csv.partial/of somebody", "d.d/a.csv"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("text.txt", "old.csv"):
        (tmp_path / name).touch()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    assert in_process("kfusion.predict", *(trained_run if word == "RUN" else word for word in words)).returncode == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1 and said.startswith("kfusion: ")
    assert sorted(tmp_path.rglob("*")) == before


def test_windows_are_of_files_and_replace_nothing_unasked(trained_run, tmp_path):
    write_arrays(tmp_path / "data", *digits(4))
    job = Job(trained_run, tmp_path / "data", tmp_path / "out.csv", windows=tmp_path / "windows.csv")
    with pytest.raises(UserError, match=r"'windows' must be left out unless INPUT names files"):
        predict(job)
    (tmp_path / "windows.csv").write_text("mine")
    with pytest.raises(UserError, match=r"'windows' must be a new file without --overwrite"):
        predict(job)
    with pytest.raises(UserError, match=r"'windows' must be a \.csv file"):
        predict(replace(job, windows=tmp_path / "windows.txt"))
    assert (tmp_path / "windows.csv").read_text() == "mine" and not (tmp_path / "out.csv").exists()
