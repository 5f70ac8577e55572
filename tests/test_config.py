"""Settings: validated once, written and read without loss."""

import json
from dataclasses import replace

import pytest

from kfusion.config import AugmentConfig, Config, DataConfig, ModelConfig, TrainingConfig, config_from_json, differences
from kfusion.recipes import RECIPES, recipe
from kfusion.run_dir import load_config


@pytest.mark.parametrize(
    ("kind", "values", "sentence"),
    [
        (ModelConfig, {"dropout": 1.5}, r"'dropout' must be in \[0, 1\). Received: 1.5"),
        (ModelConfig, {"embed_dim": 0}, "'embed_dim' must be ≥ 1. Received: 0"),
        (ModelConfig, {"filters": ()}, r"'filters' must be one or more sizes ≥ 1. Received: \(\)"),
        (AugmentConfig, {"rotation": 0.6}, r"'rotation' must be in \[0, 0.5\] turns. Received: 0.6"),
        (AugmentConfig, {"wrong_sound": 0.1}, "'wrong_sound .*' must be 0 unless 'repair' is on. Received: 0.1"),
        (TrainingConfig, {"epochs": 0}, "'epochs' must be ≥ 1. Received: 0"),
        (
            DataConfig,
            {"val_share": 0.6, "test_share": 0.6},
            "'val_share \\+ test_share' must be below 1. Received: 1.2",
        ),
        (DataConfig, {"test_speakers": ("a",), "val_speakers": ("a",)}, r"Received: \['a'\]"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_rule(kind, values, sentence):
    with pytest.raises(ValueError, match=sentence):
        kind(**values)


@pytest.mark.parametrize("name", RECIPES)
def test_a_config_read_back_is_the_config_written(name, tmp_path):
    path = tmp_path / "config.json"
    changed = replace(recipe(name), model=ModelConfig(filters=(3, 4, 5), dropout=0.25))
    path.write_text(json.dumps(changed.to_json()))
    assert load_config(path) == changed


def test_settings_left_out_keep_their_defaults():
    assert config_from_json({"training": {"epochs": 3}}) == Config(training=TrainingConfig(epochs=3))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "the file must be JSON. Found:"),
        ("[]", "a config must be a JSON object. Received: list"),
        ('{"modle": {}}', r"'config' must be made of data, model, augment, training. Received: \['modle'\]"),
        ('{"model": {"embed": 1}}', r"'model' must be made of .*. Received: \['embed'\]"),
        ('{"model": {"embed_dim": "big"}}', "'embed_dim' must be of type int. Received: 'big'"),
        ('{"model": {"embed_dim": true}}', "'embed_dim' must be of type int. Received: True"),
        ('{"model": {"fusion": "magic"}}', "'fusion' must be one of lstm, attention, late. Received: 'magic'"),
        ('{"model": {"filters": ["a"]}}', r"'filters' must be a list of int. Received: \('a',\)"),
        ('{"data": {"split": "foo"}}', "'split' must be one of clip, random, speaker. Received: 'foo'"),
        ('{"training": {"weight_decay": NaN}}', "'weight_decay' must be finite. Received: nan"),
        ('{"model": {"embed_dim": 0}}', "'embed_dim' must be ≥ 1. Received: 0"),
        ('{"model": 3}', "'model' must be a JSON object. Received: 3"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(text, sentence, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"config.json: {sentence}"):
        load_config(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone.json: the file must be readable. Found: No such file"):
        load_config(tmp_path / "gone.json")


def test_the_papers_recipe_has_the_papers_numbers():
    paper = recipe("paper")
    assert (paper.model.fusion, paper.model.hidden_dim, paper.model.embed_dim) == ("lstm", 256, 128)
    assert (paper.training.batch_size, paper.training.epochs, paper.training.weight_decay) == (64, 50, 1e-2)
    assert (paper.data.val_share, paper.data.test_share) == (0.1, 0.1)
    assert paper.augment.flip == "horizontal"
    assert paper.augment.modality_dropout == 0


def test_differences_are_named():
    assert differences(Config(), Config()) == []
    assert differences(Config(), Config(model=ModelConfig(embed_dim=64))) == ["model.embed_dim"]


def test_an_unknown_recipe_is_refused():
    with pytest.raises(ValueError, match=r"'recipe' must be one of paper, robust, auto. Received: 'secret'"):
        recipe("secret")
