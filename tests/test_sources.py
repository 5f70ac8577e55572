"""Several sources: one list of classes, rows that know where they come from, and what cannot agree."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kfusion.config import Config, DataConfig, config_from_json
from kfusion.data.dataset import ModalityData, Source
from kfusion.data.loaders import join, load
from kfusion.data.splits import split
from kfusion.evaluation.inference import other_data
from kfusion.metrics.classification import by_origin
from kfusion.plots.tables import Words, sources_table
from kfusion.spec import ModalitySpec, Spec
from kfusion.train import read_command
from kfusion.validation import UserError
from tests.folders import write_own
from tests.media import write_media
from tests.test_tables import shown


@pytest.fixture
def two(tmp_path):
    """Two folders of arrays; the second one lacks a class of the first, and has one of its own and groups."""
    write_own(tmp_path / "a", np.repeat(["cat", "dog", "owl"], 20))
    write_own(tmp_path / "b", np.repeat(["owl", "yak", "cat"], 20))
    for name in ("a", "b"):
        np.save(tmp_path / name / "groups.npy", np.arange(60) // 2)
    images = 255 - np.load(tmp_path / "b" / "images.npy")
    images[3] = np.load(tmp_path / "a" / "images.npy")[50]  # The same owl in both.
    np.save(tmp_path / "b" / "images.npy", images)
    np.save(tmp_path / "b" / "audio.npy", np.load(tmp_path / "b" / "audio.npy") + np.float32(0.01))
    return str(tmp_path / "a"), str(tmp_path / "b")


def test_classes_are_united_by_name_and_each_row_knows_its_source(two):
    source = load(DataConfig(data=two))
    assert source.spec.class_names == ("cat", "dog", "owl", "yak") and source.origins == ("a", "b")
    np.testing.assert_array_equal(source.anchor.label, np.repeat([0, 1, 2, 2, 3, 0], 20))
    np.testing.assert_array_equal(source.anchor.origin, np.repeat([0, 1], 60))
    assert source.info["name"] == "a + b" and source.info["files"]["b: labels.npy"] > 0
    own = [load(DataConfig(data=each)) for each in two]
    np.testing.assert_array_equal(source["audio"].values[60:], own[1]["audio"].values)


def test_groups_of_two_sources_differ_and_equal_rows_are_never_divided(two):
    source = load(DataConfig(data=two))
    group = source["audio"].group
    assert not set(group[:60]) & set(group[60:]) and len(set(group)) == 60
    assert source["image"].group[50] == source["image"].group[63]
    for seed in range(5):
        parts = split(source, DataConfig(data=two, val_share=0.2, test_share=0.2), seed)
        where = {row: part for part in ("train", "val", "test") for row in getattr(parts, part).positions["image"]}
        assert where[50] == where[63]
        for part in (parts.val, parts.test):  # Each class of each source in nearly the same share.
            origin = source.origin(part)["image"]
            counts = [np.bincount(part.label[origin == number], minlength=4) for number in (0, 1)]
            assert all(2 <= count <= 6 for count in [*counts[0][:3], *counts[1][[0, 2, 3]]])


def test_a_run_is_evaluated_on_several_sources_in_its_own_order_of_classes(two):
    trained = load(DataConfig(data=two))
    spec = replace(trained.spec, class_names=("yak", "owl", "dog", "cat"))
    facts = {"source": trained.info, **{f"{name}_range": trained.info[f"{name}_range"] for name in spec.names}}
    run: Any = SimpleNamespace(spec=lambda: spec, data=lambda: facts, config=Config)
    samples = other_data(run, two, "", 0, force=False)
    assert samples.name == "a + b" and len(samples.pairs) == 120 and samples.origins == ("a", "b")
    names = np.array(spec.class_names)[samples.pairs.label]
    assert names.tolist() == np.repeat(["cat", "dog", "owl", "owl", "yak", "cat"], 20).tolist()
    table = by_origin({"fused": np.eye(4)[samples.pairs.label]}, samples.pairs.label, samples.origin, samples.origins)
    assert {(row["source"], row["views"]["fused"]["num_rows"]) for row in table} >= {("a", 60), ("b", 60)}
    own: Any = SimpleNamespace(spec=lambda: spec, data=lambda: facts, config=lambda: Config(data=DataConfig(data=two)))
    with pytest.raises(UserError, match=r"a: --data must be other data than the run was trained on"):
        other_data(own, two, "", 0, force=False)
    alone = load(DataConfig(data=two[0])).spec.class_names
    with pytest.raises(UserError, match=r"classes must be those of the run"):
        other_data(run, two[0], "", 0, force=False)
    assert len(alone) == 3


def test_a_modality_that_one_source_lacks_is_absent_there(two, tmp_path):
    (tmp_path / "b" / "audio.npy").unlink()
    source = load(DataConfig(data=two))
    assert source.aligned and source["image"].present is None
    np.testing.assert_array_equal(source["audio"].present, np.repeat([True, False], 60))
    pairs = source.pairs({"image": np.array([0, 60]), "audio": np.array([0, 60])})
    assert {name: at.tolist() for name, at in source.origin(pairs).items()} == {"image": [0, 1], "audio": [0, -1]}


def test_what_cannot_agree_is_refused_in_a_line(two, tmp_path):
    write_own(tmp_path / "c", np.repeat(["cat", "dog"], 20), image_shape=(6, 6, 1))
    with pytest.raises(UserError, match=r"c: images must be as those of .*a \(.*\)\. Found: "):
        load(DataConfig(data=(two[0], str(tmp_path / "c"))))
    np.save(tmp_path / "b" / "audio.npy", 50 + 100 * np.load(tmp_path / "b" / "audio.npy"))
    with pytest.raises(UserError, match=r"b: sound features must be on the scale of .*a \(.* to .*\)\. Found: "):
        load(DataConfig(data=two))
    with pytest.raises(UserError, match=r"'data' must be one or more different sources"):
        DataConfig(data=(two[0], two[0]))
    with pytest.raises(UserError, match=r"'test_labels' must be empty with several sources"):
        load(DataConfig(data=two, test_labels="x.csv"))


def test_files_are_read_as_the_built_in_features_are_and_number_words_are_digits(tmp_path, monkeypatch):
    monkeypatch.setenv("KFUSION_CACHE", str(tmp_path / "cache"))
    write_media(tmp_path / "mine", 6, paired=True)
    both = ("builtin", str(tmp_path / "mine"))
    source = load(DataConfig(data=both))
    assert source.spec == load(DataConfig()).spec and not source.aligned
    new = source["audio"].origin == 1
    assert set(source["audio"].label[new]) == {1, 2, 3} and source["audio"].speaker is None
    assert "classes one to two are taken for digits" in source.notes
    assert any("mine: pairs are taken apart" in line for line in source.notes)
    # The recordings' own recipe, by which files can be read again.
    assert source.info["front_end"] == load(DataConfig(data=both[1], sound="word")).info["front_end"]
    parts = split(source, DataConfig(), 0)
    assert (source.origin(parts.test)["audio"] == 1).any()
    files = source.files(parts.test)["audio"]
    assert [Path(file).parents[1].name if file else "builtin" for file in files] == [
        "mine" if origin else "builtin" for origin in source.origin(parts.test)["audio"]
    ]
    limited = load(DataConfig(data=both, limit=30))
    origin = limited["image"].origin
    assert origin is not None and np.bincount(origin)[0] == 30


def test_files_of_several_sources_are_read_by_the_features_that_the_settings_name(tmp_path, monkeypatch):
    monkeypatch.setenv("KFUSION_CACHE", str(tmp_path / "cache"))
    folders = [str(tmp_path / name) for name in ("mine", "yours")]
    for folder, classes in zip(folders, (("one", "two"), ("two", "three")), strict=True):
        write_media(Path(folder), 4, paired=False, classes=classes)
    named: dict[str, Any] = {"sound": "word", "word_features": "log-mel", "word_copies": 1}
    of_one, of_both = (load(DataConfig(data=data, **named)) for data in (folders[0], tuple(folders)))
    assert of_both.spec["audio"] == of_one.spec["audio"] and "log-mel" in of_both.spec["audio"].front_end
    copies = of_both["audio"].copies
    assert copies is not None and len(copies) == len(of_both["audio"]) and copies.any(axis=(1, 2)).all()
    # Beside ready-made features they are read as these were.
    assert load(DataConfig(data=("builtin", folders[0]), **named)).spec == load(DataConfig()).spec


def test_accuracy_is_told_by_source():
    answers = {"fused": np.eye(2)[[0, 1, 0, 0]], "image": np.eye(2)[[0, 1, 0, 1]], "audio": np.eye(2)[[1, 1, 0, 0]]}
    label, both = np.array([0, 1, 1, 1]), {"image": np.array([0, 0, 1, 1]), "audio": np.array([0, 0, -1, 1])}
    first, second = by_origin(answers, label, both, ("a", "b"))
    assert first["views"]["audio"] == {"accuracy": 0.5, "num_errors": 1, "num_rows": 2}
    assert second["views"]["fused"]["num_errors"] == 2 and second["views"]["audio"]["num_rows"] == 1
    apart = by_origin(answers, label, {"image": np.zeros(4, int), "audio": np.array([0, 1, 0, 1])}, ("a", "b"))
    assert [(each["modality"], each["source"], sorted(each["views"])) for each in apart] == [
        ("image", "a", ["fused", "image"]),
        ("audio", "a", ["audio", "fused"]),
        ("audio", "b", ["audio", "fused"]),
    ]
    words = Words({"image": "image", "audio": "sound"}, ("image", "clip"))
    assert shown(sources_table(apart, words))[-1].split() == ["sounds", "of", "b", "0.5000", "0.5000", "2"]


def test_the_command_line_and_json_take_several():
    settings = read_command(["--data", "builtin", "x", "--epochs", "3"]).settings
    assert settings.data.data == ("builtin", "x") and settings.data.sources == ("builtin", "x")
    assert read_command(["--data", "x"]).settings.data.data == "x"
    assert config_from_json({"data": {"data": ["builtin", "x"]}}) == Config(DataConfig(data=("builtin", "x")))


def test_official_parts_are_those_of_all_or_of_none(two):
    first, second = (load(DataConfig(data=each)) for each in two)
    own = replace(first, official_test=first.take(dict.fromkeys(first.data, np.arange(4))))
    with pytest.raises(UserError, match=r"a: sources must all have test files of their own or none. Found: none in b"):
        join({"a": own, "b": second})
    both = join({"a": own, "b": replace(second, official_test=second.take(dict.fromkeys(second.data, np.arange(6))))})
    assert both.official_test is not None and len(both.official_test.anchor) == 10
    np.testing.assert_array_equal(both.official_test["image"].group[:4], both["image"].group[:4])


def test_of_two_sources_each_is_heard_as_often_however_few_its_rows():
    large, small = 90, 10
    sound = ModalityData(np.arange(100.0)[:, None], np.repeat([0, 1], 50), np.arange(100))
    origin = np.r_[np.zeros(large, int), np.ones(small, int)]  # Class 1 alone has both.
    sound = replace(sound, origin=origin)
    image = ModalityData(np.arange(400.0)[:, None], np.repeat([0, 1], 200), np.arange(400))
    spec = Spec({"one": ModalitySpec("vector", (1,)), "two": ModalitySpec("vector", (1,))}, ("a", "b"))
    source = Source({"one": image, "two": sound}, False, spec)
    pairs = source.pairs({"one": np.arange(400), "two": np.resize(np.arange(50), 400) + 50 * image.label})
    again = pairs.take(np.arange(400)).repaired(np.random.default_rng(0))
    heard = origin[again.positions["two"]]
    assert (sound.label[again.positions["two"]] == again.label).all()
    assert not heard[:200].any()
    assert 70 < heard[200:].sum() < 130
