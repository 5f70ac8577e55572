"""The classes of data that a program gives: labels of any values -> codes 0 … K-1 and names, and the values back.

They lie beside the data as `kfusion_classes.json`: `{"dtype": "<i8", "values": [3, 7]}`. So a run knows its classes by
their real names, and a classifier predicts in the very type of the labels that it was fitted on.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kfusion.data.array_files import open_array
from kfusion.io import read_json, write_json
from kfusion.run_dir import CLASSES
from kfusion.validation import UserError, broken


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes of some labels.

    Args:
        values: (K,), different ones, of the labels' own dtype; code k means `values[k]`.
    """

    values: np.ndarray

    @property
    def names(self) -> tuple[str, ...]:
        """What the classes are called in tables, figures and exported models."""
        return tuple(class_name(value) for value in self.values.tolist())

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        dtype = self.values.dtype
        return {"dtype": "object" if dtype.hasobject else dtype.str, "values": self.values.tolist()}


def class_name(value: Any) -> str:
    """A label as a text: the float 3.0 is called 3."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def encode(label: Any, num_rows: int | None = None, known: Classes | None = None) -> tuple[np.ndarray, Classes]:
    """Labels as codes.

    Args:
        label: (n,) or (n, 1): texts, whole numbers or booleans.
        num_rows: n, where it is known.
        known: the classes that there may be; None: those that there are, sorted.

    Returns:
        int64 (n,), in [0, K), and the classes.

    Raises:
        UserError: another shape, a missing label, or one that is neither a text nor a whole number.
    """
    array = np.asarray(label)
    array = array.reshape(-1) if array.ndim == 2 and array.shape[1] == 1 else array
    if array.ndim != 1 or not len(array):
        raise UserError(f"'y' must have the shape (N,), N ≥ 1. Received: shape {array.shape}")
    if num_rows not in (None, len(array)):
        raise UserError(f"'y' must have one label for each of the {num_rows} rows. Received: {len(array)} labels")
    array = _checked(array)
    if known is not None:
        place = {value: code for code, value in enumerate(known.values.tolist())}
        unknown = [value for value in array.tolist() if value not in place]
        if unknown:
            shown = ", ".join(known.names[:6]) + (" …" if len(known.names) > 6 else "")
            raise UserError(f"'y' must hold the classes of the run ({shown}). Received: {unknown[0]!r}")
        return np.array([place[value] for value in array.tolist()], np.int64), known
    values, codes = np.unique(array, return_inverse=True)
    classes = Classes(values)
    twice = [name for name in classes.names if classes.names.count(name) > 1]
    if twice or "" in classes.names:
        rule = "labels must be texts that are not empty, and differ by more than spaces"
        raise UserError(f"'y': {rule}. Found: {twice[0] if twice else ''!r}")
    if len(values) < 2:
        raise UserError(f"'y' must have at least two classes. Received: only {classes.names[0]!r}")
    return codes.reshape(-1).astype(np.int64), classes


def _checked(array: np.ndarray) -> np.ndarray:
    """The labels, each a text, a whole number or a boolean; those as bytes as texts."""
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8")
    if array.dtype.kind == "O":
        for row, value in enumerate(array.tolist()):
            if not isinstance(value, str | bool | int | np.integer):
                missing = value is None or value != value or str(value) in ("<NA>", "NaT")
                rule = "each row must have a label, a text or a whole number"
                raise UserError(f"'y': {rule}. Found: {'none' if missing else repr(value)} in row {row}")
        kinds = {isinstance(value, str) for value in array.tolist()}
        if len(kinds) > 1:
            raise UserError("'y' must hold texts or whole numbers, not both. Received: both")
        return array
    if array.dtype.kind not in "biufU":
        raise UserError(f"'y' must hold texts or whole numbers. Received: dtype {array.dtype}")
    if array.dtype.kind == "f":
        wrong = np.flatnonzero(~(np.isfinite(array) & (array == np.floor(array))))
        if len(wrong):
            raise UserError(f"'y' must hold texts or whole numbers. Received: {array[wrong[0]]} in row {wrong[0]}")
    return array


def of_names(names: tuple[str, ...]) -> Classes:
    """The classes of data that came with names alone: 0, 1, … as numbers, as predictions have them, else the names."""
    numbers = np.arange(len(names))
    return Classes(numbers if names == tuple(map(str, numbers)) else np.array(names, dtype=object))


def read_classes(path: Path) -> Classes:
    """The content of a `kfusion_classes.json`.

    Raises:
        UserError: it is damaged.
    """
    content = read_json(path)
    try:
        classes = Classes(np.array(content["values"], np.dtype(content["dtype"])))
        names = set(classes.names)
    except (LookupError, TypeError, ValueError) as error:
        raise broken(path, "must hold the dtype and the values of the classes", error) from None
    if classes.values.ndim != 1 or not 2 <= len(names) == len(classes.values):
        raise broken(path, "must hold at least two different classes", content["values"])
    return classes


def write_classes(folder: Path, classes: Classes) -> None:
    """Writes `kfusion_classes.json` into a folder."""
    write_json(folder / CLASSES, classes.to_json())


def read_coded(labels: Path, classes: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels that are codes, with the names of their classes.

    Args:
        labels: an .npy file, int (n,), each in [0, K).
        classes: the `kfusion_classes.json` beside it.

    Returns:
        int64 (n,), and the K class names.

    Raises:
        UserError: a file is damaged, or a code means no class.
    """
    names, array = read_classes(classes).names, open_array(labels, "iu", "codes of classes")
    if array.ndim != 1:
        raise broken(labels, "must have the shape (N,)", f"shape {array.shape}")
    codes = np.array(array).astype(np.int64)
    if codes.min() < 0 or codes.max() >= len(names):
        raise broken(labels, f"labels must be codes of the {len(names)} classes in {classes.name}", int(codes.max()))
    return codes, names
