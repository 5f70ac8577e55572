"""Splits: nothing on two sides, each class in each part, and an audit that counts right."""

from dataclasses import replace

import numpy as np
import pytest

from kfusion.config import DataConfig
from kfusion.data.dataset import ModalityData, Source
from kfusion.data.loaders import load
from kfusion.data.splits import Repeats, split
from kfusion.spec import Spec

SPEC = Spec.pair(image_shape=(1, 1, 1), audio_grid=(1, 1), class_names=("a", "b"))


def aligned(label, image_group=None, audio_group=None, **fields) -> Source:
    """An aligned source whose rows hold their own number."""
    label = np.asarray(label)
    rows = np.arange(len(label))
    image_group = rows if image_group is None else np.asarray(image_group)
    audio_group = rows if audio_group is None else np.asarray(audio_group)
    array = rows[:, None].astype(np.float64)
    data = {"image": ModalityData(array, label, image_group), "audio": ModalityData(array, label, audio_group)}
    return Source(data, True, SPEC, {"name": "toy"}, **fields)


def apart(num_images=200, num_clips=120, num_speakers=6) -> Source:
    """Images and clips of two classes, not paired."""
    images, clips = np.arange(num_images), np.arange(num_clips)
    data = {
        "image": ModalityData(np.zeros((num_images, 1)), images % 2, images),
        "audio": ModalityData(np.zeros((num_clips, 1)), clips % 2, clips, speaker=clips // 2 % num_speakers),
    }
    return Source(data, False, SPEC, {"name": "toy"}, tuple("uvwxyz"[:num_speakers]))


def repeated_clips() -> Source:
    """600 rows, each clip on two of them; a few images occur twice."""
    label = np.repeat(np.arange(300) % 2, 2)
    image_group = np.arange(600)
    image_group[40:44] = image_group[0:4]
    return aligned(label, image_group, np.repeat(np.arange(300), 2))


@pytest.mark.parametrize("seed", range(5))
def test_split_keeps_every_clip_and_every_image_on_one_side(seed):
    source = repeated_clips()
    result = split(source, DataConfig(), seed)
    for group in (source["image"].group, source["audio"].group):
        sides = [set(group[part.rows["image"]].tolist()) for part in (result.train, result.val, result.test)]
        assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    rows = np.concatenate([part.rows["image"] for part in (result.train, result.val, result.test)])
    np.testing.assert_array_equal(np.sort(rows), np.arange(600))


@pytest.mark.parametrize("name", ["clip", "random"])
def test_parts_have_the_shares_asked_for_in_each_class(name):
    result = split(repeated_clips(), DataConfig(split=name, val_share=0.2, test_share=0.1), 0)
    for part, share in ((result.train, 0.7), (result.val, 0.2), (result.test, 0.1)):
        np.testing.assert_allclose(np.bincount(part.label), 300 * share, atol=4)


def test_audit_counts_repeats_and_what_a_random_split_lets_through():
    source = repeated_clips()
    clip, random = (split(source, DataConfig(split=name), 0) for name in ("clip", "random"))
    audit = clip.audit
    assert audit.repeats == {"image": Repeats("image", 600, 596, 4), "audio": Repeats("clip", 600, 300, 300)}
    train, test = random.train.rows["audio"] // 2, random.test.rows["audio"] // 2
    assert audit.leaked_share == random.audit.leaked_share == random.audit.leaked_share_here
    assert audit.leaked_share == pytest.approx(np.mean(np.isin(test, train)), abs=4 / 60)
    assert audit.leaked_share_here == 0
    assert audit.lines()[1] == "600 clips, 300 different, 300 of these more than once"
    grouped = replace(repeated_clips(), info={"grouped_by": "groups.npy"})
    words = split(grouped, DataConfig(), 0).audit.lines()[1]
    assert words == "600 clips or groups, 300 different, 300 of these more than once"


def test_same_seed_gives_the_same_split_and_another_seed_another():
    rows = [split(repeated_clips(), DataConfig(), seed).test.rows["image"].tolist() for seed in (1, 1, 2)]
    assert rows[0] == rows[1] != rows[2]


@pytest.mark.parametrize("name", ["clip", "random", "speaker"])
def test_unpaired_images_meet_a_clip_of_their_class_once_each(name):
    source = apart()
    result = split(source, DataConfig(split=name), 0)
    images = np.concatenate([part.rows["image"] for part in (result.train, result.val, result.test)])
    np.testing.assert_array_equal(np.sort(images), np.arange(200))
    for part in (result.train, result.val, result.test):
        np.testing.assert_array_equal(part.label, part.rows["image"] % 2)
        np.testing.assert_array_equal(part.label, part.rows["audio"] % 2)
    assert (len(result.train), len(result.val), len(result.test)) == (160, 20, 20)
    shared = set(result.train.rows["audio"].tolist()) & set(result.test.rows["audio"].tolist())
    assert bool(shared) == (name == "random")


@pytest.mark.parametrize(
    ("test", "val", "expected"),
    [
        ((), (), ("z", "y")),
        (("w",), (), ("w", "v")),
        (("u",), (), ("u", "z")),
        (("u", "z"), (), ("u z", "y")),
        ((), ("z",), ("y", "z")),
        (("v",), ("u", "x"), ("v", "u x")),
    ],
)
def test_named_people_are_held_out_and_others_follow_in_the_table(test, val, expected):
    source = apart()
    result = split(source, DataConfig(split="speaker", test_speakers=test, val_speakers=val), 0)
    speaker = source["audio"].speaker
    assert speaker is not None
    people = [set(speaker[p.rows["audio"]].tolist()) for p in (result.train, result.val, result.test)]
    assert people[2] == {"uvwxyz".index(name) for name in expected[0].split()}
    assert people[1] == {"uvwxyz".index(name) for name in expected[1].split()}
    assert people[0] == set(range(6)) - people[1] - people[2]
    assert result.audit.lines()[-1].startswith(f"people held out: {', '.join(result.audit.test_speakers)} (test)")


def test_official_test_files_are_the_test_part_and_their_contents_leave_training():
    label = np.arange(100) % 2
    official = aligned([0, 1, 1], image_group=[500, 501, 502], audio_group=[7, 601, 602])
    source = aligned(label, official_test=official)
    clip = split(source, DataConfig(val_share=0.2), 0)
    assert len(clip.test) == 3
    assert 7 not in clip.train.rows["image"] and 7 not in clip.val.rows["image"]
    assert clip.audit.num_left_out == 1
    assert len(clip.train) + len(clip.val) == 99
    assert abs(len(clip.val) - 20) <= 1
    random = split(source, DataConfig(split="random", val_share=0.2), 0)
    assert (len(random.train), len(random.val), random.audit.num_left_out) == (80, 20, 0)
    assert random.audit.leaked_share_here in (0, pytest.approx(1 / 3))


def test_own_validation_files_are_the_validation_part_and_a_test_part_is_dealt():
    own = aligned([0, 1, 1], image_group=[500, 501, 502], audio_group=[7, 8, 602])
    result = split(aligned(np.arange(100) % 2, official_val=own), DataConfig(test_share=0.2), 0)
    assert result.val.label.tolist() == [0, 1, 1] and len(result.train) + len(result.test) == 98
    assert abs(len(result.test) - 20) <= 1 and result.audit.num_left_out == 2
    rows = set(result.train.rows["image"].tolist()) | set(result.test.rows["image"].tolist())
    assert not rows & {7, 8} and len(rows) == 98
    assert "2 training rows left out: their clip or image is in the validation or test files" in result.audit.lines()


@pytest.mark.parametrize("name", ["clip", "random"])
def test_own_files_that_are_no_pairs_meet_by_class_in_their_part(name):
    own = apart(10, 8)
    own = replace(own, data={name: replace(each, group=500 + each.group) for name, each in own.data.items()})
    result = split(replace(apart(), official_test=own), DataConfig(split=name, val_share=0.25), 0)
    assert (len(result.train), len(result.val), len(result.test)) == (150, 50, 10)
    for part in (result.train, result.val, result.test):
        np.testing.assert_array_equal(part.label, part.rows["audio"] % 2)
    assert result.audit.num_left_out == 0 and result.audit.leaked_share_here == 0


def test_own_validation_files_must_hold_every_class():
    own = aligned([0, 0], image_group=[500, 501], audio_group=[600, 602])
    with pytest.raises(ValueError, match=r"none left for the validation part of class 'b' \(rows: 0"):
        split(aligned(np.arange(100) % 2, official_val=own), DataConfig(), 0)


def test_three_rows_of_a_class_are_one_for_each_part():
    result = split(aligned([0, 0, 0, 1, 1, 1]), DataConfig(), 0)
    for part in (result.train, result.val, result.test):
        assert sorted(part.label.tolist()) == [0, 1]


@pytest.mark.parametrize(
    "source", [aligned([0] * 20 + [1] * 2), aligned([0] * 20 + [1] * 9, None, [*range(20)] + [77] * 9)]
)
def test_class_with_too_few_rows_or_groups_is_refused(source):
    with pytest.raises(ValueError, match=r"toy: each class must have rows for each part, 3 at least.*class 'b'"):
        split(source, DataConfig(), 0)


def test_class_without_a_clip_is_refused():
    source = apart()
    source.data["audio"] = replace(source["audio"], label=np.zeros(120, int))
    for name in ("clip", "random"):
        with pytest.raises(ValueError, match=r"toy: the .* needs a clip of each class. Found: none of class 'b'"):
            split(source, DataConfig(split=name), 0)


@pytest.mark.parametrize(
    ("source", "config", "message"),
    [
        (aligned([0, 1] * 9), DataConfig(split="speaker"), "toy does not say who speaks. Received: 'speaker'"),
        (
            apart(),
            DataConfig(split="speaker", test_speakers=("bob",)),
            "must be among u, v, w, x, y, z. Received: 'bob'",
        ),
        (apart(), DataConfig(test_speakers=("u",)), "must be empty unless split=speaker. Received: u"),
        (apart(num_speakers=2), DataConfig(split="speaker"), "must leave somebody of u, v for each part"),
        (apart(num_speakers=1), DataConfig(split="speaker"), "must leave somebody of u for each part"),
    ],
)
def test_impossible_choices_of_people_are_refused(source, config, message):
    with pytest.raises(ValueError, match=message):
        split(source, config, 0)


def test_builtin_digits_split_evenly_and_leak_only_at_random():
    source = load(DataConfig())
    clip, random = (split(source, DataConfig(split=name), 0) for name in ("clip", "random"))
    assert [len(part) for part in (clip.train, clip.val, clip.test)] == [4000, 500, 500]
    assert np.bincount(clip.test.label).tolist() == [50] * 10
    assert clip.audit.leaked_share_here == 0
    assert random.audit.leaked_share_here > 0.5
