"""Broken folders and arrays: each gives one line that names the file, the rule and what was found."""

import os
from pathlib import Path

import numpy as np
import pytest

from kfusion.config import DataConfig
from kfusion.data.loaders import load
from tests.folders import line, write_digits, write_own


def change(folder: Path, name: str, **cells: object) -> None:
    """Sets single values: `r3=nan` is the first value of row 3."""
    array = np.load(folder / name)
    for row, value in cells.items():
        array[int(row[1:])].flat[0] = value
    np.save(folder / name, array)


@pytest.fixture
def digits(tmp_path):
    write_digits(tmp_path / "digits", "competition")
    return tmp_path / "digits"


@pytest.fixture
def own(tmp_path):
    write_own(tmp_path / "own", np.arange(30) % 3)
    return tmp_path / "own"


def test_folder_that_does_not_exist(tmp_path):
    assert "No such file or directory" in line(tmp_path / "nowhere")


def test_file_in_place_of_a_folder(digits):
    assert "must have the columns image, audio and label" in line(digits / "y_train.csv")
    assert "must be one of .csv, .tsv, .txt, .xlsx, .parquet" in line(digits / "x_train_wr.npy")


def test_unknown_layout_lists_what_is_there_and_what_would_do(tmp_path):
    assert line(tmp_path).endswith("Found: an empty folder")
    (tmp_path / "notes.txt").write_text("hello")
    text = line(tmp_path)
    assert text.endswith("Found: notes.txt")
    assert all(name in text for name in ("x_train_wr.npy", "data_wr_train.npy", "images.npy", "labels.csv"))


@pytest.mark.parametrize("name", ["x_train_wr.npy", "x_train_sp.npy", "y_train.csv"])
def test_missing_file_and_folder_in_its_place(digits, name):
    (digits / name).unlink()
    assert line(digits) == f"{digits / name}: must exist. Found: no such file"
    (digits / name).mkdir()
    assert line(digits) == f"{digits / name}: must be a file. Found: a folder"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="this user may read everything")
def test_file_that_may_not_be_read(digits):
    (digits / "x_train_wr.npy").chmod(0)
    assert "must be a file that can be read. Found: Permission denied" in line(digits)


@pytest.mark.parametrize(
    ("array", "rule"),
    [
        (np.zeros((60, 783)), "must have the shape (N, 784) or (N, 28, 28). Found: shape (60, 783)"),
        (np.zeros((60, 28, 27)), "must have the shape (N, 784) or (N, 28, 28). Found: shape (60, 28, 27)"),
        (np.zeros(60), "must have the shape (N, 784) or (N, 28, 28). Found: shape (60,)"),
        (np.float64(3), "must have at least one row and one value a row. Found: shape ()"),
        (np.zeros((0, 784)), "must have at least one row and one value a row. Found: shape (0, 784)"),
        (np.zeros((60, 784), complex), "must hold numbers. Found: dtype complex128"),
        (np.full((60, 784), "a"), "must hold numbers. Found: dtype <U1"),
        (np.zeros((60, 784), "M8[s]"), "must hold numbers. Found: dtype datetime64[s]"),
        (np.zeros((60, 784), [("a", "f4")]), "must hold numbers. Found: dtype [('a', '<f4')]"),
        (np.full((60, 784), None), "must hold numbers, not pickled Python objects. Found: dtype object"),
    ],
)
def test_image_files_of_another_kind(digits, array, rule):
    np.save(digits / "x_train_wr.npy", array, allow_pickle=True)
    assert line(digits) == f"{digits / 'x_train_wr.npy'}: {rule}"


def test_audio_of_another_width(digits):
    np.save(digits / "x_train_sp.npy", np.zeros((60, 506)))
    assert line(digits).endswith("x_train_sp.npy: must have the shape (N, 507) or (N, 39, 13). Found: shape (60, 506)")


def test_own_audio_and_images_of_another_shape(own):
    rule = "audio.npy: must have the shape (N, D) or (N, frames, coefficients)"
    for shape in ((30,), (30, 2, 4, 4), (30, 4, 4, 4, 1)):
        np.save(own / "audio.npy", np.zeros(shape))
        assert line(own).endswith(f"{rule}. Found: shape {shape}")
    np.save(own / "images.npy", np.zeros((30, 20)))
    assert line(own).endswith(
        "images.npy: must have the shape (N, H, W), (N, H, W, C) or (N, 784). Found: shape (30, 20)"
    )


def test_unequal_lengths(digits):
    np.save(digits / "x_train_sp.npy", np.zeros((59, 507)))
    assert line(digits).endswith("x_train_sp.npy: must have as many rows as x_train_wr.npy (60). Found: 59 rows")
    write_digits(digits, "competition")
    (digits / "y_train.csv").write_text("row_id,label\n0,1\n")
    assert line(digits).endswith("y_train.csv: must have as many rows as x_train_wr.npy (60). Found: 1 rows")


@pytest.mark.parametrize("name", ["x_train_wr.npy", "x_train_sp.npy"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e200])
def test_nan_and_infinity_name_the_first_row(digits, name, value):
    change(digits, name, r41=value, r57=value)
    assert line(digits).endswith(
        f"{name}: values must be finite (and within float32). Found: NaN or infinity in row 41"
    )


def test_sounds_of_absurd_size(digits):
    change(digits, "x_train_sp.npy", r41=-3e38)
    rule = "x_train_sp.npy: audio features must be within -1e+18 and 1e+18. Found: -3e+38 to 0.99"
    assert rule in line(digits)


@pytest.mark.parametrize(("value", "found"), [(-0.5, "-0.5 to 1"), (256, "0 to 256"), (1.25, "0 to 1.25")])
def test_pixels_on_no_known_scale(digits, value, found):
    change(digits, "x_train_wr.npy", r3=value)
    assert line(digits).endswith(f"x_train_wr.npy: pixels must be in 0-1 or in 0-255. Found: {found}")


def test_test_files_on_another_scale(digits):
    change(digits, "x_test_wr.npy", r3=200)
    text = line(digits, test_labels=str(digits / "hidden.csv"))
    assert text.endswith("x_test_wr.npy: pixels must be on the scale of x_train_wr.npy (0-1). Found: 0-255")


def test_test_labels_without_test_files(digits):
    (digits / "x_test_sp.npy").unlink()
    assert line(digits, test_labels="nowhere.csv") == "nowhere.csv: must exist. Found: no such file"
    text = line(digits, test_labels=str(digits / "hidden.csv"))
    assert text.endswith("x_test_sp.npy: must exist. Found: no such file")


def test_test_labels_with_another_layout(own):
    assert "'test_labels' must be empty unless the data are in the competition's layout" in line(
        own, test_labels="y.csv"
    )


def test_truncated_and_foreign_npy_files(digits):
    path = digits / "x_train_wr.npy"
    whole = path.read_bytes()
    for content, rule in (
        (whole[:-8], "must hold all the values of its shape (60, 784). Found: a file of only"),
        (whole[:60], "must have a readable .npy header. Found: "),
        (whole[:7], "must have a readable .npy header. Found: "),
        (b"", "must be an .npy file. Found: nothing"),
        (b"1,2,3\n", "must be an .npy file. Found: a file that begins with b'1,2,3\\n'"),
        (b"PK\x03\x04", "must be an .npy file. Found: an .npz archive"),
        (whole[:6] + b"\x09\x00" + whole[8:], "must be an .npy file of version 1 or 2. Found: version 9.0"),
        (whole.replace(b"(60, 784)", b"(-60,784)"), "must hold all the values of its shape (-60, 784). Found: "),
        (whole.replace(b"'<f8'", b"'<q8'"), "must have a readable .npy header. Found: "),
    ):
        path.write_bytes(content)
        assert line(digits).startswith(f"{path}: {rule}")


def test_damaged_headers_never_give_more_than_one_line(digits):
    path = digits / "x_train_wr.npy"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(whole)
        for place in rng.integers(6, 128, rng.integers(1, 4)):
            content[place] = rng.integers(256)
        path.write_bytes(content)
        try:
            load(DataConfig(data=str(digits)))
        except ValueError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
