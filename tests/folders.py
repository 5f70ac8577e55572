"""Small folders of data in each layout, for tests that read or break them."""

from pathlib import Path

import numpy as np
import pytest

from kfusion.config import DataConfig
from kfusion.data.loaders import load
from kfusion.validation import UserError

NAMES = {
    "competition": ("x_train_wr.npy", "x_train_sp.npy", "y_train.csv", "x_test_wr.npy", "x_test_sp.npy", "hidden.csv"),
    "zenodo": (
        *("data_wr_train.npy", "data_sp_train.npy", "labels_train.npy"),
        *("data_wr_test.npy", "data_sp_test.npy", "labels_test.npy"),
    ),
}


def write_labels(path: Path, label: np.ndarray) -> None:
    if path.suffix == ".npy":
        np.save(path, label)
    else:
        path.write_text("row_id,label\n" + "".join(f"{row},{value}\n" for row, value in enumerate(label)))


def write_digits(folder: Path, layout: str, scale: float = 1.0, shape: tuple[int, ...] = (784,)) -> np.ndarray:
    """60 training and 20 test pairs; row i's values tell i, but clips come twice. Returns the training labels."""
    rng = np.random.default_rng(0)
    names = NAMES[layout]
    folder.mkdir(exist_ok=True)
    for num_rows, (images, audio, labels) in ((60, names[:3]), (20, names[3:])):
        label = np.arange(num_rows) % 10
        np.save(folder / images, rng.integers(0, 256, (num_rows, *shape)) / 255 * scale)
        np.save(folder / audio, np.concatenate([rng.random((num_rows // 2, 507))] * 2))
        write_labels(folder / labels, label)
    return np.arange(60) % 10


def write_own(folder: Path, labels: np.ndarray, image_shape: tuple[int, ...] = (5, 4, 3), num_audio: int = 6) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    np.save(folder / "images.npy", rng.integers(0, 256, (len(labels), *image_shape), dtype=np.uint8))
    np.save(folder / "audio.npy", rng.normal(size=(len(labels), num_audio)).astype(np.float32))
    np.save(folder / "labels.npy", labels)


def line(folder: Path, **fields) -> str:
    """The one line that loading the folder gives."""
    with pytest.raises(UserError) as error:
        load(DataConfig(data=str(folder), **fields))
    text = str(error.value)
    assert "\n" not in text
    assert "Found: " in text or "Received: " in text, text
    return text
