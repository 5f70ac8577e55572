"""Dealing groups of rows to parts; and data of one modality or of three, from their files to a batch."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kfusion.config import AugmentConfig, DataConfig
from kfusion.data.dataset import ModalityData, Source
from kfusion.data.loaders import load
from kfusion.data.pipeline import TrainingReader, evaluation_batches, present_modalities, training_batches
from kfusion.data.splits import Split, deal, joined, split
from kfusion.modalities import modality, registered
from kfusion.modalities.base import Modality
from kfusion.random_streams import sample_keys
from kfusion.spec import ModalitySpec, Spec
from tests.folders import line

NUM = 60
SHAPES = {"image": (4, 4), "audio": (6,), "vector": (5,)}
SPLITS = ("clip", "random", "speaker")


class Vector(Modality):
    """Rows of numbers."""

    kind = "vector"
    noun = item_noun = "vector"
    array_file = "vector.npy"


@pytest.fixture(autouse=True)
def _third_kind():
    with registered(Vector()):
        yield


def write(folder: Path, names: tuple[str, ...]) -> Path:
    """The own layout, whose row i holds the number i everywhere and is of class i % 2; labels by name."""
    for name in names:
        np.save(
            folder / modality(name).array_file,
            np.ones(SHAPES[name]) * np.arange(NUM).reshape(NUM, *[1] * len(SHAPES[name])),
        )
    np.save(folder / "labels.npy", np.array(["a", "b"] * (NUM // 2)))
    return folder


def apart(*names: str) -> Source:
    """Rows of each modality that are no pairs; of the last one it is known who speaks."""
    rows = np.arange(NUM)
    data = {name: ModalityData(rows[:, None] + np.zeros(5), rows % 2, rows) for name in names}
    last = ModalityData(data[names[-1]].values, rows % 2, rows, speaker=rows // 2 % 3)
    spec = Spec({name: ModalitySpec("vector", (5,)) for name in names}, ("a", "b"))
    return Source({**data, names[-1]: last}, len(names) == 1, spec, {"name": "toy"}, ("ann", "bob", "eve"))


def check_parts(parts: Split, num: int) -> None:
    """Each part has its share of each class, and samples are of one class in every modality."""
    for part in (parts.train, parts.val, parts.test):
        assert len(part) and set(part.label.tolist()) == {0, 1}
        for values in part.read(np.arange(len(part))).values():
            np.testing.assert_array_equal(values.reshape(len(part), -1)[:, 0] % 2, part.label)
    assert sum(map(len, (parts.train, parts.val, parts.test))) == num


def test_rows_that_share_an_image_or_a_clip_hang_together_through_others():
    group = joined(np.array([0, 0, 1, 2, 3]), np.array([5, 6, 6, 7, 8]))
    assert group[0] == group[1] == group[2]
    assert len(np.unique(group)) == 3
    thrice = joined(np.array([0, 0, 1, 2, 3]), np.array([5, 6, 7, 8, 9]), np.array([1, 2, 3, 3, 1]))
    assert thrice[0] == thrice[1] == thrice[4] != thrice[2] == thrice[3]


def test_groups_of_several_classes_are_dealt_whole_and_to_each_part():
    people = np.repeat(np.arange(5), 40)
    part = deal(np.arange(200) % 2, people, 0.1, 0.1, np.random.default_rng(0))
    assert all(len(set(part[people == person])) == 1 for person in range(5))
    assert set(part) == {0, 1, 2}


def test_one_heavy_group_goes_to_training():
    group = np.concatenate([np.zeros(80, int), np.arange(1, 21)])
    for seed in range(5):
        part = deal(np.zeros(100, int), group, 0.1, 0.1, np.random.default_rng(seed))
        assert part[0] == 0
        assert set(part) == {0, 1, 2}


@pytest.mark.parametrize("names", [("image",), ("vector",), ("audio", "vector"), ("image", "audio", "vector")])
def test_the_own_layout_takes_any_of_the_kinds_files(tmp_path, names):
    source = load(DataConfig(data=str(write(tmp_path, names))))
    assert source.spec.names == names and source.aligned
    assert [f"{name}_range" in source.info for name in SHAPES] == [name in names for name in SHAPES]
    parts = split(source, DataConfig(val_share=0.2, test_share=0.2), 0)
    check_parts(parts, NUM)
    others = {"image": "audio.npy is", "vector": "images.npy and audio.npy are"}
    said = [f"only {names[0]}s: {others[names[0]]} not there"] if len(names) == 1 else []
    assert [note for note in source.notes if note.startswith("only")] == said
    batch, label = next(iter(evaluation_batches(parts.test, 4, names[-1])))
    assert set(batch) == {*names, "present"} and label.shape == (4,)
    np.testing.assert_array_equal(batch["present"], [[name == names[-1] for name in names]] * 4)


def test_labels_alone_or_rows_of_other_numbers_are_refused(tmp_path):
    write(tmp_path, ())
    assert "must hold images.npy or audio.npy or vector.npy, or several of them" in line(tmp_path)
    write(tmp_path, ("image", "vector"))
    np.save(tmp_path / "vector.npy", np.zeros((NUM - 1, 5)))
    assert line(tmp_path).endswith("vector.npy: must have as many rows as images.npy (60). Found: 59 rows")
    np.save(tmp_path / "vector.npy", np.zeros((NUM, 5, 5)))
    assert line(tmp_path).endswith("vector.npy: must have the shape (N, D). Found: shape (60, 5, 5)")
    np.save(tmp_path / "vector.npy", np.full((NUM, 5), 1e30))
    assert "vector features must be within" in line(tmp_path)


@pytest.mark.parametrize("names", [("image",), ("image", "audio", "vector")])
def test_named_groups_stay_in_one_part_with_any_number_of_modalities(tmp_path, names):
    groups = np.arange(NUM) // 4
    np.save(write(tmp_path, names) / "groups.npy", groups)
    parts = split(load(DataConfig(data=str(tmp_path))), DataConfig(val_share=0.2, test_share=0.2), 0)
    held = [set(groups[part.rows[names[-1]]]) for part in (parts.train, parts.val, parts.test)]
    assert sum(map(len, held)) == NUM // 4 and parts.audit.leaked_share_here == 0
    assert [" or groups" in each for each in parts.audit.lines()[: len(names)]] == [name == names[-1] for name in names]


@pytest.mark.parametrize("names", [("one",), ("one", "two", "three")])
@pytest.mark.parametrize("how", SPLITS)
def test_rows_that_are_no_pairs_meet_by_class_in_their_part(names, how):
    source = apart(*names)
    parts = split(source, DataConfig(split=how, val_share=0.2, test_share=0.2), 0)
    check_parts(parts, NUM)
    if how == "speaker":
        speaker = source[names[-1]].speaker
        assert speaker is not None
        heard = [set(speaker[part.rows[names[-1]]].tolist()) for part in (parts.train, parts.val, parts.test)]
        assert heard == [{0}, {1}, {2}]
    elif how == "clip":
        for name in names:
            sides = [set(part.rows[name].tolist()) for part in (parts.train, parts.val, parts.test)]
            assert not sides[0] & sides[1] and not (sides[0] | sides[1]) & sides[2]
    words = parts.audit.lines()
    assert words[: len(names)] == ["60 vectors, all different"] * len(names)
    assert words[len(names)].startswith("test rows whose vector is in training: ")


@pytest.mark.parametrize("names", [("one",), ("one", "two", "three")])
def test_batches_hold_every_modality_under_its_name(names):
    parts = split(apart(*names), DataConfig(), 0)
    reader = TrainingReader(parts.train, 16, 0, AugmentConfig(repair=True, wrong_sound=0.5), all_views=True)
    batches = list(training_batches(reader, None, 0.5, 0, 1))
    of_first = np.concatenate([batch["one"][:, 0] for batch, _ in batches])
    assert sorted(of_first) == sorted(parts.train.rows["one"])
    for batch, label in batches:
        assert set(batch) == {*names, "present"} and label.shape[1] == len(reader.pairs.spec.views)
        for place, name in enumerate(names):
            np.testing.assert_array_equal(batch[name][:, 0] % 2, label[:, 1 + place])


def test_modality_dropout_takes_each_as_often_and_never_the_only_one():
    keys = tf.constant(sample_keys(0, 0, np.arange(20_000)))
    lost = ~present_modalities(keys, 0.3, 3).numpy()
    assert lost.sum(axis=1).max() == 1 and lost.mean(axis=0) == pytest.approx(0.1, abs=0.01)
    assert present_modalities(keys, 1.0, 1).numpy().all()
