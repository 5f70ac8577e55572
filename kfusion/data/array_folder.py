"""The three layouts of a data folder, told apart by their file names.

| layout      | images              | sounds              | labels                    | test files                |
| ----------- | ------------------- | ------------------- | ------------------------- | ------------------------- |
| competition | x_train_wr.npy      | x_train_sp.npy      | y_train.csv               | x_test_…, labels by option |
| zenodo      | data_wr_train.npy   | data_sp_train.npy   | labels_train.npy          | …_test.npy                |
| own         | images.npy          | audio.npy           | labels.npy or labels.csv  |                           |

A folder of .npy files -> a `Source`: opened, checked and fingerprinted; the rows stay on disk.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kfusion.data.array_files import broken, first_of_each_class, list_folder, open_array, scan_audio, scan_images
from kfusion.data.classes import read_coded
from kfusion.data.dataset import Source, blank_lines, group_ids
from kfusion.data.splits import joined
from kfusion.data.tables import read_classes, read_digits, read_groups
from kfusion.run_dir import CLASSES
from kfusion.spec import DIGITS, MAX_CHANNELS, Spec, are_channels_first, without_channel
from kfusion.validation import UserError

DIGIT_GRID = (39, 13)
"""Frames and coefficients of the published sounds."""
"""A picture rarely has more: red, green, blue and opacity."""


@dataclass(frozen=True)
class LayoutFiles:
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
    train: LayoutFiles
    test: LayoutFiles | None = None
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
        LayoutFiles("x_train_wr.npy", "x_train_sp.npy", "y_train.csv"),
        LayoutFiles("x_test_wr.npy", "x_test_sp.npy", ""),
    ),
    Layout(
        "zenodo",
        LayoutFiles("data_wr_train.npy", "data_sp_train.npy", "labels_train.npy"),
        LayoutFiles("data_wr_test.npy", "data_sp_test.npy", "labels_test.npy"),
    ),
    Layout(
        "own",
        LayoutFiles("images.npy", "audio.npy", "labels.npy"),
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


_LICENCE = "as published with the files (the original: Khacef, Rodriguez, Miramond 2019, Zenodo 3515935)"


@dataclass(frozen=True, eq=False)
class _Part:
    """Files that belong together, checked and scanned, with the fingerprints of the rows in use."""

    source: Source
    images_path: Path
    image_key: np.ndarray
    audio_key: np.ndarray


def load_folder(data: str, test_labels: str, limit: int) -> Source:
    """Reads a folder in the competition's layout, Zenodo's, or kfusion's own.

    Args:
        data: the folder.
        test_labels: a CSV with the labels of the competition's test files; "": these are not used.
        limit: rows to use at most, of the training and of the test files; 0: all.

    Returns:
        An aligned source; its arrays are memory maps.

    Raises:
        UserError: one line that names the file, the rule, and what was found.
    """
    folder = Path(data)
    layout, present = recognise(folder)
    if test_labels and layout.name != "competition":
        rule = "'test_labels' must be empty unless the data are in the competition's layout"
        raise UserError(f"{rule}. Received: {test_labels!r} with the layout {layout.name}")
    labels_path = labels_file(layout, present, folder)
    if layout.classes in present:
        label, names = read_coded(labels_path, folder / layout.classes)
    else:
        label, names = (read_digits(labels_path), DIGITS) if layout.digits else read_classes(labels_path)
    paths = folder / layout.train.images, folder / layout.train.audio, labels_path
    train = _open_part(layout, paths, label, names, limit)
    test = _open_test(folder, layout, present, test_labels, limit)
    if test:
        return _with_test(train, test)
    source = replace(train.source, image_group=group_ids(train.image_key)[0], audio_group=group_ids(train.audio_key)[0])
    return _with_groups(source, folder / layout.groups) if layout.groups in present else source


def _open_part(
    layout: Layout, paths: tuple[Path, Path, Path], label: np.ndarray, names: tuple[str, ...], limit: int
) -> _Part:
    """Shapes and lengths first, since they cost nothing; then one pass over each file."""
    images_path, audio_path, labels_path = paths
    images, audio = open_array(images_path), open_array(audio_path)
    shape, image_note = image_shape(images, layout, images_path)
    grid, audio_note = audio_grid(audio, layout, audio_path)
    images = in_order(images, shape)
    for path, length in ((audio_path, len(audio)), (labels_path, len(label))):
        if length != len(images):
            raise broken(path, f"must have as many rows as {images_path.name} ({len(images)})", f"{length} rows")
    rows = first_of_each_class(label, limit)
    image_scan, pixel_max = scan_images(images, rows, images_path)
    audio_scan = scan_audio(audio, rows, audio_path)
    label = label[rows]
    source = Source(
        images=images,
        audio=audio,
        image_label=label,
        audio_label=label,
        aligned=True,
        image_group=rows,
        audio_group=rows,
        spec=Spec(shape, grid, names, pixel_max),
        info={
            "name": str(images_path.parent),
            "layout": layout.name,
            "files": {path.name: path.stat().st_size for path in paths},
            "front_end": None,
            "image_range": [image_scan.low, image_scan.high],
            "audio_range": [audio_scan.low, audio_scan.high],
            "licence": _LICENCE if layout.digits else None,
        },
        notes=(
            *filter(None, (image_note, audio_note)),
            *blank_lines(image_scan, images_path.name),
            *blank_lines(audio_scan, audio_path.name),
        ),
        image_row=rows,
        audio_row=rows,
    )
    return _Part(source, images_path, image_scan.fingerprint, audio_scan.fingerprint)


def _open_test(folder: Path, layout: Layout, present: set[str], test_labels: str, limit: int) -> _Part | None:
    """The data's own test files, if they and their labels are there."""
    if layout.test is None:
        return None
    names = layout.test.images, layout.test.audio, layout.test.labels
    if not test_labels and not present.issuperset(names):
        return None
    labels_path = Path(test_labels) if test_labels else folder / layout.test.labels
    paths = folder / layout.test.images, folder / layout.test.audio, labels_path
    return _open_part(layout, paths, read_digits(labels_path), DIGITS, limit)


def _with_test(train: _Part, test: _Part) -> Source:
    """The training files' source, with the test files' as its official test and ids that hold for both."""
    scales = train.source.spec.pixel_max, test.source.spec.pixel_max
    if scales[0] != scales[1]:
        rule = f"pixels must be on the scale of {train.images_path.name} (0-{scales[0]})"
        raise broken(test.images_path, rule, f"0-{scales[1]}")
    image_groups, audio_groups = group_ids(train.image_key, test.image_key), group_ids(train.audio_key, test.audio_key)
    official = replace(test.source, image_group=image_groups[1], audio_group=audio_groups[1])
    files = {**train.source.info["files"], **test.source.info["files"]}
    return replace(
        train.source,
        image_group=image_groups[0],
        audio_group=audio_groups[0],
        info={**train.source.info, "files": files},
        official_test=official,
        notes=train.source.notes + test.source.notes,
    )


def _with_groups(source: Source, path: Path) -> Source:
    """Rows of one group of the user's count as one sound, and so stay in one part."""
    groups = read_groups(path)
    if len(groups) != len(source.images):
        raise broken(path, f"must have as many rows as the images ({len(source.images)})", f"{len(groups)} rows")
    files = {**source.info["files"], path.name: path.stat().st_size}
    info = {**source.info, "files": files, "grouped_by": path.name}
    return replace(source, audio_group=joined(source.audio_group, groups[source.audio_row]), info=info)
