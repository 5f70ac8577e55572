"""`FusionClassifier` and `load`: kfusion from Python, as a user of scikit-learn and Keras expects it."""

import doctest
import gc
import inspect
import pickle
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.utils.estimator_checks import check_estimator

from kfusion import RECIPES, FusionClassifier, UserError, load, recipes
from kfusion.config import Config
from kfusion.data.in_memory import own_data, read_samples, staging
from kfusion.evaluation import embeddings as embedder
from kfusion.evaluation import evaluator
from kfusion.exporting import exporter
from kfusion.io import write_json
from kfusion.recipes import SETTINGS, config_of, parameters_of, with_data
from kfusion.run_dir import FILES, Run, check_new, load_config, lock
from kfusion.training import trainer
from tests.classifiers import TINY, VALUES, StopAtOnce, pairs, table
from tests.exports import copied, views
from tests.inputs import digits
from tests.media import encoded, write_media
from tests.processes import environment, run_python, run_train

FIVE_LINES = """
from kfusion import FusionClassifier, load

clf = FusionClassifier(recipe="robust", epochs=5).fit({"image": X, "audio": A}, y)   # arrays; or a DataFrame; or fit("folder")
clf.predict({"image": X[:4]})                                    # class names; a modality may be left out
clf.predict_proba([("a.png", "a.wav"), ("b.png", None)])         # files, per row
clf.explain_decision({"image": X[:4], "audio": A[:4]})           # DataFrame: label, confidence, each modality's vote, agree
clf.evaluate().report("report.html"); clf.export("saved_models/digits")
clf = load("runs/robust-1"); clf = load("saved_models/kfusion/1")   # a run, or an exported version without TensorFlow's Python
"""  # noqa: E501
METHODS = ("predict", "predict_proba", "explain_decision", "score", "evaluate", "embed", "export", "save")


def load_run(folder: Path) -> FusionClassifier:
    found = load(folder)
    assert isinstance(found, FusionClassifier)
    return found


@pytest.fixture(scope="module")
def clf(trained_run):
    """Of the small run on the built-in digits."""
    return load_run(trained_run)


@pytest.fixture(scope="module")
def tiny(tiny_run):
    return load_run(tiny_run)


# Parameters, as scikit-learn has them


def test_every_setting_of_the_command_is_a_parameter():
    names = set(inspect.signature(FusionClassifier).parameters)
    own = {"recipe", "out", "verbose", "tensorboard", "overwrite", "resume", "turn_away", "coverage"}
    assert names == own | {*SETTINGS}
    assert {"epochs", "filters", "val_share", "flip", "deterministic"} <= names
    assert "data" not in names


def test_parameters_are_kept_as_given_and_clone_like_any_estimators():
    settings = {"epochs": 5, "filters": [8, 16], "out": Path("x")}
    estimator = FusionClassifier("robust", **settings)
    assert {name: estimator.get_params()[name] for name in settings} == settings
    assert estimator.get_params()["filters"] is settings["filters"]
    assert clone(estimator).get_params() == estimator.get_params()
    assert estimator.set_params(epochs=3, recipe="paper").epochs == 3
    assert repr(FusionClassifier(recipe="robust", epochs=5)) == "FusionClassifier(epochs=5, recipe='robust')"
    assert is_classifier(estimator)


def test_parameters_mean_the_recipe_and_what_differs_from_it():
    config = config_of("robust", {"epochs": np.int64(5), "filters": np.array([4, 8]), "dropout": 0, "split": None})
    assert (config.training.epochs, config.model.filters, config.model.dropout) == (5, (4, 8), 0.0)
    assert config.augment == RECIPES["robust"].augment
    assert parameters_of(config) == {"recipe": "robust", "epochs": 5, "filters": (4, 8), "dropout": 0.0}
    assert config_of(config, {}) == config
    assert parameters_of(Config()) == {"recipe": "paper"}


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(recipes).failed == 0
    assert doctest.testmod(recipes).attempted > 0


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("epoch", "'epoch' must be a parameter of FusionClassifier; did you mean 'epochs'? Received: 'epoch'"),
        ("data", "'data' must be given to fit, as its X"),
        ("xyz", r"help\(FusionClassifier\) lists them"),
    ],
)
def test_an_unknown_parameter_is_told_with_the_nearest(name, sentence):
    with pytest.raises(TypeError, match=sentence.replace("?", r"\?")):
        FusionClassifier("paper", **{name: "1"})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"epochs": 0}, "'epochs' must be ≥ 1. Received: 0"),
        ({"epochs": 2.5}, "'epochs' must be of type int. Received: 2.5"),
        ({"fusion": "sum"}, "'fusion' must be one of lstm, attention, late. Received: 'sum'"),
        ({"filters": "8"}, "'filters' must be a list of int. Received: '8'"),
        ({"recipe": "papers"}, "'recipe' must be one of paper, robust, auto. Received: 'papers'"),
        ({"resume": True}, "'resume' must be False without 'out'"),
        ({"resume": True, "overwrite": True, "out": "run"}, "'resume' and 'overwrite' must not be given together"),
    ],
)
def test_wrong_values_are_refused_by_fit_with_the_commands_sentences(settings, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, sounds, label = pairs(6)
    estimator = FusionClassifier(**{**TINY, **settings})
    with pytest.raises(UserError, match=sentence):
        estimator.fit({"image": images, "audio": sounds}, label)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", METHODS)
def test_nothing_works_before_fit(method):
    arguments = {"score": ({}, []), "export": ("x",), "save": ("x",)}.get(method, ())
    arguments = ({"image": np.zeros((1, 2, 2))},) if method in METHODS[:3] else arguments
    with pytest.raises(NotFittedError):
        getattr(FusionClassifier(), method)(*arguments)
    assert not hasattr(FusionClassifier(), "model_") and not hasattr(FusionClassifier(), "history_")


class OfMatrices(FusionClassifier):
    """Says that it takes matrices: else scikit-learn checks nothing of an estimator but whether it can be cloned."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


def test_scikit_learns_own_checks_hold_where_x_need_not_be_a_matrix():
    """The others fit a matrix, which has no image and no sound: they end with the sentence that says so."""
    found = check_estimator(OfMatrices(), on_fail=None, on_skip=None)
    passed = {check["check_name"] for check in found if check["status"] == "passed"}
    assert {
        *("check_estimator_cloneable", "check_estimator_repr", "check_estimator_tags_renamed"),
        *("check_get_params_invariance", "check_set_params", "check_no_attributes_set_in_init"),
        *("check_parameters_default_constructible", "check_estimators_unfitted", "check_mixin_order"),
        *("check_valid_tag_types", "check_do_not_raise_errors_in_init_or_set_params"),
    } <= passed
    failed = [check for check in found if check["status"] == "failed"]
    causes = [check["exception"].__cause__ or check["exception"].__context__ or check["exception"] for check in failed]
    assert {type(cause) for cause in causes} == {UserError}
    # One asks for weights of single classes, which is no setting of ours.
    assert all(re.search("^'(X|class_weight)' must be", str(cause)) for cause in causes)


# Fitting


def test_a_fitted_runs_folder_is_that_of_the_command_and_keeps_its_data(tiny_run):
    names = {path.name for path in tiny_run.iterdir()}
    assert names == FILES | {"training_data", "tensorboard"}
    kept = {path.name for path in (tiny_run / "training_data").iterdir()}
    assert kept == {"images.npy", "audio.npy", "labels.npy", "kfusion_classes.json"}
    assert [path.name for path in tiny_run.parent.glob(".partial-*")] == []
    assert Run(tiny_run).spec().class_names == tuple(map(str, VALUES))
    assert Run(tiny_run).spec()["audio"].grid == (4, 2)


def test_fitting_prints_nothing_at_all_with_verbose_0(tiny_run):
    assert tiny_run.with_suffix(".txt").read_bytes() == b""


def test_a_fit_that_was_broken_off_has_gone_on(tiny_run, tiny):
    assert tiny.history_.index.tolist() == [1, 2]
    assert list(tiny.history_)[:2] == ["accuracy", "loss"]


def test_the_run_can_be_moved_and_still_knows_its_data(tiny_run, tmp_path):
    run = Run(copied(tiny_run, tmp_path / "moved"))
    assert run.config().data.data == run.data()["source"]["name"] == str(tmp_path / "moved" / "training_data")


def test_the_command_resumes_what_a_program_began_and_replaces_it_only_without_its_data(tiny_run, tmp_path):
    run = copied(tiny_run, tmp_path / "run")
    config = Run(run).config()
    assert trainer.train(config, run, resume=True).finished
    with pytest.raises(UserError, match="a run must not replace the data that it is trained on"):
        trainer.train(config, run, overwrite=True)
    assert (run / "training_data" / "images.npy").exists() and (run / "metrics.json").exists()


def test_a_persons_folder_of_that_name_is_no_runs_and_is_never_emptied(tmp_path):
    for name in ("images.npy", "audio.npy", "labels.npy"):
        (tmp_path / "training_data").mkdir(exist_ok=True)
        np.save(tmp_path / "training_data" / name, np.zeros(3))
    write_json(tmp_path / "config.json", Config().to_json())
    assert load_config(tmp_path / "config.json") == Config()
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"a run needs a folder of its own\. Found: training_data"):
        check_new(tmp_path, overwrite=True)


def test_a_folder_is_trained_on_as_by_the_command(tmp_path, monkeypatch):
    asked = []

    def train(config, folder, **more):
        asked.append((config, folder, more))
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "train", train)
    monkeypatch.chdir(tmp_path)
    for X, data in (("builtin", "builtin"), (Path("my_data"), str(tmp_path / "my_data"))):
        with pytest.raises(KeyboardInterrupt):
            FusionClassifier("robust", out="run", overwrite=True, tensorboard=True, verbose=0).fit(X)
        config, folder, more = asked.pop()
        assert (config, folder) == (with_data(RECIPES["robust"], data), tmp_path / "run")
        assert more == {
            **{"resume": False, "overwrite": True, "tensorboard": True, "callbacks": (), "own": None, "console": None},
            "finish_stopped": True,
        }


def test_classes_keep_the_labels_dtype(tiny):
    images, sounds, label = pairs(9)
    assert tiny.classes_.tolist() == list(VALUES) and tiny.classes_.dtype == label.dtype
    named = tiny.predict({"image": images, "audio": sounds})
    assert named.dtype == label.dtype and set(named.tolist()) <= set(VALUES)
    table = tiny.explain_decision({"image": images[:2]})
    assert table["label"].dtype == label.dtype
    assert table["audio_label"].dtype == "Int64" and table["audio_label"].isna().all()


def test_an_existing_run_is_kept(tiny_run, tmp_path):
    run = copied(tiny_run, tmp_path / "run")
    images, sounds, label = pairs()
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(UserError, match="an existing run is kept"):
        FusionClassifier(**TINY, epochs=2, out=run).fit({"image": images, "audio": sounds}, label)
    with pytest.raises(UserError, match="needs the data of the run"):
        other = {"image": images[::-1], "audio": sounds}
        FusionClassifier(**TINY, epochs=2, tensorboard=True, out=run, resume=True).fit(other, label)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"image": lambda images: images.astype(float) * 2}, r"X\['image'\]: pixels must be in 0-1 or in 0-255"),
        ({"audio": lambda sounds: sounds * np.nan}, r"X\['audio'\]: values must be finite .* NaN or infinity in row 0"),
        ({"audio": lambda sounds: sounds[:5]}, "as many images as sounds. Received: 60 and 5"),
        ({"label": lambda label: label[:5]}, "one label for each of the 60 rows. Received: 5 labels"),
        ({"label": lambda label: np.where(np.arange(60) == 0, 99, label)}, "'X': each class must have rows for each"),
        ({"groups": lambda _: [1, 2]}, "'groups' must have one for each of the 60 rows. Received: 2"),
        ({"label": lambda _: None}, "'y' must be given unless X is a folder"),
    ],
)
def test_bad_data_are_refused_in_the_programs_words_and_nothing_is_written(change, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = dict(zip(("image", "audio", "label"), pairs(), strict=True)) | {"groups": None}
    given |= {name: function(given[name]) for name, function in change.items()}
    X = {name: given[name] for name in ("image", "audio")}
    with pytest.raises(UserError, match=sentence):
        FusionClassifier(**TINY, out="runs/a").fit(X, given["label"], given["groups"])
    assert list(tmp_path.iterdir()) == []


def test_labels_beside_a_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match="'y' and 'groups' must be left out where X is a folder"):
        FusionClassifier().fit(tmp_path, [1, 2])
    with pytest.raises(UserError, match="'data' must be 'builtin', or a folder"):
        FusionClassifier(out=tmp_path / "run").fit(tmp_path / "gone")
    assert list(tmp_path.iterdir()) == []


def test_data_that_cannot_be_written_leave_nothing_behind(tmp_path, monkeypatch):
    images, sounds, label = pairs()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        FusionClassifier(**TINY, out=tmp_path / "runs" / "a").fit({"image": images, "audio": sounds}, label)
    assert list(tmp_path.iterdir()) == []


def test_own_data_are_put_in_place_whole_and_read_from_there(tmp_path):
    images, sounds, label = pairs()
    samples, folder = read_samples({"image": images, "audio": sounds}), tmp_path / "runs" / "a"
    with own_data(samples, label, None, folder, Config().data) as own:
        folder.mkdir(parents=True)
        own.place(folder)
        assert own.source.info["name"] == own.data == str(folder / "training_data")
        pairs_ = own.source.pairs({"image": np.arange(3), "audio": np.arange(3)})
        np.testing.assert_array_equal(pairs_.read(np.arange(3))["image"][..., 0], images[:3])
    assert [path.name for path in tmp_path.rglob("*") if path.is_dir()] == ["runs", "a", "training_data"]


def test_what_a_killed_fit_left_is_removed_by_the_next_and_what_is_in_use_is_kept(tmp_path):
    left, used = (tmp_path / "runs" / f".partial-{name}-training_data" for name in ("left", "used"))
    for folder in (left, used):
        (folder / "training_data").mkdir(parents=True)
    with lock(used), staging(tmp_path / "runs", "training_data") as folder:
        assert sorted((tmp_path / "runs").iterdir()) == sorted([folder, used])
    assert list((tmp_path / "runs").iterdir()) == [used]


@pytest.mark.slow
def test_a_fit_that_is_killed_leaves_nothing_that_the_next_does_not_remove(tmp_path):
    program = (
        "import os, signal, sys; from kfusion.training import trainer; from tests.classifiers import TINY, pairs;"
        "from kfusion import FusionClassifier; images, sounds, label = pairs();"
        "trainer.train = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL);"
        "FusionClassifier(**TINY, out=sys.argv[1]).fit({'image': images, 'audio': sounds}, label)"
    )
    done = run_python("-c", program, tmp_path / "runs" / "a")
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = (tmp_path / "runs").iterdir()
    assert left.name.startswith(".partial-") and (left / "training_data" / "images.npy").exists()
    images, sounds, label = pairs()
    with pytest.raises(UserError, match="one label for each"):
        FusionClassifier(**TINY, out=tmp_path / "runs" / "a").fit({"image": images, "audio": sounds}, label[:5])
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.slow
def test_a_table_is_fitted_stopped_by_a_callback_pickled_and_its_folder_goes_with_it():
    data = table()
    estimator = FusionClassifier(**TINY, epochs=50).fit(data, callbacks=[StopAtOnce()])
    run, folder = Run(estimator.run_dir_), estimator.run_dir_.parent
    assert len(estimator.history_) == 1 and run.metrics()["epochs"] == 1
    assert run.data()["source"]["grouped_by"] == "groups.npy"
    assert estimator.classes_.tolist() == ["seven", "three", "twelve"]
    probabilities = estimator.predict_proba(data)
    np.testing.assert_array_equal(estimator.predict(data), estimator.classes_[probabilities.argmax(axis=1)])
    assert 0 <= estimator.score(data) <= 1
    assert estimator.explain_decision(data[5:8]).index.tolist() == [5, 6, 7]
    twin = pickle.loads(pickle.dumps(estimator))
    assert twin.run_dir_ != estimator.run_dir_ and twin.get_params() == estimator.get_params()
    np.testing.assert_array_equal(twin.predict_proba(data), probabilities)
    del estimator, run
    gc.collect()
    assert not folder.exists() and twin.run_dir_.exists()


# Answers


def test_a_loaded_run_has_its_settings_as_parameters(clf, trained_run):
    changed = {name: value for name, value in clf.get_params().items() if value is not None}
    assert changed["recipe"] == "robust" and changed["epochs"] == 12 and changed["filters"] == (8, 16)
    assert config_of("robust", {name: changed.get(name) for name in SETTINGS}) == Run(trained_run).config()
    assert clf.classes_.tolist() == list(range(10))


def test_answers_are_those_of_the_run(clf, trained_run):
    images, sounds = digits(40)
    expected = views(trained_run, images, sounds)
    X = {"image": images, "audio": sounds}
    np.testing.assert_array_equal(clf.predict(X), expected["fused"].argmax(axis=1))
    np.testing.assert_allclose(clf.predict_proba(X), expected["fused"], atol=1e-6)
    np.testing.assert_allclose(clf.predict_proba({"image": images}), expected["image"], atol=1e-6)
    np.testing.assert_array_equal(clf.predict({"audio": sounds}), expected["audio"].argmax(axis=1))
    assert clf.score(X, expected["fused"].argmax(axis=1)) == 1.0
    scaled = {"image": images[..., None] / 255, "audio": sounds.reshape(40, 39, 13)}
    np.testing.assert_allclose(clf.predict_proba(scaled), expected["fused"], atol=1e-6)
    mixed = [(images[0], sounds[0]), (images[1], None), (None, sounds[2])]
    found = clf.predict_proba(mixed)
    for row, view in enumerate(("fused", "image", "audio")):
        np.testing.assert_allclose(found[row], expected[view][row], atol=1e-6)
    assert clf.predict({"image": images[3]}).tolist() == [expected["image"][3].argmax()]


def test_decisions_are_explained(clf, trained_run):
    images, sounds = digits(40)
    expected = views(trained_run, images, sounds)
    found = clf.explain_decision({"image": images, "audio": sounds})
    assert list(found) == [
        *("label", "confidence", "image_label", "image_confidence", "audio_label", "audio_confidence", "agree"),
        *("image_share", "audio_share"),
    ]
    for view, prefix in (("fused", ""), ("image", "image_"), ("audio", "audio_")):
        assert found[f"{prefix}label"].tolist() == expected[view].argmax(axis=1).tolist()
        np.testing.assert_allclose(found[f"{prefix}confidence"], expected[view].max(axis=1), atol=1e-6)
    assert found["agree"].tolist() == (found["image_label"] == found["audio_label"]).tolist()


def test_probabilities_are_tempered_once_the_run_is_calibrated(trained_run, tmp_path):
    run, (images, _) = copied(trained_run, tmp_path / "run"), digits(5)
    plain = load(run).predict_proba({"image": images})
    write_json(run / "calibration.json", {"temperature": {"fused": 2.0, "image": 3.0, "audio": 0.5}})
    softer = plain ** (1 / 3)
    tempered = load(run).predict_proba({"image": images})
    np.testing.assert_allclose(tempered, softer / softer.sum(axis=1, keepdims=True), atol=1e-4)


def test_files_are_answered_and_a_bad_one_is_named(clf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = digits(2)[0]
    for name, image in zip(("a.png", "b.png"), images, strict=True):
        Path(name).write_bytes(encoded(image))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    found = clf.explain_decision([("a.png", None), (Path("b.png"), "")])
    assert found["agree"].isna().all() and (found["label"] == found["image_label"]).all()
    assert clf.predict(("a.png", None)).tolist() == found["label"][:1].tolist()
    Path("table.csv").write_text("image\nb.png\na.png\n")
    assert clf.predict("table.csv").tolist() == found["label"][::-1].tolist()
    for files, sentence in (
        (("b.png", "gone.wav"), r"row 1 \(b.png, gone.wav\): audio: must be a file that can be read"),
        (("bad.png", None), r"row 1 \(bad.png\): image: must be"),
    ):
        with pytest.raises(UserError, match=sentence):
            clf.predict([("a.png", None), files])


def test_files_are_refused_where_nobody_knows_how_the_training_sounds_were_made(tiny):
    with pytest.raises(UserError, match="this model cannot read sound files: the front end"):
        tiny.predict([("a.png", "a.wav")])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda X: {"image": X["image"].reshape(4, 14, 56)}, r"X\['image'\]: rows must have the model's 28 × 28 × 1"),
        (lambda X: {"audio": X["audio"] / 1000}, r"X\['audio'\]: audio features must be on the scale"),
        (lambda X: {"image": X["image"] / 127.5 - 1}, r"X\['image'\]: pixels must be in 0-1 or in 0-255"),
        (
            lambda X: {"audio": np.where(np.arange(4)[:, None] == 2, np.nan, X["audio"])},
            "row 2: audio: values must be finite",
        ),
        (lambda X: {"audio": X["audio"] * np.inf}, "row 0: audio: values must be finite"),
    ],
)
def test_rows_that_cannot_be_answered_are_one_line(clf, change, sentence):
    images, sounds = digits(4)
    with pytest.raises(UserError, match=sentence):
        clf.predict(change({"image": images, "audio": sounds}))


# What is made of a fitted classifier


def test_the_model_is_a_functional_keras_model(clf, trained_run):
    assert isinstance(clf.model_, keras.Model) and clf.model_ is clf.model_
    images, sounds = digits(3)
    batch = {"image": images[..., None].astype(np.float32), "audio": sounds, "present": np.ones((3, 2), bool)}
    expected = views(trained_run, images, sounds)["fused"]
    np.testing.assert_allclose(np.asarray(clf.model_(batch)), expected, atol=1e-6)


def test_an_evaluation_is_readable_and_writes_the_page(evaluated, tmp_path, monkeypatch):
    clf, asked = load_run(evaluated), []
    monkeypatch.setattr(evaluator, "evaluate", lambda *words: asked.append(words) or evaluated / "evaluation")
    found = clf.set_params(verbose=0).evaluate(grid=False, seed=3)
    assert asked == [(clf.run_dir_, evaluator.Request(grid=False, seed=3), None)]
    assert 0.8 < found.metrics["views"]["fused"]["accuracy"] == found.views.loc["fused", "accuracy"]
    assert "overall accuracy" in repr(found) and "<table" in found._repr_html_()
    assert found.robustness["num_rows"] == 40
    page = found.report(tmp_path / "report.html")
    assert page == tmp_path / "report.html" and page.stat().st_size > 100_000


def test_other_data_are_evaluated_with_the_runs_classes(tiny, tmp_path, monkeypatch):
    images, sounds, label = pairs(12)
    given = []

    def evaluate(folder, request, console):
        given.append((np.load(Path(request.data) / "labels.npy").tolist(), request.force))
        write_json(tmp_path / "evaluation.json", {"views": {}})
        (tmp_path / "report.txt").touch()
        return tmp_path

    monkeypatch.setattr(evaluator, "evaluate", evaluate)
    assert tiny.evaluate({"image": images, "audio": sounds}, label).folder == tmp_path
    assert given == [(np.searchsorted(VALUES, label).tolist(), True)]
    with pytest.raises(UserError, match=r"classes of the run \(3, 7, 12\). Received: 4"):
        tiny.evaluate({"image": images, "audio": sounds}, label + 1)


def test_a_version_goes_below_the_folder_that_is_named(clf, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(exporter, "export", lambda *words: asked.append(words) or tmp_path)
    clf.export(tmp_path / "saved_models" / "digits", version=3, verify=False)
    run, network, store, options, _ = asked[0]
    assert (run.folder, network) == (clf.run_dir_, clf.model_)
    assert (store.root, store.name) == (tmp_path / "saved_models", "digits")
    assert options == exporter.Options(3, False, True, "savedmodel")
    for words, sentence in (({"format": "h5"}, "'format' must be one of"), ({"version": 0}, "'version' must be None")):
        with pytest.raises(UserError, match=sentence):
            clf.export(tmp_path / "x", **words)


def test_embeddings_come_as_arrays(whole, monkeypatch):
    clf = load_run(whole)
    monkeypatch.setattr(embedder, "embed", lambda *words: whole / "embeddings")
    found = clf.embed()
    assert set(found) == {"image", "audio", "fused", "labels"}
    assert len({len(array) for array in found.values()}) == 1


def test_a_saved_classifier_is_loaded_and_nothing_is_replaced(tiny, tmp_path):
    saved = tiny.save(tmp_path / "models" / "mine")
    images, *_ = pairs(3)
    again = load(saved)
    np.testing.assert_array_equal(again.predict_proba({"image": images}), tiny.predict_proba({"image": images}))
    assert Run(saved).config().data.data == str(saved / "training_data")
    with pytest.raises(UserError, match="an existing run is kept"):
        tiny.save(saved)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("path", "sentence"),
    [("gone", "gone: must be a run folder, .* Found: no such folder"), ("", "must be a run folder, .* Found: neither")],
)
def test_what_is_no_classifier_is_one_line(path, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        load(tmp_path / path)


@pytest.mark.slow
def test_cross_validation_runs_on_a_table(capfd):
    data = table(90)
    scores = cross_val_score(
        FusionClassifier(**TINY, epochs=1),
        data[["image", "audio"]],
        data["label"],
        groups=data["group"],
        cv=GroupKFold(3),
    )
    assert scores.shape == (3,) and np.isfinite(scores).all()
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_the_five_lines_run(trained_run, exported_model, tmp_path, monkeypatch):
    """X and A are arrays of files' names, since only of files the front end of the sounds is known."""
    write_media(tmp_path / "media", 24, paired=True)
    files = sorted((tmp_path / "media").rglob("*.png"))
    monkeypatch.chdir(tmp_path)
    shutil.copy(files[0], "a.png")
    shutil.copy(files[0].with_suffix(".wav"), "a.wav")
    shutil.copy(files[1], "b.png")
    shutil.copytree(trained_run, "runs/robust-1")
    shutil.copytree(exported_model, "saved_models/kfusion/1")
    X = np.array([str(path) for path in files])
    A = np.array([str(path.with_suffix(".wav")) for path in files])
    names = {"X": X, "A": A, "y": np.array([path.parent.name for path in files])}
    exec(FIVE_LINES, names)
    assert Path("report.html").stat().st_size > 100_000
    assert Path("saved_models/digits/1/saved_model.pb").is_file()
    assert repr(names["clf"]).startswith("ExportedClassifier(")
    digits_version = load("saved_models/digits")
    assert digits_version.classes_.tolist() == ["one", "three", "two"]
    assert digits_version.predict([("a.png", "a.wav")]).tolist()[0] in ("one", "three", "two")


@pytest.mark.slow
def test_what_a_program_fitted_is_evaluated_embedded_and_resumed_by_the_commands(tiny_run, tmp_path):
    run = copied(tiny_run, tmp_path / "run")
    for words in (("evaluate", "run", "--no-grid"), ("report", "run")):
        command = [sys.executable, "-m", "kfusion", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    flags = ("--config", run / "config.json", "--resume", "--out", run)
    assert "finished already" in run_train(*flags, cwd=tmp_path).stdout
    judged = load_run(run).evaluate(*_held_out(), grid=False)
    assert judged.metrics["data"]["num_rows"] == 12
    version = load(load_run(run).export(tmp_path / "saved_models" / "tiny", verify=False))
    assert version.classes_.tolist() == list(VALUES)
    images, sounds, _ = pairs(4)
    X = {"image": images, "audio": sounds}
    np.testing.assert_allclose(version.predict_proba(X), load(run).predict_proba(X), atol=1e-5)


def _held_out() -> tuple[pd.DataFrame, np.ndarray]:
    images, sounds, label = pairs(12)
    return pd.DataFrame({"image": list(images), "audio": list(sounds)}), label
