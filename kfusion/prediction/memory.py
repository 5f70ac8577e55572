"""Rows that a program holds in memory as input for a model: arrays, or the names of files."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kfusion.data.samples import Samples
from kfusion.prediction.arrays import SAMPLE_ROWS, SAMPLES, ArrayRows, audio_note, image_note
from kfusion.prediction.chunks import Arrays, Files
from kfusion.prediction.contents import read_contents
from kfusion.rules import UserError
from kfusion.spec import MODALITIES, Spec

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
