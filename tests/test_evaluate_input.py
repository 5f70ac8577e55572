"""`python -m kfusion.evaluate` on other data, and what it refuses: data, runs and requests that are wrong."""

import json
from pathlib import Path

import numpy as np
import pytest

from kfusion.evaluation.evaluator import Request, evaluate
from kfusion.evaluation.inference import other_data, own_data
from kfusion.io import read_json
from kfusion.run_dir import Run, check_new, new_run
from tests.processes import fails, in_process

QUICK = Request(grid_rows=40)
SOME = np.arange(0, 100, 2)
"""Half of the test part's rows."""


def own_layout(folder: Path, run: Path, **changes: np.ndarray) -> Path:
    """Some of the run's test rows as a folder of kfusion's own layout."""
    samples = own_data(Run(run))
    rows = samples.read(samples.pairs, SOME)
    names = np.array(samples.pairs.spec.class_names)[samples.pairs.label[SOME]]
    folder.mkdir()
    for name, values in {"images": rows["image"], "audio": rows["audio"], "labels": names, **changes}.items():
        np.save(folder / f"{name}.npy", values)
    return folder


def test_other_data_is_evaluated_beside_the_runs_own(evaluated_copy, tmp_path, undrawn):
    samples = own_data(Run(evaluated_copy))
    image = samples.read(samples.pairs, SOME)["image"]
    data = own_layout(tmp_path / "mine", evaluated_copy, images=image[..., 0] / 255)  # another scale of pixels
    before = (evaluated_copy / "evaluation/evaluation.json").read_bytes()
    assert evaluate(evaluated_copy, Request(data=str(data), grid=False)) == evaluated_copy / "evaluation/mine"
    facts = read_json(evaluated_copy / "evaluation/mine/evaluation.json")
    assert (facts["data"]["num_rows"], facts["data"]["part"]) == (50, "all rows")
    with np.load(evaluated_copy / "evaluation/answers.npz") as kept:
        right = kept["test"][SOME, 0].argmax(axis=1) == kept["label"][SOME]
    assert facts["views"]["fused"]["accuracy"] == pytest.approx(right.mean())
    assert facts["negative_fusion"]["by_speaker"] is None
    assert (evaluated_copy / "evaluation/evaluation.json").read_bytes() == before


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
def test_data_of_another_shape_class_or_scale_is_refused(evaluated_copy, tmp_path, changes, message):
    data = own_layout(tmp_path / "mine", evaluated_copy, **changes)
    with pytest.raises(ValueError, match=message):
        evaluate(evaluated_copy, Request(data=str(data), grid=False))
    assert not (evaluated_copy / "evaluation/mine").exists()


def test_sounds_of_absurd_size_are_refused_by_force_too(trained_run, tmp_path):
    data = own_layout(tmp_path / "mine", trained_run, audio=np.full((50, 507), 1e9))
    rule = r"mine: audio features must be within -720000 and 720000, .*\. Found: 1e\+09 to 1e\+09"
    with pytest.raises(ValueError, match=rule):
        other_data(Run(trained_run), str(data), "", 0, force=True)


def test_the_data_that_the_run_was_trained_on_are_refused_as_other_data(evaluated_copy):
    with pytest.raises(ValueError, match=r"builtin: --data must be other data .* Found: the same files"):
        evaluate(evaluated_copy, Request(data="builtin"))


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
def test_a_damaged_or_unfinished_run_is_one_line(evaluated_copy, spoil, message):
    spoil(evaluated_copy)
    with pytest.raises(ValueError, match=message) as caught:
        evaluate(evaluated_copy, QUICK)
    assert "\n" not in str(caught.value)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit(path: Path, name: str, value: object) -> None:
    values = read_json(path)
    values["source"][name] = value
    path.write_text(json.dumps(values))


def other_rows(run: Path) -> None:
    rows = Run(run).split()
    Run(run).write_arrays("split.npz", {**rows, "test_audio": rows["test_audio"][::-1]})


def edit_config(run: Path) -> None:
    values = read_json(run / "config.json")
    values["data"]["data"] = "no_such_folder"
    (run / "config.json").write_text(json.dumps(values))


def test_the_command_says_in_one_line_what_is_wrong(tmp_path):
    done = in_process("kfusion.evaluate", tmp_path / "nothing")
    fails(done, "must be a run folder made by")
    assert done.stdout == ""


def test_overwrite_takes_the_evaluation_along_but_no_foreign_file(evaluated_copy):
    (evaluated_copy / "evaluation/mine").mkdir(exist_ok=True)
    notes = evaluated_copy / "evaluation/mine/notes.md"
    notes.write_text("mine")
    with pytest.raises(ValueError, match=r"a run needs a folder of its own. Found: evaluation/mine/notes.md"):
        check_new(evaluated_copy, overwrite=True)
    notes.unlink()
    new_run(evaluated_copy, overwrite=True)
    assert {path.name for path in evaluated_copy.iterdir()} <= {".lock"}


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
