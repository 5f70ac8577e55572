"""What a network is judged by: which rows share a sound and who speaks, and other data read as the run's were."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kfusion.config import Config, DataConfig
from kfusion.data.dataset import ModalityData, Source
from kfusion.data.loaders import load
from kfusion.evaluation import inference
from kfusion.evaluation.embeddings import contents
from kfusion.evaluation.evaluator import predicted
from kfusion.evaluation.inference import EvaluationSet, Predictions, evaluation_set, other_data
from kfusion.run_dir import Run
from kfusion.spec import Spec
from tests.media import encoded, tone_bytes

SHAPE = (10, 8, 1)
HIGH_A, LOW_A, LOW_B = (f"{name}.wav" for name in ("high_a", "low_a", "low_b"))
ROWS = [
    *(("2.png", LOW_B, "low", "bob"), ("1.png", HIGH_A, "high", "ann"), ("0.png", LOW_A, "low", "ann")),
    *(("2.png", LOW_A, "low", "ann"), ("1.png", HIGH_A, "high", "cid"), ("3.png", LOW_B, "low", "bob")),
]
"""A manifest whose files are named in several rows, in no order; one sound is said to be of two people."""


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded files are kept for this module's tests alone."""
    monkeypatch.setenv("KFUSION_CACHE", str(tmp_path_factory.getbasetemp() / "evaluation_set_cache"))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(4):
        (folder / f"{number}.png").write_bytes(encoded(np.full((12, 12), 60 * number, np.uint8)))
    for seed, (name, pitch_hz) in enumerate([(HIGH_A, 600), (LOW_A, 300), (LOW_B, 300)]):
        (folder / name).write_bytes(tone_bytes(pitch_hz, seed))
    lines = ["image,audio,label,speaker", *map(",".join, ROWS)]
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    return folder / "pairs.csv"


def described(folder: Path, data: DataConfig, spec: Spec, **source: object) -> Run:
    """A run folder of which only config.json and data.json are there."""
    folder.mkdir()
    facts = {"format": 1, "spec": spec.to_json(), "source": source, "audio_range": [-1e3, 1e3]}
    (folder / "data.json").write_text(json.dumps(facts))
    (folder / "config.json").write_text(json.dumps(Config(data=data).to_json()))
    return Run(folder)


def repeated(places: list[int]) -> tuple[Source, EvaluationSet]:
    """A source that uses rows out of order and several times, and some of its samples."""
    label, speaker = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2])
    rows = {"image": np.array([2, 0, 2, 1]), "audio": np.array([1, 2, 0, 1])}
    groups = {"image": np.array([7, 8, 7, 9]), "audio": np.array([5, 4, 6, 5])}
    values = {"image": np.arange(18.0).reshape(3, 2, 3, 1), "audio": np.arange(12.0).reshape(3, 4)}
    data = {name: ModalityData(values[name], label, groups[name], rows[name]) for name in rows}
    data["audio"] = replace(data["audio"], speaker=speaker)
    info = {"name": "s", "front_end": None}
    spec = Spec.pair((2, 3, 1), (1, 4), ("a", "b"))
    source = Source(data, True, spec, info, speaker_names=("ann", "bob", "cid"))
    pairs = source.pairs(dict.fromkeys(rows, np.array(places)))
    return source, evaluation_set(source.spec, source, pairs, "", pairs, None)


def test_groups_and_speakers_are_those_of_the_pairs_places_not_of_their_rows():
    source, samples = repeated([3, 0, 2])
    assert samples.group.tolist() == [5, 5, 6]
    assert samples.speaker is not None and samples.speaker.tolist() == [2, 0, 1]
    found = contents(source, samples.pairs)
    assert (found["image"].tolist(), found["audio"].tolist()) == ([9, 7, 7], [5, 5, 6])
    assert found["fused"].tolist() == [2, 0, 1]


def test_predictions_in_a_file_with_other_groups_are_not_reused(tmp_path, monkeypatch):
    _, samples = repeated([0, 1, 2, 3])
    none, key, label = np.zeros(0), inference.fingerprint(samples, "w", 0), samples.pairs.label
    right = Predictions(key, label, samples.group, *[none] * 5)
    monkeypatch.setattr(inference, "predict", lambda *_: right)
    for group in (np.zeros(4, np.int64), samples.group):
        inference.save_predictions(tmp_path / "answers.npz", Predictions(key, label, group, *[none] * 5))
        found = predicted(samples, None, "w", 0, tmp_path / "answers.npz", None)  # type: ignore[arg-type]
        assert found.group.tolist() == samples.group.tolist()
        assert (found is right) == (group is not samples.group)


def test_a_manifest_that_uses_a_file_in_several_rows_is_judged_by_its_own_rows(manifest, tmp_path):
    spec = Spec.pair(SHAPE, class_names=("high", "low"))
    run = described(tmp_path / "run", DataConfig(image_shape=SHAPE), spec, files={"images": 9, "sounds": 9})
    samples = other_data(run, str(manifest), "", 0, force=True)
    assert samples.speaker is not None
    assert [samples.speaker_names[who] for who in samples.speaker] == [speaker for *_, speaker in ROWS]
    shared = samples.group[:, None] == samples.group
    assert np.array_equal(shared, [[one[1] == other[1] for other in ROWS] for one in ROWS])
    found = contents(load(DataConfig(data=str(manifest), image_shape=SHAPE)), samples.pairs)
    shared = found["fused"][:, None] == found["fused"]
    assert np.array_equal(shared, [[one[:2] == other[:2] for other in ROWS] for one in ROWS])


@pytest.mark.parametrize("pixel_max", [255, 1])
def test_picture_files_are_read_in_the_shape_of_the_run_and_on_its_scale(manifest, tmp_path, pixel_max):
    """A run of arrays on the scale 0-1 has no 'image_shape' of its own: its spec says it."""
    spec = Spec.pair(SHAPE, class_names=("high", "low"), pixel_max=pixel_max)
    config = DataConfig(image_shape=SHAPE) if pixel_max == 255 else DataConfig(data="arrays")
    samples = other_data(described(tmp_path / "run", config, spec, files={}), str(manifest), "", 0, force=False)
    image = samples.read(samples.pairs, np.arange(len(ROWS)))["image"]
    brightness = np.array([60 * int(name[0]) for name, *_ in ROWS]) * pixel_max / 255
    np.testing.assert_allclose(image, np.broadcast_to(brightness[:, None, None, None], (6, *SHAPE)), atol=1e-3)


def test_a_run_whose_images_no_picture_file_can_be_is_told_apart(manifest, tmp_path):
    run = described(tmp_path / "run", DataConfig(data="arrays"), Spec.pair((4, 4, 2), class_names=("high", "low")))
    with pytest.raises(ValueError, match=r"must be those of the run \(4 × 4 × 2\)\. Found: picture files, which have"):
        other_data(run, str(manifest), "", 0, force=False)


def test_other_data_of_as_many_files_are_not_taken_for_the_runs_own(manifest, tmp_path):
    info = load(DataConfig(data=str(manifest), image_shape=SHAPE)).info
    spec, config = Spec.pair(SHAPE, class_names=("high", "low")), DataConfig(data="elsewhere", image_shape=SHAPE)
    other = described(tmp_path / "other", config, spec, **{**info, "audio_range": [-30.0, 7.0]})
    assert len(other_data(other, str(manifest), "", 0, force=False).pairs) == len(ROWS)
    copied = described(tmp_path / "copied", config, spec, **info)
    limited = DataConfig(data=str(manifest), image_shape=SHAPE, limit=4)
    some = described(tmp_path / "some", limited, spec, **{**info, "files": {"images": 2, "sounds": 2}})
    for run in (copied, some):
        with pytest.raises(ValueError, match=r"must be other data than the run was trained on.* Found: the same files"):
            other_data(run, str(manifest), "", 0, force=False)
