"""`python -m kfusion.evaluate` on a copy of a trained run: what it writes, what it says, and what it refuses."""

import numpy as np
import pytest

from kfusion.data.loaders import load
from kfusion.data.splits import split
from kfusion.evaluation import inference
from kfusion.evaluation.evaluator import Request, evaluate, robustness_of
from kfusion.evaluation.inference import own_data
from kfusion.inference import load_network, predict_views
from kfusion.io import read_json
from kfusion.metrics.classification import temper
from kfusion.model.build import Halves
from kfusion.run_dir import Run
from kfusion.spec import Spec

QUICK = Request(grid_rows=40)
VIEWS = Spec().views


def test_the_command_writes_all_that_it_promises_and_prints_tables_within_80_columns(evaluated):
    place, said = evaluated / "evaluation", evaluated.with_suffix(".txt").read_text()
    assert {path.name for path in place.iterdir()} == {
        *("answers.npz", "evaluation.json", "robustness.json", "report.txt", "figures"),
    }
    pictures = {f"{name}.{kind}" for name in read_json(place / "evaluation.json")["figures"] for kind in ("png", "svg")}
    assert {path.name for path in (place / "figures").iterdir()} == pictures
    assert {"worst_errors.png", "reliability.svg", "robustness_ece.png", "confusion_audio.svg"} <= pictures
    lines = said.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    for words in ("overall accuracy", "McNemar p", "conflict: sounds shuffled", "negative fusion", "babble", "ECE"):
        assert words in said
    shown = {line.rstrip() for line in lines[: lines.index("")] if line.strip()}
    assert shown <= set((place / "report.txt").read_text("utf-8").splitlines())


def test_the_figures_are_those_of_training_and_of_an_independent_count(evaluated):
    facts, run = read_json(evaluated / "evaluation/evaluation.json"), Run(evaluated)
    for view, numbers in run.metrics()["views"].items():
        assert facts["views"][view]["accuracy"] == pytest.approx(numbers["accuracy"])
        low, high = facts["views"][view]["interval"]
        assert low <= numbers["accuracy"] <= high
    config = run.config()
    test = split(load(config.data), config.data, config.split_seed).test
    named = {view: each.argmax(axis=1) for view, each in predict_views(load_network(run), test).items()}
    had = (named["image"] == test.label) | (named["audio"] == test.label)
    assert facts["negative_fusion"]["rows"] == np.flatnonzero(had & (named["fused"] != test.label)).tolist()
    for view in VIEWS:
        assert np.trace(facts["confusion"][view]) == np.sum(named[view] == test.label)
    cases = facts["decides"]["agreement"]
    assert sum(case["num_rows"] for case in cases) == len(test)
    assert cases[0]["num_rows"] == np.sum((named["image"] == test.label) & (named["audio"] == test.label))
    assert sum(entry["num_rows"] for entry in facts["negative_fusion"]["by_speaker"]) == len(test)
    assert facts["data"]["num_sounds"] == len(np.unique(test.rows["audio"]))


def test_the_conflicts_are_those_that_the_whole_network_answers(evaluated):
    """The network asked in one piece about the recombined rows, not by its halves."""
    run = Run(evaluated)
    with np.load(run.evaluation / "answers.npz") as kept:
        partner, conflict, label = kept["partner"], kept["conflict"], kept["label"]
    samples, network = own_data(run), load_network(run)
    values = samples.read(samples.pairs, np.arange(len(label)))
    present = np.ones((len(label), 2), bool)
    for at, name in enumerate(("audio", "image")):
        whole = network({**values, name: values[name][partner[at]], "present": present}, training=False)
        np.testing.assert_allclose(conflict[at], whole, atol=1e-5)
    won = read_json(run.evaluation / "evaluation.json")["decides"]["conflict"]
    assert won["audio"]["won"]["image"] == np.mean(conflict[0].argmax(axis=1) == label) == won["audio"]["accuracy"]
    assert won["image"]["won"]["image"] == np.mean(conflict[1].argmax(axis=1) == label[partner[1]])
    assert won["image"]["accuracy"] == np.mean(conflict[1].argmax(axis=1) == label)


def test_the_temperatures_lower_the_loss_on_validation(evaluated):
    calibration = read_json(evaluated / "calibration.json")
    assert set(calibration["temperature"]) == set(VIEWS)
    with np.load(evaluated / "evaluation/answers.npz") as kept:
        val, label = kept["val"], kept["val_label"]
    assert calibration["num_rows"] == len(label) == read_json(evaluated / "data.json")["num_pairs"]["val"]

    def smoothed_loss(answers, temperature):
        of_true = temper(answers, temperature)[np.arange(len(label)), label]
        rest = (1 - of_true) / 9  # close to the others' geometric mean where these are alike
        return -np.mean(np.log(of_true)) - np.mean(np.log(rest)) / (len(label) + 2)

    for at, view in enumerate(VIEWS):
        best = calibration["temperature"][view]
        assert smoothed_loss(val[:, at], best) < smoothed_loss(val[:, at], 4 * best)


def test_the_grid_starts_from_the_clean_answers_and_falls(evaluated):
    grid = read_json(evaluated / "evaluation/robustness.json")
    assert grid["num_rows"] == 40
    assert list(grid["corruptions"]["audio"]) == list(grid["alone"]["audio"]) == grid["crossed"]["audio"][1:]
    assert grid["crossed"]["accuracy"][0][0] == grid["clean"]["fused"]["accuracy"]
    assert grid["crossed"]["ece"][0][0] == grid["clean"]["fused"]["ece"]
    occluded = grid["alone"]["image"]["occlusion"]
    row = grid["crossed"]["image"].index("occlusion")
    assert grid["crossed"]["accuracy"][row][0] == pytest.approx(np.mean(occluded["fused"]["accuracy"]))
    assert occluded["single"]["accuracy"][4] < grid["clean"]["image"]["accuracy"] - 0.2
    assert grid["area"]["accuracy"] == pytest.approx(np.mean(grid["crossed"]["accuracy"]))
    assert grid["area"]["both"] < min(grid["area"]["image"], grid["area"]["audio"])


def test_a_second_evaluation_reuses_the_answers_and_agrees_to_the_last_digit(evaluated_copy, monkeypatch, undrawn):
    place = evaluated_copy / "evaluation"
    names = ("evaluation.json", "report.txt", "robustness.json")
    before = {name: (place / name).read_bytes() for name in names}
    (place / "robustness.json").unlink()
    monkeypatch.setattr(inference, "predict", lambda *_: pytest.fail("the forward pass ran again"))
    evaluate(evaluated_copy, QUICK)
    assert {name: (place / name).read_bytes() for name in names} == before


def test_a_grid_of_the_same_question_is_not_computed_again(evaluated):
    run, place = Run(evaluated), evaluated / "evaluation"
    facts, path = read_json(place / "evaluation.json"), place / "robustness.json"
    samples, halves = own_data(run), Halves(load_network(run))
    assert robustness_of(run, samples, halves, facts, QUICK, path, None) == read_json(path)
    fewer = robustness_of(run, samples, halves, facts, Request(grid_rows=10), path, None)
    assert fewer["num_rows"] == 10
    assert fewer["clean"]["fused"]["accuracy"] * 10 == pytest.approx(round(fewer["clean"]["fused"]["accuracy"] * 10))


def test_answers_of_other_weights_or_a_damaged_file_are_not_reused(evaluated_copy, undrawn):
    path = evaluated_copy / "evaluation/answers.npz"
    key = read_json(evaluated_copy / "evaluation/evaluation.json")["key"]
    assert inference.load_predictions(path, key) is not None
    assert inference.load_predictions(path, key[::-1]) is None
    network = load_network(Run(evaluated_copy))  # Not last.keras: the last epoch may be the best one.
    network.set_weights([1.01 * values for values in network.get_weights()])
    network.save(evaluated_copy / "best.keras")
    evaluate(evaluated_copy, Request(grid=False))
    facts = read_json(evaluated_copy / "evaluation/evaluation.json")
    assert facts["key"] != key
    assert facts["figures"] == [name for name in facts["figures"] if not name.startswith("robustness")]
    assert not (evaluated_copy / "evaluation/robustness.json").exists(), "a grid of other weights must not stay"
    assert not (evaluated_copy / "evaluation/figures/robustness_ece.png").exists()
    path.write_bytes(path.read_bytes()[:1000])
    assert inference.load_predictions(path, facts["key"]) is None


def test_the_same_halves_answer_as_the_whole_network(trained_run):
    network = load_network(Run(trained_run))
    halves, rng = Halves(network), np.random.default_rng(2)
    image = rng.uniform(0, 255, (5, 28, 28, 1)).astype(np.float32)
    audio = rng.normal(-50, 40, (5, 507)).astype(np.float32)
    for present in VIEWS.values():
        whole = network({"image": image, "audio": audio, "present": np.tile(present, (5, 1))}, training=False)
        embedded = {"image": halves.encode("image", image), "audio": halves.encode("audio", audio)}
        found = halves.answer(embedded, present)
        np.testing.assert_allclose(found, whole, atol=1e-5)
