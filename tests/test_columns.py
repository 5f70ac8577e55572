"""Tables whose columns are modalities, and rows that lack some of them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kfusion import FusionClassifier, load
from kfusion.config import DataConfig
from kfusion.data import loaders
from kfusion.data.dataset import Source
from kfusion.data.splits import split
from kfusion.run_dir import open_run
from kfusion.validation import UserError
from tests.media import encoded, tone_bytes
from tests.processes import Done, fails, in_process

SMALL = (
    "--embed-dim", "4", "--hidden-dim", "4", "--filters", "2", "--audio-units", "4", "--precision", "float32",
    "--val-share", "0.2", "--test-share", "0.2", "--batch-size", "16", "--flip", "none",
)  # fmt: skip
NUM = 40
COLUMNS = ("image=photo", "audio=mfcc_1..mfcc_4", "vector=Age,glucose_*", "label=risk", "group=patient")


@pytest.fixture(autouse=True)
def _cached(tmp_path, monkeypatch):
    monkeypatch.setenv("KFUSION_CACHE", str(tmp_path / "cache"))


def table_of(folder: Path) -> pd.DataFrame:
    """Rows whose class each column tells: pictures by path, numbers, and what is missing here and there."""
    rng, label = np.random.default_rng(0), np.arange(NUM) % 2
    (folder / "photos").mkdir()
    names = [f"photos/{row}.png" for row in range(NUM)]
    for name, of_class in zip(names, label, strict=True):
        pixels = rng.integers(0, 60, (8, 8, 3)) + 150 * of_class
        (folder / name).write_bytes(encoded(pixels.astype(np.uint8)))
    names[3] = names[7] = ""
    number = {
        name: (rng.normal(0, 0.3, NUM) + 3 * label).round(4).astype(object) for name in ("glucose 1", "glucose-2")
    }
    number["glucose 1"][5] = number["glucose-2"][9] = number["glucose-2"][10] = number["glucose 1"][10] = np.nan
    age = (30 + 20 * label + rng.integers(0, 5, NUM)).astype(object)
    age[10] = "NA"
    mfcc = {f"mfcc_{place}": rng.normal(0, 1, NUM).round(4) + 4 * label for place in range(1, 5)}
    mfcc = {name: np.where(np.arange(NUM) % 8 == 1, np.nan, values) for name, values in mfcc.items()}
    patient = [f"p{row // 4}" for row in range(NUM)]
    return pd.DataFrame(
        {"photo": names, "age": age, **mfcc, "risk": np.array(["low", "high"])[label], **number, "patient": patient}
    )


@pytest.fixture
def table(tmp_path) -> Path:
    table_of(tmp_path).to_csv(tmp_path / "clinic.csv", index=False)
    return tmp_path / "clinic.csv"


def read(path: Path, *columns: str, **more) -> Source:
    return loaders.load(DataConfig(data=str(path), columns=columns, image_shape=(8, 8, 3), **more))


def refused(path: Path, *columns: str) -> str:
    with pytest.raises(UserError) as caught:
        read(path, *columns)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def train(data: Path, out: Path, *flags: str) -> Done:
    return in_process("kfusion.train", "--data", data, "--epochs", "1", "--out", out, *SMALL, *flags)


def test_columns_are_pictures_frames_and_vectors(table):
    source, frame = read(table, *COLUMNS), pd.read_csv(table)
    shapes = {name: shape.grid for name, shape in source.spec.modalities.items()}
    assert shapes == {"image": (8, 8, 3), "audio": (1, 4), "vector": (3,)} and source.aligned
    assert source.spec.class_names == ("high", "low")
    wanted = frame[["age", "glucose 1", "glucose-2"]].to_numpy(np.float32)
    np.testing.assert_array_equal(source["vector"].values, wanted)
    absent = {name: np.flatnonzero(~data.is_present(np.arange(NUM))) for name, data in source.data.items()}
    assert {name: rows.tolist() for name, rows in absent.items()} == {
        "image": [3, 7],
        "audio": [1, 9, 17, 25, 33],
        "vector": [10],
    }
    assert source.info["columns"] == {
        "image": "photo",
        "audio": [f"mfcc_{place}" for place in range(1, 5)],
        "vector": ["age", "glucose 1", "glucose-2"],
    }
    assert "of 40, 2 without image, 5 without sound, 1 without vector" in "\n".join(source.notes)
    train = split(source, DataConfig(val_share=0.2, test_share=0.2), 0).train
    assert not {*(train.rows["vector"] // 4)} & {*np.delete(np.arange(NUM), train.rows["vector"]) // 4}
    values = train.read(np.arange(len(train)))
    assert not values["image"][~train.is_present("image")].any()
    np.testing.assert_array_equal(values["vector"], source["vector"].values[train.rows["vector"]])


def test_other_names_decimal_commas_and_a_single_modality(table):
    frame = pd.read_csv(table)
    frame["age"] = [str(value).replace(".", ",") for value in frame["age"]]
    frame.to_csv(table, index=False, sep=";")
    source = read(table, "blood=age, glucose 1", "label=RISK")
    assert source.spec.names == ("blood",) and source.spec["blood"].kind == "vector" and len(source["blood"]) == NUM - 1
    assert "rows of which nothing is known are left out: 1 of 40" in source.notes


def test_wrong_columns_are_one_line_each(table):
    assert "'columns' must be name=COLUMN, name=A,B" in refused(table, "photo")
    assert "must name a modality" in refused(table, "label=risk")
    assert "must have each name once" in refused(table, "vector=age", "vector=mfcc_1")
    assert refused(table, "vector=weight", "label=risk").startswith(
        f"{table}: 'columns' vector=weight: must be a column"
    )
    assert "must go from left to right" in refused(table, "vector=mfcc_3..mfcc_1", "label=risk")
    assert "must match a column" in refused(table, "vector=zinc_*", "label=risk")
    assert "each column must be named once. Found: 'age' twice" in refused(table, "vector=age,age", "label=risk")
    assert "Found: 'age' for vector and audio" in refused(table, "vector=age", "audio=age", "label=risk")
    assert "Found: 'risk' for vector and label" in refused(table, "vector=age,risk", "label=risk")
    assert "each cell of 'patient' must be a number. Found: 'p0' in row 0" in refused(
        table, "vector=patient", "label=risk"
    )
    assert "all of its numbers or none" in refused(table, "audio=age,glucose 1", "label=risk")
    assert "must be one column of files" in refused(table, "image=age,mfcc_1", "label=risk")
    assert "each image must be a file. Found: no file 'low' in row 0" in refused(table, "image=risk", "label=patient")
    assert "must name the column of the classes" in refused(table, "vector=age")
    assert "unless the data are a table" in refused(table.parent, "vector=age")


@pytest.mark.slow
def test_mixed_rows_of_a_table_train_evaluate_and_predict(table, tmp_path, undrawn):
    flags = ("--views", "all", "--late-teacher", "1", "--repair", "--image-shape", "8", "8", "3", "--columns", *COLUMNS)
    done = train(table, tmp_path / "run", *flags)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    views = open_run(tmp_path / "run").metrics()["views"]
    assert views["audio"]["num_rows"] <= views["fused"]["num_rows"]
    done = in_process("kfusion.predict", tmp_path / "run", table, "--format", "full", "--out", tmp_path / "a.csv")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    answers = pd.read_csv(tmp_path / "a.csv")
    assert len(answers) == NUM and answers["label"].notna().all()
    for name, rows in {"image": [3, 7], "audio": [1, 9, 17, 25, 33], "vector": [10]}.items():
        assert np.flatnonzero(answers[f"{name}_label"].isna()).tolist() == rows
    table.write_text("row,risk\n1,low\n")
    done = in_process("kfusion.predict", tmp_path / "run", table, "--out", tmp_path / "b.csv")
    fails(done, "must have the columns of the training table")


def test_a_manifest_of_files_may_lack_some(table, tmp_path):
    frame = pd.read_csv(table, dtype=str, keep_default_na=False)
    for label, tone in (("low", 300), ("high", 900)):
        (tmp_path / f"{label}.wav").write_bytes(tone_bytes(tone))
    has_sound = (frame.index % 3 > 0) | (frame["photo"] == "")
    sounds = np.where(has_sound, frame["risk"] + ".wav", "").tolist()
    pd.DataFrame({"image": frame["photo"], "audio": sounds, "label": frame["risk"]}).to_csv(tmp_path / "files.csv")
    source = read(tmp_path / "files.csv")
    assert source.aligned and len(source["image"]) == len(source["audio"]) == NUM
    np.testing.assert_array_equal(source["image"].is_present(np.arange(NUM)), frame["photo"] != "")
    np.testing.assert_array_equal(source["audio"].is_present(np.arange(NUM)), np.array(sounds) != "")
    num = sounds.count("")
    assert f"trained on for what they have: of {NUM}, 2 without image, {num} without sound" in source.notes[0]
    pairs = source.pairs(dict.fromkeys(source.data, np.arange(NUM)))
    again = pairs.repaired(np.random.default_rng(0), 0.5)
    for name in ("image", "audio"):
        here = pairs.is_present(name)
        np.testing.assert_array_equal(again.is_present(name), here)
        assert np.isin(again.positions[name][here], np.flatnonzero(here)).all()
    together = pairs.is_present("image") & pairs.is_present("audio")
    differ = again.labels["audio"] != again.label
    assert differ.any() and not differ[~together].any()


@pytest.mark.slow
def test_a_data_frame_with_columns(table, tmp_path, undrawn, monkeypatch):
    frame = pd.read_csv(table)
    frame["photo"] = [str(table.parent / name) if isinstance(name, str) else None for name in frame["photo"]]
    clf = FusionClassifier(
        epochs=1, batch_size=16, embed_dim=4, hidden_dim=4, filters=(2,), audio_units=(4,), precision="float32",
        val_share=0.2, test_share=0.2, image_shape=(8, 8, 3), columns=COLUMNS, out=tmp_path / "run", verbose=0,
    ).fit(frame)  # fmt: skip
    answers = clf.predict_proba(frame)
    assert answers.shape == (NUM, 2)
    np.testing.assert_allclose(load(tmp_path / "run").predict_proba(table), answers, atol=1e-6)
    with pytest.raises(UserError, match="must be a column of the table"):
        FusionClassifier(columns=("vector=weight", "label=risk")).fit(frame)


@pytest.mark.slow
def test_a_run_on_columns_is_evaluated_and_exported(table, tmp_path, undrawn):
    flags = ("--views", "all", "--columns", "vector=age,glucose_*", "mfcc=mfcc_1..mfcc_4", "label=risk")
    assert train(table, tmp_path / "run", *flags).returncode == 0
    other = pd.read_csv(table).sample(frac=1, random_state=0)
    other.to_csv(tmp_path / "other.csv", index=False)
    for more in ((), ("--data", tmp_path / "other.csv", "--force")):
        done = in_process("kfusion.evaluate", tmp_path / "run", *more)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    facts = json.loads((tmp_path / "run" / "evaluation" / "other.csv" / "evaluation.json").read_text())
    assert facts["views"]["mfcc"]["num_rows"] == NUM - 5 and facts["views"]["fused"]["num_rows"] == NUM
    done = in_process("kfusion.export", tmp_path / "run", "--name", "made", "--to", tmp_path / "models")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    answers = load(tmp_path / "models" / "made").predict_proba(table)
    np.testing.assert_allclose(answers, load(tmp_path / "run").predict_proba(table), atol=1e-5)
