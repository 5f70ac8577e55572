"""What needs no data is refused before they are read, which takes minutes where files must be decoded."""

import numpy as np
import pytest
from rich.console import Console

from kfusion import prepared_data
from kfusion.config import Config, DataConfig
from kfusion.data.loaders import load
from kfusion.evaluation import embeddings as embedder
from kfusion.evaluation import evaluator
from kfusion.evaluation import inference as subject
from kfusion.evaluation.evaluator import Request
from kfusion.prepared_data import gather
from kfusion.run_dir import Run, lock
from kfusion.spec import Spec
from kfusion.training.trainer import train
from tests.test_run import started


@pytest.fixture(autouse=True)
def unread(monkeypatch) -> None:
    for module in (prepared_data, subject):
        monkeypatch.setattr(module, "load", lambda *_: pytest.fail("the data were read"))


def all_files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("prepare", "options", "sentence"),
    [
        (lambda run: started(run), {}, "an existing run is kept"),
        (lambda run: started(run), {"resume": True, "config": Config(data=DataConfig(limit=7))}, "another data.limit"),
        (lambda run: started(run, finished=True), {"resume": True, "overwrite": False, "config": None}, ""),
        (lambda run: run.touch(), {}, "a run needs a folder. Found: a file"),
        (lambda run: run.mkdir() or (run / "thesis.txt").touch(), {"overwrite": True}, "Found: thesis.txt"),
        (lambda run: None, {"config": Config(data=DataConfig(val_speakers=("ann",)))}, "unless split=speaker"),
    ],
    ids=["existing", "settings", "finished", "file", "foreign", "speakers"],
)
def test_training(tmp_path, prepare, options, sentence):
    prepare(tmp_path / "run")
    before = all_files(tmp_path)
    config = options.pop("config", None) or Config()
    if sentence:
        with pytest.raises(ValueError, match=sentence):
            train(config, tmp_path / "run", **options)
    else:
        console = Console(width=60)
        with console.capture() as capture:
            assert train(config, tmp_path / "run", console=console, **options) == Run(tmp_path / "run")
        assert capture.get().endswith("run: this run is finished already\n")
    assert all_files(tmp_path) == before


def test_a_folder_that_another_process_writes_into(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run")
    monkeypatch.setattr(evaluator, "open_finished", lambda _: run)
    monkeypatch.setattr(embedder, "open_finished", lambda _: run)
    with lock(run.folder):
        for verb in (
            lambda: train(Config(), run.folder),
            lambda: evaluator.evaluate(run.folder, Request()),
            lambda: embedder.embed(run.folder),
        ):
            with pytest.raises(ValueError, match="another process is writing into this folder"):
                verb()


def test_too_few_pairs_to_embed_and_a_network_that_cannot_be_loaded(tmp_path, monkeypatch):
    run = Run(started(tmp_path / "run", finished=True))
    run.write_json("data.json", {"format": 1, "spec": Spec().to_json()})
    monkeypatch.setattr(evaluator, "open_finished", lambda _: run)
    monkeypatch.setattr(embedder, "open_finished", lambda _: run)
    for num_rows, samples, found in ((10, 0, 10), (50, 9, 9)):
        run.write_arrays("split.npz", {"test_image": np.arange(num_rows)})
        with pytest.raises(ValueError, match=rf"embeddings need 11 test pairs or more\. Found: {found}$"):
            embedder.embed(run.folder, samples=samples)
    for verb in (lambda: evaluator.evaluate(run.folder, Request()), lambda: embedder.embed(run.folder)):
        with pytest.raises(ValueError, match=r"best.keras: a run's network must be loadable"):
            verb()


@pytest.mark.parametrize(
    ("people", "sentence"),
    [({"test_speakers": ("zoe",)}, r"'test_speakers' must be among ann, bob\. Received: 'zoe'"), ({}, "for each part")],
)
def test_people_of_a_manifest(tmp_path, monkeypatch, people, sentence):
    """Two people are too few for three parts; the files need not even be pictures and sounds to tell."""
    rows = ["image,audio,label,speaker"]
    for number, (label, who) in enumerate([("one", "ann"), ("two", "bob")]):
        for kind in ("png", "wav"):
            (tmp_path / f"{number}.{kind}").touch()
        rows.append(f"{number}.png,{number}.wav,{label},{who}")
    (tmp_path / "pairs.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.setattr(prepared_data, "load", load)
    with pytest.raises(ValueError, match=sentence):
        gather(Config(data=DataConfig(data=str(tmp_path / "pairs.csv"), split="speaker", **people)))
