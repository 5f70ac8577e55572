"""`python -m kfusion.export` as real processes: what it prints and leaves, and what happens when it is disturbed."""

import json
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tensorflow as tf

from kfusion.exporting.model_store import ModelStore
from kfusion.exporting.runtimes import ask_apart
from kfusion.exporting.saved_model import WARMUP_FILE, read_warmup
from kfusion.runtime.protos import read_signatures
from tests.processes import fails, full_disk, in_process, start_verb


def numbers(model: Path) -> list[str]:
    """All that is in a model's folder, but its lock."""
    return sorted(path.name for path in model.iterdir() if path.name != ".lock")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_proof_is_shown_within_80_columns_and_all_of_it_passed(exported_model):
    said = (exported_model.parents[2] / "exported_model.txt").read_text()
    assert said.count("passed") == len([line for line in said.splitlines() if "  passed  " in line]) >= 8
    assert "FAILED" not in said and max(map(len, said.splitlines())) <= 80
    assert said.splitlines()[-1] == "exported: saved_models/kfusion/1"


def test_a_version_holds_what_a_server_and_a_person_need(exported_model, trained_run):
    there = {path for path in contents(exported_model) if not path.startswith("variables")}
    papers = ("labels.txt", "data.json", "model_card.md", "examples.json", "tf_serving_warmup_requests")
    assert there == {"saved_model.pb", *(f"assets.extra/{name}" for name in papers)}
    assert (exported_model / "assets.extra" / "labels.txt").read_text().split() == [str(digit) for digit in range(10)]
    card = (exported_model / "assets.extra" / "model_card.md").read_text()
    tested = json.loads((trained_run / "metrics.json").read_text())["views"]["fused"]
    for fact in ("CC BY-SA 4.0", "float32 (batch, 28, 28, 1)", f"| fused | {tested['accuracy']:.4f} |", tf.__version__):
        assert fact in card
    assert "not calibrated" in card


def test_the_warmup_file_is_what_tensorflow_servings_own_classes_read(exported_model):
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2", reason="needs tensorflow-serving-api")
    records = tf.data.TFRecordDataset(str(exported_model / WARMUP_FILE)).as_numpy_iterator()
    asked = [logs.PredictionLog.FromString(record).predict_log.request for record in records]
    for request, ours in zip(asked, read_warmup(exported_model), strict=True):
        assert request.model_spec.name == "kfusion"
        assert request.model_spec.signature_name == ours.signature
        for name, values in ours.inputs.items():
            assert (tf.make_ndarray(request.inputs[name]) == values).all()
    batches = {(each.model_spec.signature_name, _rows(each)) for each in asked}
    signatures = {signature for signature, _ in batches}
    assert batches == {(signature, size) for signature in signatures for size in (1, 8)}
    assert signatures >= {"serving_default", "image_only", "audio_only"}


def _rows(request) -> int:
    return next(iter(request.inputs.values())).tensor_shape.dim[0].size


def test_an_existing_version_is_never_touched(exported_model, trained_run):
    before = contents(exported_model)
    done = in_process("kfusion.export", trained_run, "--version", "1", cwd=exported_model.parents[2])
    fails(done, "an existing version is kept")
    assert contents(exported_model) == before


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--version", "0"), "'version' must be 'next' or a number ≥ 1. Received: '0'"),
        (("--version", "first"), "'version' must be 'next' or a number ≥ 1. Received: 'first'"),
        (("--name", "a/b"), "'name' must be letters, digits"),
        (("--to", "file"), "exported models need a folder. Found: a file"),
        (("--unknown", "1"), "--unknown"),
    ],
)
def test_a_wrong_flag_is_one_line_and_writes_nothing(flags, sentence, trained_run, tmp_path):
    (tmp_path / "file").touch()
    fails(in_process("kfusion.export", trained_run, *flags, cwd=tmp_path), sentence)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_no_finished_run_is_refused(trained_run, tmp_path):
    fails(in_process("kfusion.export", "nowhere", cwd=tmp_path), "nowhere: must be a run folder")
    shutil.copytree(trained_run, tmp_path / "broken", ignore=shutil.ignore_patterns("metrics.json", "*.npz"))
    fails(in_process("kfusion.export", "broken", cwd=tmp_path), "broken: must be a finished run")


def kill_while_it_writes(run: Path, cwd: Path) -> None:
    """Starts an export, and kills it between the weights and the proof."""
    process = start_verb("kfusion.export", run, cwd=cwd, stdout=subprocess.DEVNULL)
    while not list((cwd / "saved_models" / "kfusion").glob(".partial-*/model/variables/*.index")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_a_killed_export_leaves_no_version_and_the_next_one_is_the_first(tiny_run, tmp_path):
    model = tmp_path / "saved_models" / "kfusion"
    kill_while_it_writes(tiny_run, tmp_path)
    assert [name[:9] for name in numbers(model)] == [".partial-"]
    done = in_process("kfusion.export", tiny_run, "--no-verify", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert numbers(model) == ["1"]
    card = (model / "1" / "assets.extra" / "model_card.md").read_text()
    assert "`raw_bytes` is left out: the front end of its training sounds is not known." in card
    # Nobody's folders travel with a model.
    assert "- source: training_data; pairs:" in card and str(tiny_run.parent) not in card
    assert set(read_signatures(model / "1")) & {"raw_bytes", "image_only"} == {"image_only"}
    replies = ask_apart(model / "1", read_warmup(model / "1")).replies
    assert [reply.code for reply in replies] == ["OK"] * len(read_warmup(model / "1"))


def test_versions_published_at_once_get_the_next_numbers(tmp_path):
    """From as many threads, each with a lock of its own, as two processes have."""
    (tmp_path / "kfusion" / "4").mkdir(parents=True)

    def publish(content: str) -> str:
        store = ModelStore(tmp_path, "kfusion")
        with store.staging() as place:
            made = place / "model"
            made.mkdir()
            (made / "saved_model.pb").write_text(content)
            return store.publish(made, None).name

    words = [f"model {place}" for place in range(8)]
    with ThreadPoolExecutor(len(words)) as pool:
        found = list(pool.map(publish, words))
    assert sorted(found, key=int) == [str(number) for number in range(5, 13)]
    assert [(tmp_path / "kfusion" / number / "saved_model.pb").read_text() for number in found] == words
    assert numbers(tmp_path / "kfusion") == sorted(["4", *found])


@pytest.mark.slow
def test_two_exports_at_once_get_the_next_two_numbers(tiny_run, tmp_path):
    model = tmp_path / "saved_models" / "kfusion"
    words = ("kfusion.export", tiny_run, "--no-verify")
    for process in [start_verb(*words, cwd=tmp_path, stdout=subprocess.DEVNULL) for _ in range(2)]:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    assert numbers(model) == ["1", "2"]
    assert contents(model / "1").keys() == contents(model / "2").keys()


def test_a_full_disk_is_one_line_and_leaves_nothing(tiny_run, tmp_path):
    with full_disk():
        done = in_process("kfusion.export", tiny_run, "--to", tmp_path)
    fails(done, "File too large")
    assert numbers(tmp_path / "kfusion") == []
