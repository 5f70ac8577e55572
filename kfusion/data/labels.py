"""Labels from .npy and .csv files. Rows are counted from 0, the header of a CSV not among them."""

import csv
import io
import re
from pathlib import Path

import numpy as np

from kfusion.data.checks import broken, open_array, open_file

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?")


def read_digits(path: Path) -> np.ndarray:
    """Digits 0-9 from labels_….npy, or from a CSV with the columns row_id and label.

    Returns:
        int64 (n,), in [0, 9].

    Raises:
        UserError: something else than digits, a column missing, or row ids that are not 0 … n-1.
    """
    if path.suffix == ".npy":
        label = _whole_array(_label_array(path), path)
    else:
        columns = read_columns(path)
        if not {"row_id", "label"} <= set(columns):
            raise broken(path, "must have the columns row_id and label", ", ".join(map(repr, columns)))
        row_id = _whole_texts(columns["row_id"], path, "row_id")
        label = _in_row_order(_whole_texts(columns["label"], path, "label"), row_id, path)
    wrong = np.flatnonzero((label < 0) | (label > 9))
    if len(wrong):
        raise broken(path, "labels must be digits 0-9", f"{label[wrong[0]]} in row {wrong[0]}")
    return label


def read_classes(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Anybody's labels: whole numbers 0 … K-1, or names, which are numbered in sorted order.

    A CSV gives its column `label`, or else its last one.

    Returns:
        int64 (n,), and the K class names.

    Raises:
        UserError: a gap in the numbers, an empty name, or fewer than two classes.
    """
    if path.suffix == ".npy":
        array = _label_array(path)
        names = _texts(array, path) if array.dtype.kind in "US" else None
        label = _whole_array(array, path) if names is None else None
    else:
        columns = read_columns(path)
        names = columns.get("label", list(columns.values())[-1])
        if "row_id" in columns:
            row_id = _whole_texts(columns["row_id"], path, "row_id")
            names = _in_row_order(np.array(names), row_id, path).tolist()
        label = _whole_texts(names, path, "label") if all(map(_WHOLE.fullmatch, names)) else None
    if label is not None:
        classes = _require_no_gaps(label, path)
    else:
        if "" in (names or ()):
            raise broken(path, "each row must have a label", f"none in row {(names or []).index('')}")
        classes, label = np.unique(np.array(names, str), return_inverse=True)
    if len(classes) < 2:
        raise broken(path, "must have at least two classes", f"only {str(classes[0])!r}")
    return label.astype(np.int64), tuple(str(name) for name in classes)


def read_columns(path: Path) -> dict[str, list[str]]:
    """A CSV with a header, as stripped texts by column; each row must have as many fields as the header."""
    with open_file(path) as file:
        try:
            table = csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline=""), strict=True)
            header = [name.strip() for name in next(table, [])]
            rows = []
            for row in table:
                if row and len(row) != len(header):
                    rule = f"each line must have {len(header)} fields, as the header has"
                    raise broken(path, rule, f"{len(row)} in line {table.line_num}")
                if row:
                    rows.append(row)
        except UnicodeDecodeError as error:
            raise broken(path, "must be text in UTF-8", f"byte {error.object[error.start]:#04x}") from None
        except csv.Error as error:
            raise broken(path, "must be a CSV file", error) from None
    if not rows:
        raise broken(path, "must have a header and at least one row", "no rows")
    return {
        name: [text.strip() for text in column] for name, column in zip(header, zip(*rows, strict=True), strict=True)
    }


def read_groups(path: Path) -> np.ndarray:
    """int64 (n,): an id for each row, equal where the file's integers or texts are."""
    array = open_array(path, "biuUS", "integers or texts")
    if array.ndim != 1:
        raise broken(path, "must have the shape (N,)", f"shape {array.shape}")
    return np.unique(np.array(array), return_inverse=True)[1].astype(np.int64)


def _label_array(path: Path) -> np.ndarray:
    """(n,), copied into memory."""
    array = open_array(path, "biufUS", "numbers or texts")
    if array.shape not in ((len(array),), (len(array), 1)):
        raise broken(path, "must have the shape (N,)", f"shape {array.shape}")
    return np.array(array).reshape(-1)


def _texts(array: np.ndarray, path: Path) -> list[str]:
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise broken(path, "must be text in UTF-8", f"byte {error.object[error.start]:#04x}") from None
    return [text.strip() for text in array.tolist()]


def _whole_array(array: np.ndarray, path: Path) -> np.ndarray:
    if array.dtype.kind in "US":
        return _whole_texts(_texts(array, path), path, "label")
    wrong = np.flatnonzero(~(np.abs(array.astype(np.float64)) < 1e18) | (array != np.floor(array)))
    if len(wrong):
        raise broken(path, "labels must be whole numbers", f"{array[wrong[0]]} in row {wrong[0]}")
    return array.astype(np.int64)


def _whole_texts(texts: list[str], path: Path, column: str) -> np.ndarray:
    for row, text in enumerate(texts):
        if not _WHOLE.fullmatch(text):
            raise broken(path, f"{column} must be whole numbers", f"{text[:50]!r} in row {row}")
    return np.array([int(text.partition(".")[0]) for text in texts], np.int64)


def _in_row_order(label: np.ndarray, row_id: np.ndarray, path: Path) -> np.ndarray:
    """Labels by row id, whatever the order of the lines."""
    order = np.argsort(row_id, kind="stable")
    wrong = np.flatnonzero(row_id[order] != np.arange(len(row_id)))
    if len(wrong):
        rule = f"row_id must be 0 to {len(row_id) - 1}, each once"
        raise broken(path, rule, f"{row_id[order][wrong[0]]} in place of {wrong[0]}")
    return label[order]


def _require_no_gaps(label: np.ndarray, path: Path) -> np.ndarray:
    """The classes 0 … K-1."""
    classes = np.unique(label)
    wrong = np.flatnonzero(classes != np.arange(len(classes)))
    if len(wrong):
        row = np.flatnonzero(label == classes[wrong[0]])[0]
        rule = "labels must be names, or whole numbers that count from 0 without gaps"
        raise broken(path, rule, f"{classes[wrong[0]]} in row {row}, and no {wrong[0]}")
    return classes
