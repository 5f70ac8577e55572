"""Files for other runtimes: they answer as the network does, say what they are, and appear proved or not at all."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kfusion.config import ModelConfig
from kfusion.data.dataset import Pairs
from kfusion.exporting.portable import facts_of, same_accuracy, same_answers, write_litert, write_onnx
from kfusion.exporting.portable_runtime import OUTPUTS, open_portable
from kfusion.exporting.saved_model import held_out_pairs
from kfusion.exporting.verify import Unproven
from kfusion.inference import load_network, predict_views
from kfusion.model.build import build_model
from kfusion.run_dir import Run
from kfusion.spec import VIEWS
from tests.exports import EXTRAS, MISSING, needs_litert

TITLES = ("both", "image alone", "audio alone")
WRITERS: dict[str, Any] = {"litert": write_litert, "onnx": write_onnx}
SUFFIXES = {"litert": ".tflite", "onnx": ".onnx"}


@pytest.fixture(scope="module")
def run(trained_run):
    return Run(trained_run)


@pytest.fixture(scope="module")
def network(run):
    return load_network(run)


@pytest.fixture(scope="module")
def pairs(run) -> Pairs:
    return held_out_pairs(run)


@pytest.fixture(scope="module")
def known(network, pairs):
    """What the network says of the test pairs, as training and evaluation ask it."""
    return predict_views(network, pairs)


@pytest.fixture(scope="module")
def files(run, network, pairs, tmp_path_factory):
    """Each extra's file of the trained run, written when first asked for."""
    folder, made = tmp_path_factory.mktemp("files"), dict[str, Path]()

    def file(extra: str) -> Path:
        if extra not in made:
            path = folder / f"model{SUFFIXES[extra]}"
            WRITERS[extra](network, run.spec(), path, pairs, facts_of(run, {}))
            made[extra] = path
        return made[extra]

    return file


@pytest.fixture(scope="module")
def int8(run, network, pairs, tmp_path_factory):
    """The trained run's file of 8-bit integers; its own test pairs fix the ranges, which is enough here."""
    path = tmp_path_factory.mktemp("int8") / "model.tflite"
    write_litert(network, run.spec(), path, pairs, facts_of(run, {}), calibration=pairs)
    return path


def asked(path: Path, pairs: Pairs, size: int, there: tuple[bool, bool] = (True, True), absent: float = 0.0) -> Any:
    """A file's answers to the first pairs, with `absent` all over a modality that is not there."""
    pixels, audio = pairs.read(np.arange(size))
    image = pixels / np.float32(255)
    given = [
        values if here else np.full_like(values, absent) for values, here in zip((image, audio), there, strict=True)
    ]
    return open_portable(path).ask(given[0], given[1], np.tile([there], (size, 1)))


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_a_file_answers_as_training_and_evaluation_do_for_any_batch(files, known, network, pairs, extra, size):
    answer = asked(files(extra), pairs, size)
    assert set(answer) == set(OUTPUTS)
    for name, view in (("probabilities", "fused"), ("image_probabilities", "image"), ("audio_probabilities", "audio")):
        np.testing.assert_allclose(answer[name], known[view][:size], atol=1e-5, rtol=0)
    np.testing.assert_array_equal(answer["label"], known["fused"][:size].argmax(axis=1))
    assert answer["embedding"].shape == (size, network.get_layer("fusion").output.shape[-1])


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("absent", [np.nan, np.inf, 1e9])
@pytest.mark.parametrize("view", ["image", "audio"])
def test_what_lies_in_place_of_an_absent_modality_has_no_influence(files, known, pairs, extra, view, absent):
    answer = asked(files(extra), pairs, 7, VIEWS[view], absent)
    other = "audio" if view == "image" else "image"
    for name in ("probabilities", f"{view}_probabilities"):
        np.testing.assert_allclose(answer[name], known[view][:7], atol=1e-5, rtol=0)
    assert not answer[f"{other}_probabilities"].any()


@pytest.mark.parametrize("extra", EXTRAS)
def test_rows_of_one_batch_may_lack_different_modalities(files, known, pairs, extra):
    pixels, audio = pairs.read(np.arange(3))
    present = np.array([[True, True], [True, False], [False, True]])
    answer = open_portable(files(extra)).ask(pixels / np.float32(255), audio, present)
    wanted = np.stack([known["fused"][0], known["image"][1], known["audio"][2]])
    np.testing.assert_allclose(answer["probabilities"], wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("head", [pytest.param("attention", marks=pytest.mark.slow), "late"])
def test_the_other_heads_convert_and_a_temperature_is_in_the_file(run, pairs, tmp_path, extra, head):
    config = ModelConfig(fusion=head, filters=(4,), embed_dim=16, hidden_dim=16, audio_units=(16,), utterance_trim=0.3)
    features, path = run.data(), tmp_path / f"model{SUFFIXES[extra]}"
    network = build_model(config, run.spec(), features["scaling_mean"], features["scaling_variance"])
    temperature = {"fused": 2.0, "image": 3.0, "audio": 0.5}
    checks = WRITERS[extra](network, run.spec(), path, pairs, facts_of(run, temperature), temperature)
    assert [check.title for check in checks if check.passed] == list(TITLES)
    known = predict_views(network, pairs)
    for view, there in VIEWS.items():
        logs = np.log(np.maximum(known[view][:5].astype(np.float64), 1e-37)) / temperature[view]
        wanted = np.exp(logs) / np.exp(logs).sum(axis=1, keepdims=True)
        answer = asked(path, pairs, 5, there, np.nan)
        np.testing.assert_allclose(answer["probabilities"], wanted, atol=1e-5, rtol=0)
    assert open_portable(path).facts["temperature"] == temperature


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_file_says_what_it_was_made_from(files, run, extra):
    facts = open_portable(files(extra)).facts
    assert facts["class_names"] == [str(digit) for digit in range(10)]
    assert facts["front_end"] == run.data()["source"]["front_end"]
    assert facts["test"]["fused"] == run.metrics()["views"]["fused"]["accuracy"]
    assert facts["versions"]["tensorflow"] and facts["versions"]["kfusion"]


@needs_litert
def test_a_tflite_file_is_an_archive_with_the_labels(files):
    with zipfile.ZipFile(files("litert")) as archive:
        assert archive.read("labels.txt").decode().split() == [str(digit) for digit in range(10)]


@pytest.mark.skipif(bool(MISSING["onnx"]), reason="needs the extra onnx")
def test_an_onnx_file_names_its_batch_and_its_labels(files):
    import onnx

    model = onnx.load(files("onnx"))
    assert [tensor.name for tensor in model.graph.input] == ["image", "audio", "present"]
    assert [tensor.name for tensor in model.graph.output] == list(OUTPUTS)
    tensors = (*model.graph.input, *model.graph.output)
    assert {tensor.type.tensor_type.shape.dim[0].dim_param for tensor in tensors} == {"batch"}
    labels = {entry.key: entry.value for entry in model.metadata_props}["labels"]
    assert labels.split("\n") == [str(digit) for digit in range(10)]


@needs_litert
def test_an_int8_file_is_small_and_classifies_as_well(files, int8, pairs):
    from ai_edge_litert.interpreter import Interpreter

    exact = files("litert")
    assert int8.stat().st_size < 0.35 * exact.stat().st_size
    kinds = [np.dtype(each["dtype"]).name for each in Interpreter(str(int8)).get_tensor_details()]
    assert kinds.count("int8") >= 8  # Four convolutions' weights and activations at the least.
    assert all(check.passed for check in same_accuracy(int8, exact, pairs))
    answers = [asked(path, pairs, 50)["image_probabilities"] for path in (int8, exact)]
    assert 0 < np.abs(answers[0] - answers[1]).max() < 0.2


@needs_litert
def test_an_int8_file_does_not_hear_what_is_absent(int8, pairs):
    answers = [asked(int8, pairs, 7, VIEWS["audio"], absent)["probabilities"] for absent in (0.0, np.nan)]
    np.testing.assert_array_equal(*answers)


@needs_litert
def test_a_file_that_classifies_worse_is_seen(files, run, pairs, tmp_path):
    untrained = build_model(ModelConfig(filters=(4,)), run.spec(), np.zeros(507), np.ones(507))
    path = tmp_path / "untrained.tflite"
    write_litert(untrained, run.spec(), path, None, facts_of(run, {}))
    checks = same_accuracy(path, files("litert"), pairs)
    assert [check.title for check in checks if not check.passed] == [f"int8, {name}" for name in TITLES]


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_file_that_answers_otherwise_is_not_put_in_place(files, network, run, pairs, tmp_path, extra):
    from kfusion.exporting.portable import put_in_place

    other = build_model(run.config().model, run.spec(), np.zeros(507), np.ones(507))
    other.set_weights(network.get_weights())
    kernel = other.get_layer("probabilities").kernel
    kernel.assign(kernel * 1.01)
    path = tmp_path / files(extra).name
    path.write_text("an older file")
    with pytest.raises(Unproven, match=r"must answer as the network does. Found: both: probabilities ±"):
        put_in_place(path, files(extra).read_bytes(), lambda file: same_answers(file, other, pairs, {}))
    assert path.read_text() == "an older file"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("name", "content", "phrase"), [
    ("model.tflite", b"no archive", "must be a file made by"),
    ("model.onnx", b"no model", "must be a file made by"),
    ("model.bin", b"", "must end in .tflite or .onnx. Found: .bin"),
    ("model.onnx", None, "Found: no such file"),
])  # fmt: skip
def test_a_wrong_file_is_one_line(tmp_path, name, content, phrase):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=phrase) as caught:
        open_portable(path)
    assert "\n" not in str(caught.value)
