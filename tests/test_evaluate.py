"""`python -m kfusion.evaluate` on a copy of a trained run: what it writes, what it says, and what it refuses."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kfusion.analysis.calibration import temper
from kfusion.data.sources import load
from kfusion.data.splits import split
from kfusion.evaluation import answers as asking
from kfusion.evaluation.evaluator import Request, evaluate, robustness_of
from kfusion.evaluation.subject import own_data
from kfusion.model.halves import Halves
from kfusion.predictor import load_network, predict_views
from kfusion.run import Run, check_new, new_run
from kfusion.spec import VIEWS
from tests.conftest import ROOT

QUICK = Request(grid_rows=40)


def read(path: Path):
    return json.loads(path.read_text("utf-8"))


def run_evaluate(*flags: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kfusion.evaluate", *map(str, flags)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def evaluated(trained_run, tmp_path_factory):
    """A copy of the trained run, evaluated by the command; and what the command said."""
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(trained_run, folder)
    done = run_evaluate(folder, "--grid-rows", 40, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture
def copy(evaluated, tmp_path):
    """Another copy, to be spoilt."""
    return Path(shutil.copytree(evaluated[0], tmp_path / "run"))


def test_the_command_writes_all_that_it_promises_and_prints_tables_within_80_columns(evaluated):
    folder, done = evaluated
    place = folder / "evaluation"
    assert {path.name for path in place.iterdir()} == {
        *("answers.npz", "evaluation.json", "robustness.json", "report.txt", "figures"),
    }
    pictures = {f"{name}.{kind}" for name in read(place / "evaluation.json")["figures"] for kind in ("png", "svg")}
    assert {path.name for path in (place / "figures").iterdir()} == pictures
    assert {"worst_errors.png", "reliability.svg", "robustness_ece.png", "confusion_audio.svg"} <= pictures
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    assert max(map(len, lines[:-1])) <= 80
    for words in ("overall accuracy", "McNemar p", "conflict: sounds shuffled", "negative fusion", "babble", "ECE"):
        assert words in done.stdout
    said = [line.rstrip() for line in lines[: lines.index("")] if line.strip()]
    assert set(said) <= set((place / "report.txt").read_text("utf-8").splitlines())


def test_the_figures_are_those_of_training_and_of_an_independent_count(evaluated):
    facts, run = read(evaluated[0] / "evaluation/evaluation.json"), Run(evaluated[0])
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
    assert facts["data"]["num_sounds"] == len(np.unique(test.audio_row))


def test_the_conflicts_are_those_that_the_whole_network_answers(evaluated):
    """The network asked in one piece about the recombined rows, not by its halves."""
    run = Run(evaluated[0])
    with np.load(run.evaluation / "answers.npz") as kept:
        partner, conflict, label = kept["partner"], kept["conflict"], kept["label"]
    subject = own_data(run)
    image, audio = subject.read(subject.pairs, np.arange(len(label)))
    present = np.ones((len(label), 2), bool)
    network = load_network(run)
    whole = network({"image": image, "audio": audio[partner[0]], "present": present}, training=False)
    np.testing.assert_allclose(conflict[0], whole, atol=1e-5)
    whole = network({"image": image[partner[1]], "audio": audio, "present": present}, training=False)
    np.testing.assert_allclose(conflict[1], whole, atol=1e-5)
    won = read(run.evaluation / "evaluation.json")["decides"]["conflict"]
    assert won["audio"]["won"]["image"] == np.mean(conflict[0].argmax(axis=1) == label) == won["audio"]["accuracy"]
    assert won["image"]["won"]["image"] == np.mean(conflict[1].argmax(axis=1) == label[partner[1]])
    assert won["image"]["accuracy"] == np.mean(conflict[1].argmax(axis=1) == label)


def test_the_temperatures_lower_the_loss_on_validation(evaluated):
    calibration = read(evaluated[0] / "calibration.json")
    assert set(calibration["temperature"]) == set(VIEWS)
    with np.load(evaluated[0] / "evaluation/answers.npz") as kept:
        val, label = kept["val"], kept["val_label"]
    assert calibration["num_rows"] == len(label) == read(evaluated[0] / "data.json")["num_pairs"]["val"]

    def smoothed_loss(answers, temperature):
        of_true = temper(answers, temperature)[np.arange(len(label)), label]
        rest = (1 - of_true) / 9  # close to the others' geometric mean where these are alike
        return -np.mean(np.log(of_true)) - np.mean(np.log(rest)) / (len(label) + 2)

    for at, view in enumerate(VIEWS):
        best = calibration["temperature"][view]
        assert smoothed_loss(val[:, at], best) < smoothed_loss(val[:, at], 4 * best)


def test_the_grid_starts_from_the_clean_answers_and_falls(evaluated):
    grid = read(evaluated[0] / "evaluation/robustness.json")
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


def test_a_second_evaluation_reuses_the_answers_and_agrees_to_the_last_digit(copy, monkeypatch):
    place = copy / "evaluation"
    names = ("evaluation.json", "report.txt", "robustness.json")
    before = {name: (place / name).read_bytes() for name in names}
    (place / "robustness.json").unlink()
    monkeypatch.setattr(asking, "ask", lambda *_: pytest.fail("the forward pass ran again"))
    evaluate(copy, QUICK)
    assert {name: (place / name).read_bytes() for name in names} == before


def test_a_grid_of_the_same_question_is_not_computed_again(evaluated):
    run, place = Run(evaluated[0]), evaluated[0] / "evaluation"
    facts, path = read(place / "evaluation.json"), place / "robustness.json"
    subject, halves = own_data(run), Halves(load_network(run))
    assert robustness_of(run, subject, halves, facts, QUICK, path, None) == read(path)
    fewer = robustness_of(run, subject, halves, facts, Request(grid_rows=10), path, None)
    assert fewer["num_rows"] == 10
    assert fewer["clean"]["fused"]["accuracy"] * 10 == pytest.approx(round(fewer["clean"]["fused"]["accuracy"] * 10))


def test_answers_of_other_weights_or_a_damaged_file_are_not_reused(copy):
    path = copy / "evaluation/answers.npz"
    key = read(copy / "evaluation/evaluation.json")["key"]
    assert asking.kept(path, key) is not None
    assert asking.kept(path, key[::-1]) is None
    network = load_network(Run(copy))  # Not last.keras: the last epoch may be the best one.
    network.set_weights([1.01 * values for values in network.get_weights()])
    network.save(copy / "best.keras")
    evaluate(copy, Request(grid=False))
    facts = read(copy / "evaluation/evaluation.json")
    assert facts["key"] != key
    assert facts["figures"] == [name for name in facts["figures"] if not name.startswith("robustness")]
    assert not (copy / "evaluation/robustness.json").exists(), "a grid of other weights must not stay"
    assert not (copy / "evaluation/figures/robustness_ece.png").exists()
    path.write_bytes(path.read_bytes()[:1000])
    assert asking.kept(path, facts["key"]) is None


def test_the_same_halves_answer_as_the_whole_network(trained_run):
    network = load_network(Run(trained_run))
    halves, rng = Halves(network), np.random.default_rng(2)
    image = rng.uniform(0, 255, (5, 28, 28, 1)).astype(np.float32)
    audio = rng.normal(-50, 40, (5, 507)).astype(np.float32)
    for present in VIEWS.values():
        whole = network({"image": image, "audio": audio, "present": np.tile(present, (5, 1))}, training=False)
        found = halves.answer(halves.encode("image", image), halves.encode("audio", audio), present)
        np.testing.assert_allclose(found, whole, atol=1e-5)


SOME = np.arange(0, 100, 2)
"""Half of the test part's rows."""


def own_layout(folder: Path, run: Path, **changes: np.ndarray) -> Path:
    """Some of the run's test rows as a folder of kfusion's own layout."""
    subject = own_data(Run(run))
    image, audio = subject.read(subject.pairs, SOME)
    names = np.array(subject.pairs.spec.class_names)[subject.pairs.label[SOME]]
    folder.mkdir()
    for name, values in {"images": image, "audio": audio, "labels": names, **changes}.items():
        np.save(folder / f"{name}.npy", values)
    return folder


def test_other_data_is_evaluated_beside_the_runs_own(copy, tmp_path):
    subject = own_data(Run(copy))
    image = subject.read(subject.pairs, SOME)[0]
    data = own_layout(tmp_path / "mine", copy, images=image[..., 0] / 255)  # another scale of pixels
    before = (copy / "evaluation/evaluation.json").read_bytes()
    assert evaluate(copy, Request(data=str(data), grid=False)) == copy / "evaluation/mine"
    facts = read(copy / "evaluation/mine/evaluation.json")
    assert (facts["data"]["num_rows"], facts["data"]["part"]) == (50, "all rows")
    with np.load(copy / "evaluation/answers.npz") as kept:
        right = kept["test"][SOME, 0].argmax(axis=1) == kept["label"][SOME]
    assert facts["views"]["fused"]["accuracy"] == pytest.approx(right.mean())
    assert facts["negative_fusion"]["by_speaker"] is None
    assert (copy / "evaluation/evaluation.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((50, 20, 28))}, r"images must be those of the run \(28 × 28 × 1\)\. Found: 20 × 28 × 1"),
        ({"audio": np.zeros((50, 40))}, r"sounds must be those of the run \(39 × 13\)\. Found: 1 × 40"),
        ({"labels": np.array(["cat", "dog"] * 25)}, r"classes must be those of the run .*Found: 'cat', 'dog'"),
        (
            {"audio": np.random.default_rng(0).random((50, 507))},
            r"audio features must be on the scale .*Found: .* to 0.99",
        ),
    ],
)
def test_data_of_another_shape_class_or_scale_is_refused(evaluated, tmp_path, changes, message):
    data = own_layout(tmp_path / "mine", evaluated[0], **changes)
    with pytest.raises(ValueError, match=message):
        evaluate(evaluated[0], Request(data=str(data), grid=False))
    assert not (evaluated[0] / "evaluation/mine").exists()


def test_the_data_that_the_run_was_trained_on_are_refused_as_other_data(evaluated):
    with pytest.raises(ValueError, match=r"builtin: --data must be other data .* Found: the same files"):
        evaluate(evaluated[0], Request(data="builtin"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "metrics.json").unlink(), r"must be a finished run; .* Found: no metrics.json"),
        (lambda run: (run / "config.json").unlink(), r"must be a run folder made by .* Found: no config.json"),
        (lambda run: (run / "data.json").write_text('{"format": 7}'), r"of format 1\. Found: format 7"),
        (lambda run: (run / "data.json").write_text("[1]"), r"of format 1\. Found: format None"),
        (lambda run: (run / "data.json").write_text('{"format": 1}'), r"data.json: must hold .* Found: no spec"),
        (lambda run: (run / "best.keras").unlink(), r"best.keras: a run's network must be loadable"),
        (lambda run: cut(run / "best.keras"), r"best.keras: a run's network must be loadable"),
        (lambda run: (run / "best.keras").write_bytes(b""), r"best.keras: a run's network must be loadable"),
        (lambda run: cut(run / "split.npz"), r"split.npz: must hold the rows that training wrote"),
        (lambda run: other_rows(run), r"must be those that the run was trained on\. Found: other rows per part"),
        (lambda run: edit(run / "data.json", "image_range", [0, 250]), r"trained on\. Found: another image_range"),
        (lambda run: edit_config(run), r"the run's data must be where they were at training.*no_such_folder"),
    ],
)
def test_a_damaged_or_unfinished_run_is_one_line(copy, spoil, message):
    spoil(copy)
    with pytest.raises(ValueError, match=message) as caught:
        evaluate(copy, QUICK)
    assert "\n" not in str(caught.value)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit(path: Path, name: str, value: object) -> None:
    values = read(path)
    values["source"][name] = value
    path.write_text(json.dumps(values))


def other_rows(run: Path) -> None:
    rows = Run(run).split()
    Run(run).write_arrays("split.npz", {**rows, "test_audio": rows["test_audio"][::-1]})


def edit_config(run: Path) -> None:
    values = read(run / "config.json")
    values["data"]["data"] = "no_such_folder"
    (run / "config.json").write_text(json.dumps(values))


def test_the_command_says_in_one_line_what_is_wrong(tmp_path):
    done = run_evaluate(tmp_path / "nothing", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("kfusion: ")
    assert "must be a run folder made by" in done.stderr
    assert done.stderr.count("\n") == 1


def test_overwrite_takes_the_evaluation_along_but_no_foreign_file(copy):
    (copy / "evaluation/mine").mkdir(exist_ok=True)
    notes = copy / "evaluation/mine/notes.md"
    notes.write_text("mine")
    with pytest.raises(ValueError, match=r"a run needs a folder of its own. Found: evaluation/mine/notes.md"):
        check_new(copy, overwrite=True)
    notes.unlink()
    new_run(copy, overwrite=True)
    assert {path.name for path in copy.iterdir()} <= {".lock"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, r"'seed' must be in \[0, 2\^31\)\. Received: -1"),
        ({"test_labels": "y.csv"}, r"'test_labels' must be empty without 'data'\. Received: 'y.csv'"),
    ],
)
def test_a_wrong_request_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Request(**settings)
