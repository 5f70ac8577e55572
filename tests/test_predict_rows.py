"""Which rows `predict` answers and what they are called: manifests, folders, and a job that goes on. No real model."""

import io
import os
import shutil
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from kfusion.prediction import outputs
from kfusion.prediction.job import Job, Outcome, run_job, write_listing
from kfusion.prediction.outputs import Work
from kfusion.spec import FUSED, Spec

GOOD = b"good"


@pytest.fixture(autouse=True)
def any_content(monkeypatch):
    """Files may hold anything: no real model reads them."""
    for kind in ("image.Image", "audio.Audio"):
        monkeypatch.setattr(f"kfusion.modalities.{kind}.standard_file", lambda _, content: content)


def answer(rows: Any) -> dict[str, np.ndarray]:
    """A row's class is the last byte of its files; a file that does not begin as good ones do is refused."""
    probabilities = np.zeros((len(rows.reason), 10))
    for place, files in enumerate(zip(*rows.contents.values(), strict=True)):
        content = b"".join(files)
        if not all(file.startswith(GOOD) for file in filter(None, files)):
            rows.reason[place] = rows.reason[place] or "image: must be a PNG or JPEG file"
        probabilities[place, content[-1] % 10 if content else 0] = 1
    return {FUSED: probabilities}


MODEL: Any = SimpleNamespace(
    folder=Path("model"),
    spec=Spec(),
    ranges={},
    confidence_note="",
    note="",
    identity="stub",
    unreadable={},
    columns_of_tables={},
    prepare=lambda rows: rows,
    answer=answer,
)


def files(folder: Path, **labels: int | bytes) -> Path:
    """Files that the model gives these classes; `__` stands for the dot of an ending."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, label in labels.items():
        content = label if isinstance(label, bytes) else GOOD + bytes([label])
        (folder / name.removeprefix("_").replace("__", ".")).write_bytes(content)
    return folder


def predicted(source: Path, out: Path, **fields: Any) -> tuple[pd.DataFrame, Outcome, str]:
    """The table of predictions as texts, the outcome, and what was said."""
    said = io.StringIO()
    outcome = run_job(Job(MODEL.folder, source, out, **fields), MODEL, Console(file=said, width=200))
    return pd.read_csv(out, dtype=str, keep_default_na=False), outcome, said.getvalue()


def refused(source: Path, out: Path, **fields: Any) -> str:
    with pytest.raises(ValueError) as error:
        predicted(source, out, **fields)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def data(tmp_path) -> Path:
    """A folder of pictures p0 … p9, each of its own class."""
    return files(tmp_path / "data", **{f"p{label}__png": label for label in range(10)})


def manifest(folder: Path, text: str, name: str = "rows.csv", encoding: str = "utf-8") -> Path:
    (folder / name).write_text(text, encoding=encoding, newline="")
    return folder / name


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("row_id,image\n42,p3.png\n017,p8.png\n", "utf-8"),
        ("IMAGE;Id;note\np3.png;42;x\np8.png;017;y\n", "utf-8-sig"),
        ("Index\tImage\r\n42\tp3.png\r\n017\tp8.png\r\n", "utf-16"),
        (",image,label\n42,p3.png,\n017,p8.png,\n", "utf-8"),
        ("row_id,id,image\n42,5,p3.png\n017,5,p8.png\n", "utf-8"),
    ],
)
def test_rows_of_a_manifest_are_called_what_it_calls_them(data, tmp_path, text, encoding):
    table, _, _ = predicted(manifest(data, text, encoding=encoding), tmp_path / "out.csv")
    assert table.to_csv(index=False) == "row_id,label\n42,3\n017,8\n"


@pytest.mark.parametrize("text", ["image,audio\np3.png,\np8.png,\n", ",image\n0,p3.png\n0,p8.png\n"])
def test_rows_without_names_of_their_own_are_numbered_and_their_files_named(data, tmp_path, text):
    table, _, _ = predicted(manifest(data, text), tmp_path / "out.csv")
    assert table.to_csv(index=False) == "row_id,label,image,audio\n0,3,p3.png,\n1,8,p8.png,\n"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("id,index,image\n0,1,p3.png\n", "must have one column id or index. Found: 'id', 'index'"),
        ("image,Image\np3.png,p4.png\n", "must have one column image. Found: 'image', 'Image'"),
        ("id,image\n7,p3.png\n7,p4.png\n", "id must be given, and another, in each row. Found: '7' in 2 rows"),
        ("id,image\n7,p3.png\n,p4.png\n", "id must be given, and another, in each row. Found: '' in 1 row"),
    ],
)
def test_names_of_rows_that_tell_nothing_are_refused(data, tmp_path, text, rule):
    assert refused(manifest(data, text), tmp_path / "out.csv").endswith(rule)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_bad_row_is_listed_by_its_name(data, tmp_path):
    source = manifest(data, "id,image\nx7,p3.png\nx9,gone.png\n")
    _, outcome, _ = predicted(source, tmp_path / "out.csv")
    assert pd.read_csv(outcome.errors)["row_id"].tolist() == ["x9"]
    assert "Found: row x9: image: must be a file" in refused(source, tmp_path / "b.csv", strict=True)


def test_a_folder_is_in_the_order_of_its_numbers_and_its_files_are_named(tmp_path):
    source = files(tmp_path / "data", _1__png=1, _10__png=5, _2__png=2, _02__jpg=3, a10__wav=6, a9__wave=7, b__jfif=8)
    table, outcome, _ = predicted(source, tmp_path / "out.csv")
    assert table["image"].tolist() == ["1.png", "02.jpg", "2.png", "10.png", "", "", "b.jfif"]
    assert table["audio"].tolist() == [*[""] * 4, "a9.wave", "a10.wav", ""]
    assert table["label"].tolist() == ["1", "3", "2", "5", "7", "6", "8"] and outcome.num_bad == 0


def test_no_picture_or_sound_of_a_folder_is_left_out_without_a_word(tmp_path):
    source = files(tmp_path / "data", _1__png=1, _2__svg=b"<svg>", _2__wav=2, _3__jxl=b"....", _4__JXL=b".", _4__JPG=4)
    files(source, notes__txt=b"x")
    (source / "more").mkdir()
    (source / ".git").mkdir()
    table, outcome, said = predicted(source, tmp_path / "out.csv")
    assert table["label"].tolist() == ["1", "", "", "4"] and outcome.num_bad == 2
    errors = pd.read_csv(outcome.errors, keep_default_na=False)
    assert errors[["row_id", "image", "audio"]].values.tolist() == [[1, "2.svg", "2.wav"], [2, "3.jxl", ""]]
    assert "files are left out beside another of their stem: .jxl (1)\n" in said
    assert "folders in INPUT are not looked into: 1 ('more')\n" in said


def test_folders_of_classes_and_parts_are_answered_as_they_are_trained_on(tmp_path):
    for name in ("train/three", "test/two", "test/three", "test/.git"):
        files(tmp_path / "data" / name, _10__png=1, _2__png=2, _2__wav=3)
    files(tmp_path / "elsewhere" / "images", a__png=4)
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "test" / "round").symlink_to(tmp_path / "data")
    table, outcome, _ = predicted(tmp_path / "data", tmp_path / "out.csv")
    assert outcome.num_bad == 0
    stems = ["link/images/a", *(f"{name}/{n}" for name in ("test/three", "test/two", "train/three") for n in (2, 10))]
    assert table["image"].tolist() == [f"{stem}.png" for stem in stems]
    assert table["audio"].tolist() == ["", *["test/three/2.wav", "", "test/two/2.wav", "", "train/three/2.wav", ""]]
    assert table["label"].tolist() == ["4", *["3", "1"] * 3]
    assert refused(files(tmp_path / "more" / "a", b__txt=1).parent, tmp_path / "b.csv").endswith("Found: a")


def test_a_manifest_is_read_as_people_write_it(data, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    files(data / "more", p1__png=1)
    text = "Image Path;Sound_File\r\nmore\\p1.png;NaN\r\n~/data/p7.png;\r\n;\r\n./p8.png;nan\r\n;\r\n;\r\n"
    table, outcome, said = predicted(manifest(data, f"sep=;\r\n{text}"), tmp_path / "out.csv")
    assert table["label"].tolist() == ["1", "7", "", "8"] and outcome.num_bad == 1
    assert table["image"].tolist() == ["more\\p1.png", "~/data/p7.png", "", "./p8.png"]
    assert "columns of rows.csv are taken by their names: image from 'Image Path', audio from 'Sound_File'\n" in said
    table, _, said = predicted(manifest(data, "path,class\np3.png,x\np8.png,y\n"), tmp_path / "b.csv")
    assert table["label"].tolist() == ["3", "8"] and "image from 'path'\n" in said


@pytest.fixture
def killed(data, tmp_path, monkeypatch):
    """Begins a job and kills it after its first shard of two rows; returns its output to be."""
    monkeypatch.setattr(outputs, "SHARD_ROWS", 2)
    keep = Work.keep

    def begin(source: Path) -> Path:
        def kept_once(self, start, *tables):
            if start:
                raise KeyboardInterrupt
            keep(self, start, *tables)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Work, "keep", kept_once)
            predicted(source, tmp_path / "out.csv")
        assert Work(tmp_path / "out.csv").complete() == {0}
        return tmp_path / "out.csv"

    return begin


def test_another_input_is_not_mixed_with_an_unfinished_job(data, tmp_path, killed, monkeypatch):
    one = manifest(data, "image\np1.png\np2.png\np3.png\n", "a.csv")
    other = manifest(data, "image\np1.png\np2.png\np4.png\n", "b.csv")
    out = killed(one)
    assert "'--resume' needs the job that was begun. Found: another input" in refused(other, out, resume=True)
    shutil.copytree(data, tmp_path / "elsewhere")
    assert "Found: another input" in refused(tmp_path / "elsewhere" / "a.csv", out, resume=True)
    changed = one.read_text()
    manifest(data, changed.replace("p3", "p5"), "a.csv")
    assert "Found: another input" in refused(one, out, resume=True)
    manifest(data, changed, "a.csv")
    with monkeypatch.context() as patch:
        patch.setattr(MODEL, "identity", "trained further")
        assert "Found: another model" in refused(one, out, resume=True)
    table, outcome, _ = predicted(one, out, resume=True)
    assert table["label"].tolist() == ["1", "2", "3"] and outcome.num_rows == 1


def test_a_folder_that_has_changed_is_another_input(data, tmp_path, killed):
    out = killed(data)
    files(data, q__png=3)
    assert "Found: another input" in refused(data, out, resume=True)
    (data / "q.png").unlink()
    (data / "notes.txt").touch()
    state = (data / "p9.png").stat()
    files(data, p9__png=4)
    os.utime(data / "p9.png", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert "Found: another input" in refused(data, out, resume=True)
    os.utime(data / "p9.png", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert predicted(data, out, resume=True)[1].num_rows == 8


def test_what_a_killed_start_leaves_behind_is_nobodys_input_or_answer(data, tmp_path, killed):
    one = manifest(data, "image\np1.png\np2.png\np3.png\n", "a.csv")
    other = manifest(data, "image\np6.png\np7.png\np8.png\n", "b.csv")
    job = Work(tmp_path / "out.csv")
    job.folder.mkdir()
    write_listing(job.listing, one, Spec())
    assert predicted(other, job.out)[0]["label"].tolist() == ["6", "7", "8"]
    job.out.unlink()
    killed(one)
    (job.folder / "job.json").unlink()
    assert predicted(other, job.out)[0]["label"].tolist() == ["6", "7", "8"]


def test_a_row_that_is_answered_after_all_is_not_listed_as_failed(data, tmp_path, killed):
    source = manifest(data, "image\np1.png\np2.png\np3.png\n")
    job = Work(killed(source))
    job.part_errors(2).write_text("row_id,image,audio,reason\n2,p3.png,,image: must be complete\n")
    table, outcome, _ = predicted(source, job.out, resume=True)
    assert table["label"].tolist() == ["1", "2", "3"]
    assert outcome.num_bad == 0 and not outcome.errors.exists()


def test_a_job_of_an_older_kfusion_is_told_from_a_new_one(data, killed):
    source = manifest(data, "image\np1.png\np2.png\np3.png\n")
    job = Work(killed(source))
    job.listing.unlink()
    with sqlite3.connect(job.listing) as database:
        database.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, image TEXT NOT NULL, audio TEXT NOT NULL)")
    database.close()
    assert "must be the list of rows that the job began with; --overwrite it" in refused(source, job.out, resume=True)
