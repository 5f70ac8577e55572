"""A folder of .npy files as input: opened and checked, read batch by batch, rows that cannot be answered marked.

Rows that a program holds in memory as input for a model: arrays, or the names of files.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from kfusion.data.array_files import open_array
from kfusion.data.array_folder import LAYOUTS, LayoutFiles, in_order
from kfusion.data.dataset import read_rows
from kfusion.data.in_memory import Samples
from kfusion.data.statistics import MAX_MAGNITUDE
from kfusion.prediction.inputs import Arrays, Files, read_contents
from kfusion.spec import MODALITIES, Spec, without_channel
from kfusion.validation import UserError, broken

SAMPLES, SAMPLE_ROWS = 32, 32
"""Places, evenly over the input, and rows at each, whose values decide the scale."""


@dataclass(frozen=True)
class ArrayRows:
    """Images and sounds in .npy files; either file may be missing.

    Args:
        paths: the files of images and of sounds.
        num_rows: of each of them.
        spec: the shapes that the model takes.
        said: what is read, for the terminal.
        pixel_max: the brightest value that a pixel may have here, 1 or 255.
        notes: what was taken for the shapes where the files leave that open, a line each.
        audio_limit: how far from zero a sound's values may be.
    """

    paths: tuple[Path | None, Path | None]
    num_rows: int
    spec: Spec
    said: str
    pixel_max: int = 255
    notes: tuple[str, ...] = ()
    audio_limit: float = MAX_MAGNITUDE

    def __len__(self) -> int:
        return self.num_rows

    def read(self, start: int, stop: int) -> Arrays:
        rows = np.arange(start, stop)
        values, low, high = zip(*self._values(rows), strict=True)
        with np.errstate(invalid="ignore"):
            outside = (low[0] < 0) | (high[0] > self.pixel_max)
            outside |= (low[1] < -self.audio_limit) | (high[1] > self.audio_limit)
        reason = [""] * len(rows)
        for place in np.flatnonzero(~(np.isfinite(low) & np.isfinite(high)).all(axis=0) | outside):
            reason[place] = self._reason(low[0][place], high[0][place], low[1][place], high[1][place])
        present = np.tile([path is not None for path in self.paths], (len(rows), 1))
        return Arrays(values[0] / np.float32(self.pixel_max), values[1], present, reason)

    def array(self, at: int) -> np.ndarray:
        """The images (0) or the sounds (1), one of which there are."""
        return opened(self.paths[at] or Path())

    def _values(self, rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """For each modality float32 (n, …), and each row's lowest and highest value: NaN where any value is."""
        found = []
        shapes = self.spec.image_shape, (self.spec.num_audio,)
        for at, (path, shape) in enumerate(zip(self.paths, shapes, strict=True)):
            if path is None:
                nothing = np.zeros(len(rows), np.float32)
                found.append((np.zeros((len(rows), *shape), np.float32), nothing, nothing))
                continue
            with np.errstate(over="ignore", invalid="ignore"):
                array = self.array(at)
                array = in_order(array, shape) if len(shape) == 3 else array
                flat = read_rows(array, rows).reshape(len(rows), -1).astype(np.float32, copy=False)
                found.append((flat.reshape(-1, *shape), flat.min(axis=1), flat.max(axis=1)))
        return found

    def _reason(self, image_low: float, image_high: float, audio_low: float, audio_high: float) -> str:
        for name, low, high in (("image", image_low, image_high), ("audio", audio_low, audio_high)):
            if not (np.isfinite(low) and np.isfinite(high)):
                return f"{name}: values must be finite (and within float32). Found: NaN or infinity"
        if max(-audio_low, audio_high) > self.audio_limit:
            rule = f"values must be within {-self.audio_limit:g} and {self.audio_limit:g}"
            return f"audio: {rule}. Found: {audio_low:g} to {audio_high:g}"
        rule = f"pixels must be in 0-{self.pixel_max}, as most of the input's are"
        return f"image: {rule}. Found: {image_low:g} to {image_high:g}"

    def names(self, start: int, stop: int) -> None:
        return None

    def ids(self, start: int, stop: int) -> None:
        return None

    def identity(self) -> dict[str, Any]:
        facts = {}
        for path in filter(None, self.paths):
            state = path.stat()
            facts[path.name] = [state.st_size, state.st_mtime_ns]
        return facts

    def ranges(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The lowest and the highest value of some rows, for each modality, as they are in the files."""
        first = np.unique(np.linspace(0, max(self.num_rows - SAMPLE_ROWS, 0), SAMPLES).astype(np.int64))
        rows = np.unique((first[:, None] + np.arange(SAMPLE_ROWS)).clip(max=self.num_rows - 1))
        return [(low, high) for _, low, high in self._values(rows)]


def opened(path: Path) -> np.ndarray:
    """A file that is opened once, as long as it is the same."""
    state = path.stat()
    return _opened(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=2)
def _opened(path: Path, *_: int) -> np.ndarray:
    return open_array(path, copy=False)


def find_arrays(folder: Path, part: str | None) -> tuple[LayoutFiles, str] | None:
    """The .npy files of a layout that a folder holds, and what they are called.

    Args:
        folder: may hold any number of other files.
        part: "test" or "train"; None: the test files where there are any.

    Raises:
        UserError: the part that is asked for is not there.
    """
    for layout in LAYOUTS:
        parts = {"test": layout.test, "train": layout.train}
        there = {name: files for name, files in parts.items() if files and any(_paths(folder, files))}
        if there and part and layout.test and part not in there:
            raise broken(folder, f"must hold the {part} files of its layout ({layout.name})", ", ".join(there))
        if there:
            chosen = part if part in there else next(iter(there))
            return there[chosen], f"{layout.name} layout" + (f", {chosen} files" if layout.test else "")
    return None


def _paths(folder: Path, files: LayoutFiles) -> tuple[Path | None, Path | None]:
    """The files of images and sounds, where they are there."""
    images, audio = folder / files.images, folder / files.audio
    return images if images.exists() else None, audio if audio.exists() else None


def open_arrays(folder: Path, part: str | None, spec: Spec) -> ArrayRows | None:
    """The folder's arrays as input; None where it holds no layout's.

    Raises:
        UserError: a file breaks a rule; one line that says which.
    """
    found = find_arrays(folder, part)
    if found is None:
        return None
    files, name = found
    paths = _paths(folder, files)
    num_rows, notes = None, []
    for path, note in zip(paths, (image_note, audio_note), strict=True):
        if path is None:
            continue
        array = opened(path)
        notes.append(note(path, array, spec))
        if num_rows not in (None, len(array)):
            raise broken(path, f"must have as many rows as {files.images} ({num_rows})", f"{len(array)} rows")
        num_rows = len(array)
    read = " and ".join(path.name for path in paths if path)
    return ArrayRows(paths, num_rows or 0, spec, f"{read} of {folder} ({name})", notes=tuple(filter(None, notes)))


def image_note(path: Path, array: np.ndarray, spec: Spec) -> str:
    """What is taken for rows that are not of the model's shape: flat, without an axis for one channel, channels first.

    Raises:
        UserError: they cannot be the model's.
    """
    shape, found = spec.image_shape, array.shape[1:]
    size = " × ".join(map(str, shape))
    if found == shape or (shape[2] == 1 and found in (shape[:2], (math.prod(shape),))):
        return ""
    if found == (math.prod(shape),):
        return f"{path.name}: rows of {found[0]:,} values are taken as {size}, channels last"
    if found == (shape[2], *shape[:2]):
        return f"{path.name}: {array.shape} is taken as {size}, channels first"
    raise broken(path, f"rows must have the model's {size} values", f"shape {array.shape}")


def audio_note(path: Path, array: np.ndarray, spec: Spec) -> str:
    """The same of sounds: flat, or frames by coefficients, whose number an exported version does not tell.

    Raises:
        UserError: they cannot be the model's.
    """
    found = without_channel(array.shape[1:])
    frames, coefficients = spec.audio_grid
    if found in ((spec.num_audio,), spec.audio_grid):
        return ""
    if frames == 1 and len(found) == 2 and math.prod(found) == spec.num_audio:
        return f"{path.name}: rows of {found[0]} × {found[1]} values are taken as {found[0]} frames one after the other"
    rule = f"rows must have the model's {frames} × {coefficients} values, frame by frame"
    if found == (coefficients, frames):
        rule += "; np.swapaxes(audio, 1, 2) transposes them"
    raise broken(path, rule, f"shape {array.shape}")


NAMES = tuple(f"X['{name}']" for name in MODALITIES)
"""What the two columns are called in messages."""


@dataclass(frozen=True, eq=False)
class ArraysOf(ArrayRows):
    """Arrays in memory, checked and scaled as those in files are.

    Args:
        arrays: images and sounds; None: no such modality.
        present: bool (n, 2), which of the two a row has.
    """

    arrays: tuple[Any, ...] = ()
    present: Any = None

    def array(self, at: int) -> np.ndarray:
        return self.arrays[at]

    def read(self, start: int, stop: int) -> Arrays:
        rows = super().read(start, stop)
        return replace(rows, present=self.present[start:stop])

    def identity(self) -> dict[str, Any]:
        return {}

    def ranges(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """As of files; rows that lack the modality do not count."""
        found = []
        for at in range(len(MODALITIES)):
            rows = np.flatnonzero(self.present[:, at])
            if len(rows) > SAMPLES * SAMPLE_ROWS:
                rows = rows[np.linspace(0, len(rows) - 1, SAMPLES * SAMPLE_ROWS).astype(np.int64)]
            found.append(self._values(rows)[at][1:] if len(rows) else (np.zeros(0), np.zeros(0)))
        return found


@dataclass(frozen=True, eq=False)
class FilesOf:
    """Files that a program names, a picture and a sound for each row; "" where there is none."""

    files: list[tuple[str, str]]
    said: str = "X"

    def __len__(self) -> int:
        return len(self.files)

    def read(self, start: int, stop: int) -> Files:
        return read_contents(Path(), self.files[start:stop])

    def names(self, start: int, stop: int) -> list[tuple[str, str]]:
        return self.files[start:stop]

    def ids(self, start: int, stop: int) -> None:
        return None

    def num_with(self, modality: str) -> int:
        """Rows that have a file of this modality."""
        return sum(bool(row[MODALITIES.index(modality)]) for row in self.files)

    def identity(self) -> dict[str, Any]:
        return {}


def rows_of(samples: Samples, spec: Spec) -> ArraysOf | FilesOf:
    """Rows as input for a model.

    Args:
        samples: what a program gave.
        spec: the shapes that the model takes.

    Raises:
        UserError: a shape is another than the model's, or a row has neither image nor sound.
    """
    if samples.are_files:
        rows = FilesOf(samples.names())
    else:
        for name, values, note in zip(NAMES, samples.columns, (image_note, audio_note), strict=True):
            if values is not None:
                note(Path(name), np.asarray(values), spec)  # Or the UserError: it is another shape than the model's.
        image, audio = (None if each is None else Path(name) for name, each in zip(NAMES, samples.columns, strict=True))
        rows = ArraysOf((image, audio), len(samples), spec, "X", arrays=samples.columns, present=samples.present)
    empty = np.flatnonzero(~samples.present.any(axis=1))
    if len(empty):
        raise UserError(f"'X': each row must have an image or a sound. Found: neither in row {empty[0]}")
    return rows
