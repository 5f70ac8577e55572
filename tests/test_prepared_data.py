"""What a run is made of: which settings decide the split, when data are read again, and whether they are unchanged."""

from dataclasses import replace

import numpy as np
import pytest

from kfusion.config import Config, DataConfig
from kfusion.exporting.exporter import Options, export
from kfusion.exporting.model_store import ModelStore
from kfusion.io import read_json
from kfusion.prepared_data import MissingData, gather, load_own, regather
from kfusion.run_dir import Run
from tests.exports import EXTRAS
from tests.folders import write_digits, write_own


@pytest.fixture
def own(tmp_path) -> Config:
    write_digits(tmp_path / "data", "zenodo")
    return Config(data=DataConfig(data=str(tmp_path / "data")))


def rows(prepared):
    return {name: values.tolist() for name, values in prepared.rows().items()}


def seeded(config: Config, seed: int, split_seed: int = -1) -> Config:
    data, training = replace(config.data, split_seed=split_seed), replace(config.training, seed=seed)
    return replace(config, data=data, training=training)


def test_the_split_seed_decides_the_split_alone(own):
    assert rows(gather(seeded(own, 1))) != rows(gather(seeded(own, 2)))
    assert rows(gather(seeded(own, 1, split_seed=5))) == rows(gather(seeded(own, 2, split_seed=5)))
    assert rows(gather(seeded(own, 5))) == rows(gather(seeded(own, 2, split_seed=5)))


def test_the_same_data_are_not_read_again(own):
    prepared = gather(seeded(own, 0))
    config = seeded(replace(own, model=replace(own.model, hidden_dim=8)), 3, split_seed=0)
    again = regather(prepared, config)
    assert again.source is prepared.source and again.parts is prepared.parts
    assert again.config == gather(config).config
    assert rows(again) == rows(gather(config))


def test_another_split_or_another_normalisation_is_gathered_anew(own):
    prepared = gather(seeded(own, 0))
    assert rows(regather(prepared, seeded(own, 1))) == rows(gather(seeded(own, 1)))
    trimmed = replace(own, model=replace(own.model, utterance_trim=0.3))
    again = regather(prepared, trimmed)
    assert not np.allclose(again.statistics.prepared_mean["audio"], prepared.statistics.prepared_mean["audio"])


@pytest.fixture
def run(own, tmp_path) -> Run:
    """A run folder with what is known before the first step."""
    prepared, run = gather(own), Run(tmp_path / "run")
    run.folder.mkdir()
    run.write_arrays("split.npz", prepared.rows())
    run.write_json("data.json", prepared.facts())
    run.write_json("config.json", own.to_json())
    return run


def brighten(data):
    np.save(data / "data_wr_train.npy", np.load(data / "data_wr_train.npy") * 255)
    np.save(data / "data_wr_test.npy", np.load(data / "data_wr_test.npy") * 255)


def lengthen(data):
    for name in ("data_wr_train", "data_sp_train", "labels_train"):
        values = np.load(data / f"{name}.npy")
        np.save(data / f"{name}.npy", np.concatenate([values, values[:10]]))


@pytest.mark.parametrize(("change", "found"), [(brighten, "another image_range"), (lengthen, "another files")])
def test_changed_data_are_refused(run, tmp_path, change, found):
    assert load_own(run)[1].test.rows["image"].tolist() == run.split()["test_image"].tolist()
    change(tmp_path / "data")
    line = f"the data must be those that the run was trained on\\. Found: {found}$"
    store, nothing = ModelStore(tmp_path / "models", "kfusion"), None
    with pytest.raises(ValueError, match=line):
        load_own(run)
    with pytest.raises(ValueError, match=line):
        export(run, nothing, store, Options())  # pyright: ignore[reportArgumentType]
    assert not store.root.exists()


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_file_for_another_runtime_is_not_made_of_changed_data_either(run, tmp_path, extra):
    lengthen(tmp_path / "data")
    store, nothing = ModelStore(tmp_path / "models", "kfusion"), None
    with pytest.raises(ValueError, match=r"the data must be those that the run was trained on\. Found: another files$"):
        export(run, nothing, store, Options(format=extra))  # pyright: ignore[reportArgumentType]
    assert not store.root.exists()


def test_data_that_are_gone_are_told_apart_from_other_data(run, tmp_path):
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    with pytest.raises(MissingData, match="the run's data must be where they were at training"):
        load_own(run)


def test_what_is_only_remarked_of_the_data_may_change(run):
    facts = read_json(run.folder / "data.json")
    facts["source"] |= {"licence": "an older text", "num_ignored": 3}
    run.write_json("data.json", facts)
    load_own(run)


def test_a_split_that_heeds_no_groups_says_so(tmp_path):
    write_own(tmp_path, np.array(["Cat", "cat", "dog"])[np.arange(60) % 3])
    said = "groups.npy is not heeded: a random split divides rows alone; --split clip keeps groups together"
    data = DataConfig(data=str(tmp_path))
    random = replace(data, split="random")
    for config, groups, expected in ((random, False, False), (data, True, False), (random, True, True)):
        if groups:
            np.save(tmp_path / "groups.npy", np.arange(60) // 2)
        lines = gather(Config(data=config)).lines()
        assert (said in lines) == expected
        assert "classes that differ only by case, taken as different ones: 'Cat' and 'cat'" in lines
