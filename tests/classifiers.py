"""One tiny classifier for all tests: fitted on arrays, broken off after its first of two epochs, and resumed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from kfusion import FusionClassifier

TINY: dict[str, Any] = {
    "filters": [2],
    "embed_dim": 4,
    "hidden_dim": 4,
    "audio_units": (np.int64(6),),
    "batch_size": 16,
    "precision": "float32",
    "verbose": 0,
}
"""A network that trains in no time; lists and NumPy's numbers are as good as tuples and Python's."""
VALUES = (3, 7, 12)


class BreakOff(keras.callbacks.Callback):
    """Somebody presses Ctrl-C when the second epoch begins."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            raise KeyboardInterrupt


class StopAtOnce(keras.callbacks.Callback):
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        model: Any = self.model
        model.stop_training = True


def pairs(num_rows: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 (n, 6, 6), sounds float32 (n, 4, 2), and labels that neither begin at 0 nor lack gaps."""
    rng = np.random.default_rng(0)
    label = np.array(VALUES)[np.arange(num_rows) % 3]
    images = rng.integers(0, 256, (num_rows, 6, 6), dtype=np.uint8)
    return images, rng.normal(size=(num_rows, 4, 2)).astype(np.float32), label


def table(num_rows: int = 60) -> pd.DataFrame:
    """The same as a table; two rows in a row belong together."""
    images, sounds, label = pairs(num_rows)
    names = np.array(["three", "seven", "twelve"])[np.searchsorted(VALUES, label)]
    groups = np.arange(num_rows) // 6 * 3 + np.arange(num_rows) % 3
    return pd.DataFrame({"image": list(images), "audio": list(sounds), "label": names, "group": groups})


@contextlib.contextmanager
def into_file(path: Path) -> Iterator[None]:
    """Whatever anybody writes to standard output and error, C++ included, goes into a file."""
    kept = os.dup(1), os.dup(2)
    with path.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            os.close(kept[0])
            os.close(kept[1])


def fit_tiny(folder: Path, said: Path) -> None:
    """Fits, breaks off and resumes a tiny classifier in a folder; what that prints goes into `said`."""
    images, sounds, label = pairs()
    settings: dict[str, Any] = {**TINY, "epochs": 2, "tensorboard": True, "out": folder}
    X = {"image": images, "audio": sounds}
    with into_file(said):
        with pytest.raises(KeyboardInterrupt):
            FusionClassifier(**settings).fit(X, label, callbacks=[BreakOff()])
        FusionClassifier(**settings, resume=True).fit(X, label)
