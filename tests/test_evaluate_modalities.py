"""Models of one and of three modalities, evaluated, embedded and reported; one kind is known to this test alone."""

import re
from pathlib import Path

import numpy as np
import pytest

from kfusion.config import AugmentConfig, Config, DataConfig, ModelConfig, TrainingConfig
from kfusion.evaluation.embeddings import embed
from kfusion.evaluation.evaluator import Request, evaluate
from kfusion.evaluation.inference import other_data
from kfusion.evaluation.summary import purposes
from kfusion.io import read_json
from kfusion.modalities import modality, registered
from kfusion.modalities.base import Modality
from kfusion.reporting.page import report
from kfusion.run_dir import Run
from kfusion.training.trainer import train

SHAPES = {"image": (8, 8), "audio": (4, 3), "vector": (5,)}


class Vector(Modality):
    """A row of numbers, as the base class has it."""

    kind = "vector"
    array_file = "vector.npy"


@pytest.fixture(autouse=True)
def third_kind():
    with registered(Vector()):
        yield


def trained(folder: Path, names: tuple[str, ...]) -> Path:
    """A run of one epoch on samples whose class each modality tells."""
    rng, label = np.random.default_rng(0), np.arange(90) % 3
    (folder / "data").mkdir()
    for name in names:
        values = rng.random((90, int(np.prod(SHAPES[name])))) / 2
        values[np.arange(90), label] += 0.5
        np.save(folder / "data" / modality(name).array_file, values.reshape(90, *SHAPES[name]).astype(np.float32))
    np.save(folder / "data/labels.npy", np.array(["hut", "tür", "zaun"])[label])
    config = Config(
        data=DataConfig(data=str(folder / "data"), val_share=0.2, test_share=0.2),
        model=ModelConfig(embed_dim=8, hidden_dim=8, filters=(4,), audio_units=(8,)),
        augment=AugmentConfig(flip="none", rotation=0, crop=0),
        training=TrainingConfig(epochs=1, batch_size=8, precision="float32"),
    )
    train(config, folder / "run")
    return folder / "run"


@pytest.mark.parametrize(
    "names",
    [
        ("vector",),
        pytest.param(("image",), marks=pytest.mark.slow),
        pytest.param(tuple(SHAPES), marks=pytest.mark.slow),
    ],
)
def test_a_run_is_evaluated_embedded_and_reported_by_its_own_modalities(names, tmp_path, undrawn):
    run = trained(tmp_path, names)
    several = len(names) > 1
    evaluate(run, Request())
    embed(run)
    page = re.sub(r"<[^>]*>|data:image[^\"]*", "", report(run).read_text(encoding="utf-8"))
    facts, grid = (read_json(run / f"evaluation/{name}.json") for name in ("evaluation", "robustness"))
    embeddings, text = read_json(run / "embeddings/embeddings.json"), (run / "evaluation/report.txt").read_text("utf-8")
    assert list(facts["views"]) == ["fused", *names, *["late_fusion"] * several]
    assert set(facts["decides"]["conflict"]) == (set(names) if several else set())
    assert {f"{name}_row" for name in names} <= set(facts["worst"][0])
    assert (
        list(grid["alone"]) == list(names) and grid["clean"]["fused"]["accuracy"] == facts["views"]["fused"]["accuracy"]
    )
    assert list(embeddings["embeddings"]) == [*names, "fused"]
    assert np.load(run / "embeddings/rows.npy").shape == (18, 1 + len(names))
    for words in (text, page):
        assert "pair" not in words.replace("paired", "") and "both" not in words and "neither" not in words
        assert ("late fusion" in words) == several
        assert all(name in words for name in names)
    with pytest.raises(ValueError, match=r"modalities must be those of the run \('.*\)\. Found: 'image', 'audio'"):
        other_data(Run(run), "builtin", "", 0, force=True)


def test_the_corruptions_of_all_kinds_have_random_numbers_of_their_own():
    """Those of the first two kinds are the ones they have always had."""
    numbered = purposes()
    assert list(numbered.values()) == list(range(2, 2 + len(numbered)))
    assert (numbered["image", "noise"], numbered["audio", "white_noise"], numbered["vector", "feature_noise"]) == (
        2,
        8,
        14,
    )
