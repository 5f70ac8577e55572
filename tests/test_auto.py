"""`--recipe auto`: what is best on validation is kept, and a run that keeps a baseline is a run like any other."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest

from kfusion import load
from kfusion.plots.tables import Words
from kfusion.recipes import RECIPES, smaller
from kfusion.reporting.run_data import read_findings
from tests.processes import in_process
from tests.servers import serve
from tests.test_modalities import StopAfterOne, rows_of, settings, write_folder

NAMES = ("image", "audio")


def test_a_smaller_network_has_half_of_each_width():
    model = smaller(RECIPES["auto"]).model
    assert (model.filters, model.audio_units, model.embed_dim, model.hidden_dim) == ((8, 32), (256, 128), 64, 128)
    assert smaller(replace(RECIPES["auto"], model=replace(model, embed_dim=1, filters=(1,)))).model.filters == (1,)


@pytest.mark.slow
def test_a_run_that_keeps_a_baseline_does_all_that_any_run_does(tmp_path, undrawn):
    """One step an epoch teaches no network anything: the baselines win, from the training to a served answer."""
    from kfusion.training.trainer import train

    write_folder(tmp_path / "data", NAMES)
    config = settings(tmp_path / "data", epochs=2)
    training = replace(config.training, learner="auto", batch_size=64, peak_learning_rate=1e-5, deterministic=False)
    config, out = replace(config, training=training), tmp_path / "run"
    train(config, out, callbacks=(StopAfterOne(),))
    assert not (out / "metrics.json").exists() and (out / "candidates" / "network" / "checkpoint.npz").exists()
    train(config, out, resume=True)
    assert not (out / "candidates").exists()
    train(config, out, resume=True)  # It is finished.

    metrics = json.loads((out / "metrics.json").read_text())
    choice = metrics["choice"]
    assert choice["kept"] == "baselines" and list(choice["val"]) == ["baselines", "smaller", "network"]
    assert choice["line"].startswith("baselines kept: validation accuracy, the mean of fused, image only and audio")
    assert metrics["views"]["fused"]["accuracy"] > 0.9 and metrics["epochs"] == 1
    assert metrics["views"]["fused"] == {
        name: value for name, value in metrics["baselines"]["views"]["late_fusion"].items() if name != "loss"
    }
    network = keras.saving.load_model(out / "best.keras", compile=False)
    assert sorted(network.input) == ["audio", "image", "present"] and network.output.shape == (None, 3)
    assert read_findings(out).model.fusion == "late"

    for command in ("evaluate", "embed", "report"):
        done = in_process(f"kfusion.{command}", out)
        assert (done.returncode, done.stderr) == (0, ""), f"{command}: {done.stdout}{done.stderr}"
    assert choice["line"] in (out / "report.html").read_text("utf-8")

    values, label = rows_of(NAMES)
    clf = load(out)
    assert (clf.predict(values) == label).mean() > 0.9
    known = clf.predict_proba(values)
    for form in ("savedmodel", "onnx", "litert"):
        done = in_process("kfusion.export", out, "--name", "made", "--to", tmp_path / "models", "--format", form)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    np.testing.assert_allclose(load(tmp_path / "models" / "made" / "1").predict_proba(values), known, atol=1e-5)
    with serve(tmp_path / "models" / "made", tmp_path / "log.txt") as server:
        inputs = {"image": (values["image"][:2] / 255).tolist(), "audio": values["audio"][:2].reshape(2, -1).tolist()}
        status, answer = server.predict({"signature_name": "serving_default", "inputs": inputs}, "/v1/models/made")
    assert status == 200, answer
    np.testing.assert_allclose(answer["outputs"]["probabilities"], known[:2], atol=1e-5)


@pytest.mark.slow
def test_several_sources_are_trained_on_resumed_and_told_apart(tmp_path, undrawn):
    from kfusion.training.trainer import train

    for name in ("a", "b"):
        write_folder(tmp_path / name, NAMES)
    config = settings(tmp_path / "a", epochs=2)
    several = (str(tmp_path / "a"), str(tmp_path / "b"))
    for name, shift in (("images", 1), ("audio", 0.01)):  # Else every row of b is one of a.
        path = tmp_path / "b" / f"{name}.npy"
        np.save(path, np.clip(np.load(path) + np.float32(shift), None, 255))
    config = replace(config, data=replace(config.data, data=several))
    train(config, tmp_path / "run", callbacks=(StopAfterOne(),))
    train(config, tmp_path / "run", resume=True)
    done = in_process("kfusion.evaluate", tmp_path / "run", "--no-grid")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "Accuracy by source" in done.stdout
    for facts in ("metrics.json", "evaluation/evaluation.json"):
        sources = json.loads((tmp_path / "run" / facts).read_text())["sources"]
        assert [each["source"] for each in sources] == ["a", "b"]
        assert sum(each["views"]["fused"]["num_rows"] for each in sources) == 36
    done = in_process("kfusion.report", tmp_path / "run")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "Accuracy by source" in (tmp_path / "run" / "report.html").read_text("utf-8")
    assert Words.of(read_findings(tmp_path / "run").run.spec()).nouns["audio"] == "sound"
