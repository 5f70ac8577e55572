"""One picture and one sound in each of some 90 ways, by every way in: the same features, and one and the same answer.

The ways in: training's reader, `predict` and a loaded run (files as training reads them), `predict` on an exported
version and the client (files made standard, read by the exported graph), the graph alone (files as they are), and, for
what browsers decode, the page. Features of one file differ between training and the graph by nothing; answers by at
most `ANSWER`. Features of different files of one picture or sound: see `test_ways`. `pytest -s` shows the table.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.signal import resample_poly

from kfusion import load
from kfusion.client import Client
from kfusion.config import DataConfig
from kfusion.data.loaders import load as load_data
from kfusion.data.loaders import load_builtin
from kfusion.modalities import modality
from kfusion.runtime.c_api import ServedModel
from kfusion.spec import audio_spec
from tests.page.visitor import Page
from tests.processes import in_process
from tests.test_ways import PICTURE, SOUND, picture
from tests.ways import DAMAGED, EXACT, Way, picture_ways, sound_ways

pytestmark = pytest.mark.slow
ANSWER = 1e-4
"""Of probabilities; the same network computes them in batches of other sizes, and in another process."""


def word() -> np.ndarray:
    """A sound of the features of a recorded seven, 16 kHz, on the steps of 16 bits: float32."""
    sounds = load_builtin()["audio"]
    row = int(np.flatnonzero(sounds.label == 7)[0])
    wav = modality("audio").sample_file(sounds.values[row], audio_spec())
    samples = resample_poly(np.frombuffer(wav[44:], "<i2").astype(float), 2, 1)
    samples *= 12000 / np.abs(samples).max()
    return (np.round(samples) / 32768).astype(np.float32)


@pytest.fixture(scope="module")
def ways() -> dict[str, list[Way]]:
    """Of each kind; the first of them is the plain one."""
    return {
        "image": sorted(picture_ways(picture()), key=lambda way: way[0] != "PNG L"),
        "audio": sorted(sound_ways(word(), 16000), key=lambda way: way[0] != "WAV PCM_16"),
    }


def written(folder: Path, kind: str, ways: list[Way]) -> Path:
    """A manifest of the files, of two classes; all have one ending, for what a file is its bytes say."""
    ending = modality(kind).suffixes[0]
    for place, (_, _, content, _) in enumerate(ways):
        (folder / f"{place}{ending}").write_bytes(content)
    rows = {
        kind: [f"{place}{ending}" for place in range(len(ways))],
        "label": [place % 2 for place in range(len(ways))],
    }
    pd.DataFrame(rows).to_csv(folder / "rows.csv", index=False)
    return folder / "rows.csv"


def by_command(model: Path, rows: Path, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Label and confidence of each row."""
    out = rows.parent / "answers.csv"
    done = in_process("kfusion.predict", model, rows, "--format", "full", "--out", out, "--overwrite")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    table = pd.read_csv(out)
    return table["label"].to_numpy(), table["confidence"].to_numpy()


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_every_way_in_gives_the_same_answer(kind, ways, trained_run, exported_model, server, tmp_path, monkeypatch):
    monkeypatch.setenv("KFUSION_CACHE", str(tmp_path / "cache"))
    tried = ways[kind]
    rows = written(tmp_path, kind, tried)
    files = [rows.parent / name for name in pd.read_csv(rows)[kind]]
    trained = load_data(DataConfig(data=str(rows), image_preprocessing="digit", sound="word"))[kind]
    features = trained.values[trained.row].reshape(len(tried), -1).astype(float)

    answers = {
        "loaded run": load(trained_run).predict_proba({kind: list(map(str, files))}),
        "loaded version": load(exported_model).predict_proba({kind: list(map(str, files))}),
    }
    with Client(server.url, timeout_s=60) as client:
        pieces = [
            client.predict(**{kind: [str(file) for file in files[at : at + 10]]}) for at in range(0, len(files), 10)
        ]
        answers["client"] = np.concatenate([piece.probabilities for piece in pieces])
    in_graph = [place for place, (_, _, _, alone) in enumerate(tried) if alone]
    contents: Any = np.array([tried[place][2] for place in in_graph], object)
    other = "audio" if kind == "image" else "image"
    with ServedModel(exported_model) as graph:
        inputs = {f"{kind}_bytes": contents, f"{other}_bytes": np.array([b""] * len(contents), object)}
        answers["graph"] = answers["client"].copy()
        answers["graph"][in_graph] = graph.ask("raw_bytes", inputs)["probabilities"]
        seen = graph.ask("read_bytes", inputs)[kind].reshape(len(contents), -1)
    np.testing.assert_allclose(seen * (255 if kind == "image" else 1), features[in_graph], atol=1e-3, rtol=1e-5)

    first = answers["loaded run"]
    apart = {way: np.abs(each - first).max(axis=1) for way, each in answers.items()}
    for model in (trained_run, exported_model):
        label, confidence = by_command(model, rows, kind)
        np.testing.assert_array_equal(label, first.argmax(axis=1))
        np.testing.assert_allclose(confidence, first.max(axis=1), atol=ANSWER)
    distance = np.abs(features - features[0]).mean(axis=1)
    for place, (name, level, _, alone) in enumerate(tried):
        differences = "  ".join(f"{way} {each[place]:.0e}" for way, each in apart.items() if way != "graph" or alone)
        told = f"{first[place].argmax()} ({first[place].max():.3f})"
        print(f"{kind:6} {name:36} {level:6} features {distance[place]:7.3f}  answer {told}  {differences}")
    assert max(each.max() for each in apart.values()) <= ANSWER
    assert distance.max() <= (PICTURE if kind == "image" else SOUND)
    exact = [level == EXACT for _, level, _, _ in tried]
    assert not distance[exact].any()
    told = first.argmax(axis=1)
    assert [way[0] for way, label in zip(tried, told, strict=True) if way[1] != DAMAGED and label != told[0]] == []


BY_BROWSERS = {
    "image": ("PNG 16 bit", "JPEG turned 90", "JPEG CMYK", "WebP", "GIF animated", "BMP RGB", "AVIF"),
    "audio": ("WAV PCM_24", "WAV 6 channels", "FLAC PCM_16", "MP3 MPEG_LAYER_III", "OGG VORBIS", "webm libopus"),
}


def test_the_page_gives_the_same_answer_as_the_client(browser, ways, server):
    with Page(browser, server.url) as page, Client(server.url, timeout_s=60) as client:
        for kind, wanted in BY_BROWSERS.items():
            for name, _, content, _ in ways[kind]:
                if name not in wanted:
                    continue
                where, ending = ("#picture", "png") if kind == "image" else ("#sound", "wav")
                kinds = {"JPEG": "image/jpeg", "PNG": "image/png"}
                mime = kinds.get(name.split()[0], "")
                _, said = page.asked("raw_bytes", lambda: page.drop(where, f"{name}.{ending}", mime, content))  # noqa: B023
                expected = client.predict(**{kind: content})
                label = int(np.argmax(said[f"{kind}_probabilities"]))
                found = said[f"{kind}_probabilities"][label]
                print(f"{kind:6} {name:24} page {label} ({found:.3f}), client {expected.label[0]}")
                assert label == expected.outputs[f"{kind}_probabilities"][0].argmax(), name
        assert page.peaceful()
