"""The three layouts of a data folder, told apart by their file names.

| layout      | images              | sounds              | labels                    | test files                |
| ----------- | ------------------- | ------------------- | ------------------------- | ------------------------- |
| competition | x_train_wr.npy      | x_train_sp.npy      | y_train.csv               | x_test_…, labels by option |
| zenodo      | data_wr_train.npy   | data_sp_train.npy   | labels_train.npy          | …_test.npy                |
| own         | images.npy          | audio.npy           | labels.npy or labels.csv  |                           |
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kfusion.contents import CLASSES
from kfusion.data.checks import broken, list_folder

DIGIT_GRID = (39, 13)
"""Frames and coefficients of the published sounds."""
MAX_CHANNELS = 4
"""A picture rarely has more: red, green, blue and opacity."""


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
        classes: an optional file with the classes' names; the labels are then codes.
        digits: written and spoken digits in the published sizes; else sizes and classes come from the files.
    """

    name: str
    train: Files
    test: Files | None = None
    labels_too: str = ""
    groups: str = ""
    classes: str = ""
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
        classes=CLASSES,
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


def image_shape(array: np.ndarray, layout: Layout, path: Path) -> tuple[tuple[int, int, int], str]:
    """Height, width and channels of the images in a file.

    Args:
        array: (N, 784), (N, H, W), (N, H, W, C), or (N, C, H, W) where nothing else can be meant.
        layout: digits are 28 × 28 pixels of one channel.
        path: the file.

    Returns:
        The shape, and a sentence on what was taken for it where the file leaves that open; else "".

    Raises:
        UserError: the array has another shape.
    """
    shape = array.shape[1:]
    if shape == (784,):
        return (28, 28, 1), "" if layout.digits else f"{path.name}: rows of 784 values are taken as 28 × 28 pixels"
    known = "(N, 784) or (N, 28, 28)" if layout.digits else "(N, H, W), (N, H, W, C) or (N, 784)"
    if len(shape) not in (2, 3):
        raise broken(path, f"must have the shape {known}", f"shape {array.shape}")
    height, width, channels = shape if len(shape) == 3 else (*shape, 1)
    first = are_channels_first((height, width, channels))
    if first:
        height, width, channels = width, channels, height
    if layout.digits:
        if (height, width, channels) != (28, 28, 1):
            raise broken(path, f"must have the shape {known}", f"shape {array.shape}")
        return (28, 28, 1), ""
    many = "1 channel" if channels == 1 else f"{channels} channels"
    taken = f"{path.name}: {array.shape} is taken as {height} × {width} pixels of {many}, channels "
    if first:
        return (height, width, channels), f"{taken}first"
    if len(shape) == 3 and (channels > MAX_CHANNELS or height <= MAX_CHANNELS):
        taken += "last; if they come first, save np.moveaxis(images, 1, -1)"
        return (height, width, channels), taken
    return (height, width, channels), ""


def are_channels_first(shape: tuple[int, int, int]) -> bool:
    """Whether an image is (channels, height, width), as PyTorch has it, and not (height, width, channels).

    It is where its last axis is too long for channels and its first is not, or where it is square in its last two axes
    alone.
    """
    first, second, last = shape
    return last > MAX_CHANNELS and (first <= MAX_CHANNELS or first != second == last)


def in_order(array: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Images as (N, height, width, channels) if they are (N, channels, height, width) in the file; else as they are.

    Args:
        array: any that `image_shape` takes; no value of it is copied.
        shape: height, width and channels of one image.
    """
    return np.moveaxis(array, 1, -1) if array.shape[1:] == (shape[2], *shape[:2]) != shape else array


def audio_grid(array: np.ndarray, layout: Layout, path: Path) -> tuple[tuple[int, int], str]:
    """Frames and coefficients of the sounds in a file.

    Args:
        array: (N, D) or (N, frames, coefficients), which may have one more axis of length 1, as a picture has channels.
        layout: digits are 39 frames of 13 coefficients.
        path: the file.

    Returns:
        The grid, and a sentence on what was taken for it; "" where that is known.

    Raises:
        UserError: the array has another shape.
    """
    shape = without_channel(array.shape[1:])
    grid = shape if len(shape) == 2 else DIGIT_GRID if shape == (math.prod(DIGIT_GRID),) else (1, *shape)
    if layout.digits and grid != DIGIT_GRID:
        raise broken(path, "must have the shape (N, 507) or (N, 39, 13)", f"shape {array.shape}")
    if len(grid) != 2:
        raise broken(path, "must have the shape (N, D) or (N, frames, coefficients)", f"shape {array.shape}")
    taken = f"{path.name}: rows of {' × '.join(map(str, shape))} values are taken as "
    if layout.digits:
        return grid, ""
    if grid[0] == 1:
        return grid, f"{taken}one frame, which no change in time touches; (N, frames, coefficients) has several"
    return grid, f"{taken}{grid[0]} frames of {grid[1]} coefficients"


def without_channel(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one sound without the axis of length 1 that networks for pictures want at its end or beginning."""
    if len(shape) == 3 and 1 in (shape[0], shape[-1]):
        return shape[:2] if shape[-1] == 1 else shape[1:]
    return shape
