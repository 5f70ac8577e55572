"""Folders of files: the three layouts, and what they give."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kfusion.config import DataConfig
from kfusion.data.loaders import load
from kfusion.data.splits import split
from kfusion.spec import Spec
from tests.folders import NAMES, write_digits, write_own

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.mark.parametrize("layout", ["competition", "zenodo"])
@pytest.mark.parametrize("scale", [1.0, 255.0])
@pytest.mark.parametrize("shape", [(784,), (28, 28)])
def test_published_layouts_are_recognised_with_both_shapes_and_scales(tmp_path, layout, scale, shape):
    label = write_digits(tmp_path, layout, scale, shape)
    source = load(DataConfig(data=str(tmp_path)))
    assert source.info["layout"] == layout
    assert isinstance(source["image"].values, np.memmap) and isinstance(source["audio"].values, np.memmap)
    assert source.spec == Spec.pair(pixel_max=int(scale))
    np.testing.assert_array_equal(source["image"].label, label)
    np.testing.assert_array_equal(source["audio"].group[:30], source["audio"].group[30:])
    assert len(np.unique(source["image"].group)) == 60
    images, audio = source.pairs(dict.fromkeys(source.data, np.array([7]))).read(np.array([0])).values()
    np.testing.assert_array_equal(images.ravel(), source["image"].values[7].ravel().astype(np.float32))
    np.testing.assert_array_equal(audio[0], source["audio"].values[7].astype(np.float32))
    assert source.info["image_range"] == pytest.approx([0, scale])
    assert set(source.info["files"]) >= set(NAMES[layout][:3])


def test_zenodo_test_files_are_the_test_part(tmp_path):
    write_digits(tmp_path, "zenodo")
    result = split(load(DataConfig(data=str(tmp_path))), DataConfig(val_share=0.2), 0)
    assert (len(result.train), len(result.val), len(result.test)) == (40, 20, 20)
    assert Path(result.test.values["image"].filename).name == "data_wr_test.npy"  # pyright: ignore[reportAttributeAccessIssue]


def test_zenodo_without_test_labels_splits_the_training_files(tmp_path):
    write_digits(tmp_path, "zenodo")
    (tmp_path / "labels_test.npy").unlink()
    assert load(DataConfig(data=str(tmp_path))).official_test is None


def test_competition_test_files_count_only_with_labels_from_elsewhere(tmp_path):
    write_digits(tmp_path, "competition")
    assert load(DataConfig(data=str(tmp_path))).official_test is None
    source = load(DataConfig(data=str(tmp_path), test_labels=str(tmp_path / "hidden.csv")))
    assert source.official_test is not None
    assert source.official_test["image"].label.tolist() == (np.arange(20) % 10).tolist()
    assert source.official_test["audio"].group.min() >= 0
    assert not set(source.official_test["image"].group) & set(source["image"].group)


def test_clip_of_the_test_files_has_the_same_id_in_training(tmp_path):
    write_digits(tmp_path, "zenodo")
    audio = np.load(tmp_path / "data_sp_test.npy")
    audio[4] = np.load(tmp_path / "data_sp_train.npy")[14]
    np.save(tmp_path / "data_sp_test.npy", audio.astype(np.float32))
    source = load(DataConfig(data=str(tmp_path)))
    assert source.official_test is not None
    assert source.official_test["audio"].group[4] == source["audio"].group[14] == source["audio"].group[44]
    assert split(source, DataConfig(val_share=0.2), 0).audit.num_left_out == 2


def test_row_ids_decide_the_order_of_the_labels(tmp_path):
    label = write_digits(tmp_path, "competition")
    lines = [f"{row},{label[row]}" for row in np.random.default_rng(0).permutation(60)]
    (tmp_path / "y_train.csv").write_text("\ufeffrow_id,label\r\n" + "\r\n".join(lines) + "\r\n\r\n", encoding="utf-8")
    np.testing.assert_array_equal(load(DataConfig(data=str(tmp_path)))["image"].label, label)


@pytest.mark.parametrize(
    ("image_shape", "expected"), [((5, 4, 3), (5, 4, 3)), ((6, 7), (6, 7, 1)), ((784,), (28, 28, 1))]
)
def test_own_layout_takes_sizes_from_the_files(tmp_path, image_shape, expected):
    write_own(tmp_path, np.arange(30) % 3, image_shape)
    source = load(DataConfig(data=str(tmp_path)))
    assert (source.spec["image"].shape, source.spec["audio"].grid) == (expected, (1, 6))
    assert source.spec.class_names == ("0", "1", "2")
    images, audio = split(source, DataConfig(), 0).train.read(np.arange(2)).values()
    assert (images.shape, audio.shape) == ((2, *expected), (2, 6))


def test_own_layout_names_its_classes(tmp_path):
    write_own(tmp_path, np.array(["hen", "cat", "emu"] * 4), num_audio=507)
    source = load(DataConfig(data=str(tmp_path)))
    assert source.spec.class_names == ("cat", "emu", "hen")
    assert source["image"].label[:3].tolist() == [2, 0, 1]
    assert source.spec["audio"].grid == (39, 13)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("file,label,note\na,dog,x\nb,ox,y\n", ("dog", "ox")),
        ("file,kind\na,1\nb,0\n", ("0", "1")),
        ('kind\n"ox, old"\ndog\n', ("dog", "ox, old")),
    ],
)
def test_own_labels_may_be_a_csv(tmp_path, text, names):
    write_own(tmp_path, np.arange(2))
    (tmp_path / "labels.npy").unlink()
    (tmp_path / "labels.csv").write_text(text)
    source = load(DataConfig(data=str(tmp_path)))
    assert source.spec.class_names == names
    assert sorted(source["image"].label.tolist()) == [0, 1]


def test_groups_stay_in_one_part(tmp_path):
    write_own(tmp_path, np.arange(60) % 2)
    groups = np.array(["ann", "bob", "cat", "dan", "eve", "fay"])[np.arange(60) // 10]
    np.save(tmp_path / "groups.npy", groups)
    result = split(load(DataConfig(data=str(tmp_path))), DataConfig(), 0)
    people = [set(groups[part.rows["audio"]]) for part in (result.train, result.val, result.test)]
    assert sum(map(len, people)) == 6
    assert all(people)


def test_table_saved_column_by_column_is_read_alike(tmp_path):
    write_own(tmp_path, np.arange(30) % 3)
    audio = np.load(tmp_path / "audio.npy")
    np.save(tmp_path / "audio.npy", np.asfortranarray(audio))
    source = load(DataConfig(data=str(tmp_path)))
    pairs = source.pairs(dict.fromkeys(source.data, np.arange(30)))
    np.testing.assert_array_equal(pairs.read(np.array([3, 9]))["audio"], audio[[3, 9]])


def test_limit_uses_the_first_rows_of_each_class_and_keeps_row_numbers(tmp_path):
    write_digits(tmp_path, "zenodo")
    source = load(DataConfig(data=str(tmp_path), limit=30))
    assert source["image"].row.tolist() == list(range(30))
    assert source.official_test is not None and len(source.official_test["image"].label) == 20
    write_own(tmp_path / "own", np.array([0] * 20 + [1] * 20))
    source = load(DataConfig(data=str(tmp_path / "own"), limit=7))
    assert source["image"].row.tolist() == [0, 1, 2, 3, 20, 21, 22]
    assert split(source, DataConfig(), 0).test.rows["image"].max() <= 22


@pytest.mark.slow
def test_competition_files_hold_each_clip_many_times(tmp_path):
    script = SHARED / "make_competition.py"
    if not script.exists():
        pytest.skip(f"needs {script.name}, which is not part of the repository")
    command = [sys.executable, str(script), str(tmp_path), "--pairs", "6000", "--test", "500"]
    subprocess.run(command, check=True, capture_output=True)
    source = load(DataConfig(data=str(tmp_path), test_labels=str(tmp_path / "y_test_hidden.csv")))
    clips = np.load(tmp_path / "clip_train.npy")
    assert len(np.unique(source["audio"].group)) == len(np.unique(clips))
    assert len(np.unique(np.stack([source["audio"].group, clips]), axis=1).T) == len(np.unique(clips))
    audit = split(source, DataConfig(), 0).audit
    assert audit.leaked_share_here == 0 and audit.num_left_out == 0
    assert split(source, DataConfig(split="random"), 0).audit.leaked_share > 0.7
