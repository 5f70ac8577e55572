"""The search space, and what `--tune` makes of it."""

import keras_tuner
import pytest

from kfusion.config import Config
from kfusion.recipes import recipe
from tuning.space import SPACE, Plan, Settings, apply, check_same, choose, current, read_plan


def test_every_parameter_of_the_table_is_a_setting_and_takes_all_its_values():
    for name, (_, values) in SPACE.items():
        (domain,) = choose([name], Config())
        configs = [apply({name: value}, Config()) for value in domain.values]
        assert [current(name, config) for config in configs] == list(domain.values)
        assert len(set(configs)) == len(values) > 1


def test_values_of_each_kind_are_read():
    domains = choose(["hidden_dim=8,16", "dropout=0,.5", "filters=8x16,4", "fusion=late"], Config())
    assert [domain.values for domain in domains] == [(8, 16), (0.0, 0.5), ("8x16", "4"), ("late",)]
    config = apply({"filters": "8x16", "fusion": "late", "dropout": 0.5, "tuner/epochs": 3}, Config())
    assert (config.model.filters, config.model.fusion, config.model.dropout) == ((8, 16), "late", 0.5)


def test_a_wide_range_is_searched_on_a_logarithmic_scale():
    rate, dropout, hidden = choose(
        ["peak_learning_rate=1e-4..1e-2", "dropout=0..0.5", "hidden_dim=32..64"], recipe("paper")
    )
    space = keras_tuner.HyperParameters()
    for domain in (rate, dropout, hidden):
        domain.declare(space, current(domain.name, Config()))
    scales = {parameter.name: parameter.sampling for parameter in space.space}
    assert scales == {"peak_learning_rate": "log", "dropout": "linear", "hidden_dim": "linear"}
    assert space.values["hidden_dim"] == 64  # The config's 256, brought into the range.
    assert space.values["peak_learning_rate"] == 1e-3


def test_a_number_from_a_range_gets_six_digits():
    assert apply({"peak_learning_rate": 0.00123456789}, Config()).training.peak_learning_rate == 0.00123457


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "'tune' must be one or more of hidden_dim, "),
        (["hidden"], "Received: 'hidden'"),
        (["hidden_dim="], "'tune' must be hidden_dim=value,value,… or hidden_dim=low..high. Received: hidden_dim=''"),
        (["hidden_dim=a"], "Received: hidden_dim='a'"),
        (["hidden_dim=1,1"], "each value once"),
        (["hidden_dim=0,1"], "'hidden_dim' must be ≥ 1. Received: 0"),
        (["hidden_dim=9..3"], "with low below high"),
        (["dropout=0..1"], r"'dropout' must be in \[0, 1\). Received: 1.0"),
        (["dropout=nan"], "'dropout' must be finite"),
        (["filters=8xa"], "'tune' must be filters=value,value,…. Received: filters='8xa'"),
        (["fusion=lstm,none"], "'fusion' must be one of lstm, attention, late. Received: 'none'"),
        (["dropout", "dropout=0.1"], "made of different parameters"),
    ],
)
def test_a_wrong_space_is_one_clear_line(texts, message):
    with pytest.raises(ValueError, match=message) as caught:
        choose(texts, Config())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trials": 0}, "'trials' must be ≥ 1. Received: 0"),
        ({"repeats": 0}, "'repeats' must be ≥ 1"),
        ({"patience": -1}, "'patience' must be ≥ 0"),
        ({"tuner": "luck"}, "'tuner' must be one of random, bayesian, hyperband, grid"),
        ({"tuner": "hyperband", "tune": ("epochs",)}, "without 'epochs'"),
        ({"tuner": "hyperband", "repeats": 2}, "'repeats' must be 1 with hyperband"),
        ({"tuner": "grid", "tune": ("dropout=0..0.5",)}, "listed values for a grid"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Plan(Settings(**settings))


def test_the_number_of_trials_is_what_the_tuner_can_use():
    four = ("hidden_dim=8,16", "embed_dim=8,16")
    assert Plan(Settings("grid", tune=four)).num_trials == 4
    assert Plan(Settings("grid", trials=3, tune=four)).num_trials == 3
    assert Plan(Settings("random", tune=four)).num_trials == 4
    assert Plan(Settings("random", tune=("dropout=0..0.5",))).num_trials == 20
    assert Plan(Settings("hyperband")).num_trials is None


def test_a_plan_comes_back_from_its_file_and_only_its_trials_may_change(tmp_path):
    plan = Plan(Settings("bayesian", 5, 2, tune=("dropout=0..0.5",)), recipe("robust"))
    plan.write(tmp_path)
    assert read_plan(tmp_path) == plan
    check_same(
        read_plan(tmp_path), Plan(Settings("bayesian", 9, 2, tune=("dropout=0..0.5",)), recipe("robust")), tmp_path
    )
    with pytest.raises(ValueError, match="another repeats"):
        check_same(plan, Plan(Settings("bayesian", 5, 3, tune=("dropout=0..0.5",)), recipe("robust")), tmp_path)
    with pytest.raises(ValueError, match="no search"):
        read_plan(tmp_path / "nothing")


@pytest.mark.parametrize(
    "text", ["[]", '{"format": 1}', '{"format": 1, "settings": {"luck": 1, "tune": []}, "config": {}}']
)
def test_a_damaged_plan_is_one_line(tmp_path, text):
    (tmp_path / "search.json").write_text(text)
    with pytest.raises(ValueError, match="must be a search's plan"):
        read_plan(tmp_path)
