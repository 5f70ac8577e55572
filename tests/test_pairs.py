"""Pairs: reading rows, from memory and from files, and pairing them anew."""

import numpy as np
import pytest

from kfusion.data.array_files import group_ids, read_rows, scan
from kfusion.data.dataset import ModalityData, Pairs, Source, pair_by_label
from kfusion.spec import Spec

SPEC = Spec.pair(image_shape=(2, 3, 1), audio_grid=(1, 4), class_names=("a", "b"), pixel_max=255)


def make_pairs(images: np.ndarray, audio: np.ndarray, label: list[int]) -> Pairs:
    rows = np.arange(len(label))
    return Pairs({"image": images, "audio": audio}, {"image": rows, "audio": rows}, np.array(label), SPEC)


def numbered(num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and sounds that tell by their values which row they are."""
    images = np.arange(num_rows * 6, dtype=np.uint8).reshape(num_rows, 6)
    return images, np.arange(num_rows * 4, dtype=np.float64).reshape(num_rows, 4) / 8


def test_read_returns_float32_in_the_datas_own_units():
    pairs = make_pairs(*numbered(4), [0, 0, 1, 1])
    images, audio = pairs.read(np.array([2, 0])).values()
    assert images.dtype == audio.dtype == np.float32
    np.testing.assert_array_equal(images[..., 0], [[[12, 13, 14], [15, 16, 17]], [[0, 1, 2], [3, 4, 5]]])
    np.testing.assert_array_equal(audio, [[1, 1.125, 1.25, 1.375], [0, 0.125, 0.25, 0.375]])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, ">f8"])
@pytest.mark.parametrize("rows", [[], [3], [0, 1, 2, 3, 4], [4, 4, 0, 1, 3], [2, 1, 0]])
def test_rows_of_a_file_are_the_rows_of_the_array(tmp_path, dtype, rows):
    array = np.arange(30).reshape(5, 3, 2).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    rows = np.array(rows, np.int64)
    np.testing.assert_array_equal(read_rows(mapped, rows), array[rows])
    np.testing.assert_array_equal(read_rows(mapped[1:, ::2], rows[rows < 4]), array[1:, ::2][rows[rows < 4]])
    np.testing.assert_array_equal(read_rows(np.moveaxis(mapped, 1, -1), rows), np.moveaxis(array, 1, -1)[rows])
    np.save(tmp_path / "columns.npy", np.asfortranarray(array))
    by_column = np.load(tmp_path / "columns.npy", mmap_mode="r")
    assert not by_column.flags.c_contiguous
    np.testing.assert_array_equal(read_rows(by_column, rows), array[rows])
    np.testing.assert_array_equal(read_rows(np.moveaxis(by_column, 1, -1), rows), np.moveaxis(array, 1, -1)[rows])


def test_rows_whose_axes_were_moved_are_read_past_the_mapping(tmp_path, monkeypatch):
    array = np.arange(120).reshape(5, 3, 4, 2)
    np.save(tmp_path / "a.npy", array)
    moved = np.moveaxis(np.load(tmp_path / "a.npy", mmap_mode="r"), 1, -1)
    monkeypatch.setattr(np.memmap, "__getitem__", lambda *_: pytest.fail("read through the mapping"))
    moved.filename = str((tmp_path / "a.npy").rename(tmp_path / "b.npy"))
    np.testing.assert_array_equal(read_rows(moved, np.array([4, 0, 1])), np.moveaxis(array, 1, -1)[[4, 0, 1]])


def test_rows_outside_a_file_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((5, 3)))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    for row in (-1, 5):
        with pytest.raises(IndexError, match=r"'rows' must be in \[0, 5\)"):
            read_rows(mapped, np.array([row]))


@pytest.mark.parametrize("order", [np.ascontiguousarray, np.asfortranarray])
def test_file_that_shrinks_while_it_is_read_is_noticed(tmp_path, order):
    np.save(tmp_path / "a.npy", order(np.zeros((5, 3))))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    with open(tmp_path / "a.npy", "r+b") as file:
        file.truncate(150)
    with pytest.raises(ValueError, match=r"a.npy: must not change while it is read"):
        read_rows(mapped, np.array([4]))


def test_pairing_by_label_uses_each_clip_equally_often():
    label = np.array([0] * 7 + [1] * 4)
    pool_label = np.array([1, 0, 0, 1, 0])
    partner = pair_by_label(label, pool_label, np.random.default_rng(0))
    np.testing.assert_array_equal(pool_label[partner], label)
    assert sorted(np.bincount(partner)[[1, 2, 4]].tolist()) == [2, 2, 3]
    assert np.bincount(partner)[[0, 3]].tolist() == [2, 2]


def test_pairing_without_a_clip_of_the_class_is_refused():
    with pytest.raises(ValueError, match=r"must hold every label. Received: none of class 2"):
        pair_by_label(np.array([0, 2]), np.array([0, 1]), np.random.default_rng(0))


def test_repaired_keeps_images_and_labels_and_moves_clips_within_the_class():
    label = np.arange(400) % 2
    pairs = make_pairs(np.zeros((400, 6)), np.zeros((400, 4)), label.tolist())
    again = pairs.repaired(np.random.default_rng(1))
    np.testing.assert_array_equal(again.rows["image"], pairs.rows["image"])
    np.testing.assert_array_equal(again.label, label)
    np.testing.assert_array_equal(label[again.rows["audio"]], label)
    assert np.mean(again.rows["audio"] == pairs.rows["audio"]) < 0.1
    assert len(np.unique(again.rows["audio"])) == 400


def test_repaired_stays_among_the_parts_own_clips():
    rows = {"image": np.arange(4), "audio": np.array([2, 5, 7, 2])}
    pairs = Pairs({"image": np.zeros((9, 6)), "audio": np.zeros((9, 4))}, rows, np.array([0, 1, 1, 0]), SPEC)
    assert set(pairs.repaired(np.random.default_rng(0)).rows["audio"].tolist()) == {2, 5, 7}


def test_repaired_is_decided_by_its_generator():
    pairs = make_pairs(np.zeros((50, 6)), np.zeros((50, 4)), [0, 1] * 25)
    first, same, other = (pairs.repaired(np.random.default_rng(seed)).rows["audio"] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, same)
    assert np.any(first != other)


def test_conflicting_pairs_have_a_clip_of_another_class():
    label = np.arange(2000) % 2
    pairs = make_pairs(np.zeros((2000, 6)), np.zeros((2000, 4)), label.tolist())
    again = pairs.repaired(np.random.default_rng(0), conflict=0.3)
    np.testing.assert_array_equal(again.label, label)
    np.testing.assert_array_equal(label[again.rows["audio"]], again.labels["audio"])
    assert 0.25 < np.mean(again.labels["audio"] != label) < 0.35
    assert np.all(pairs.repaired(np.random.default_rng(0), conflict=1.0).labels["audio"] != label)


def test_conflict_outside_0_to_1_is_refused():
    with pytest.raises(ValueError, match=r"'conflict' must be in \[0, 1\]. Received: 1.5"):
        make_pairs(*numbered(2), [0, 1]).repaired(np.random.default_rng(0), 1.5)


def test_source_pairs_go_through_the_rows_in_use():
    images, audio = numbered(4)
    label, rows = np.array([0, 1]), np.array([1, 3])
    data = {name: ModalityData(each, label, rows, rows) for name, each in (("image", images), ("audio", audio))}
    pairs = Source(data, True, SPEC).pairs({"image": np.array([1]), "audio": np.array([0])})
    assert (pairs.rows["image"].tolist(), pairs.rows["audio"].tolist(), pairs.label.tolist()) == ([3], [1], [1])


def test_equal_rows_get_equal_ids_whatever_their_number_type(tmp_path):
    values = np.array([[0, 255, 3], [1, 2, 3], [0, 255, 3], [0, 255, 4]])
    np.save(tmp_path / "a.npy", values.astype(np.float64))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    rows = np.arange(4)
    in_file, in_memory = group_ids(scan(mapped, rows).fingerprint, scan(values.astype(np.uint8), rows).fingerprint)
    np.testing.assert_array_equal(in_file, in_memory)
    assert in_file[0] == in_file[2]
    assert len(np.unique(in_file)) == 3


def test_fingerprints_of_many_similar_rows_are_all_different():
    # Each row has one bright pixel: differences that sit in few and high bits.
    rows = np.zeros((784 * 100, 784), np.float32)
    rows[np.arange(len(rows)), np.arange(len(rows)) % 784] = 1 + np.arange(len(rows)) // 784
    assert group_ids(scan(rows, np.arange(len(rows))).fingerprint)[0].max() == len(rows) - 1


def test_scan_finds_the_range_and_the_first_row_that_is_not_finite():
    array = np.linspace(-2, 5, 4000).reshape(1000, 4)
    found = scan(array, np.arange(1000))
    assert (found.low, found.high, found.bad_row) == (-2, 5, None)
    for value in (np.nan, np.inf, -np.inf, 1e300):
        array[[700, 900], 2] = value
        assert scan(array, np.arange(1000)).bad_row == 700


def several_rows() -> Source:
    """A source that uses rows out of order and several times: image row 2, and sound row 1 under two labels."""
    images, audio = numbered(3)
    label, speaker = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2])
    data = {
        "image": ModalityData(images, label, np.array([7, 8, 7, 9]), np.array([2, 0, 2, 1])),
        "audio": ModalityData(audio, label, np.array([5, 4, 6, 5]), np.array([1, 2, 0, 1]), speaker),
    }
    return Source(data, True, SPEC, {"name": "s", "front_end": None}, ("ann", "bob", "cid"))


def test_pairs_know_their_places_in_a_source_that_uses_rows_several_times():
    source = several_rows()
    pairs = source.pairs(dict.fromkeys(source.data, np.array([3, 0, 2])))
    assert pairs.rows["audio"].tolist() == [1, 1, 0]
    assert pairs.positions["audio"].tolist() == pairs.positions["image"].tolist() == [3, 0, 2]
    some = pairs.take(np.array([2, 0]))
    assert some.positions["image"].tolist() == [2, 3]
    assert (some.rows["audio"].tolist(), some.label.tolist()) == ([0, 1], [1, 1])


def test_a_sound_of_two_classes_is_paired_anew_in_both():
    source = several_rows()
    again = source.pairs(dict.fromkeys(source.data, np.arange(4))).repaired(np.random.default_rng(0), conflict=0.5)
    np.testing.assert_array_equal(source["audio"].label[again.positions["audio"]], again.labels["audio"])
    np.testing.assert_array_equal(source["audio"].row[again.positions["audio"]], again.rows["audio"])
