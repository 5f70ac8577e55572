"""Files for other runtimes: they answer as the network does, say what they are, and appear proved or not at all."""

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kfusion.config import ModelConfig
from kfusion.data.dataset import Pairs
from kfusion.exporting import portable
from kfusion.exporting.exporter import ExportContext, Options, export, read_context
from kfusion.exporting.model_store import ModelStore
from kfusion.exporting.portable import same_accuracy, same_predictions
from kfusion.exporting.runtimes import FORMATS, open_portable, outputs_of
from kfusion.exporting.verify import VerificationError
from kfusion.inference import load_network, predict_views
from kfusion.modalities import registered
from kfusion.modalities.base import Modality
from kfusion.model.build import build_model
from kfusion.run_dir import Run
from kfusion.spec import ModalitySpec, Spec
from tests.exports import EXTRAS, MISSING, needs_litert, small_network, small_samples

TITLES = ("both", "image alone", "audio alone")


def written(context: ExportContext, format: str, folder: Path) -> Path:
    """A file of a format, not verified."""
    context = replace(context, options=replace(context.options, format=format))
    folder.mkdir(exist_ok=True)
    FORMATS[format].function(FORMATS[format].convert)(context, folder)
    return folder / FORMATS[format].file


@pytest.fixture(scope="module")
def run(trained_run):
    return Run(trained_run)


@pytest.fixture(scope="module")
def network(run):
    return load_network(run)


@pytest.fixture(scope="module")
def context(run, network) -> ExportContext:
    return read_context(run, network, "kfusion", Options())


@pytest.fixture(scope="module")
def pairs(context) -> Pairs:
    return context.samples.test


@pytest.fixture(scope="module")
def known(network, pairs):
    """What the network says of the test pairs, as training and evaluation ask it."""
    return predict_views(network, pairs)


@pytest.fixture(scope="module")
def files(context, tmp_path_factory):
    """Each extra's file of the trained run, written when first asked for."""
    folder, made = tmp_path_factory.mktemp("files"), dict[str, Path]()

    def file(extra: str) -> Path:
        if extra not in made:
            made[extra] = written(context, extra, folder / extra)
        return made[extra]

    return file


@pytest.fixture(scope="module")
def int8(context, tmp_path_factory):
    """The trained run's file of 8-bit integers."""
    return written(context, "litert-int8", tmp_path_factory.mktemp("int8"))


def asked(path: Path, pairs: Pairs, size: int, there: tuple[bool, ...] = (True, True), absent: float = 0.0) -> Any:
    """A file's answers to the first pairs, with `absent` all over a modality that is not there."""
    values = pairs.read(np.arange(size))
    scaled = (values[name] / np.float32(shape.scale) for name, shape in pairs.spec.modalities.items())
    given = [each if here else np.full_like(each, absent) for each, here in zip(scaled, there, strict=True)]
    return open_portable(path).ask(*given, np.tile([there], (size, 1)))


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_a_file_answers_as_training_and_evaluation_do_for_any_batch(files, known, network, pairs, extra, size):
    answer = asked(files(extra), pairs, size)
    assert set(answer) == set(outputs_of(pairs.spec.names))
    for name, view in (("probabilities", "fused"), ("image_probabilities", "image"), ("audio_probabilities", "audio")):
        np.testing.assert_allclose(answer[name], known[view][:size], atol=1e-5, rtol=0)
    np.testing.assert_array_equal(answer["label"], known["fused"][:size].argmax(axis=1))
    assert answer["embedding"].shape == (size, network.get_layer("fusion").output.shape[-1])


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("absent", [np.nan, np.inf, 1e9])
@pytest.mark.parametrize("view", ["image", "audio"])
def test_what_lies_in_place_of_an_absent_modality_has_no_influence(files, known, pairs, extra, view, absent):
    answer = asked(files(extra), pairs, 7, pairs.spec.views[view], absent)
    other = "audio" if view == "image" else "image"
    for name in ("probabilities", f"{view}_probabilities"):
        np.testing.assert_allclose(answer[name], known[view][:7], atol=1e-5, rtol=0)
    assert not answer[f"{other}_probabilities"].any()


@pytest.mark.parametrize("extra", EXTRAS)
def test_rows_of_one_batch_may_lack_different_modalities(files, known, pairs, extra):
    values = pairs.read(np.arange(3))
    present = np.array([[True, True], [True, False], [False, True]])
    answer = open_portable(files(extra)).ask(values["image"] / np.float32(255), values["audio"], present)
    wanted = np.stack([known["fused"][0], known["image"][1], known["audio"][2]])
    np.testing.assert_allclose(answer["probabilities"], wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("head", [pytest.param("attention", marks=pytest.mark.slow), "late"])
def test_the_other_heads_convert_and_a_temperature_is_in_the_file(context, pairs, tmp_path, extra, head):
    config = ModelConfig(fusion=head, filters=(4,), embed_dim=16, hidden_dim=16, audio_units=(16,), utterance_trim=0.3)
    network = build_model(config, context.spec, context.data["scaling_mean"], context.data["scaling_variance"])
    temperature = {"fused": 2.0, "image": 3.0, "audio": 0.5}
    other = replace(context, network=network, temperature=temperature)
    path = written(other, extra, tmp_path)
    assert [check.title for check in same_predictions(path, other) if check.passed] == list(TITLES)
    known = predict_views(network, pairs)
    for view, there in pairs.spec.views.items():
        logs = np.log(np.maximum(known[view][:5].astype(np.float64), 1e-37)) / temperature[view]
        wanted = np.exp(logs) / np.exp(logs).sum(axis=1, keepdims=True)
        answer = asked(path, pairs, 5, there, np.nan)
        np.testing.assert_allclose(answer["probabilities"], wanted, atol=1e-5, rtol=0)
    assert open_portable(path).facts["temperature"] == temperature


class Vector(Modality):
    """A row of numbers: everything as the base class has it."""

    kind = "vector"


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("names", [("a", "b", "c"), pytest.param(("a",), marks=pytest.mark.slow)])
def test_files_of_one_and_of_three_modalities_predict_as_the_network(context, tmp_path, extra, names):
    with registered(Vector()):
        spec = Spec({name: ModalitySpec("vector", (4,)) for name in names}, context.spec.class_names)
        rows, values = np.arange(8), small_samples(spec).values
        test = Pairs(values, dict.fromkeys(names, rows), rows, spec)
        samples, ranges = replace(context.samples, test=test), {f"{name}_range": [-9, 9] for name in names}
        data, network = {**context.data, **ranges}, small_network(spec=spec)
        other = replace(context, spec=spec, samples=samples, data=data, network=network)
        path = written(other, extra, tmp_path)
        checks = same_predictions(path, other)
    titles = [f"{name} alone" for name in names]
    assert [check.title for check in checks if check.passed] == ["all", *titles]
    assert open_portable(path).inputs == (*names, "present")


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_file_says_what_it_was_made_from(files, run, extra):
    facts = open_portable(files(extra)).facts
    assert facts["class_names"] == [str(digit) for digit in range(10)]
    assert facts["front_end"] == run.data()["source"]["front_end"]
    assert facts["test"]["fused"] == run.metrics()["views"]["fused"]["accuracy"]
    assert facts["versions"]["tensorflow"] and facts["versions"]["kfusion"]
    assert (facts["image_shape"], facts["image_range"], facts["num_audio"]) == ([28, 28, 1], [0, 1], 507)
    assert facts["modalities"]["audio"] == {"kind": "audio", "shape": [507], "grid": [39, 13], "scale": 1}


@needs_litert
def test_a_tflite_file_is_an_archive_with_the_labels(files):
    with zipfile.ZipFile(files("litert")) as archive:
        assert archive.read("labels.txt").decode().split() == [str(digit) for digit in range(10)]


@pytest.mark.skipif(bool(MISSING["onnx"]), reason="needs the extra onnx")
def test_an_onnx_file_names_its_batch_and_its_labels(files):
    import onnx

    model = onnx.load(files("onnx"))
    assert [tensor.name for tensor in model.graph.input] == ["image", "audio", "present"]
    assert [tensor.name for tensor in model.graph.output] == list(outputs_of(("image", "audio")))
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
    answers = [asked(int8, pairs, 7, pairs.spec.views["audio"], absent)["probabilities"] for absent in (0.0, np.nan)]
    np.testing.assert_array_equal(*answers)


@needs_litert
def test_a_file_that_classifies_worse_is_seen(context, files, pairs, tmp_path):
    untrained = build_model(ModelConfig(filters=(4,)), context.spec, np.zeros(507), np.ones(507))
    path = written(replace(context, network=untrained), "litert", tmp_path)
    checks = same_accuracy(path, files("litert"), pairs)
    assert [check.title for check in checks if not check.passed] == [f"int8, {name}" for name in TITLES]


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_file_that_predicts_otherwise_is_not_published(context, files, network, run, tmp_path, monkeypatch, extra):
    other = build_model(run.config().model, run.spec(), np.zeros(507), np.ones(507))
    other.set_weights(network.get_weights())
    kernel = other.get_layer("probabilities").kernel
    kernel.assign(kernel * 1.01)
    checks = same_predictions(files(extra), replace(context, network=other))
    assert [check.title for check in checks if not check.passed][:1] == ["both"]
    monkeypatch.setattr(portable, f"convert_{extra}", lambda _, folder: (folder / files(extra).name).touch())
    monkeypatch.setattr(portable, "verify_file", lambda *_: checks)
    with pytest.raises(VerificationError, match=r"failed its verification; nothing is published"):
        export(run, other, ModelStore(tmp_path, "kfusion"), Options(format=extra))
    assert [path.name for path in (tmp_path / "kfusion").iterdir()] == [".lock"]


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
