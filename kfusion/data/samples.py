"""What a program gives as X: a dict of arrays, a DataFrame, a list of pairs of files -> columns of one length.

| X                                                  | means                                              |
| -------------------------------------------------- | -------------------------------------------------- |
| `{"image": (N, H, W[, C]), "audio": (N, D)}`        | arrays, or lists of paths; one may be left out     |
| a DataFrame with the columns image and audio        | each cell a path or an array                       |
| `[("a.png", "a.wav"), ("b.png", None)]`             | a picture and a sound for each row                 |
| `("a.png", "a.wav")`                                | one such row                                       |
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kfusion.rules import UserError
from kfusion.spec import MODALITIES, Spec

Column = np.ndarray | list[str] | None
"""An array (n, …); or a path for each row, "" where there is none; or None: no such modality at all."""
FORMS = "{'image': …, 'audio': …}, a DataFrame with these columns, a list of (picture, sound) pairs, or a folder"


@dataclass(frozen=True, eq=False)
class Samples:
    """Rows as columns.

    Args:
        image, audio: the two modalities.
        present: bool (n, 2), which of the two a row has, in the order of `MODALITIES`.
        more: the other columns of a table, such as `label`, `group` and `speaker`.
    """

    image: Column
    audio: Column
    present: np.ndarray
    more: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.present)

    @property
    def columns(self) -> tuple[Column, Column]:
        return self.image, self.audio

    @property
    def are_files(self) -> bool:
        """Whether the rows name files; arrays else."""
        return any(isinstance(column, list) for column in self.columns)

    def names(self) -> list[tuple[str, str]]:
        """The files of each row, image and sound."""
        columns = [column if isinstance(column, list) else [""] * len(self) for column in self.columns]
        return list(zip(*columns, strict=True))


def read_samples(X: Any, spec: Spec | None = None) -> Samples:
    """Brings X to columns; nothing is read from files.

    Args:
        X: see the table above.
        spec: the shapes of a model, where there is one: an array without an axis of rows is one row then.

    Returns:
        The rows; at least one of them, and at least one modality.

    Raises:
        UserError: it is of none of these forms, its columns are of different lengths, or it mixes paths and arrays.
    """
    columns, more = _columns(X)
    shapes = {"image": spec.image_shape, "audio": (spec.num_audio,)} if spec else {}
    found = {
        name: _column(name, values, row_shapes(shapes.get(name, ())))
        for name, values in columns.items()
        if values is not None
    }
    found = {name: column for name, column in found.items() if column is not None}
    if not found:
        raise UserError(f"'X' must be {FORMS}. Received: {_kind(X)} without an image or a sound")
    lengths = {name: len(present) for name, (_, present) in found.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"'X' must have as many images as sounds. Received: {lengths['image']} and {lengths['audio']}")
    num_rows = next(iter(lengths.values()))
    if not num_rows:
        raise UserError("'X' must have at least one row. Received: none")
    if len({isinstance(values, list) for values, _ in found.values()}) > 1:
        raise UserError("'X' must hold paths alone or arrays alone. Received: both")
    absent = np.zeros(num_rows, bool)
    present = np.stack([found[name][1] if name in found else absent for name in MODALITIES], axis=1)
    values = {name: found[name][0] if name in found else None for name in MODALITIES}
    return Samples(values["image"], values["audio"], present, more)


def _columns(X: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The modalities' columns, and all others that a table has."""
    if isinstance(X, pd.DataFrame):
        table = {str(name): X[name] for name in X.columns}
        return {name: table.get(name) for name in MODALITIES}, table
    if isinstance(X, Mapping):
        strange = [name for name in X if name not in MODALITIES]
        if strange:
            raise UserError(f"'X' must have the keys {' and '.join(MODALITIES)}. Received: {strange[0]!r}")
        return {name: X.get(name) for name in MODALITIES}, {}
    if isinstance(X, tuple) and len(X) == 2 and all(cell is None or _is_path(cell) for cell in X):
        X = [X]
    if not isinstance(X, list) or not all(isinstance(row, tuple | list) for row in X):
        raise UserError(f"'X' must be {FORMS}. Received: {_kind(X)}")
    for number, row in enumerate(X):
        if len(row) != len(MODALITIES):
            raise UserError(f"'X': each row must be a picture and a sound. Found: {len(row)} values in row {number}")
    return {name: [row[place] for row in X] for place, name in enumerate(MODALITIES)}, {}


def row_shapes(shape: tuple[int, ...]) -> set[tuple[int, ...]]:
    """How a row of that shape may come: as it is, flat, or as an image without its one channel."""
    if not shape:
        return set()
    return {shape, (int(np.prod(shape)),)} | ({shape[:-1]} if len(shape) == 3 and shape[-1] == 1 else set())


def _column(name: str, values: Any, single: set[tuple[int, ...]]) -> tuple[np.ndarray | list[str], np.ndarray] | None:
    """A column, and which rows have something in it; None where none has. An array of a `single` shape is one row."""
    if _is_path(values):
        values = [values]
    if not isinstance(values, list | tuple | pd.Series):
        values = np.asarray(values)
        if values.ndim and values.dtype.kind in "biuf":
            values = values[None] if values.shape in single else values
            return values, np.ones(len(values), bool)
        if values.ndim != 1 or values.dtype.kind not in "OU":
            raise UserError(f"'{name}' must be an array with a row for each sample. Received: {_described(values)}")
    cells = list(values)
    there = np.array([not _is_missing(cell) for cell in cells], bool)
    if cells and not there.any():
        return None
    full = [cell for cell in cells if not _is_missing(cell)]
    if all(map(_is_path, full)):
        return ["" if _is_missing(cell) else os.path.expanduser(os.fspath(cell)) for cell in cells], there
    if any(map(_is_path, full)):
        raise UserError(f"'{name}' must hold paths alone or arrays alone. Received: both")
    return _stacked(name, cells, there), there


def _stacked(name: str, cells: list[Any], there: np.ndarray) -> np.ndarray:
    """One array of the cells'; zeros where there is none."""
    arrays: list[Any] = [np.asarray(cell) if here else None for cell, here in zip(cells, there, strict=True)]
    first = next(array for array in arrays if array is not None)
    for row, array in enumerate(arrays):
        if array is None:
            continue
        if not array.ndim or array.dtype.kind not in "biuf":
            raise UserError(f"'{name}' must hold paths or arrays. Received: {_described(array)} in row {row}")
        if array.shape != first.shape:
            rule = f"'{name}' must hold arrays of one shape, {first.shape}"
            raise UserError(f"{rule}. Received: shape {array.shape} in row {row}")
    return np.stack([np.zeros_like(first) if array is None else array for array in arrays])


def _is_path(cell: Any) -> bool:
    return isinstance(cell, str | os.PathLike)


def _is_missing(cell: Any) -> bool:
    """Whether a cell holds nothing: None, NaN or an empty text."""
    if isinstance(cell, str):
        return not cell.strip()
    return cell is None or cell is pd.NA or (isinstance(cell, float) and cell != cell)


def _kind(X: Any) -> str:
    return f"an array of shape {X.shape}" if isinstance(X, np.ndarray) else type(X).__name__


def _described(array: np.ndarray) -> str:
    return f"shape {array.shape}, {array.dtype}"


def column(values: Iterable[Any]) -> list[str]:
    """A column of a table as texts, "" where a cell is missing."""
    return ["" if _is_missing(cell) else str(cell) for cell in values]
