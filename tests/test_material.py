"""What a run is made of: which settings decide the split, and when data are read again."""

from dataclasses import replace

import numpy as np
import pytest

from kfusion.config import Config, DataConfig
from kfusion.material import gather, regather
from tests.folders import write_digits


@pytest.fixture
def own(tmp_path) -> Config:
    write_digits(tmp_path / "data", "zenodo")
    return Config(data=DataConfig(data=str(tmp_path / "data")))


def rows(material):
    return {name: values.tolist() for name, values in material.rows().items()}


def seeded(config: Config, seed: int, split_seed: int = -1) -> Config:
    data, training = replace(config.data, split_seed=split_seed), replace(config.training, seed=seed)
    return replace(config, data=data, training=training)


def test_the_split_seed_decides_the_split_alone(own):
    assert rows(gather(seeded(own, 1))) != rows(gather(seeded(own, 2)))
    assert rows(gather(seeded(own, 1, split_seed=5))) == rows(gather(seeded(own, 2, split_seed=5)))
    assert rows(gather(seeded(own, 5))) == rows(gather(seeded(own, 2, split_seed=5)))


def test_the_same_data_are_not_read_again(own):
    material = gather(seeded(own, 0))
    config = seeded(replace(own, model=replace(own.model, hidden_dim=8)), 3, split_seed=0)
    again = regather(material, config)
    assert again.source is material.source and again.parts is material.parts
    assert again.config == config
    assert rows(again) == rows(gather(config))


def test_another_split_or_another_normalisation_is_gathered_anew(own):
    material = gather(seeded(own, 0))
    assert rows(regather(material, seeded(own, 1))) == rows(gather(seeded(own, 1)))
    trimmed = replace(own, model=replace(own.model, utterance_trim=0.3))
    again = regather(material, trimmed)
    assert not np.allclose(again.statistics.prepared_mean, material.statistics.prepared_mean)
