"""The three layouts of a data folder, told apart by their file names.

| layout      | images              | sounds              | labels                    | test files                |
| ----------- | ------------------- | ------------------- | ------------------------- | ------------------------- |
| competition | x_train_wr.npy      | x_train_sp.npy      | y_train.csv               | x_test_…, labels by option |
| zenodo      | data_wr_train.npy   | data_sp_train.npy   | labels_train.npy          | …_test.npy                |
| own         | images.npy          | audio.npy           | labels.npy or labels.csv  |                           |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kfusion.data.checks import broken, list_folder


@dataclass(frozen=True)
class Files:
    """The names of three files that belong together, row by row."""

    images: str
    audio: str
    labels: str


@dataclass(frozen=True)
class Layout:
    """Which files a layout has.

    Args:
        name: what it is called in messages and in the run folder.
        train: the labelled files.
        test: the test files; without a name for the labels where these come from elsewhere.
        labels_too: another name that the labels may have.
        groups: an optional file with a group for each row.
        digits: written and spoken digits in the published sizes; else sizes and classes come from the files.
    """

    name: str
    train: Files
    test: Files | None = None
    labels_too: str = ""
    groups: str = ""
    digits: bool = True

    @property
    def names(self) -> set[str]:
        return {self.train.images, self.train.audio, self.train.labels, self.labels_too} - {""}


LAYOUTS = (
    Layout(
        "competition",
        Files("x_train_wr.npy", "x_train_sp.npy", "y_train.csv"),
        Files("x_test_wr.npy", "x_test_sp.npy", ""),
    ),
    Layout(
        "zenodo",
        Files("data_wr_train.npy", "data_sp_train.npy", "labels_train.npy"),
        Files("data_wr_test.npy", "data_sp_test.npy", "labels_test.npy"),
    ),
    Layout(
        "own",
        Files("images.npy", "audio.npy", "labels.npy"),
        labels_too="labels.csv",
        groups="groups.npy",
        digits=False,
    ),
)


def has_layout(names: Sequence[str]) -> bool:
    """Whether any layout's files are among these names of a folder."""
    return any(layout.names & set(names) for layout in LAYOUTS)


def recognise(folder: Path) -> tuple[Layout, set[str]]:
    """The layout most of whose files are there, and the names in the folder.

    Raises:
        UserError: none of any layout's files is there, or the folder cannot be read.
    """
    present = list_folder(folder)
    layout = max(LAYOUTS, key=lambda layout: len(layout.names & set(present)))
    if not layout.names & set(present):
        known = "; ".join(
            f"{layout.name}: {layout.train.images}, {layout.train.audio}, "
            + " or ".join(filter(None, (layout.train.labels, layout.labels_too)))
            for layout in LAYOUTS
        )
        known += "; media: a subfolder for each class, with .png, .jpg and .wav files"
        shown = ", ".join(present[:8]) + (f" and {len(present) - 8} more" if len(present) > 8 else "")
        raise broken(folder, f"must hold the files of a layout ({known})", shown or "an empty folder")
    return layout, set(present)


def labels_file(layout: Layout, present: set[str], folder: Path) -> Path:
    """The one file with the labels."""
    found = [name for name in (layout.train.labels, layout.labels_too) if name in present]
    if len(found) > 1:
        raise broken(folder, "must hold its labels once", " and ".join(found))
    return folder / (found[0] if found else layout.train.labels)


def image_shape(array: np.ndarray, layout: Layout, path: Path) -> tuple[int, int, int]:
    """Height, width and channels; rows of 784 are 28 × 28 pixels."""
    shape = array.shape[1:]
    if shape == (784,):
        return 28, 28, 1
    if layout.digits and shape not in ((28, 28), (28, 28, 1)):
        raise broken(path, "must have the shape (N, 784) or (N, 28, 28)", f"shape {array.shape}")
    if len(shape) not in (2, 3):
        raise broken(path, "must have the shape (N, H, W), (N, H, W, C) or (N, 784)", f"shape {array.shape}")
    return shape[0], shape[1], shape[2] if len(shape) == 3 else 1


def audio_grid(array: np.ndarray, layout: Layout, path: Path) -> tuple[int, int]:
    """Frames and coefficients; rows of 507 are 39 × 13, others one frame."""
    if array.ndim != 2 or (layout.digits and array.shape[1] != 507):
        wanted = 507 if layout.digits else "D"
        raise broken(path, f"must have the shape (N, {wanted})", f"shape {array.shape}")
    return (39, 13) if array.shape[1] == 507 else (1, array.shape[1])
