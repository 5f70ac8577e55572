"""Folders and manifests of files as people keep them: parts of a split, classes, files of other formats."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kfusion.config import Config, DataConfig
from kfusion.data.loaders import load
from kfusion.data.media_features import FrontEnd
from kfusion.data.media_files import Listing, list_media, read_manifest
from kfusion.data.splits import split
from kfusion.evaluation.inference import other_data
from kfusion.modalities import modality
from kfusion.modalities.image.decoding import IMAGE_FRONT_END
from kfusion.prepared_data import gather
from kfusion.spec import Spec
from kfusion.validation import UserError

PAIR = ("1.png", "1.wav")


def made(folder: Path, *names: str) -> Path:
    """Empty files: a listing looks at names alone."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def classes(*folders: str, files: tuple[str, ...] = PAIR) -> list[str]:
    return [f"{folder}/{name}" for folder in folders for name in files]


def refused(folder: Path) -> str:
    with pytest.raises(ValueError) as error:
        list_media(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def parts(listing: Listing) -> list[tuple[str, str]]:
    return sorted((item.part, item.label) for item in listing.items["image"])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("train", "test"), "training from 'train', test from 'test'; split off training: validation"),
        (("Training", "dev"), "training from 'Training', validation from 'dev'; split off training: test"),
        (("train", "valid", "Test"), "training from 'train', validation from 'valid', test from 'Test'"),
        (("train",), "training from 'train'; split off training: validation and test"),
    ],
)
def test_folders_of_a_split_are_its_parts_and_are_said(tmp_path, names, said):
    made(tmp_path, *classes(*(f"{part}/{name}" for part in names for name in ("one", "two"))), "train/README.txt")
    made(tmp_path, "docs/figure.txt")
    listing = list_media(tmp_path)
    assert listing.class_names == ("one", "two") and listing.aligned
    assert listing.notes == (f"the data's own parts are used: {said}",)
    assert len(listing.items["image"]) == 2 * len(names) and len({part for part, _ in parts(listing)}) == len(names)


def test_a_test_folder_without_classes_has_no_labels_and_is_said(tmp_path):
    made(tmp_path, *classes("train/one", "train/two", "test"))
    listing = list_media(tmp_path)
    assert parts(listing) == [("training", "one"), ("training", "two")]
    assert listing.notes[1] == "2 files are left out, in no class's folder: .png (1), .wav (1)"


def test_a_class_may_be_called_like_a_part(tmp_path):
    made(tmp_path, *classes("car", "train", "bus"))
    assert list_media(tmp_path).class_names == ("bus", "car", "train")
    made(tmp_path / "b", *(f"{name}/{file}" for name in ("test", "train") for file in ("images/1.png", "sounds/2.wav")))
    listing = list_media(tmp_path / "b")
    assert listing.class_names == ("test", "train") and not listing.aligned and listing.parts == ("",)


def test_classes_with_the_same_subfolders_are_refused(tmp_path):
    made(tmp_path / "a", *classes("ann/one", "ann/two", "bob/two", "bob/one", "bob/six"))
    assert refused(tmp_path / "a").endswith("Found: 'ann' and 'bob' with 'one' and 'two' in both")
    made(tmp_path / "b", *classes("train/one", "train/two", "extra/one", "extra/two"))
    assert "subfolders must be classes (or train, val and test)" in refused(tmp_path / "b")
    made(tmp_path / "c", *classes("test/one", "test/two", "val/one", "val/two"))
    assert refused(tmp_path / "c").endswith(
        "one must be called train, and each part must be there once. Found: 'test' and 'val'"
    )
    made(tmp_path / "d", *classes("train/one", "train/two", "val/one", "val/two", "dev/one", "dev/two"))
    assert refused(tmp_path / "d").endswith("Found: 'dev' and 'train' and 'val'")
    made(tmp_path / "e", *classes("train/one", "train/two", "test/one", "test/six"))
    assert refused(tmp_path / "e").endswith("Found: none in training of class 'six'")


def test_jpegs_and_wavs_of_other_endings_are_read_and_other_formats_are_said(tmp_path):
    made(tmp_path, *classes("one", "two"), "one/2.JFIF", "one/2.wave", "two/2.jpe", "two/2.WAV")
    assert list_media(tmp_path).notes == ()
    made(tmp_path, "one/3.jxl", "one/3.txt", "two/4.jxl", "two/4.mid", "5.svg", "notes.txt")
    listing = list_media(tmp_path)
    formats = {name: modality(name).formats for name in ("image", "audio")}
    assert len(listing.items["image"]) == 4 and listing.num_ignored == 4
    assert listing.notes == (
        f"4 files are left out: .jxl (2), .mid (1), .txt (1) (pictures must be {formats['image']}, sounds "
        f"{formats['audio']})",
        "1 file is left out, in no class's folder: .svg (1)",
    )
    made(tmp_path, "one/6.wav", "one/6.jxl")
    assert refused(tmp_path).endswith("Found: no picture of this name but 6.jxl, which is not read")


def test_a_folder_of_other_formats_alone_is_told_what_is_read(tmp_path):
    made(tmp_path, *classes("one", "two", files=("1.jxl", "1.mid")))
    rule = f"pictures that are {modality('image').formats}, and sounds that are {modality('audio').formats}"
    with pytest.raises(ValueError, match=rf"{rule}, in .* Found: \.jxl \(2\), \.mid \(2\)"):
        load(DataConfig(data=str(tmp_path)))


def test_files_of_one_kind_are_a_data_set_and_it_is_said_what_may_be_forgotten(tmp_path):
    parts_of_sounds = classes("train/one", "train/two", "test/one", "test/two", files=("1.wav",))
    sounds = list_media(made(tmp_path / "a", *parts_of_sounds))
    assert list(sounds.items) == ["audio"] and sounds.aligned and sounds.parts == ("training", "test")
    assert sounds.notes[-1] == f"only sounds: no pictures ({modality('image').formats})"
    made(tmp_path / "b", *classes("one", "two", files=("1.png", "x/2.jpg")))
    assert list_media(tmp_path / "b").notes == (f"only pictures: no sounds ({modality('audio').formats})",)
    made(tmp_path / "c", *classes("one", "two", files=("1.wav",)), "one/2.svg")
    assert list(list_media(tmp_path / "c").items) == ["audio"]
    made(tmp_path / "c", "two/2.svg")
    assert "each class must have a picture" in refused(tmp_path / "c")


def test_a_manifest_may_name_files_of_one_kind(tmp_path):
    listing = manifest(tmp_path, "image,label\na.png,1\nb.png,0\n")
    assert list(listing.items) == ["image"] and listing.aligned
    assert listing.notes == ("only pictures: no column audio",)
    assert manifest(tmp_path, "image,audio,label\n,a.wav,1\n,b.wav,0\n").notes == (
        "only sounds: an empty column image",
    )


def test_files_of_one_kind_become_a_source(undecoded, tmp_path):
    made(tmp_path, *classes("one", "two", files=tuple(f"{number}.png" for number in range(9))))
    for number, path in enumerate(sorted(tmp_path.glob("*/*.png"))):
        path.write_text(str(number))
    source = load(DataConfig(data=str(tmp_path)))
    assert source.spec.names == ("image",) and source.info["front_end"] == IMAGE_FRONT_END
    parts = split(source, DataConfig(val_share=0.2, test_share=0.2), 0)
    assert parts.audit.lines()[0] == "18 images, all different"
    assert sum(map(len, (parts.train, parts.val, parts.test))) == 18


def test_folders_of_one_number_are_one_class(tmp_path):
    made(tmp_path, *classes("01", "1", "2.0"))
    listing = list_media(tmp_path)
    assert listing.class_names == ("1", "2") and len(listing.items["image"]) == 3
    assert listing.notes == ("folders of one number are one class: '01', '2.0'",)
    made(tmp_path / "b", *classes("01", "02"))
    assert list_media(tmp_path / "b").class_names == ("01", "02")


def manifest(folder: Path, text: str, encoding: str = "utf-8") -> Listing:
    made(folder, "a.png", "b.png", "a.wav", "b.wav")
    (folder / "rows.csv").write_text(text, encoding=encoding)
    return read_manifest(folder / "rows.csv")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("image,audio,label\na.png,a.wav,3\nb.png,b.wav,4\n", "utf-8"),
        ("Label;IMAGE;Audio;Note\n3;a.png;a.wav;x\n4;b.png;b.wav;y\n", "utf-8-sig"),
        ("image\taudio\tlabel\na.png\ta.wav\t3.0\nb.png\tb.wav\t4.0\n", "utf-16"),
        ("SEP=;\r\nimage;audio;label;\r\na.png;a.wav;3;\r\nb.png;b.wav;4;;\r\n;;;\r\n\r\n;;;\r\n", "utf-8"),
    ],
)
def test_a_manifest_is_read_as_spreadsheets_write_it(tmp_path, text, encoding):
    listing = manifest(tmp_path, text, encoding)
    assert [(item.path.name, item.label) for item in listing.items["image"]] == [("a.png", "3"), ("b.png", "4")]
    assert not any("by their names" in note for note in listing.notes)


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("image_path,Audio File,class", "image from 'image_path', audio from 'Audio File', label from 'class'"),
        ("ImagePath,wav,label", "image from 'ImagePath', audio from 'wav'"),
        ("photo,audio,Target", "image from 'photo', label from 'Target'"),
    ],
)
def test_columns_go_by_their_common_names_which_is_said(tmp_path, header, taken):
    listing = manifest(tmp_path, f"{header}\na.png,a.wav,3\nb.png,b.wav,4\n")
    assert listing.notes == (f"columns of rows.csv are taken by their names: {taken}",)
    assert [item.path.name for item in listing.items["audio"]] == ["a.wav", "b.wav"] and listing.aligned


def test_a_file_that_is_nan_is_absent(tmp_path):
    listing = manifest(tmp_path, "image,audio,label\na.png,a.wav,3\nb.png,b.wav,4\nb.png,NaN,4\n")
    assert [item.is_present for item in listing.items["audio"]] == [True, True, False] and listing.aligned


def test_a_column_of_files_is_of_the_kind_that_they_have(tmp_path):
    listing = manifest(tmp_path, "fileName,category,index\na.wav,3,0\nb.wav,4,1\n")
    assert list(listing.items) == ["audio"]
    assert "audio from 'fileName', label from 'category'" in listing.notes[0]


@pytest.mark.parametrize("name", ["rows.tsv", "rows.txt", "rows.xlsx"])
def test_manifests_of_other_endings(tmp_path, name, monkeypatch):
    made(tmp_path, "sub/a.png", "b.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    table = pd.DataFrame({"Picture": ["sub\\a.png", "~/b.png"], "label": [1.0, 2.0], "note": [None, "x"]})
    if name.endswith("xlsx"):
        pytest.importorskip("openpyxl", reason="needs the extra excel")
        table.to_excel(tmp_path / name, index=False)
    else:
        table.to_csv(tmp_path / name, index=False, sep="\t", encoding="utf-16")
    items = read_manifest(tmp_path / name).items["image"]
    assert [(item.path, item.label) for item in items] == [(tmp_path / "sub/a.png", "1"), (tmp_path / "b.png", "2")]


def test_workbooks_that_cannot_be_read_are_one_line(tmp_path, monkeypatch):
    (tmp_path / "rows.xlsx").write_bytes(b"PK\x03\x04 no workbook")
    with pytest.raises(UserError, match=r"rows\.xlsx: must be an Excel workbook \(\.xlsx\) that can be read\. Found: "):
        read_manifest(tmp_path / "rows.xlsx")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(UserError, match=r"pip install 'kfusion\[excel\]'.*Found: no package openpyxl"):
        read_manifest(tmp_path / "rows.xlsx")


def test_columns_of_a_manifest_that_are_not_heeded_are_said(tmp_path):
    text = "image,audio,label,Split,speaker\na.png,a.wav,1,train,ann\nb.png,b.wav,0,test,\n"
    assert manifest(tmp_path, text).notes == (
        "the column Split is not used: the parts are dealt anew",
        "the column speaker is not used: it is empty in some rows",
    )


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("image,audio,label\na.png,a.wav,one\nb.png,./a.wav,two\n", "each file must have one label"),
        ("image,audio,label\na.png,a.wav,one\nb.png,b.wav,nan\n", "Found: 'nan' in row 1"),
        ("image,audio,label,Label\na.png,a.wav,1,2\n", "must have one column label. Found: 'label', 'Label'"),
        ("image,Image,audio,label\na.png,b.png,a.wav,2\n", "must have one column image. Found: 'image', 'Image'"),
        ("image,audio,class,target\na.png,a.wav,1,2\n", "Found: 'class', 'target'"),
        ("photo,img_path,label\na.png,b.png,1\n", "Found: 'photo', 'img_path'"),
        ("path,filename,label\na.png,b.png,1\n", "Found: 'path', 'filename'"),
        ("path,label\na.png,1\nb.wav,2\n", "in a column of their own, audio and image. Found: both in 'path'"),
        ("image,label\na.png,1,x\n", "each line must have 2 fields, as the header has. Found: 3 in line 2"),
    ],
)
def test_a_manifest_that_may_mean_several_things_is_refused(tmp_path, text, rule):
    with pytest.raises(ValueError) as error:
        manifest(tmp_path, text)
    assert rule in str(error.value) and "\n" not in str(error.value)


def test_labels_of_a_typed_table_are_those_of_a_csv(tmp_path):
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    made(tmp_path, "a.png", "b.png", "a.wav", "b.wav")
    table = pd.DataFrame({"Image": ["a.png", "b.png"], "audio": ["a.wav", "b.wav"], "label": [1.0, 0.0]})
    table.to_parquet(tmp_path / "rows.parquet")
    assert read_manifest(tmp_path / "rows.parquet").class_names == ("0", "1")
    table.assign(label=[1.0, np.nan]).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"must have a label and a file\. Found: none of one in row 1"):
        read_manifest(tmp_path / "rows.parquet")


@pytest.fixture
def undecoded(monkeypatch) -> None:
    """Features drawn by a file's content stand in for those of its media: tested is who goes where."""

    def features(paths: list[Path], front_end: FrontEnd, console: Any) -> Any:
        rngs = [np.random.default_rng(list(path.read_bytes())) for path in paths]
        return np.array([rng.integers(0, 256, front_end.shape) for rng in rngs], front_end.dtype), "key", {}

    monkeypatch.setattr("kfusion.data.media_features.features", features)
    monkeypatch.setattr("kfusion.data.media_features.header_faults", lambda listing: {})


@pytest.fixture
def parted(undecoded, tmp_path) -> Path:
    """Files in train, val and test; one training picture and one sound lie in test too."""
    for part, first, num in (("train", 0, 4), ("val", 4, 1), ("test", 5, 2)):
        for name in ("one", "TWO"):
            for number in range(first, first + num):
                for file in (f"images/{number}.png", f"sounds/{number}.wav"):
                    made(tmp_path, f"{part}/{name}/{file}")
                    (tmp_path / part / name / file).write_text(f"{name} {file}")
    for file in ("images/5.png", "sounds/6.wav"):
        shutil.copy(tmp_path / "test/one" / file, tmp_path / "train/one" / file)
    return tmp_path


def test_parts_of_the_data_are_the_parts_of_the_split_and_share_nothing(parted):
    material = gather(Config(data=DataConfig(data=str(parted))))
    found = material.parts
    assert (len(found.train), len(found.val), len(found.test)) == (8, 2, 4)
    assert found.audit.num_left_out == 2 and found.audit.leaked_share_here == 0
    assert "2 training rows left out: their clip or image is in the validation or test files" in found.audit.lines()
    for part in (found.train, found.val, found.test):
        assert sorted(set(part.label.tolist())) == [0, 1]
        np.testing.assert_array_equal(part.label, part.labels["audio"])
    lines = "\n".join(material.lines())
    assert "training from 'train', validation from 'val', test from 'test'" in lines
    source = material.source
    assert source.official_test is not None and source.spec.class_names == ("TWO", "one")
    rows = [set(part.rows["image"].tolist()) for part in (found.train, found.val, found.test)]
    assert sum(map(len, rows)) == len(set.union(*rows)) == 14
    random = split(source, DataConfig(split="random"), 0)
    assert (len(random.train), len(random.val), len(random.test)) == (9, 2, 4) and random.audit.leaked_share_here > 0
    limited = load(DataConfig(data=str(parted), limit=2))
    assert limited.official_val is not None and limited.official_test is not None
    assert [len(each["image"].label) for each in (limited, limited.official_val, limited.official_test)] == [2, 2, 2]


def test_another_run_is_judged_by_the_part_that_is_held_out(parted):
    run: Any = SimpleNamespace(
        spec=lambda: Spec(class_names=("TWO", "one")),
        data=lambda: {"audio_range": [0, 255], "source": {}},
        config=Config,
    )
    for part, num in (("test", 4), ("validation", 2)):
        subject = other_data(run, str(parted), "", 0, force=True)
        assert (subject.part, len(subject.pairs), len(subject.group)) == (f"{part} files", num, num)
        np.testing.assert_array_equal(subject.pairs.label, subject.pairs.labels["audio"])
        shutil.rmtree(parted / "test", ignore_errors=True)


def test_the_same_content_in_two_classes_is_said(undecoded, tmp_path):
    made(tmp_path, *classes("Three", "three"))
    (tmp_path / "three/1.wav").write_text("another sound")
    notes = load(DataConfig(data=str(tmp_path))).notes
    such = f"{tmp_path}/Three/1.png ('Three') and {tmp_path}/three/1.png ('three')"
    assert notes[-1] == f"pictures of the same content in two classes: 1, such as {such}"
