"""The proof of a SavedModel: every head passes it, and what is wrong with a model does not get past it."""

import contextlib
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kfusion import export as verb
from kfusion.exporting import exporter, saved_model
from kfusion.exporting.runtimes import _packed, _unpacked, ask_apart
from kfusion.exporting.signatures import Endpoints, why_no_files
from kfusion.exporting.verify import ALLOWED, _ops, distance, table
from kfusion.metrics.classification import temper
from kfusion.modalities import kinds, modality, registered
from kfusion.modalities.base import Modality
from kfusion.modalities.front_ends import readers_of
from kfusion.runtime.protos import read_ops, read_signatures
from kfusion.spec import ModalitySpec, Spec
from tests.exports import SMALL, Exported, export_small, small_network, small_samples


class Vector(Modality):
    """A row of numbers: everything as the base class has it."""

    kind = "vector"


class Blob(Modality):
    """Files of float32 numbers, as they are."""

    kind, suffixes = "blob", (".f32",)

    def unreadable(self, front_end, spec):
        return ""

    def reader(self):
        def read(contents, spec):
            size, right = tf.strings.length(contents), 4 * spec.num_values
            whole = tf.where(size == right, contents, bytes(right))
            reasons = tf.where((size == right) | (size == 0), "", f"must have {right} bytes")
            return tf.reshape(tf.io.decode_raw(whole, tf.float32), [-1, *spec.shape]), reasons

        return read

    def sample_file(self, values, spec, seed=0):
        return values.tobytes()

    def bad_files(self, good):
        return [("too short", good[:-1], "must have")]


WARM = {"fused": 1.5, "image": 0.6, "audio": 2.5}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Exported:
    return export_small(tmp_path_factory.mktemp("small") / "model", small_network())


@pytest.mark.parametrize("fusion", [pytest.param("lstm", marks=pytest.mark.slow), "attention"])
def test_each_head_and_any_shape_is_exported_and_proved_with_its_temperatures(fusion, tmp_path):
    exported = export_small(tmp_path / "model", small_network(fusion), WARM)
    assert [check for check in exported.checks().values() if not check.passed] == []
    assert read_signatures(tmp_path / "model")["image_only"].inputs["image"][2] == (-1, 9, 8, 3)


def test_the_late_head_is_exported_and_proved(small):
    checks = small.checks()
    assert [check for check in checks.values() if not check.passed] == []
    assert set(checks) >= {"serving_default", "image_only", "audio_only", "bad requests", "warmup requests"}


@pytest.mark.slow
@pytest.mark.parametrize("names", [("pulse", "vector", "wave"), ("pulse",), ("vector",)])
def test_models_of_one_and_of_three_modalities_are_exported_and_verified(names, tmp_path):
    """`vector` has no file form: `raw_bytes` takes its numbers, and NaN for a row without."""
    kinds = {"pulse": "blob", "vector": "vector", "wave": "blob"}
    with registered(Vector()), registered(Blob()):
        spec = Spec({name: ModalitySpec(kinds[name], (2 + len(name),)) for name in names}, ("hut", "tür"))
        readers, reasons = readers_of(spec, {"front_end": None})
        files = {} if why_no_files(spec, reasons) else readers
        assert set(files) == set(names) - {"vector"}
        network, warm = small_network(spec=spec), {"fused": 1.5, **dict.fromkeys(names, 0.6)}
        exported = export_small(tmp_path / "model", network, warm, spec, files)
        assert [check for check in exported.checks().values() if not check.passed] == []
    signatures = read_signatures(tmp_path / "model")
    endpoints = {
        "serving_default",
        *(f"{name}_only" for name in names),
        *(("raw_bytes", "read_bytes") if files else ()),
    }
    assert set(signatures) == endpoints
    if len(names) == 3:
        assert list(signatures["raw_bytes"].inputs) == ["pulse_bytes", "vector", "wave_bytes"]
        titles = {each.title for each in exported.plan.bad if each.request.signature == "raw_bytes"}
        assert {"empty strings and NaN", "vector: NaN", "vector: an absurd number", "too short"} <= titles


def test_two_of_three_are_tempered_as_fused_and_one_as_it_is_alone(tmp_path):
    with registered(Vector()):
        spec = Spec({name: ModalitySpec("vector", (3,)) for name in "abc"}, ("hut", "tür"))
        network, warm = small_network(spec=spec), {"fused": 2.0, "a": 3.0, "b": 0.5, "c": 0.25}
        endpoints, plain = (Endpoints(network, spec, each, {}) for each in (warm, {}))
        values = {name: tf.constant(rows) for name, rows in small_samples(spec).values.items()}
        present = tf.constant([[True, True, False], [False, True, False]] * 32)
        tempered, own = (each._predicted(values, present)["probabilities"].numpy() for each in (endpoints, plain))
    np.testing.assert_allclose(tempered[::2], temper(own[::2], 2.0), atol=1e-6)
    np.testing.assert_allclose(tempered[1::2], temper(own[1::2], 0.5), atol=1e-6)


def test_changed_weights_are_found(small, tmp_path):
    network = small_network()
    bias = network.get_layer("image_conv1a").bias
    bias.assign(bias + 1e-2)
    checks = Exported(export_small(tmp_path / "model", network).folder, small.plan).checks()
    assert not checks["serving_default"].passed and "largest difference" in checks["serving_default"].found
    assert not checks["image_only"].passed
    assert checks["audio_only"].passed
    assert "FAILED" in str([list(column.cells) for column in table(list(checks.values())).columns])


def test_a_model_that_aborts_the_process_is_found_and_the_request_named(small, tmp_path):
    network = small_network()
    archive = keras.export.ExportArchive()
    archive.track(network)

    def plain(image, audio):
        present = tf.ones([tf.shape(audio)[0], 2], tf.bool)
        return {"probabilities": network({"image": image, "audio": audio, "present": present}, training=False)}

    specs = [tf.TensorSpec((None, *SMALL["image"].shape), name="image"), tf.TensorSpec((None, 12), name="audio")]
    archive.add_endpoint("serving_default", plain, specs)
    archive.write_out(str(tmp_path / "model"), verbose=False)
    plan = small.plan
    bad = [each for each in plan.bad if each.title == "image: flat, as in a file"][:1]
    known = [pair for pair in plan.known if pair[0].signature == "serving_default"][:1]
    check = Exported(tmp_path / "model", type(plan)(known, bad, [])).checks()["C API, no Python"]
    assert not check.passed
    assert check.found.startswith("request 2 of 3: killed by signal 6: ") and "Check failed" in check.found


def test_a_proof_that_does_not_end_is_a_failed_check_and_its_process_is_killed(small, monkeypatch):
    known = small.plan.known[:1]
    monkeypatch.setattr("kfusion.exporting.verify.ask_apart", lambda *given: ask_apart(*given, timeout_s=0.2))
    checks = Exported(small.folder, type(small.plan)(known, [], [])).checks()
    assert list(checks)[-1] == "C API, no Python" and not checks["C API, no Python"].passed
    assert checks["C API, no Python"].found == "request 1 of 1: not answered within 0.2 s"
    running = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # It has ended since.
            running.append(path.read_bytes())
    assert running and not [words for words in running if str(small.folder).encode() in words]


def test_what_is_said_between_the_processes_is_no_pickle():
    values = {
        "number": np.float32(0.5).reshape(()),
        "doubles": np.array([[np.nan, -np.inf, 1e300]]),
        "none": np.zeros((0, 3), np.float32),
        "files": np.array([[b"\x00\xff\n", b""]], object),
        "truth": np.array([True, False]),
    }
    for name, back in _unpacked(_packed(values)).items():
        np.testing.assert_array_equal(back, values[name])
        assert (back.dtype, back.shape) == (values[name].dtype, values[name].shape)


def test_an_op_that_is_not_allowed_is_found_within_nested_functions(tmp_path):
    class Reads(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((), tf.string, name="path")])
        def answer(self, path):
            def loop(number, text):
                return number + 1, tf.cond(number > 1, lambda: tf.io.read_file(path), lambda: text)

            return {"text": tf.while_loop(lambda number, _: number < 3, loop, [tf.constant(0), tf.constant("")])[1]}

    module = Reads()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.answer})
    assert "ReadFile" in read_ops(tmp_path)
    assert not _ops(tmp_path).passed and "ReadFile" in _ops(tmp_path).found


def test_no_op_that_reads_files_or_runs_python_is_allowed():
    dangerous = {"ReadFile", "WriteFile", "PyFunc", "EagerPyFunc", "PyFuncStateless", "CudnnRNNV3", "MatchingFiles"}
    dangerous |= {"RandomUniform", "RandomStandardNormal", "PrintV2", "ImmutableConst", "TFRecordDataset", "Save"}
    assert not dangerous & ALLOWED.union(*(modality(kind).ops for kind in kinds()))


def test_distance_is_the_worst_number_and_infinite_where_names_or_labels_differ():
    right = {"probabilities": np.array([[0.25, 0.75]]), "label": np.array([1])}
    assert distance({**right, "probabilities": np.array([[0.25, 0.5]])}, right) == 0.25
    assert distance({**right, "label": np.array([0])}, right) == np.inf
    assert distance({**right, "probabilities": np.array([[np.nan, 0.75]])}, right) == np.inf
    assert distance({"label": np.array([1])}, right) == np.inf
    assert distance({**right, "probabilities": np.array([0.25, 0.75])}, right) == np.inf


def test_what_fails_its_proof_is_not_published_and_the_command_ends_with_1(trained_run, tmp_path, monkeypatch, capsys):
    """A byte of the weights turns between writing and proof, as on a bad disk."""
    convert = saved_model.convert

    def convert_badly(context, made):
        convert(context, made)
        path = made / "variables" / "variables.data-00000-of-00001"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(bytes(content))

    monkeypatch.setattr(saved_model, "convert", convert_badly)
    monkeypatch.setattr(exporter, "readers_of", lambda *_, **__: ({}, {"image": "it is left out of this test"}))
    monkeypatch.setattr(sys, "argv", ["export", str(trained_run), "--to", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        verb.main()
    assert end.value.code == 1
    assert "the exported model failed its verification; nothing is published" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "kfusion").iterdir()] == [".lock"]
