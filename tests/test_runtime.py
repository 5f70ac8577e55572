"""A SavedModel in the C API: what does not fit its own graph is one line when it is loaded, and leaks nothing."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from tensorflow.core.protobuf import saved_model_pb2

from kfusion.runtime.c_api import Refused, ServedModel, library, to_tensor
from kfusion.runtime.protos import LABELS, Signature, read_labels
from tests.tiny_models import export_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return export_tiny(tmp_path_factory.mktemp("tiny") / "1", 2)


@pytest.fixture
def edited(tiny, tmp_path):
    """Makes a copy of the model whose signature has been changed."""

    def edit(change) -> Path:
        shutil.copytree(tiny, tmp_path / "2")
        path = tmp_path / "2" / "saved_model.pb"
        saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
        change(saved.meta_graphs[0].signature_def["serving_default"])
        path.write_bytes(saved.SerializeToString())
        return tmp_path / "2"

    return edit


@pytest.fixture
def graphs(monkeypatch):
    """How many graphs and sessions there are now."""
    counts = {"Graph": 0, "Session": 0}

    def counted(name, what, step):
        function = getattr(library(), name)

        def call(*args):
            found = function(*args)
            counts[what] += step if found or step < 0 else 0
            return found

        monkeypatch.setattr(library(), name, call)

    counted("TF_NewGraph", "Graph", 1)
    counted("TF_DeleteGraph", "Graph", -1)
    counted("TF_LoadSessionFromSavedModel", "Session", 1)
    counted("TF_DeleteSession", "Session", -1)
    return counts


def named(name):
    def change(signature):
        signature.outputs["y"].name = name

    return change


def typed(number):
    def change(signature):
        signature.inputs["x"].dtype = number

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (named("gone:0"), "serving_default, y: must be a tensor of the graph. Found: 'gone:0', which it has not"),
        (named("StatefulPartitionedCall:1"), "must be a tensor of the graph. Found: 'StatefulPartitionedCall:1'"),
        (named("StatefulPartitionedCall:-1"), "must be a tensor of the graph"),
        (named("StatefulPartitionedCall:x"), "must be a tensor of the graph"),
        (named("StatefulPartitionedCall:99999999999"), "must be a tensor of the graph"),
        (named(""), "must be a tensor of the graph"),
        (typed(7), "serving_default, x: must be of the type that its signature says, DT_STRING. Found: DT_FLOAT in"),
        (typed(21), "says, DT_VARIANT. Found: DT_FLOAT in the graph"),
    ],
)
def test_a_signature_that_does_not_fit_its_graph_is_one_line_and_leaves_nothing_behind(
    edited, graphs, change, sentence
):
    with pytest.raises(ValueError, match=sentence) as error:
        ServedModel(edited(change))
    assert "\n" not in str(error.value)
    assert graphs == {"Graph": 0, "Session": 0}


def test_a_load_that_fails_leaves_nothing_behind(tiny, tmp_path, graphs):
    shutil.copytree(tiny, tmp_path / "2")
    data = tmp_path / "2" / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-9])
    with pytest.raises(Refused):
        ServedModel(tmp_path / "2")
    shutil.rmtree(tmp_path / "2" / "variables")
    with pytest.raises(ValueError, match=r"2: must hold its weights, variables/variables.index. Found: no such file"):
        ServedModel(tmp_path / "2")
    assert graphs == {"Graph": 0, "Session": 0}
    with ServedModel(tiny) as model:
        assert graphs == {"Graph": 1, "Session": 1}
        model.close()  # And once more at the end of the block.
    assert graphs == {"Graph": 0, "Session": 0}


def test_what_is_asked_wrong_is_a_sentence(tiny):
    one = np.ones(1, np.float32)
    with ServedModel(tiny) as model:
        assert model.ask("serving_default", {"x": one})["y"].tolist() == [2]
        for signature, inputs, outputs, sentence in (
            ("other", {"x": one}, (), "'signature' must be one of serving_default. Received: 'other'"),
            ("serving_default", {"z": one}, (), "'inputs' must be x. Received: z"),
            ("serving_default", {"x": one}, ("z",), "'outputs' must be of y. Received: z"),
            ("serving_default", {"x": one.astype(np.float16)}, (), "must be numbers, booleans or bytes. Received: fl"),
            ("serving_default", {"x": np.array(["a"])}, (), "must be numbers, booleans or bytes. Received: <U1"),
            ("serving_default", {"x": np.array([b"a", "b"], object)}, (), "of strings must be bytes. Received: str"),
        ):
            with pytest.raises(ValueError, match=sentence):
                model.ask(signature, inputs, outputs)
    with pytest.raises(ValueError, match="the model must be open"):
        model.ask("serving_default", {"x": one})


def test_no_memory_for_a_tensor_is_the_runtimes_own_refusal(monkeypatch):
    monkeypatch.setattr(library(), "TF_AllocateTensor", lambda *_: None)
    with pytest.raises(Refused, match="no memory for a tensor of 8 bytes") as error:
        to_tensor(np.zeros(2, np.float32))
    assert error.value.code == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a\nb\n", ""),
        ("a\u2028\nb\x0b\n".encode(), ""),
        (b"a\n", "labels.txt: must name the model's 2 classes. Found: 1 lines"),
        (b"\xff\xfe", "labels.txt: must be UTF-8 text"),
    ],
)
def test_class_names_are_one_a_line_and_one_for_each_probability(tmp_path, content, sentence):
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra" / LABELS).write_bytes(content)
    signature = Signature({}, {"probabilities": ("p:0", 1, (-1, 2))})
    if sentence:
        with pytest.raises(ValueError, match=sentence):
            read_labels(tmp_path, signature)
    else:
        assert [name[0] for name in read_labels(tmp_path, signature)] == ["a", "b"]
