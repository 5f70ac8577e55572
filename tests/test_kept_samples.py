"""The samples that a run keeps: which ones, how many, and that they are all that an export needs."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest

from kfusion.config import AugmentConfig, Config, DataConfig, ModelConfig, TrainingConfig
from kfusion.data.dataset import Pairs
from kfusion.exporting import samples as kept
from kfusion.exporting.exporter import Options, export, read_context
from kfusion.exporting.model_store import ModelStore
from kfusion.exporting.runtimes import open_portable
from kfusion.exporting.samples import chosen_rows, evenly, kept_samples
from kfusion.inference import load_network
from kfusion.prepared_data import load_own
from kfusion.run_dir import FILES, Run
from tests.exports import needs_litert
from tests.folders import write_digits


def test_rows_are_taken_evenly_over_the_classes_and_spread_over_the_part():
    label = np.array([0] * 10 + [1] * 3 + [2] * 10)
    assert evenly(label, 9).tolist() == [0, 4, 9, 10, 11, 12, 13, 17, 22]
    assert evenly(label, 2).tolist() == [0, 10]
    assert evenly(label, 100).tolist() == list(range(23))
    # A class of few rows gives all it has; the others give the rest.
    assert np.bincount(label[evenly(label, 13)]).tolist() == [5, 3, 5]


def test_the_first_row_of_each_class_is_always_kept():
    label = np.random.default_rng(0).integers(0, 7, 500)
    assert set(np.unique(label, return_index=True)[1]) <= set(evenly(label, 64))


def test_of_large_samples_fewer_are_kept(monkeypatch):
    spec = SimpleNamespace(modalities={"image": SimpleNamespace(num_values=10_000)})
    rows, label = {"image": np.arange(1000)}, np.arange(1000) % 10
    part = Pairs({"image": np.zeros(1000)}, rows, label, spec)  # type: ignore[arg-type]
    parts: Any = SimpleNamespace(test=part, train=part)
    rows = chosen_rows(parts)
    assert 0.9 * kept.MAX_BYTES < 4 * 10_000 * sum(map(len, rows.values())) <= kept.MAX_BYTES
    assert len(rows["train"]) > 4 * len(rows["test"]) > 0
    monkeypatch.setattr(kept, "MAX_BYTES", 1)
    assert {part: len(each) for part, each in chosen_rows(parts).items()} == {"test": 1, "train": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A run on a folder, one epoch long, whose data are gone."""
    from kfusion.training.trainer import train

    folder = tmp_path_factory.mktemp("run")
    write_digits(folder / "data", "zenodo")
    config = Config(
        data=DataConfig(data=str(folder / "data")),
        model=ModelConfig(filters=(4,), embed_dim=8, hidden_dim=8, audio_units=(8,)),
        augment=AugmentConfig(flip="none"),
        training=TrainingConfig(epochs=1, precision="float32"),
    )
    with mock.patch("matplotlib.figure.Figure.savefig", lambda _, file, **__: Path(file).touch()):
        run = train(config, folder / "run")
    _, parts = load_own(run)
    assert same(kept_samples(run), kept.KeptSamples(parts.test.take(chosen_rows(parts)["test"]), parts.train), "test")
    shutil.rmtree(folder / "data")
    return run


def same(one: kept.KeptSamples, other: kept.KeptSamples, part: str) -> bool:
    mine, its = getattr(one, part), getattr(other, part)
    rows = np.arange(len(its))
    values = zip(mine.read(rows).values(), its.read(rows).values(), strict=True)
    return np.array_equal(mine.label, its.label) and all(np.array_equal(*each) for each in values)


@pytest.mark.slow
def test_a_run_is_exported_without_its_data(run, tmp_path):
    assert "samples.npz" in FILES and len(kept_samples(run).test) <= 64
    version = export(run, load_network(run), ModelStore(tmp_path, "kfusion"))
    card = (version / "assets.extra" / "model_card.md").read_text()
    num_rows = len(kept_samples(run).test)
    assert f"verified on {num_rows} rows of the test part, evenly over the classes, as training kept them" in card


@needs_litert
def test_an_8_bit_file_is_made_without_the_data_too_and_says_so(run, tmp_path):
    options = Options(format="litert-int8")
    context = read_context(run, load_network(run), "kfusion", options)
    num_rows = len(context.samples.test)
    sentence = f"8-bit accuracy is measured on {num_rows} rows, those that training kept: the data are not there"
    assert context.lines()[-1] == sentence
    path = export(run, load_network(run), ModelStore(tmp_path, "kfusion"), options)
    rows = open_portable(path).facts["rows"]
    assert rows["calibrated"].startswith(f"by {len(context.samples.train)} rows of the training part")
    assert "those that training kept" in rows["accuracy measured"]


def test_damaged_samples_are_one_line(run, tmp_path):
    broken = Run(tmp_path / "run")
    shutil.copytree(run.folder, broken.folder)
    (broken.folder / "samples.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"samples\.npz: must hold the samples that training wrote\. Found: "):
        kept_samples(broken)
    broken.write_arrays("samples.npz", {"test_label": np.arange(3)})
    with pytest.raises(ValueError, match=r"samples\.npz: must hold samples of the run's shapes"):
        kept_samples(broken)


def test_a_run_without_samples_needs_its_data(run, tmp_path):
    older = Run(tmp_path / "run")
    shutil.copytree(run.folder, older.folder, ignore=shutil.ignore_patterns("samples.npz"))
    with pytest.raises(ValueError, match=r"the run's data must be where they were at training"):
        kept_samples(older)
