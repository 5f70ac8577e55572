"""Small and uneven data: enough steps, batches that fit, class weights, macro-F1, and folds."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import f1_score

from kfusion import run_dir
from kfusion.config import AugmentConfig, Config, DataConfig, ModelConfig, TrainingConfig, config_from_json
from kfusion.data.dataset import ModalityData, Source
from kfusion.data.splits import split
from kfusion.data.statistics import measure
from kfusion.inference import load_network
from kfusion.io import read_json
from kfusion.modalities import each_of
from kfusion.prepared_data import PreparedData, gather
from kfusion.recipes import EARLIER, RECIPES, as_named, config_of, parameters_of, recipe
from kfusion.spec import Spec
from kfusion.train import folder_of, read_command
from kfusion.training import folds
from kfusion.training.fit import read_history
from kfusion.training.optimizers import MacroF1
from kfusion.training.trainer import evaluate, fit_run, new_network, open_or_begin, train
from kfusion.validation import UserError
from tests.folders import write_own
from tests.processes import fails, in_process
from tuning.space import apply

SMALL = ModelConfig(filters=(2,), embed_dim=4, hidden_dim=4, audio_units=(6,))
BUILTIN_ROWS = 4000
ROBUST = RECIPES["robust"].training


# Steps and batches


@pytest.mark.parametrize("name", RECIPES)
def test_the_built_in_data_are_trained_as_ever(name):
    training = RECIPES[name].training
    used = training.adapted(BUILTIN_ROWS)
    assert (used.epochs, used.batch_size) == (training.epochs, 64)
    assert training.adaptations(BUILTIN_ROWS) == []


@pytest.mark.parametrize(
    ("num_rows", "batch_size", "epochs"),
    [
        (256, 64, 50),  # Four batches of 64 exactly.
        (255, 32, 25),
        (64, 16, 50),
        (33, 8, 40),
        (8, 8, 200),
        (1, 8, 200),
    ],
)
def test_few_rows_have_smaller_batches_and_more_epochs(num_rows, batch_size, epochs):
    used = TrainingConfig(epochs=3, min_steps=200, min_batches=4).adapted(num_rows)
    assert (used.batch_size, used.epochs) == (batch_size, epochs)
    assert used.steps(num_rows) >= 200 > replace(used, epochs=epochs - 1).steps(num_rows)
    assert used.adapted(num_rows) == used
    fixed = TrainingConfig(epochs=3).adapted(num_rows)
    assert (fixed.batch_size, fixed.epochs) == (64, 3)
    assert TrainingConfig(batch_size=4, min_batches=4).adapted(num_rows).batch_size == 4


@pytest.mark.parametrize(
    ("num_rows", "passes"), [(64, 3), (8, 10), (200, 3), (1000, 3), (1600, 2), (3136, 2), (3137, 1)]
)
def test_epochs_of_few_rows_hold_several_passes(num_rows, passes):
    training = TrainingConfig(epochs=30, min_steps=1500, passes=0, min_batches=4)
    used = training.adapted(num_rows)
    assert (used.epochs, used.passes) == (30, passes)
    assert used.steps(num_rows) >= 1500 or passes * 30 > 89
    assert passes == 1 or replace(used, passes=passes - 1).steps(num_rows) < 1500
    assert used.adapted(num_rows) == used
    named = as_named(Config(training=training), ["epochs"]).training.adapted(num_rows)
    assert (named.epochs, named.passes) == (30, 1)


def test_what_is_adapted_is_said_with_its_reason():
    assert TrainingConfig(epochs=30, min_steps=1500, min_batches=4).adaptations(200) == [
        "batch size 32: 200 training rows are fewer than 4 batches of 64; --batch-size decides otherwise",
        "215 epochs, 1,505 steps: 210 steps in 30 epochs are too few; --epochs decides otherwise",
    ]
    assert recipe("robust").training.adaptations(200)[1:] == [
        "16 epochs of 6 passes, 672 steps: 112 steps in 16 epochs are too few; --epochs decides otherwise"
    ]
    assert TrainingConfig(epochs=12).adaptations(168) == ["only 36 steps, too few for most data; more --epochs help"]


@pytest.mark.parametrize(
    ("words", "min_steps", "min_batches"),
    [
        ((), ROBUST.min_steps, 4),
        (("--epochs", "3"), 0, 4),
        (("--epochs=3", "--min-steps", "70"), 70, 4),
        (("--batch_size", "64"), ROBUST.min_steps, 0),
        (("--batch-size", "64", "--epochs", "30"), 0, 0),
    ],
)
def test_epochs_and_batch_size_that_a_person_names_are_obeyed(words, min_steps, min_batches):
    training = read_command(["--recipe", "robust", *words]).settings.training
    assert (training.min_steps, training.min_batches) == (min_steps, min_batches)


def test_a_classifiers_parameters_are_obeyed_likewise():
    config = config_of("robust", {"epochs": 5, "batch_size": None})
    assert (config.training.epochs, config.training.min_steps, config.training.min_batches) == (5, 0, 4)
    assert parameters_of(config) == {"recipe": "robust", "epochs": 5}
    both = config_of("robust", {"epochs": 5, "min_steps": 70})
    assert both.training.min_steps == 70
    assert config_of(**{"start": "robust", "settings": {**parameters_of(both), "recipe": None}}) == both


def test_a_trial_of_a_search_has_exactly_the_epochs_that_it_says():
    trial = apply({"batch_size": 128}, recipe("robust")).training
    assert (trial.adapted(100).epochs, trial.adapted(100).batch_size) == (ROBUST.epochs, 128)


def test_a_run_begun_by_an_earlier_recipe_goes_on_by_it(tmp_path):
    values = recipe("robust").to_json()
    for section, earlier in EARLIER.items():
        values[section] |= earlier
    for name in ("min_steps", "min_batches", "label_smoothing"):
        del values["training"][name]
    assert config_from_json(values).training.min_steps == 0
    for name, content in {"config": values, "data": {"format": 1, "spec": Spec().to_json()}, "metrics": {}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert train(recipe("robust"), tmp_path, resume=True).folder == tmp_path
    # A run whose config knows of fewer steps, but not of passes, goes on with more epochs.
    values["training"] |= {"min_steps": 1500, "min_batches": 4}
    del values["training"]["passes"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert config_from_json(values).training.adapted(200).epochs == 215
    assert train(recipe("robust"), tmp_path, resume=True).folder == tmp_path
    with pytest.raises(UserError, match=r"Found: another training.epochs"):
        train(config_of("robust", {"epochs": 7}), tmp_path, resume=True)


@pytest.mark.slow
def test_a_run_of_several_passes_an_epoch_goes_on_bit_for_bit(uneven, tmp_path, undrawn, deterministic):
    training = replace(uneven.training, passes=3, deterministic=True)
    config = replace(uneven, augment=AugmentConfig(repair=True), training=training)
    whole = train(config, tmp_path / "whole")
    assert int(read_history(whole.history)["learning_rate"].ne(0).sum()) == 1  # The last of all steps ends at 0.

    def stop(epoch, logs):
        broken.model.stop_training = True

    broken = keras.callbacks.LambdaCallback(on_epoch_end=stop)
    train(config, tmp_path / "broken", callbacks=(broken,))
    resumed = train(config, tmp_path / "broken", resume=True)
    for one, other in zip(*(load_network(run).get_weights() for run in (whole, resumed)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [len(read_history(run.history)) for run in (whole, resumed)] == [2, 2]


# Class weights and macro-F1


@pytest.fixture
def uneven(tmp_path) -> Config:
    """48 rows of three classes, of which the last has 6."""
    folder = tmp_path / "own"
    folder.mkdir()
    write_own(folder, np.repeat([0, 1, 2], [30, 12, 6]))
    data = DataConfig(data=str(folder))
    return Config(data, SMALL, training=TrainingConfig(epochs=2, precision="float32"))


def test_balanced_classes_have_one_prior_and_weights_against_their_share(uneven):
    plain = gather(uneven)
    assert plain.class_weight is None and plain.facts()["prior"] == plain.prior.tolist()
    prepared = gather(replace(uneven, training=replace(uneven.training, class_weight="balanced")))
    counts = np.bincount(prepared.parts.train.label)
    assert prepared.class_weight is not None
    np.testing.assert_allclose(prepared.class_weight, counts.sum() / (3 * counts))
    np.testing.assert_allclose(prepared.facts()["prior"], np.full(3, 1 / 3))
    assert any(line.startswith("class weights: from ") for line in prepared.lines())
    uneven_classes = "24 training rows of class 0, 4 of class 2; --class-weight balanced gives both the same weight"
    assert uneven_classes in plain.lines()


@pytest.mark.parametrize("views", [(), (3,)])
def test_macro_f1_in_training_is_scikit_learns_over_all_batches(views):
    rng = np.random.default_rng(0)
    labels, answers = rng.integers(4, size=(3, 20, *views)), rng.random((3, 20, *views, 5)).astype("float32")
    metric = MacroF1(5, *views)
    for label, answer in zip(labels, answers, strict=True):
        metric.update_state(tf.constant(label), tf.constant(answer))
    label = labels.reshape(60, -1).T
    predicted = answers.argmax(-1).reshape(60, -1).T
    by_hand = [
        f1_score(*pair, labels=range(5), average="macro", zero_division=0)  # pyright: ignore
        for pair in zip(label, predicted, strict=True)
    ]
    assert float(metric.result()) == pytest.approx(np.mean(by_hand), rel=1e-5)


# Folds

SPEC = Spec.pair(image_shape=(1, 1, 1), audio_grid=(1, 1), class_names=("a", "b"))


def source_of(num_rows: int, aligned: bool) -> Source:
    """Rows of two classes; each two neighbours of one class are a group."""
    label = np.arange(num_rows) % 2
    data = ModalityData(np.zeros((num_rows, 1)), label, np.arange(num_rows) // 4 * 2 + label)
    return Source({"image": data, "audio": data}, aligned, SPEC, {"name": "toy"})


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize(("num_folds", "val_share"), [(2, 0.1), (5, 0.1), (3, 0.4)])
def test_each_row_is_tested_once_and_no_group_is_divided(aligned, num_folds, val_share):
    source = source_of(120, aligned)
    config = DataConfig(folds=num_folds, val_share=val_share)
    parts = [split(source, replace(config, fold=fold), 7) for fold in range(1, num_folds + 1)]
    for name in ("image", "audio"):
        tested = [np.unique(part.test.rows[name]) for part in parts]
        if name == "image" or aligned:
            np.testing.assert_array_equal(np.sort(np.concatenate(tested)), np.arange(120))
        else:  # Of sounds that meet images by class, some may be left over.
            assert len(np.concatenate(tested)) == len(np.unique(np.concatenate(tested)))
        for part in parts:
            groups = [set(source[name].group[p.rows[name]].tolist()) for p in (part.train, part.val, part.test)]
            assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    for part in parts:
        for some, share in ((part.test, 1 / num_folds), (part.val, val_share)):
            assert np.abs(np.bincount(some.label) / 60 - share).max() < 0.07
    assert not np.array_equal(parts[0].test.rows["image"], split(source, replace(config, fold=1), 8).test.rows["image"])


def test_folds_have_rules():
    source = source_of(40, aligned=True)
    with pytest.raises(UserError, match=r"'fold' must be in \[1, 5\], the fold that is the test part. Received: 0"):
        split(source, DataConfig(folds=5), 0)
    with pytest.raises(UserError, match=r"'folds' must be 0: toy has test files of its own. Received: 5"):
        split(replace(source, official_test=source), DataConfig(folds=5, fold=1), 0)
    wrong: list[dict[str, Any]] = [{"folds": 1}, {"fold": 1}, {"folds": 3, "fold": 4}, {"folds": 2, "val_share": 0.5}]
    for values in wrong:
        with pytest.raises(UserError, match=r"'fold|'val_share"):
            DataConfig(**values)
    with pytest.raises(UserError, match=r"'folds' must be 0 where 'split' is 'speaker'"):
        DataConfig(folds=3, split="speaker")


def test_folds_need_a_folder_of_their_own(tmp_path):
    place = tmp_path / "x"
    assert folds.check_folder(place, 3, resume=False, overwrite=False) == []
    (place / "fold-1").mkdir(parents=True)
    with pytest.raises(UserError, match=r"existing folds are kept"):
        folds.check_folder(place, 3, resume=False, overwrite=False)
    assert folds.check_folder(place, 3, resume=True, overwrite=False) == [place / "fold-1"]
    (place / "fold-4").mkdir()
    with pytest.raises(UserError, match=r"'--resume' needs the folds of the runs, 3. Found: fold-4"):
        folds.check_folder(place, 3, resume=True, overwrite=False)
    assert len(folds.check_folder(place, 3, resume=False, overwrite=True)) == 2
    (place / "fold-4" / "letter.txt").touch()
    with pytest.raises(UserError, match=r"fold-4: a run needs a folder of its own. Found: letter.txt"):
        folds.check_folder(place, 3, resume=False, overwrite=True)
    (place / "letter.txt").touch()
    with pytest.raises(UserError, match=r"folds need a folder of their own. Found: letter.txt"):
        folds.check_folder(place, 3, resume=True, overwrite=False)


def test_resume_tells_folds_from_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("paper-1", "paper-2/fold-1", "paper-3/fold-1"):
        Path("runs", name).mkdir(parents=True)
    Path("runs/paper-3/folds.json").touch()
    assert folder_of(read_command(["--resume"])) == Path("runs/paper-1")
    assert folder_of(read_command(["--resume", "--folds", "3"])) == Path("runs/paper-2")
    assert folder_of(read_command(["--folds", "3"])) == Path("runs/paper-4")


@pytest.mark.slow
def test_folds_go_on_where_they_were_broken_off(uneven, tmp_path, monkeypatch, undrawn):
    config = replace(uneven, data=replace(uneven.data, folds=2), training=replace(uneven.training, best_by="macro_f1"))
    place, begun = tmp_path / "x", []

    def stopping(config, folder, **more):
        begun.append(folder.name)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return train(config, folder, **more)

    monkeypatch.setattr(folds, "train", stopping)
    with pytest.raises(KeyboardInterrupt):
        folds.train_folds(config, place)
    assert not (place / "folds.json").exists()
    first = (place / "fold-1" / "best.keras").read_bytes()
    with run_dir.lock(place), pytest.raises(UserError, match=r"another process is writing into this folder"):
        folds.train_folds(config, place, resume=True)
    folds.train_folds(config, place, resume=True)
    assert begun == ["fold-1", "fold-2", "fold-1", "fold-2"]
    assert (place / "fold-1" / "best.keras").read_bytes() == first
    facts = read_json(place / "folds.json")
    metrics = [read_json(place / f"fold-{n}" / "metrics.json") for n in (1, 2)]
    for score in ("accuracy", "macro_f1"):
        values = [each["views"]["fused"][score] for each in metrics]
        found = facts["views"]["fused"][score]
        assert found["values"] == values
        assert (found["mean"], found["std"]) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    assert sum(facts["num_rows"]) == 48
    history = (place / "fold-1" / "history.csv").read_text().splitlines()[0]
    assert {"macro_f1", "val_macro_f1"} <= set(history.split(","))
    assert run_dir.open_finished(place / "fold-2").config().data.fold == 2


def test_a_class_too_small_for_the_folds_is_named_before_anything_is_written(uneven, tmp_path):
    done = in_process("kfusion.train", "--data", uneven.data.data, "--folds", 9, "--out", tmp_path / "x")
    fails(done, "each class must have rows for each part")
    assert not (tmp_path / "x").exists()


# What trains for longer


def imbalanced(seed: int, class_weight: str) -> PreparedData:
    """The built-in digits with a tiny network, the digits 5 to 9 cut to a twentieth in training and validation."""
    model = ModelConfig(filters=(8, 16), embed_dim=32, hidden_dim=32, audio_units=(64,))
    training = TrainingConfig(epochs=20, views="all", late_teacher=1.0, seed=seed, precision="float32")
    training = replace(training, class_weight=class_weight)
    prepared = gather(Config(DataConfig(), model, AugmentConfig(flip="none", rotation=0.0, crop=0), training))
    parts = prepared.parts
    train_part, val = (part.take(uneven_rows(part.label, seed)) for part in (parts.train, parts.val))
    normalisations = {name: kind.normalisation(model, name, shape) for name, kind, shape in each_of(prepared.spec)}
    statistics = measure(train_part, normalisations)
    return replace(prepared, parts=replace(parts, train=train_part, val=val), statistics=statistics)


def uneven_rows(label: np.ndarray, seed: int) -> np.ndarray:
    order = np.random.default_rng(seed).permutation(len(label))
    rows = [order[label[order] == digit] for digit in range(10)]
    return np.sort(np.concatenate([some if digit < 5 else some[: len(some) // 20] for digit, some in enumerate(rows)]))


@pytest.mark.slow
def test_balanced_weights_help_rare_classes_in_each_of_five_seeds(tmp_path):
    found: dict[tuple[int, str], dict[str, float]] = {}
    for seed in range(5):
        for class_weight in ("none", "balanced"):
            prepared = imbalanced(seed, class_weight)
            folder = tmp_path / f"{seed}-{class_weight}"
            with run_dir.lock(folder):
                run = open_or_begin(folder, prepared, "float32", resume=False)
                assert fit_run(run, prepared, new_network(prepared))
            views = evaluate(load_network(run), prepared.parts.val, prepared.parts.test, prepared.prior)["views"]
            found[seed, class_weight] = {view: facts["macro_f1"] for view, facts in views.items()}
            print(seed, class_weight, found[seed, class_weight])
    assert all(found[seed, "balanced"]["fused"] > found[seed, "none"]["fused"] for seed in range(5)), found
