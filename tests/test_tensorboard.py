"""`--tensorboard`: TensorBoard's own reader finds the figures of the history, each epoch once."""

from pathlib import Path

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from kfusion.train import read_command
from kfusion.training.fit import Scalars


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    reader = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    reader.Reload()
    return [(event.step, float(make_ndarray(event.tensor_proto))) for event in reader.Tensors(tag)]


def test_a_run_shows_its_history(tiny_run):
    history = pd.read_csv(tiny_run / "history.csv")
    for part, column, tag in (
        ("train", "loss", "epoch_loss"),
        ("validation", "val_accuracy", "epoch_accuracy"),
        ("train", "learning_rate", "epoch_learning_rate"),
    ):
        expected = list(zip(history["epoch"], history[column], strict=True))
        assert points(tiny_run / "tensorboard" / part, tag) == [
            (step, pytest.approx(value)) for step, value in expected
        ]


def test_a_run_that_goes_on_has_each_epoch_once(tmp_path):
    """Killed after the events of epoch 2 and before its history, it repeats epoch 2."""
    logs = {1: {"loss": 3.0, "val_loss": 4.0}, 2: {"loss": 2.0, "val_loss": 5.0}}
    scalars = Scalars(tmp_path / "tensorboard", tmp_path / "history.csv")
    scalars.on_train_begin()
    for epoch, figures in logs.items():
        scalars.on_epoch_end(epoch - 1, figures)
    pd.DataFrame([{"epoch": 1, **logs[1]}]).to_csv(tmp_path / "history.csv", index=False)
    again = Scalars(tmp_path / "tensorboard", tmp_path / "history.csv")
    again.on_train_begin()
    again.on_epoch_end(1, {"loss": 1.0, "val_loss": 6.0})
    again.on_train_end()
    assert points(tmp_path / "tensorboard" / "train", "epoch_loss") == [(1, 3.0), (2, 1.0)]
    assert points(tmp_path / "tensorboard" / "validation", "epoch_loss") == [(1, 4.0), (2, 6.0)]


def test_the_flag_is_off_by_default():
    assert not read_command([]).tensorboard
    assert read_command(["--tensorboard"]).tensorboard
