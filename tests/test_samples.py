"""X and y as a program gives them: what is understood, and the one line for what is not."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from kfusion.config import DataConfig
from kfusion.data import in_memory as own
from kfusion.data.dataset import Classes, encode, of_names, read_classes, write_classes
from kfusion.data.in_memory import read_samples, write_samples
from kfusion.data.loaders import load
from kfusion.data.media_files import read_manifest
from kfusion.prediction.arrays import rows_of
from kfusion.prediction.inputs import Arrays
from kfusion.spec import Spec
from kfusion.validation import UserError

SMALL = Spec.pair((2, 3, 1), (2, 2), ("a", "b"))
NAMES = SMALL.names
IMAGES, SOUNDS = np.arange(24.0).reshape(4, 2, 3), np.arange(16.0).reshape(4, 4)


@pytest.mark.parametrize(
    ("X", "files", "present"),
    [
        ([("a.png", "a.wav"), ("b.png", None)], [("a.png", "a.wav"), ("b.png", "")], [[1, 1], [1, 0]]),
        (("a.png", Path("a.wav")), [("a.png", "a.wav")], [[1, 1]]),
        ({"image": np.array(["a.png", "b.png"])}, [("a.png", ""), ("b.png", "")], [[1, 0], [1, 0]]),
        ({"audio": "a.wav"}, [("", "a.wav")], [[0, 1]]),
        (
            pd.DataFrame({"image": ["a.png", np.nan], "audio": [None, "b.wav"], "other": 1}),
            [("a.png", ""), ("", "b.wav")],
            [[1, 0], [0, 1]],
        ),
    ],
)
def test_files_in_every_form(X, files, present):
    samples = read_samples(X)
    assert samples.are_files
    assert samples.names(NAMES) == files
    assert samples.where_present(NAMES).astype(int).tolist() == present


@pytest.mark.parametrize(
    "X",
    [
        {"image": IMAGES, "audio": SOUNDS},
        {"image": IMAGES.tolist(), "audio": list(SOUNDS)},
        list(zip(IMAGES, SOUNDS, strict=True)),
        pd.DataFrame({"image": list(IMAGES), "audio": list(SOUNDS), "label": list("abab")}),
    ],
)
def test_arrays_in_every_form(X):
    samples = read_samples(X)
    assert not samples.are_files
    np.testing.assert_array_equal(samples.columns["image"], IMAGES)
    np.testing.assert_array_equal(samples.columns["audio"], SOUNDS)


def test_cells_without_an_array_are_absent_and_zero():
    samples = read_samples({"image": IMAGES, "audio": [SOUNDS[0], None, np.nan, SOUNDS[3]]})
    assert samples.present["audio"].tolist() == [True, False, False, True]
    np.testing.assert_array_equal(samples.columns["audio"][1:3], 0)


@pytest.mark.parametrize(
    "X", [{"image": IMAGES[0]}, {"image": IMAGES[0][..., None], "audio": SOUNDS[0]}, {"audio": SOUNDS[0]}]
)
def test_an_array_without_an_axis_of_rows_is_one_row(X):
    assert len(rows_of(read_samples(X, SMALL), SMALL)) == 1


def test_images_may_have_their_channels_first():
    spec = Spec.pair((4, 5, 3), (2, 2), ("a", "b"))
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5), dtype=np.uint8)
    rows = rows_of(read_samples({"image": images}, spec), spec)
    batch = rows.read(0, 2)
    assert isinstance(batch, Arrays)
    np.testing.assert_allclose(batch.values["image"] * 255, np.moveaxis(images, 1, -1), rtol=1e-6)


def test_a_sound_may_be_frames_and_coefficients():
    rows = rows_of(read_samples({"audio": SOUNDS.reshape(4, 2, 2)}, SMALL), SMALL)
    batch = rows.read(0, 4)
    assert isinstance(batch, Arrays)
    np.testing.assert_array_equal(batch.values["audio"], SOUNDS)


@pytest.mark.parametrize(
    ("X", "sentence"),
    [
        (
            np.zeros((4, 3)),
            "'X' must be {'image': …, 'audio': …, 'vector': …}, a DataFrame .* Received: an array",
        ),
        ({"img": IMAGES}, "'X' must have the keys image, audio and vector. Received: 'img'"),
        ({}, "Received: dict without an image or a sound"),
        (pd.DataFrame({"label": [1]}), "Received: DataFrame without an image or a sound"),
        ({"image": IMAGES, "audio": SOUNDS[:3]}, "as many images as sounds. Received: 4 and 3"),
        ({"image": IMAGES[:0]}, "'X' must have at least one row. Received: none"),
        ({"image": IMAGES[:1], "audio": ["a.wav"]}, "paths alone or arrays alone. Received: both"),
        ({"image": [IMAGES[0], "b.png"]}, "'image' must hold paths alone or arrays alone. Received: both"),
        ({"image": [IMAGES[0], IMAGES[1][:1]]}, r"one shape, \(2, 3\). Received: shape \(1, 3\) in row 1"),
        ({"image": [object()]}, r"'image' must hold paths or arrays. Received: shape \(\), object in row 0"),
        ([("a.png", "a.wav", "b.wav")], "a picture and a sound. Found: 3 values in row 0"),
        (["a.png", "a.wav"], "'X' must be .* Received: list"),
    ],
)
def test_what_is_not_understood_is_one_line(X, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        read_samples(X)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("X", "sentence"),
    [
        ({"image": np.zeros((4, 5, 5))}, r"X\['image'\]: rows must have the model's 2 × 3 × 1 values. Found: shape"),
        ({"audio": np.zeros((4, 5))}, r"X\['audio'\]: rows must have the model's .*\. Found: shape \(4, 5\)"),
        ([(IMAGES[0], None), (None, None)], "each row must have an image or a sound. Found: neither in row 1"),
    ],
)
def test_rows_that_a_model_cannot_take_are_one_line(X, sentence):
    with pytest.raises(UserError, match=sentence):
        rows_of(read_samples(X, SMALL), SMALL)


@pytest.mark.parametrize(
    ("label", "values", "names"),
    [
        ([7, 3, 7], [3, 7], ("3", "7")),
        (np.array([-1, 1, 1], np.int8), [-1, 1], ("-1", "1")),
        (["b", "a", "a"], ["a", "b"], ("a", "b")),
        (np.array([b"b", b"a"]), ["a", "b"], ("a", "b")),
        (pd.Series(["x", "y", "x"], dtype="category"), ["x", "y"], ("x", "y")),
        (pd.Series([2, 5], dtype="Int64"), [2, 5], ("2", "5")),
        ([2.0, 1.0], [1.0, 2.0], ("1", "2")),
        ([True, False], [False, True], ("False", "True")),
        (np.array([[1], [0]]), [0, 1], ("0", "1")),
    ],
)
def test_labels_of_any_values_come_back_as_they_were(label, values, names, tmp_path):
    codes, classes = encode(label)
    assert classes.values.tolist() == values
    assert classes.names == names
    assert classes.values[codes].tolist() == np.asarray(label).reshape(-1).astype(classes.values.dtype).tolist()
    write_classes(tmp_path, classes)
    again = read_classes(tmp_path / "kfusion_classes.json")
    assert again.values.tolist() == values
    assert again.values.dtype == classes.values.dtype


@pytest.mark.parametrize(
    ("label", "sentence"),
    [
        (["a", None], "each row must have a label, a text or a whole number. Found: none in row 1"),
        ([1.5, 2], "must hold texts or whole numbers. Received: 1.5 in row 0"),
        ([np.nan, 1.0], "must hold texts or whole numbers. Received: nan in row 0"),
        (["a", "a"], "at least two classes. Received: only 'a'"),
        (["a", "a "], "differ by more than spaces. Found: 'a'"),
        (["a", " "], "texts that are not empty"),
        (np.array(["a", 1], object), "texts or whole numbers, not both"),
        (np.eye(3), r"must have the shape \(N,\), N ≥ 1. Received: shape \(3, 3\)"),
        (np.array(["2020-01-01"], "M8[D]"), "Received: dtype datetime64"),
    ],
)
def test_labels_that_mean_nothing_are_one_line(label, sentence):
    with pytest.raises(UserError, match=sentence):
        encode(label)


def test_labels_must_be_among_those_that_are_known():
    known = Classes(np.array([7, 3]))
    assert encode([3, 7, 3], known=known)[0].tolist() == [1, 0, 1]
    with pytest.raises(UserError, match=r"classes of the run \(7, 3\). Received: 5"):
        encode([3, 5], known=known)


def test_classes_that_came_as_names_are_numbers_where_they_count_from_0():
    assert of_names(("0", "1", "2")).values.tolist() == [0, 1, 2]
    assert of_names(("1", "2")).values.tolist() == ["1", "2"]


def test_arrays_are_kept_with_their_classes_and_groups(tmp_path):
    samples = read_samples({"image": IMAGES.astype(np.uint8), "audio": SOUNDS.reshape(4, 2, 2)})
    written = write_samples(tmp_path / "data", samples, [7, 3, 7, 3], ["x", "x", "y", "y"])
    source = load(DataConfig(data=str(written)))
    assert source.spec.class_names == ("3", "7")
    assert source["image"].label.tolist() == [1, 0, 1, 0]
    assert source.spec["audio"].grid == (2, 2)
    assert source.info["grouped_by"] == "groups.npy"


def test_known_classes_may_be_absent_from_the_labels(tmp_path):
    samples = read_samples({"image": IMAGES, "audio": SOUNDS})
    known = Classes(np.array(["c", "a", "b"]))
    written = write_samples(tmp_path / "data", samples, ["a", "b", "a", "b"], None, known)
    source = load(DataConfig(data=str(written)))
    assert source.spec.class_names == ("c", "a", "b")
    assert source["image"].label.tolist() == [1, 2, 1, 2]


def test_files_stay_where_they_are_and_are_named_in_a_manifest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b, c.png", "a.wav", "b.wav"):
        Path(name).touch()
    samples = read_samples(
        pd.DataFrame({"image": ["a.png", "b, c.png"], "audio": ["a.wav", "b.wav"], "speaker": [1, 2]})
    )
    written = write_samples(tmp_path / "data", samples, [12, 3], None)
    listing = read_manifest(written)
    assert listing.class_names == ("3", "12")
    images, sounds = listing.items.values()
    assert images[1].path == tmp_path / "b, c.png"
    assert (images[1].label, sounds[0].speaker, images[0].group) == ("3", "1", "")


def test_labels_that_a_table_reads_otherwise_are_refused_before_training(tmp_path, monkeypatch):
    found = SimpleNamespace(spec=SimpleNamespace(class_names=("1", "2")))
    monkeypatch.setattr(own, "load", lambda *_: found)
    samples = read_samples([("a.png", "a.wav"), ("b.png", "b.wav")])
    with (
        pytest.raises(UserError, match=r"'y': labels of files .* Found: '1\.0'"),
        own.own_data(samples, ["1.0", "2"], None, tmp_path / "run", DataConfig()),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", ["{", '{"dtype": "<i8"}', '{"dtype": "no", "values": [1, 2]}', '{"dtype": "<i8", "values": [1, 1]}']
)
def test_damaged_classes_are_one_line(content, tmp_path):
    path = tmp_path / "kfusion_classes.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"kfusion_classes\.json: "):
        read_classes(path)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [(np.array([0, 2]), "codes of the 2 classes"), (np.array([0.5, 1]), "must hold codes of classes")],
)
def test_codes_must_mean_classes(labels, sentence, tmp_path):
    np.save(tmp_path / "images.npy", IMAGES[:2])
    np.save(tmp_path / "audio.npy", SOUNDS[:2])
    np.save(tmp_path / "labels.npy", labels)
    (tmp_path / "kfusion_classes.json").write_text(json.dumps({"dtype": "<i8", "values": [1, 2]}))
    with pytest.raises(UserError, match=f"labels.npy: .*{sentence}"):
        load(DataConfig(data=str(tmp_path)))
