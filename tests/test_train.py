"""`python -m kfusion.train` as a user runs it: real processes, real files."""

import json

import keras
import numpy as np
import pandas as pd
import pytest

from kfusion.data.loaders import load
from kfusion.data.splits import split
from kfusion.inference import load_network, predict_views
from kfusion.modalities.audio.encoder import UtteranceNorm
from kfusion.run_dir import FILES, Run, lock, open_run
from tests.processes import SMALL, fails, full_disk, in_process, run_python, run_train


def test_the_run_folder_is_complete(trained_run):
    assert {path.name for path in trained_run.iterdir()} == FILES - {"trust.npz"}  # The fixture has moved it.
    assert trained_run.with_name("trained_run_trust.npz").exists()
    pictures = {path.name for path in (trained_run / "figures").iterdir()}
    assert {"learning_curves.png", "confusion.svg", "augmented_images.png", "augmented_audio.svg"} <= pictures
    history = pd.read_csv(trained_run / "history.csv")
    assert history["epoch"].tolist() == list(range(1, 13))
    assert (history[["loss", "val_loss", "samples_per_second", "learning_rate"]].iloc[:-1] > 0).all(axis=None)
    packages = json.loads((trained_run / "environment.json").read_text())["packages"]
    assert packages["tensorflow"]


def test_a_small_run_has_learned(trained_run):
    metrics = Run(trained_run).metrics()
    accuracy = {view: figures["accuracy"] for view, figures in metrics["views"].items()}
    assert set(accuracy) == {"fused", "image", "audio", "late_fusion"}
    assert accuracy["fused"] > 0.85
    assert min(accuracy.values()) > 0.5
    assert metrics["report"]["accuracy"] == accuracy["fused"]
    assert np.sum(metrics["confusion"]) == sum(Run(trained_run).data()["num_pairs"].values()) / 10


def test_the_kept_network_reproduces_the_metrics(trained_run):
    """Another process, the same rows, the same figures: nothing outside the folder takes part."""
    run = open_run(trained_run)
    config = run.config()
    parts = split(load(config.data), config.data, config.training.seed)
    stored = run.split()
    np.testing.assert_array_equal(stored["test_audio"], parts.test.rows["audio"])
    np.testing.assert_array_equal(stored["test_image"], parts.test.rows["image"])
    answers = predict_views(load_network(run), parts.test)
    for view, figures in run.metrics()["views"].items():
        if view in answers:
            assert np.mean(answers[view].argmax(axis=1) == parts.test.label) == pytest.approx(figures["accuracy"])


@pytest.mark.slow
def test_the_networks_load_in_safe_mode_after_import_kfusion_and_keras_in_either_order(trained_run):
    """Without the training code; and importing kfusion alone brings neither Keras nor TensorFlow."""
    program = """if True:
        import sys
        import kfusion
        assert not {"keras", "tensorflow", "numpy"} & sys.modules.keys()
        import keras
        keras.saving.load_model(sys.argv[1], safe_mode=True)
        for name in [name for name in sys.modules if name.split(".")[0] == "kfusion"]:
            del sys.modules[name]
        keras.saving.get_custom_objects().clear()
        import kfusion
        network = keras.saving.load_model(sys.argv[2], safe_mode=True)
        assert getattr(network, "optimizer", None) is None
        assert "kfusion.training" not in sys.modules
    """
    paths = [str(trained_run / name) for name in ("best.keras", "last.keras")]
    done = run_python("-c", program, *paths)
    assert done.returncode == 0, done.stderr


def test_the_scaling_was_fitted_on_the_training_part_alone(trained_run):
    run = open_run(trained_run)
    config = run.config()
    parts = split(load(config.data), config.data, config.training.seed)
    training = parts.train.read(np.arange(len(parts.train)))["audio"]
    scaling = load_network(run).get_layer("audio_scaling")
    normed = np.asarray(UtteranceNorm((39, 13), config.model.utterance_trim)(training))
    np.testing.assert_allclose(np.ravel(scaling.mean), normed.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(np.ravel(scaling.variance), normed.var(axis=0), rtol=1e-3)
    assert run.data()["audio_range"] == pytest.approx([training.min(), training.max()])


def test_the_terminal_shows_each_epoch_and_the_final_tables_in_80_columns(trained_run):
    shown = (trained_run.parent / "trained_run.txt").read_text()
    for words in (
        "12/12  loss",
        "overall accuracy",
        "weighted avg",
        "calibrated late fusion",
        "run folder:",
        "split: clip",
    ):
        assert words in shown
    told = [line for line in shown.splitlines() if "run folder" not in line]
    assert max(map(len, told)) <= 100


def test_an_existing_run_is_kept_unless_asked(trained_run):
    before = (trained_run / "best.keras").read_bytes()
    fails(in_process("kfusion.train", *SMALL, "--out", trained_run), "an existing run is kept")
    assert (trained_run / "best.keras").read_bytes() == before


def test_a_folder_with_other_things_in_it_is_never_emptied(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    done = in_process("kfusion.train", *SMALL, "--epochs", "1", "--out", tmp_path, "--overwrite")
    fails(done, "a run needs a folder of its own. Found: thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_folder_that_only_looks_like_a_run_is_never_emptied(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "fig1.pdf").write_text("mine")
    done = in_process("kfusion.train", *SMALL, "--epochs", "1", "--out", tmp_path)
    fails(done, "a run needs a folder of its own. Found: figures")
    assert [path.name for path in tmp_path.rglob("*")] == ["figures", "fig1.pdf"]


def test_a_diverging_run_ends_with_one_line(tmp_path):
    flags = ("--peak-learning-rate", "1e20", *SMALL, "--epochs", "2", "--out", tmp_path / "run")
    fails(in_process("kfusion.train", *flags), "'loss' must stay finite; try a lower 'peak_learning_rate'")


def test_two_at_once_do_not_mix(tmp_path):
    with lock(tmp_path / "run"):
        done = in_process("kfusion.train", *SMALL, "--epochs", "1", "--out", tmp_path / "run")
    fails(done, "another process is writing into this folder")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--dropout", "1.5"), "'dropout' must be in [0, 1). Received: 1.5"),
        (("--nonsense", "3"), "--nonsense"),
        (("--epochs", "many"), "--epochs"),
        (("--recipe", "secret"), "'recipe' must be one of paper, robust, auto. Received: 'secret'"),
        (("--config", "gone.json"), "gone.json: the file must be readable"),
        (("--data", "gone"), "gone"),
        (("--resume", "--overwrite"), "'--resume' and '--overwrite' must not be given together. Received: both"),
        (("--recipe", ""), "'recipe' must not be empty. Received: ''"),
        (("--recipe", "robust", "--config", "x"), "'recipe' and 'config' must not be given together. Received: both"),
        (("--peak-learning-rate", "inf"), "'peak_learning_rate' must be finite. Received: inf"),
        (("--limit", "5"), "each class must have rows for each part"),
        (("--out", "file"), "file: a run needs a folder. Found: a file"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(flags, sentence, tmp_path):
    (tmp_path / "file").touch()
    fails(in_process("kfusion.train", *flags, cwd=tmp_path), sentence)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_bad_input_ends_the_process_with_status_2(tmp_path):
    fails(run_train("--epochs", "0", cwd=tmp_path), "'epochs' must be ≥ 1. Received: 0")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(tmp_path):
    with full_disk():
        done = in_process("kfusion.train", *SMALL, "--epochs", "1", "--out", tmp_path / "run")
    fails(done, "File too large")
    assert not list((tmp_path / "run").glob(".partial-*"))


def test_help_lists_every_setting_without_loading_tensorflow():
    done = in_process("kfusion.train", "--help")
    assert done.returncode == 0
    for flag in ("--recipe", "--modality-dropout", "--peak-learning-rate", "--fusion", "--test-speakers"):
        assert flag in done.stdout
    program = "import sys, kfusion.train; sys.exit('tensorflow' in sys.modules)"
    assert run_python("-c", program).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["attention", "late"])
def test_the_other_heads_train_too(fusion, tmp_path):
    flags = ("--fusion", fusion, *SMALL, "--epochs", "1", "--augment-on", "device", "--out", str(tmp_path / "run"))
    done = run_train(*flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert keras.saving.load_model(tmp_path / "run" / "best.keras").name == f"kfusion_{fusion}"
