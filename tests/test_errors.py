"""Who is to blame: a user's error is one line and status 2, any other error keeps its traceback."""

import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from kfusion.cli import run_main
from kfusion.config import AugmentConfig, ModelConfig, TrainingConfig
from kfusion.data.dataset import Pairs
from kfusion.data.pipeline import TrainingReader, evaluation_batches, readers_errors, training_batches
from kfusion.inference import load_network
from kfusion.io import read_arrays, write_atomically
from kfusion.metrics import classification as metrics
from kfusion.model.build import build_model
from kfusion.run_dir import Run
from kfusion.spec import Spec
from kfusion.training.fit import Task, fit
from kfusion.training.optimizers import ViewsLoss, WarmupCosine
from kfusion.validation import UserError, reason


def test_a_users_error_is_one_line_and_status_2(capsys):
    with pytest.raises(SystemExit) as end:
        run_main(lambda: TrainingConfig(epochs=0) and None)
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("kfusion: 'epochs' must be")
    assert message.count("\n") == 1


def test_a_fault_of_numpy_or_keras_is_not_dressed_as_a_users_error(capsys):
    def fault() -> None:
        np.zeros(3).reshape(2, 2)

    with pytest.raises(ValueError, match="cannot reshape") as error:
        run_main(fault)
    assert not isinstance(error.value, UserError)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("'x' must be 1. Received: 2"), "kfusion: 'x' must be 1. Received: 2\n"),
        (OSError(28, "No space left on device", "b.npy"), "kfusion: b.npy: reading or writing failed. Found: No space"),
        (MemoryError("Unable to allocate 9 TiB"), "kfusion: the data must fit into memory. Found: Unable to allocate"),
    ],
)
def test_what_is_no_fault_of_kfusion_is_a_line_unless_a_traceback_is_asked_for(error, line, capsys, monkeypatch):
    def fails() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        run_main(fails)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(line)
    monkeypatch.setenv("KFUSION_TRACEBACK", "1")
    with pytest.raises(type(error)) as raised:
        run_main(fails)
    assert raised.value is error


def test_an_error_without_words_is_called_by_its_kind():
    assert [reason(error) for error in (EOFError(), KeyError(""), OSError("\n a\nb"))] == ["EOFError", "''", "a"]


@pytest.mark.parametrize("use", ["predictions", "training"])
def test_a_file_that_changes_while_a_dataset_reads_it_is_the_users(tmp_path, use):
    """TensorFlow makes errors of its own of what a reader raises."""
    np.save(tmp_path / "images.npy", np.zeros((5, 4)))
    images, rows = np.load(tmp_path / "images.npy", mmap_mode="r"), np.arange(5)
    values, places = {"image": images, "audio": np.zeros((5, 3))}, {"image": rows, "audio": rows}
    pairs = Pairs(values, places, rows % 2, Spec.pair((2, 2, 1), (1, 3), ("a", "b")))
    with open(tmp_path / "images.npy", "r+b") as file:
        file.truncate(150)
    reader = TrainingReader(pairs, 5, 0, AugmentConfig())
    batches = evaluation_batches(pairs) if use == "predictions" else training_batches(reader, None, 0.0, 0, 1)
    with pytest.raises(UserError, match=r"images.npy: must not change while it is read"), readers_errors():
        list(batches)
    (tmp_path / "images.npy").unlink()
    with pytest.raises(FileNotFoundError), readers_errors():
        list(batches)


def test_a_fault_inside_a_dataset_stays_one():
    with pytest.raises(tf.errors.InvalidArgumentError), readers_errors():
        list(tf.data.Dataset.range(3).map(lambda x: tf.reshape(tf.range(x), [2])))


def test_too_large_a_batch_is_the_users(monkeypatch, tmp_path):
    def exhausted(*_, **__) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor\nmore")

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    monkeypatch.setattr(model, "fit", exhausted)
    data = tf.data.Dataset.range(1)
    paths = {name: tmp_path / name for name in ("best", "history", "checkpoint")}
    task = Task(lambda _: data, data, 1, 1, np.ones(2), (), paths, write_atomically, model.save)
    with pytest.raises(UserError, match=r"^'batch_size' must be one for which .* Received: 7 \(OOM when .* tensor\)$"):
        fit(model, TrainingConfig(batch_size=7), task)


def test_an_archive_damaged_anywhere_is_a_users_error_or_as_it_was(tmp_path):
    values = {"a": np.arange(5), "b": np.ones((2, 2))}
    np.savez(tmp_path / "a.npz", allow_pickle=False, **values)
    whole, rng = (tmp_path / "a.npz").read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        (tmp_path / "a.npz").write_bytes(damaged)
        try:
            found = read_arrays(tmp_path / "a.npz", "must be whole")
            assert all(np.array_equal(found[name], values[name]) for name in found.keys() & values.keys())
        except UserError as error:
            assert str(error).startswith(f"{tmp_path / 'a.npz'}: must be whole. Found: ")
            refused += 1
    assert refused > 150


def test_a_network_with_a_flipped_bit_or_an_unknown_layer_is_the_users(tmp_path):
    run = Run(tmp_path)
    keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)]).save(run.best)
    whole = run.best.read_bytes()
    place = whole.index(b'"class_name": "Dense"') + 16  # The configuration is stored as it is.
    for damaged in (whole[:place] + b"X" + whole[place + 1 :], whole[: len(whole) // 2], b""):
        run.best.write_bytes(damaged)
        with pytest.raises(UserError, match=r"best.keras: a run's network must be loadable\. Found: "):
            load_network(run)
    run.best.write_bytes(whole)
    with zipfile.ZipFile(run.best) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(run.best, "w") as new:
        for name, content in parts.items():
            new.writestr(name, content.replace(b'"Dense"', b'"Dense9"'))
    with pytest.raises(UserError, match=r"best.keras: a run's network must be loadable\. Found: "):
        load_network(run)


def test_what_only_kfusion_can_get_wrong_is_not_the_users():
    faults = (
        lambda: WarmupCosine(-1.0, 1, 2),
        lambda: ViewsLoss(-1.0, (1.3, 1.6)),
        lambda: build_model(ModelConfig(), Spec(), np.zeros(3), np.ones(3)),
        lambda: metrics.confusion([0, 1], [0], 2),
    )
    for fault in faults:
        with pytest.raises(ValueError) as error:
            fault()
        assert not isinstance(error.value, UserError)
