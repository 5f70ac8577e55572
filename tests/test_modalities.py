"""A third kind of input, registered here and known to no other file, goes all the way from arrays to a served answer.

So does a model of one modality alone.
"""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from kfusion import FusionClassifier, load
from kfusion.config import AugmentConfig, Config, DataConfig, ModelConfig, TrainingConfig
from kfusion.modalities import kinds, modality, registered
from kfusion.modalities.base import Modality
from kfusion.runtime.protos import read_signatures
from tests.processes import in_process
from tests.servers import serve

CLASSES = ("hut", "tür", "zaun")
NUM_ROWS = 90
WIDTHS = {"image": (8, 8, 1), "audio": (4, 3), "pulse": (5,)}


class Pulse(Modality):
    """A row of numbers: everything as the base class has it."""

    kind = "pulse"
    array_file = "pulse.npy"


@pytest.fixture(autouse=True)
def third_kind():
    with registered(Pulse()):
        yield


def rows_of(names: tuple[str, ...], seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Samples whose class each modality tells, and their labels."""
    rng, label = np.random.default_rng(seed), np.arange(NUM_ROWS) % len(CLASSES)
    found = {}
    for name in names:
        values = rng.normal(0, 0.4, (NUM_ROWS, int(np.prod(WIDTHS[name]))))
        values[np.arange(NUM_ROWS), label] += 3.0
        scaled = (values - values.min()) / (values.max() - values.min()) * 255 if name == "image" else values
        found[name] = scaled.reshape(NUM_ROWS, *WIDTHS[name]).astype(np.float32)
    return found, np.array(CLASSES)[label]


def write_folder(folder: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The samples in kfusion's own layout."""
    folder.mkdir()
    values, label = rows_of(names)
    for name, array in values.items():
        np.save(folder / modality(name).array_file, array)
    pd.DataFrame({"label": label}).to_csv(folder / "labels.csv", index=False)
    return values


def settings(folder: Path, epochs: int = 4) -> Config:
    return Config(
        data=DataConfig(data=str(folder), val_share=0.2, test_share=0.2),
        model=ModelConfig(embed_dim=8, hidden_dim=8, filters=(4,), audio_units=(16,)),
        augment=AugmentConfig(flip="none", repair=True, wrong_sound=0.1, modality_dropout=0.1),
        training=TrainingConfig(
            epochs=epochs,
            batch_size=8,
            peak_learning_rate=0.02,
            views="all",
            late_teacher=1.0,
            precision="float32",
            deterministic=True,
        ),
    )


class StopAfterOne(keras.callbacks.Callback):
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == 0 and self.model:
            self.model.stop_training = True


def trained(folder: Path, out: Path) -> Path:
    """A run that is stopped after one epoch and resumed."""
    from kfusion.training.trainer import train

    config = settings(folder)
    train(config, out, callbacks=(StopAfterOne(),))
    assert not (out / "metrics.json").exists()
    train(config, out, resume=True)
    return out


@pytest.fixture
def three(tmp_path, deterministic, undrawn) -> Path:
    write_folder(tmp_path / "data", ("image", "audio", "pulse"))
    return trained(tmp_path / "data", tmp_path / "run")


def post(server: Any, signature: str, **inputs: Any) -> Any:
    document = {"signature_name": signature, "inputs": {name: values.tolist() for name, values in inputs.items()}}
    status, answer = server.predict(document, "/v1/models/made")
    assert status == 200, answer
    return answer["outputs"]


def test_a_kind_is_known_only_while_it_is_registered():
    assert kinds()[-1] == "pulse"


def test_three_modalities_are_trained_stopped_resumed_and_answered(three, tmp_path):
    values, label = rows_of(("image", "audio", "pulse"))
    metrics = json.loads((three / "metrics.json").read_text())
    assert list(metrics["views"]) == ["fused", "image", "audio", "pulse", "late_fusion"]
    assert metrics["views"]["fused"]["accuracy"] > 0.8

    done = in_process("kfusion.predict", three, tmp_path / "data", "--format", "full", "--out", tmp_path / "a.csv")
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "a.csv")
    assert {"pulse_label", "pulse_confidence", "agree"} <= set(table.columns)
    assert (table["label"] == label).mean() > 0.8

    clf = load(three)
    without_sound = clf.explain_decision({"image": values["image"][:6], "pulse": values["pulse"][:6]})
    assert without_sound["audio_label"].isna().all() and without_sound["pulse_label"].notna().all()


@pytest.mark.slow
def test_three_modalities_from_a_run_to_a_served_answer(three, tmp_path):
    values, _ = rows_of(("image", "audio", "pulse"))
    # Resumed is as if it had never been broken off.
    from kfusion.training.trainer import train

    train(settings(tmp_path / "data"), tmp_path / "whole")
    one, other = (
        keras.saving.load_model(folder / "last.keras", compile=False) for folder in (three, tmp_path / "whole")
    )
    for mine, its in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, its)
    for command in ("evaluate", "embed", "report"):
        done = in_process(f"kfusion.{command}", three)
        assert (done.returncode, done.stderr) == (0, ""), f"{command}: {done.stdout}{done.stderr}"
    evaluation = json.loads((three / "evaluation" / "evaluation.json").read_text())
    assert list(evaluation["confusion"]) == ["fused", "image", "audio", "pulse"]
    assert {"image", "audio", "pulse"} <= set(evaluation["decides"]["conflict"])
    grid = json.loads((three / "evaluation" / "robustness.json").read_text())
    assert list(grid["alone"]) == ["image", "audio", "pulse"]
    assert list(grid["alone"]["pulse"]) == ["feature_noise"]
    assert "pulse" in (three / "report.html").read_text(encoding="utf-8")

    clf = load(three)
    done = in_process("kfusion.export", three, "--name", "made", "--to", tmp_path / "models")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    version = tmp_path / "models" / "made" / "1"
    assert {"serving_default", "image_only", "audio_only", "pulse_only"} <= set(read_signatures(version))
    answers = load(version).predict_proba(values)
    np.testing.assert_allclose(answers, clf.predict_proba(values), atol=1e-5)

    with serve(tmp_path / "models" / "made", tmp_path / "log.txt") as server:
        everything = post(
            server,
            "serving_default",
            image=values["image"][:3] / 255,
            audio=values["audio"][:3].reshape(3, -1),
            pulse=values["pulse"][:3],
        )
        alone = post(server, "pulse_only", pulse=values["pulse"][:3])
    np.testing.assert_allclose(everything["probabilities"], answers[:3], atol=1e-5)
    np.testing.assert_allclose(alone["probabilities"], everything["pulse_probabilities"], atol=1e-5)
    assert np.asarray(everything["present"]).shape == (3, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pulse", "image"])
def test_one_modality_from_arrays_to_an_exported_answer(name, tmp_path, deterministic, undrawn):
    values = write_folder(tmp_path / "data", (name,))
    run = trained(tmp_path / "data", tmp_path / "run")
    for command, flags in (("evaluate", ()), ("report", ())):
        done = in_process(f"kfusion.{command}", run, *flags)
        assert (done.returncode, done.stderr) == (0, ""), f"{command}: {done.stdout}{done.stderr}"
    done = in_process("kfusion.predict", run, tmp_path / "data", "--format", "full", "--out", tmp_path / "a.csv")
    assert done.returncode == 0, done.stderr
    done = in_process("kfusion.export", run, "--name", "made", "--to", tmp_path / "models")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    answers = load(tmp_path / "models" / "made").predict_proba(values)
    np.testing.assert_allclose(answers, load(run).predict_proba(values), atol=1e-5)


@pytest.mark.slow
def test_a_classifier_is_fitted_on_a_program_s_three_arrays(tmp_path, undrawn):
    values, label = rows_of(("image", "audio", "pulse"))
    clf = FusionClassifier(
        epochs=4, batch_size=8, peak_learning_rate=0.02, embed_dim=8, hidden_dim=8, filters=(4,), audio_units=(16,),
        flip="none", precision="float32", views="all", out=tmp_path / "run", verbose=0,
    ).fit(values, label)  # fmt: skip
    assert clf.score(values, label) > 0.8
    assert clf.predict({"pulse": values["pulse"][:6]}).shape == (6,)
