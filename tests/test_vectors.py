"""Rows of numbers, some of which are missing: in arrays, in training, and in an exported version."""

import json
from pathlib import Path

import numpy as np
import pytest

from kfusion import FusionClassifier, load
from kfusion.config import DataConfig
from kfusion.data import loaders
from kfusion.data.splits import split
from kfusion.data.statistics import measure
from kfusion.prediction.arrays import open_arrays
from kfusion.spec import ModalitySpec, Spec
from kfusion.validation import UserError
from tests.processes import in_process

SMALL = {
    "epochs": 1, "batch_size": 16, "embed_dim": 4, "hidden_dim": 4, "filters": (2,), "audio_units": (4,),
    "flip": "none", "rotation": 0.0, "crop": 0, "precision": "float32", "val_share": 0.2, "test_share": 0.2,
}  # fmt: skip
NUM = 60
LABEL = np.array(["calm", "wild"])[np.arange(NUM) % 2]


def values_of(seed: int = 0) -> dict[str, np.ndarray]:
    """Pictures and vectors whose class each tells; of the vectors every fifth number and every tenth row is missing."""
    rng, label = np.random.default_rng(seed), np.arange(NUM) % 2
    vector = rng.normal(0, 0.3, (NUM, 3)) + 5 * label[:, None]
    vector.flat[::5] = np.nan
    vector[::10] = np.nan
    image = rng.integers(0, 60, (NUM, 4, 4)) + 150 * label[:, None, None]
    return {"image": image.astype(np.uint8), "vector": vector.astype(np.float32)}


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, file in (("image", "images.npy"), ("vector", "vector.npy")):
        np.save(tmp_path / file, values_of()[name])
    np.save(tmp_path / "labels.npy", LABEL)
    return tmp_path


def test_missing_numbers_count_neither_for_ranges_nor_for_means(folder):
    source, vector = loaders.load(DataConfig(data=str(folder))), values_of()["vector"]
    assert source.spec["vector"] == ModalitySpec("vector", (3,))
    np.testing.assert_array_equal(source["vector"].is_present(np.arange(NUM)), np.arange(NUM) % 10 > 0)
    assert source.info["vector_range"] == [np.nanmin(vector), np.nanmax(vector)]
    train = split(source, DataConfig(val_share=0.2, test_share=0.2), 0).train
    own = vector[train.rows["vector"]].astype(np.float64)
    statistics = measure(train, {})
    np.testing.assert_allclose(statistics.mean["vector"], np.nanmean(own, axis=0))
    np.testing.assert_allclose(statistics.variance["vector"], np.nanvar(own, axis=0))
    assert statistics.ranges["vector"] == (np.nanmin(own), np.nanmax(own))


def test_infinity_and_nothing_at_all_are_refused(folder):
    vector = values_of()["vector"]
    vector[7, 1] = np.inf
    np.save(folder / "vector.npy", vector)
    with pytest.raises(UserError, match=r"vector\.npy: values must be finite .*, or NaN.* Found: infinity in row 7"):
        loaders.load(DataConfig(data=str(folder)))
    np.save(folder / "vector.npy", np.full((NUM, 3), np.nan))
    with pytest.raises(UserError, match=r"must hold at least one number\. Found: NaN alone"):
        loaders.load(DataConfig(data=str(folder)))
    (folder / "images.npy").unlink()
    np.save(folder / "vector.npy", values_of()["vector"])
    with pytest.raises(UserError, match=r"each row must have a value of vector\. Found: none in row 0"):
        loaders.load(DataConfig(data=str(folder)))


def test_predicted_rows_may_lack_numbers_and_vectors(folder):
    rows = open_arrays(folder, None, Spec({"vector": ModalitySpec("vector", (3,))}, ("a", "b")))
    assert rows is not None
    batch = rows.read(0, 12)
    assert [place for place, reason in enumerate(batch.reason) if reason] == [0, 10]
    assert batch.reason[0] == "a row must have a vector. Found: no number"
    np.testing.assert_array_equal(batch.present[:, 0], np.arange(12) % 10 > 0)


@pytest.mark.slow
def test_missing_numbers_from_arrays_to_an_answer(tmp_path, undrawn):
    values = values_of()
    clf = FusionClassifier(**{**SMALL, "epochs": 15, "peak_learning_rate": 0.03}, views="all", late_teacher=1.0,
                           repair=True, out=tmp_path / "run", verbose=0).fit(values, LABEL)  # fmt: skip
    views = json.loads((tmp_path / "run" / "metrics.json").read_text())["views"]
    assert views["vector"]["num_rows"] < views["image"]["num_rows"] == views["fused"]["num_rows"]
    assert clf.score(values, LABEL) > 0.9
    alone = {"vector": values["vector"][1:10]}
    assert (clf.predict(alone) == LABEL[1:10]).mean() > 0.8
    table = clf.explain_decision({name: each[:11] for name, each in values.items()})
    np.testing.assert_array_equal(table["vector_label"].isna(), np.arange(11) % 10 == 0)


@pytest.mark.slow
def test_missing_numbers_are_evaluated_and_exported(tmp_path, undrawn):
    values = values_of()
    clf = FusionClassifier(**SMALL, views="all", out=tmp_path / "run", verbose=0).fit(values, LABEL)
    done = in_process("kfusion.evaluate", tmp_path / "run")
    assert (done.returncode, done.stderr) == (0, ""), f"{done.stdout}{done.stderr}"
    done = in_process("kfusion.report", tmp_path / "run")
    assert (done.returncode, done.stderr) == (0, ""), f"{done.stdout}{done.stderr}"
    clf = load(tmp_path / "run")
    assert isinstance(clf, FusionClassifier)
    version = load(clf.export(tmp_path / "models" / "made"))
    np.testing.assert_allclose(version.predict_proba(values), clf.predict_proba(values), atol=1e-5)
