"""Predictions of models of one modality, of three, and of two of one kind: rows, tables and shapes. No real model."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kfusion.data.in_memory import read_samples
from kfusion.io import write_json
from kfusion.modalities import registered
from kfusion.modalities.base import Modality
from kfusion.prediction.arrays import on_scale, open_arrays, rows_of
from kfusion.prediction.estimator import Classifier
from kfusion.prediction.inputs import Arrays, Files, open_listing
from kfusion.prediction.job import Job, check_readable, run_job, write_listing
from kfusion.prediction.models import VersionModel
from kfusion.prediction.outputs import Votes, answer_table
from kfusion.runtime.protos import Signature
from kfusion.spec import FUSED, ModalitySpec, Spec, audio_spec, image_spec
from kfusion.validation import UserError


class Vector(Modality):
    kind, array_file = "vector", "vector.npy"


IMAGE, AUDIO, VECTOR = image_spec((2, 2, 1)), audio_spec((1, 3)), ModalitySpec("vector", (3,))
CLASSES = ("0", "1", "2", "3")
THREE = Spec({"image": IMAGE, "audio": AUDIO, "vector": VECTOR}, CLASSES)
ONE = Spec({"vector": VECTOR}, CLASSES)


@pytest.fixture(autouse=True)
def third_kind():
    with registered(Vector()):
        yield


@pytest.fixture(autouse=True)
def any_content(monkeypatch):
    """Files may hold anything: no real model reads them."""
    for kind in ("image.Image", "audio.Audio"):
        monkeypatch.setattr(f"kfusion.modalities.{kind}.standard_file", lambda _, content: content)


def model(spec: Spec, **more: Any) -> Any:
    """Its class is what a row's modalities begin with: the first byte of files, the first number of arrays."""

    def answer(rows: Arrays | Files) -> dict[str, np.ndarray]:
        if isinstance(rows, Files):
            first = [[content[0] if content else 0 for content in rows.contents[name]] for name in spec.names]
        else:
            first = [rows.values[name].reshape(len(rows.present), -1)[:, 0] * spec[name].scale for name in spec.names]
        code = np.where(rows.present.T, np.nan_to_num(np.array(first)), 0).round().astype(int) % 4
        by_name = dict(zip(spec.names, np.eye(4)[code], strict=True))
        return {FUSED: np.eye(4)[code.max(axis=0)], **by_name}

    facts = {
        "folder": Path("model"),
        "ranges": {},
        "unreadable": {},
        "columns_of_tables": {},
        "confidence_note": "",
        "note": "",
        "identity": "x",
    }
    return SimpleNamespace(spec=spec, prepare=lambda rows: rows, answer=answer, **{**facts, **more})


def predicted(folder: Path, spec: Spec, **fields: Any) -> pd.DataFrame:
    stub, out = model(spec), folder.with_name("out.csv")
    run_job(Job(stub.folder, folder, out, full=True, **fields), stub)
    return pd.read_csv(out, dtype=str, keep_default_na=False)


def arrays(num: int, **firsts: list[int]) -> dict[str, np.ndarray]:
    """Arrays of three modalities that begin with these numbers; 255 in each image tells the scale."""
    shapes = {"image": (2, 2), "audio": (3,), "vector": (3,)}
    made = {name: np.zeros((num, *shapes[name]), np.float32) for name in firsts}
    for name, values in firsts.items():
        made[name].reshape(num, -1)[:, 0] = values
        made[name].reshape(num, -1)[:, -1] = 255 if name == "image" else 1
    return made


def write(folder: Path, columns: dict[str, np.ndarray]) -> Path:
    folder.mkdir()
    for name, values in columns.items():
        np.save(folder / {"image": "images.npy"}.get(name, f"{name}.npy"), values)
    return folder


def test_all_modalities_of_a_row_must_agree_and_fewer_than_two_cannot():
    label = {
        "fused": [1, 1, 1, 2, 3],
        "image": [1, 1, -1, 2, -1],
        "audio": [1, 1, 1, -1, -1],
        "vector": [1, 0, 1, -1, -1],
    }
    by_view = {view: np.array(codes) for view, codes in label.items()}
    votes = Votes(0, by_view, {view: np.ones(5) for view in label}, [""] * 5)
    assert votes.agree().astype("object").where(votes.agree().notna(), None).tolist() == [True, False, True, None, None]
    table = answer_table(votes, None, CLASSES, full=True)
    assert list(table)[:3] == ["row_id", "label", "confidence"] and list(table)[-2:] == ["vector_confidence", "agree"]
    one = Votes(0, {"fused": np.array([1]), "vector": np.array([1])}, {"fused": np.ones(1), "vector": np.ones(1)}, [""])
    assert one.agree().isna().all()


def test_three_arrays_of_a_folder_are_predicted_and_any_may_be_missing(tmp_path):
    columns = arrays(3, image=[1, 2, 3], audio=[1, 0, 1], vector=[1, 2, 2])
    table = predicted(write(tmp_path / "data", columns), THREE)
    assert table["label"].tolist() == ["1", "2", "3"] and table["vector_label"].tolist() == ["1", "2", "2"]
    assert table["agree"].tolist() == ["True", "False", "False"]
    (tmp_path / "data" / "audio.npy").unlink()
    table = predicted(tmp_path / "data", THREE, overwrite=True)
    assert table["audio_label"].tolist() == [""] * 3 and table["agree"].tolist() == ["True", "True", "False"]


def test_a_model_of_one_modality_reads_its_own_array_alone_and_says_so(tmp_path):
    folder = write(tmp_path / "data", arrays(2, audio=[1, 2], vector=[3, 2]))
    rows = open_arrays(folder, None, ONE)
    assert rows and rows.notes == ("audio.npy is left out: the model takes no sound",)
    assert rows.description.startswith("vector.npy of ")
    table = predicted(folder, ONE)
    assert list(table) == ["row_id", "label", "confidence", "vector_label", "vector_confidence", "agree"]
    assert table["label"].tolist() == table["vector_label"].tolist() == ["3", "2"] and set(table["agree"]) == {""}


def test_the_scale_of_every_modality_that_is_not_bounded_is_checked(tmp_path):
    columns = arrays(4, image=[1] * 4, audio=[1] * 4, vector=[1] * 4)
    columns["vector"] *= 1000
    rows = open_arrays(write(tmp_path / "data", columns), None, THREE)
    assert rows is not None
    trained = model(THREE, ranges={"audio": (0.0, 1.0), "vector": (0.0, 1.0)})
    with pytest.raises(UserError, match=r"vector\.npy: vector features must be on the scale .* Found: 0 to 1000"):
        on_scale(rows, trained, force=False)
    forced, lines = on_scale(rows, trained, force=True)
    assert lines == [] and forced.read(0, 4).reason == [""] * 4
    columns["vector"][2, 1:] = 5e6
    np.save(tmp_path / "data" / "vector.npy", columns["vector"])
    reason = forced.read(0, 4).reason
    assert reason[2] == "vector: values must be within -1000 and 1000. Found: 1000 to 5e+06" and not reason[1]
    unknown = on_scale(rows, model(THREE, ranges={"audio": (0.0, 1.0)}), force=False)[1]
    assert unknown == ["rows: their scale is not checked; this version does not tell its own"]


def test_a_manifest_has_a_column_for_each_modality_that_comes_in_files(tmp_path):
    (tmp_path / "data").mkdir()
    for name, code in (("a.png", 1), ("b.png", 2), ("b.wav", 3)):
        (tmp_path / "data" / name).write_bytes(bytes([code]))
    (tmp_path / "data" / "rows.csv").write_text("Audio,vector,image\n,x,a.png\nb.wav,y,b.png\n")
    stub = model(THREE)
    run_job(Job(stub.folder, tmp_path / "data" / "rows.csv", tmp_path / "out.csv", full=True), stub)
    table = pd.read_csv(tmp_path / "out.csv", dtype=str, keep_default_na=False)
    assert list(table)[:4] == ["row_id", "image", "audio", "label"]
    assert table["label"].tolist() == ["1", "3"] and table["vector_label"].tolist() == ["", ""]
    assert table["agree"].tolist() == ["", "False"]


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (Spec({"image": IMAGE}, CLASSES), r"rows\.csv: must have the column image\. Found: 'sound'"),
        (ONE, r"INPUT must hold \.npy files: nothing that this model takes comes in other files"),
    ],
)
def test_a_manifest_without_the_models_columns_is_one_line(spec, sentence, tmp_path):
    (tmp_path / "rows.csv").write_text("sound\na.wav\n")
    with pytest.raises(UserError, match=sentence):
        run_job(Job(Path("model"), tmp_path / "rows.csv", tmp_path / "out.csv"), model(spec))
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_a_folder_of_files_is_read_by_kind_and_what_the_model_does_not_take_is_said(tmp_path):
    (tmp_path / "data").mkdir()
    for name, code in (("1.png", 1), ("1.wav", 3), ("2.PNG", 2)):
        (tmp_path / "data" / name).write_bytes(bytes([code]))
    pictures = Spec({"image": IMAGE}, CLASSES)
    write_listing(tmp_path / "rows.sqlite", tmp_path / "data", pictures)
    rows = open_listing(tmp_path / "rows.sqlite", tmp_path / "data", pictures)
    assert rows.files(0, 2) == {"image": ["1.png", "2.PNG"]}
    assert rows.notes == ("files of what the model does not take are left out: .wav (1)",)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"of a layout, or PNG, [A-Za-z, ]+ and HEIC files\. Found: an empty folder"):
        write_listing(tmp_path / "rows.sqlite", tmp_path / "empty", pictures)
    two = Spec({"left": IMAGE, "right": IMAGE}, CLASSES)
    with pytest.raises(UserError, match="INPUT must be a manifest, since several of left, right are of one kind"):
        write_listing(tmp_path / "rows.sqlite", tmp_path / "data", two)
    (tmp_path / "pairs.csv").write_text("left,right\n1.png,\n1.png,2.PNG\n")
    write_listing(tmp_path / "rows.sqlite", tmp_path / "pairs.csv", two)
    assert open_listing(tmp_path / "rows.sqlite", tmp_path / "pairs.csv", two).num_with("right") == 1


def test_rows_of_a_program_go_by_the_models_modalities():
    columns = arrays(2, image=[1, 2], audio=[1, 2], vector=[3, 0])
    rows = rows_of(read_samples({name: columns[name] for name in ("vector", "image")}, THREE), THREE)
    batch = rows.read(0, 2)
    assert isinstance(batch, Arrays) and batch.present.tolist() == [[True, False, True]] * 2
    assert list(batch.values) == ["image", "audio", "vector"]
    assert len(rows_of(read_samples({"vector": np.zeros(3)}, ONE), ONE)) == 1
    with pytest.raises(UserError, match=r"'X' must have the key vector\. Received: 'image'"):
        read_samples({"image": columns["image"]}, ONE)
    with pytest.raises(UserError, match=r"'X' must be {'vector': …}, a DataFrame with these columns, or a folder\."):
        read_samples(columns["vector"], ONE)
    with pytest.raises(UserError, match=r"each row must have an image, a sound or a row\. Found: none in row 1"):
        rows_of(read_samples({"vector": [np.ones(3), None], "image": [None, None]}, THREE), THREE)
    pairs = rows_of(read_samples([("a.png", "a.wav"), ("b.png", None)], THREE), THREE)
    assert pairs.files(0, 2) == {"image": ["a.png", "b.png"], "audio": ["a.wav", ""]}
    named = rows_of(read_samples({"vector": ["a.csv"]}, THREE), THREE)
    unreadable = {"vector": Vector().unreadable(None, VECTOR)}
    with pytest.raises(
        UserError, match=r"cannot read vector files: rows of numbers \(vector\) are not read from files; give"
    ):
        check_readable(named, model(THREE, unreadable=unreadable))  # type: ignore[arg-type]


class Stub(Classifier):
    """A classifier around a model."""

    def __init__(self, answering: Any) -> None:
        self.model, self.classes_ = answering, np.array([10, 20, 30, 40])
        answering.spec = Spec(answering.spec.modalities, ("10", "20", "30", "40"))

    def _loaded(self) -> Any:
        return self.model


def test_a_decision_of_three_modalities_is_explained():
    columns = arrays(2, image=[1, 2], vector=[1, 0])
    X = pd.DataFrame({name: list(values) for name, values in columns.items()}, index=[7, 9])
    table = Stub(model(THREE)).explain_decision(X)
    assert table.index.tolist() == [7, 9] and list(table)[-3:] == ["vector_label", "vector_confidence", "agree"]
    assert table["label"].tolist() == [20, 30] and table["vector_label"].tolist() == [20, 10]
    assert table["audio_label"].isna().all() and table["agree"].tolist() == [True, False]


def signature(*inputs: tuple[str, tuple[int, ...]]) -> Signature:
    outputs = {"probabilities": ("p", 1, (-1, 4))}
    return Signature({name: (name, 1, (-1, *shape)) for name, shape in inputs}, outputs)  # type: ignore[arg-type]


PAIR = ("image", (2, 2, 1)), ("audio", (3,))


@pytest.fixture
def version(tmp_path, monkeypatch):
    """Makes a version of some signatures, whose answers tell the endpoint: ("image_only", …) -> class 0 …"""

    def make(signatures: dict[str, Signature], noted: dict[str, Any] | None = None) -> VersionModel:
        (tmp_path / "assets.extra").mkdir(exist_ok=True)
        (tmp_path / "assets.extra" / "labels.txt").write_text("\n".join(CLASSES) + "\n")
        (tmp_path / "saved_model.pb").touch()
        if noted is not None:
            write_json(tmp_path / "assets.extra" / "data.json", noted)
        monkeypatch.setattr("kfusion.prediction.models.read_signatures", lambda _: signatures)
        asked: list[tuple[str, list[str]]] = []

        def ask(endpoint: str, inputs: dict[str, Any], outputs: Any) -> dict[str, np.ndarray]:
            asked.append((endpoint, list(inputs)))
            return {name: np.eye(4)[[1] * len(next(iter(inputs.values())))] for name in outputs}

        monkeypatch.setattr("kfusion.prediction.models.ServedModel", lambda _: SimpleNamespace(ask=ask, asked=asked))
        return VersionModel(tmp_path, all_views=True)

    return make


def only(*inputs: tuple[str, tuple[int, ...]]) -> dict[str, Signature]:
    """`serving_default`, and an endpoint for each modality."""
    return {"serving_default": signature(*inputs), **{f"{one[0]}_only": signature(one) for one in inputs}}


def test_a_version_that_notes_no_modalities_is_of_the_kinds_that_have_endpoints(version):
    made = version(only(*PAIR), {"audio_range": [-1, 2]})
    assert made.spec == Spec.pair((2, 2, 1), (1, 3), CLASSES, pixel_max=1)
    assert made.ranges == {"audio": (-1.0, 2.0)}
    assert made.unreadable == {"image": "it has no endpoint raw_bytes", "audio": "it has no endpoint raw_bytes"}


def test_a_version_is_what_it_notes(version):
    noted = {"modalities": THREE.modalities_json(), "audio_range": [-1, 2], "vector_range": [0, 1]}
    signatures = only(*PAIR, ("vector", (3,)))
    signatures["raw_bytes"] = signature(("image_bytes", ()), ("audio_bytes", ()), ("vector", (3,)))
    made = version(signatures, noted)
    assert made.spec == THREE and made.ranges["vector"] == (0.0, 1.0) and list(made.unreadable) == ["vector"]
    present = np.array([[True] * 3, [False, False, True], [True, True, False], [True] * 3])
    values = {name: np.ones((4, *THREE[name].shape), np.float32) for name in THREE.names}
    rows = Arrays(values, present, [""] * 4)
    answers = made.answer(rows)
    assert list(answers) == ["fused", "image", "audio", "vector"]
    assert rows.reason[2] == "a row must have all modalities or one. Found: image and audio"
    assert [reason for place, reason in enumerate(rows.reason) if place != 2] == [""] * 3
    served: Any = made._served
    assert sorted(served.asked) == [("serving_default", ["audio", "image", "vector"]), ("vector_only", ["vector"])]
    made.answer(Files({"image": [b"x"], "audio": [b""], "vector": [b""]}, [""]))
    assert served.asked[-1] == ("raw_bytes", ["audio_bytes", "image_bytes", "vector"])


def test_a_version_of_one_modality_answers_alone(version):
    made = version(only(("vector", (3,))), {"modalities": ONE.modalities_json(), "vector_range": [0, 1]})
    answers = made.answer(Arrays({"vector": np.ones((2, 3), np.float32)}, np.ones((2, 1), bool), [""] * 2))
    assert [answers[view].argmax(axis=1).tolist() for view in ("fused", "vector")] == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("signatures", "noted", "sentence"),
    [
        ({"serving_default": signature(*PAIR)}, None, "must be a version made by 'python -m kfusion.export'"),
        (only(*PAIR), {"modalities": THREE.modalities_json()}, "Found: another SavedModel"),
        (only(*PAIR), {"modalities": 3}, r"data\.json: 'modalities' must hold a kind"),
        (only(*PAIR), {"audio_range": [2, 1]}, "'audio_range' must be two numbers"),
        (only(("image", ()), ("audio", (3,))), {}, "a version must declare the shapes of its inputs. Found: image"),
    ],
)
def test_what_is_no_version_is_one_line(version, signatures, noted, sentence):
    with pytest.raises(UserError, match=sentence):
        version(signatures, noted)
