"""Training data from picture and sound files: folders, manifests, the cache, and every bad input."""

import json
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kfusion.config import Config, DataConfig
from kfusion.data import media_features as media_cache
from kfusion.data.dataset import Source
from kfusion.data.loaders import load
from kfusion.data.splits import split
from kfusion.modalities.audio import Audio, word
from kfusion.modalities.audio.recipe import SPOKEN_DIGITS, word_bands
from kfusion.modalities.front_ends import note_on
from kfusion.modalities.image import handwriting as ink
from kfusion.modalities.image.decoding import IMAGE_FRONT_END
from kfusion.prepared_data import gather, load_own
from kfusion.run_dir import open_run
from kfusion.validation import UserError
from tests.folders import line
from tests.media import digit_images, encoded, tone_bytes, wav_bytes, write_media
from tests.processes import Done, fails, in_process

NUM = 12
NOISY = replace(SPOKEN_DIGITS, noise_left=0.5)
make = media_cache._made


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Folders `pairs` and `pools`, never changed."""
    root = tmp_path_factory.mktemp("media")
    write_media(root / "pairs", NUM, paired=True)
    write_media(root / "pools", NUM, paired=False)
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _cached(cache, monkeypatch):
    monkeypatch.setenv("KFUSION_CACHE", str(cache))


@pytest.fixture
def pairs(made, tmp_path) -> Path:
    """A copy to break, with two files of each class and kind."""
    for path in made.glob("pairs/*/00[01].*"):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        shutil.copy2(path, tmp_path / path.parent.name)
    return tmp_path


def read(where: Path, **fields) -> Source:
    return load(DataConfig(data=str(where), **fields))


def test_files_of_one_name_are_pairs(made):
    source = read(made / "pairs")
    assert source.aligned and source.spec.class_names == ("one", "three", "two")
    np.testing.assert_array_equal(source["image"].label, np.repeat([0, 1, 2], NUM))
    np.testing.assert_array_equal(source["audio"].label, source["image"].label)
    images, label = digit_images()
    np.testing.assert_array_equal(source["image"].values[NUM], images[label == 3][0][..., None])
    assert source["audio"].values.shape == (3 * NUM, 507)
    assert source.info["front_end"] == SPOKEN_DIGITS.front_end and source.info["image_front_end"] == IMAGE_FRONT_END


def test_files_of_other_names_meet_by_label(made):
    source, aligned = read(made / "pools"), read(made / "pairs")
    assert not source.aligned
    np.testing.assert_array_equal(source["image"].values, aligned["image"].values)
    np.testing.assert_array_equal(source["audio"].values, aligned["audio"].values)
    parts = split(source, DataConfig(val_share=0.2, test_share=0.2), 0)
    assert (parts.train.label == np.take(source["audio"].label, parts.train.rows["audio"])).all()


def test_classes_that_are_numbers_keep_their_order(tmp_path):
    for name in ("10", "9", "2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(encoded(digit_images()[0][0]))
        (tmp_path / name / "b.WAV").write_bytes(tone_bytes(300))
    assert read(tmp_path).spec.class_names == ("2", "9", "10")


def test_words_as_bands_have_copies_that_training_draws_from(made, cache, monkeypatch):
    settings = {"word_features": "log-mel", "word_copies": 2, "limit": 6}
    source = read(made / "pairs", **settings)
    audio, size = source["audio"], word_bands().num_frames * word_bands().num_coefficients
    assert audio.copies is not None and audio.copies.shape == (6, 2, size)
    one = np.asarray(audio.copies[0], np.float32)
    assert np.abs(one[0] - one[1]).max() > 1 and np.abs(one - audio.values[0]).max(axis=1).min() > 1
    pairs = source.pairs({name: np.arange(3) for name in source.spec.names})
    drawn = pairs.read(np.zeros(3, np.int64), np.array([0, 4, 8]))["audio"]
    np.testing.assert_array_equal(drawn, [audio.values[0], one[0], one[1]])
    with monkeypatch.context() as patch:
        patch.setattr(media_cache, "_made", lambda *_: pytest.fail("made again"))
        np.testing.assert_array_equal(read(made / "pairs", **settings)["audio"].copies, audio.copies)
    assert read(made / "pairs", word_copies=2, limit=6)["audio"].copies is None  # MFCC have none.


def test_limit_reads_no_more_files_than_it_says(made, monkeypatch):
    monkeypatch.setattr(media_cache, "_kept", lambda *_: None)
    source = read(made / "pools", limit=5)
    assert len(source["image"].values) == len(source["audio"].values) == 5
    assert np.bincount(source["image"].label).tolist() == [2, 2, 1]


def test_colour_pictures_of_another_size(made):
    source = read(made / "pairs", image_shape=(12, 16, 3), limit=6)
    assert source.spec["image"].shape == (12, 16, 3) and source["image"].values.shape == (6, 12, 16, 3)
    assert source.info["image_front_end"] != IMAGE_FRONT_END


def test_a_picture_of_another_format_is_read_as_its_png(pairs):
    before = read(pairs)["image"].values
    with Image.open(pairs / "one" / "000.png") as picture:
        picture.save(pairs / "one" / "000.bmp")
    (pairs / "one" / "000.png").unlink()
    np.testing.assert_array_equal(read(pairs)["image"].values, before)


def test_pictures_that_show_nothing_are_counted_where_they_are_not_refused(pairs):
    (pairs / "one" / "000.png").write_bytes(encoded(np.zeros((40, 40), np.uint8)))
    assert read(pairs, image_shape=(8, 8, 3), sound="word").notes == (
        "pictures: 1 of 6 are blank, all their values alike",
    )
    assert "must show a sign" in line(pairs)


def write_table(folder: Path, rows: list[dict[str, str]], name: str = "manifest.csv") -> Path:
    pd.DataFrame(rows).to_csv(folder / name, index=False)
    return folder / name


def rows_of(folder: Path) -> list[dict[str, str]]:
    return [
        {"image": f"{name}/{number:03}.png", "audio": f"{name}/{number:03}.wav", "label": name}
        for name in ("one", "three", "two")
        for number in range(2)
    ]


def test_manifest_names_pairs_groups_and_speakers(pairs):
    rows = [row | {"group": f"g{place % 2}", "speaker": f"s{place % 3}"} for place, row in enumerate(rows_of(pairs))]
    source = read(write_table(pairs, [*rows, rows[0] | {"audio": rows[1]["audio"], "group": "g1"}]))
    assert source.aligned and source.info["layout"] == "manifest" and source.info["grouped_by"] == "group"
    assert len(source["image"].values) == 6 and source["image"].row.tolist() == [0, 1, 2, 3, 4, 5, 0]
    assert source["audio"].row[-1] == 1
    assert source["audio"].group[0] == source["audio"].group[2] != source["audio"].group[3]
    assert source.speaker_names == ("s0", "s1", "s2") and source["audio"].speaker is not None


def test_people_of_a_manifest_can_be_held_out(made):
    rows = [
        {"image": f"{path.parent.name}/{path.name}", "audio": f"{path.parent.name}/{path.stem}.wav"}
        | {"label": path.parent.name, "speaker": ("ann", "bob", "eve")[int(path.stem) % 3]}
        for path in sorted((made / "pairs").glob("*/*.png"))
    ]
    table = write_table(made / "pairs", rows)
    source = read(table)
    config = DataConfig(split="speaker", test_speakers=("bob",), val_speakers=("eve",))
    parts = split(source, config, 0)
    assert source["audio"].speaker is not None
    for part, person in ((parts.train, 0), (parts.val, 2), (parts.test, 1)):
        assert set(source["audio"].speaker[part.rows["audio"]]) == {person} and len(part) == NUM
    table.unlink()


def test_manifest_of_single_files_and_of_parquet(pairs, monkeypatch):
    rows = rows_of(pairs)
    apart = [row | {"audio": ""} for row in rows] + [row | {"image": ""} for row in rows]
    assert not read(write_table(pairs, apart)).aligned
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    table = pairs / "manifest.parquet"
    pd.DataFrame(rows).to_parquet(table)
    assert read(table).aligned
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install '.[parquet]'). Found: no package pyarrow" in line(table)


def test_cache_is_used_and_a_changed_or_damaged_one_is_made_anew(pairs, cache, monkeypatch):
    source = read(pairs)
    (file,) = cache.glob(f"{source.info['keys']['images']}-*.npy")
    assert isinstance(source["image"].values, np.memmap) and file.is_file()
    with monkeypatch.context() as patch:
        patch.setattr(media_cache, "_made", lambda *_: pytest.fail("read again"))
        np.testing.assert_array_equal(read(pairs)["image"].values, source["image"].values)
    whole = file.read_bytes()
    for damaged in (whole[:-40], whole[:-1] + b"\x17", b"no array at all"):
        file.write_bytes(damaged)
        np.testing.assert_array_equal(read(pairs)["image"].values, source["image"].values)
        assert file.read_bytes() == whole
    shutil.copy2(pairs / "two" / "000.png", pairs / "one" / "000.png")
    changed = read(pairs)
    assert changed.info["keys"]["images"] != source.info["keys"]["images"]
    assert changed.info["keys"]["sounds"] == source.info["keys"]["sounds"]
    np.testing.assert_array_equal(changed["image"].values[0], changed["image"].values[4])


@pytest.mark.parametrize(
    ("module", "constant", "value", "kind"),
    [
        (word, "ABOVE_ROOM_DB", 9.0, "sounds"),
        (Audio, "recipe", NOISY, "sounds"),
        (ink, "WIDEST", 9.0, "images"),
    ],
)
def test_features_of_another_recipe_are_made_anew_and_noted(pairs, cache, monkeypatch, module, constant, value, kind):
    before = read(pairs)
    assert note_on(before.info) == ""
    monkeypatch.setattr(module, constant, value)
    made = []
    monkeypatch.setattr(media_cache, "_made", lambda *args: made.append(args) or make(*args))
    now = read(pairs)
    assert [args[1].name for args in made] == [now.info["front_end" if kind == "sounds" else "image_front_end"]]
    assert now.info["keys"] == before.info["keys"]
    assert {
        name for name, print_ in now.info["fingerprints"].items() if print_ != before.info["fingerprints"][name]
    } == {kind}
    assert note_on(before.info) == f"files of {kind} are read otherwise than at training, by another version of kfusion"
    assert note_on({"front_end": SPOKEN_DIGITS.front_end}) == ""


@pytest.mark.parametrize("noted", [{"sounds": "another", "images": "another"}, None])
def test_a_run_whose_files_were_read_by_another_version_keeps_its_data(made, noted):
    config = Config(data=DataConfig(data=str(made / "pools"), val_share=0.2, test_share=0.2))
    material = gather(config)
    facts = json.loads(json.dumps(material.facts()))
    facts["source"]["fingerprints"] = noted
    if noted is None:
        del facts["source"]["fingerprints"]
    run: Any = SimpleNamespace(
        folder=made, config=lambda: config, data=lambda: facts, split=material.rows, spec=lambda: material.spec
    )
    np.testing.assert_array_equal(load_own(run)[0]["audio"].values, material.source["audio"].values)
    told = "files of images and sounds are read otherwise than at training, by another version of kfusion"
    assert note_on(facts["source"]) == (told if noted else "")


def test_data_can_be_read_where_no_cache_can_be_kept(pairs, tmp_path, monkeypatch):
    (tmp_path / "blocked").write_text("a file")
    monkeypatch.setenv("KFUSION_CACHE", str(tmp_path / "blocked"))
    assert len(read(pairs)["image"].values) == 6


def damage(folder: Path) -> dict[str, tuple[str, bytes]]:
    png = (folder / "one" / "000.png").read_bytes()
    return {
        "must be a picture. Found: a text": ("one/000.png", b"hello"),
        "must be complete": ("one/000.png", png[:-9]),
        "cannot be decoded": ("two/001.png", png[:90] + b"\0\0" + png[92:]),
        "must show a sign": ("two/000.png", encoded(np.full((40, 40), 90, np.uint8))),
        "must be a sound. Found: a text": ("three/001.wav", b"hello"),
        "must hold a sound that stands out from silence": ("three/001.wav", wav_bytes(np.zeros(8000, np.int16))),
        "1 byte to 64 MB. Found: 0 bytes": ("three/001.wav", b""),
    }


def test_each_bad_file_is_named_with_its_reason(pairs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for said, (name, content) in damage(pairs).items():
        kept = (pairs / name).read_bytes()
        (pairs / name).write_bytes(content)
        text = line(pairs)
        assert text.startswith(f"{pairs / name}: ") and said in text
        (pairs / name).write_bytes(kept)
    for number in range(2):
        (pairs / "two" / f"00{number}.png").write_bytes(b"hello")
    text = line(pairs)
    assert text.startswith(f"{pairs / 'two' / '000.png'}: ") and "and 1 more of 12 files" in text
    assert "all are listed in bad_files.csv; --skip-bad goes on without them" in text
    table = (tmp_path / "bad_files.csv").read_text().splitlines()
    rule = "must be a picture. Found: a text"
    assert table == ["file,label,reason", *(f"{pairs / 'two' / f'00{number}.png'},two,{rule}" for number in range(2))]


@pytest.mark.slow
def test_the_broken_among_thousands_of_files_are_listed_in_seconds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.kron(digit_images()[0][:50], np.ones((1, 8, 8), np.uint8))
    good = {".png": list(map(encoded, images)), ".wav": [tone_bytes(200, seed, 1.0) for seed in range(50)]}
    for number in range(2500):
        for ending, contents in good.items():
            content = contents[number % 50]
            ways = (b"", b"hello\n" * 9, content[: len(content) // 2] * (ending == ".png"), b"%PDF-1.4", bytes(500))
            broken = number % 20 == (0 if ending == ".png" else 7)
            path = tmp_path / "data" / str(number % 5) / f"{number}{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(ways[number // 20 % 5] if broken else content)
    start_s = time.process_time()
    text = line(tmp_path / "data")
    assert time.process_time() - start_s < 10
    assert "and 249 more of 5,000 files cannot be read: all are listed in bad_files.csv" in text


def test_bad_files_are_left_out_where_that_is_asked_for(pairs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (pairs / "two" / "000.png").write_bytes(b"hello")
    (pairs / "three" / "001.wav").write_bytes(wav_bytes(np.zeros(8000, np.int16)))  # Its header is right.
    for name in ("._000.png", "Thumbs.db", "desktop.ini", "__MACOSX/._000.png"):
        (pairs / "one" / name).parent.mkdir(exist_ok=True)
        (pairs / "one" / name).write_bytes(b"litter")
    for _ in range(2):  # From the cache as well.
        source = read(pairs, skip_bad=True)
        assert [len(data.values) for data in source.data.values()] == [5, 5]
        assert [len(data.row) for data in source.data.values()] == [4, 4] and source.aligned
        assert np.bincount(source["image"].label).tolist() == [2, 1, 1]
        left_out = "2 files that cannot be read are left out: 1 of 'three', 1 of 'two' (bad_files.csv)"
        assert source.notes[0] == left_out
    assert len((tmp_path / "bad_files.csv").read_text().splitlines()) == 3
    (pairs / "two" / "001.wav").write_bytes(b"hello")
    with pytest.raises(UserError, match=r"each class must have files that can be read\. Found: none of class 'two'"):
        read(pairs, skip_bad=True)


def test_layouts_that_cannot_be_meant(pairs):
    rows = rows_of(pairs)
    cases = {
        "columns image, audio and label": [{"thing": "a.png", "label": "one"}],
        "must be a file. Found: no file 'x.png' in row 2": [*rows[:2], rows[2] | {"image": "x.png"}],
        "a label and a file": [rows[0] | {"label": ""}],
        "at least two classes": rows[:2],
    }
    for said, table in cases.items():
        assert said in line(write_table(pairs, table))
    assert "must be one of .csv, .tsv, .txt, .xlsx, .parquet" in line(pairs / "one" / "000.png")
    with pytest.raises(ValueError, match="'image_shape' must be left out"):
        load(DataConfig(image_shape=(8, 8, 1)))
    assert "'test_labels' must be empty" in line(pairs, test_labels="x.csv")
    (pairs / "manifest.csv").unlink()
    (pairs / "one" / "000.wav").unlink()
    assert "no sound of this name" in line(pairs)
    for path in pairs.glob("*/*.png"):
        path.rename(path.with_suffix(".svg"))
    assert "each class must have a picture" in line(pairs)
    (pairs / "two" / "000.svg").rename(pairs / "two" / "002.png")
    assert line(pairs).endswith("Found: none of class 'one'")
    shutil.rmtree(pairs / "one")
    shutil.rmtree(pairs / "two")
    assert "at least two classes" in line(pairs)


def train(data: Path, out: Path, *flags: str) -> Done:
    small = ("--filters", "4", "8", "--audio-units", "32", "--precision", "float32", "--test-share", "0.2")
    return in_process("kfusion.train", "--data", data, *small, "--val-share", "0.2", "--out", out, *flags)


def test_command_trains_on_a_folder_of_files_and_leaves_nothing_of_a_bad_one(made, pairs, tmp_path_factory, undrawn):
    work = tmp_path_factory.mktemp("runs")
    more = ("--recipe", "robust", "--audio-filters", "4", "8", "--word-copies", "1")
    done = train(made / "pairs", work / "run", "--epochs", "24", *more)
    assert done.returncode == 0, done.stderr
    run = open_run(work / "run")
    assert run.data()["source"]["front_end"] == word_bands().front_end
    assert run.data()["source"]["image_front_end"] == IMAGE_FRONT_END
    assert run.spec().class_names == ("one", "three", "two")
    assert run.metrics()["views"]["fused"]["accuracy"] > 0.6
    (pairs / "two" / "001.png").write_bytes(b"hello")
    fails(train(pairs, work / "none"), "001.png: must be a picture")
    assert not (work / "none").exists()
