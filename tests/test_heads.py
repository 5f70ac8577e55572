"""A fusion head is one function and one entry in a table; what it must build is checked when a network is built."""

import numpy as np
import pytest
from keras import layers, ops

from kfusion.config import HEADS, Config, Head, ModelConfig, config_from_json
from kfusion.model.build import build_model
from kfusion.spec import Spec
from kfusion.train import read_command

SPEC = Spec.pair((6, 6, 1), (1, 4), ("a", "b", "c"))
SMALL = {"filters": (2,), "audio_units": (), "embed_dim": 4, "hidden_dim": 4}


def mean_of_those_present(steps, present, config, spec):
    """The mean embedding of the modalities that are present, a softmax."""
    weight = ops.cast(ops.expand_dims(present, -1), steps.dtype)
    mean = layers.Identity(name="fusion")(ops.sum(steps * weight, axis=1) / ops.sum(weight, axis=1))
    return layers.Dense(spec.num_classes, activation="softmax", dtype="float32", name="probabilities")(mean)


@pytest.fixture
def mean_head(monkeypatch):
    monkeypatch.setitem(HEADS, "mean", Head("Mean", "mean of the embeddings", mean_of_those_present))


def network(fusion: str):
    return build_model(ModelConfig(fusion=fusion, **SMALL), SPEC, np.zeros(4), np.ones(4))


@pytest.mark.usefixtures("mean_head")
class TestANewHead:
    def test_is_a_choice_of_the_command_line_and_explained_there(self, capsys):
        assert read_command(["--fusion", "mean"]).settings.model.fusion == "mean"
        with pytest.raises(SystemExit):
            read_command(["--help"])
        words = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert "{lstm,attention,late,mean}" in words
        assert "late: sum of log posteriors; mean: mean of the embeddings." in words

    def test_is_a_setting_that_json_may_hold(self):
        config = Config(model=ModelConfig(fusion="mean"))
        assert config_from_json(config.to_json()) == config

    def test_builds_a_network_that_leaves_an_absent_modality_alone(self):
        model, image = network("mean"), np.ones((2, 6, 6, 1), np.float32)
        with_sound, with_nan = (
            model({"image": image, "audio": np.full((2, 4), value), "present": np.array([[True, False]] * 2)})
            for value in (1.0, np.nan)
        )
        np.testing.assert_array_equal(with_sound, with_nan)
        assert with_nan.shape == (2, 3)


def test_a_head_that_is_gone_is_no_choice_any_more():
    with pytest.raises(ValueError, match=r"'fusion' must be one of lstm, attention, late\. Received: 'mean'"):
        ModelConfig(fusion="mean")


def dense(spec, **settings):
    return layers.Dense(**{"units": spec.num_classes, "activation": "softmax", "name": "probabilities", **settings})


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        (lambda steps, spec: dense(spec)(layers.Flatten()(steps)), "the layer 'fusion' must be there"),
        (
            lambda steps, spec: dense(spec)(layers.Flatten()(layers.Identity(name="fusion")(steps))),
            r"the layer 'fusion' must have the shape \(None, k\)\. Received: \(None, 2, 4\)",
        ),
        (
            lambda steps, spec: dense(spec, activation=None)(layers.Flatten(name="fusion")(steps)),
            "the layer 'probabilities' must be a softmax. Received: Dense",
        ),
        (
            lambda steps, spec: dense(spec, units=2)(layers.Flatten(name="fusion")(steps)),
            r"the layer 'probabilities' must give float32 of the shape \(None, 3\)",
        ),
        (
            lambda steps, spec: dense(spec, dtype="float16")(layers.Flatten(name="fusion")(steps)),
            r"the layer 'probabilities' must give float32 of the shape \(None, 3\)\. Received: .*'float16'",
        ),
        (
            lambda steps, spec: dense(spec)(layers.Flatten(name="fusion")(steps)) * 2.0,
            "the layer 'probabilities' must be the last one",
        ),
    ],
)
def test_a_head_that_breaks_the_contract_is_told_which_layer(head, sentence, monkeypatch):
    wrong = Head("Wrong", "wrong", lambda steps, present, config, spec: head(steps, spec))
    monkeypatch.setitem(HEADS, "wrong", wrong)
    with pytest.raises(ValueError, match=f"^fusion 'wrong': {sentence}"):
        network("wrong")


@pytest.mark.parametrize("name", HEADS)
def test_every_head_of_the_table_keeps_the_contract_and_is_described_in_a_line(name):
    network(name)
    assert HEADS[name].title and "\n" not in HEADS[name].description
