"""Labels from .npy files and tables, and the names of classes. Rows are counted from 0, a table's header aside."""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from kfusion.data.checks import broken, open_array
from kfusion.data.tables import IDS, Table, natural, open_table, shown

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?")
MISSING = {"", "nan", "NaN", "NAN", "None", "<NA>", "NaT"}
"""What pandas and Python write where there is no label."""
_NO_LABELS = {*IDS, "image", "audio", "file", "filename", "file_name", "path", "group", "speaker"}
"""Columns that say something else than the class."""


def read_digits(path: Path) -> np.ndarray:
    """Digits 0-9 from labels_….npy, or from a table with the columns row_id and label.

    Returns:
        int64 (n,), in [0, 9].

    Raises:
        UserError: something else than digits, a column missing, or row ids that are not 0 … n-1.
    """
    if path.suffix == ".npy":
        label = _whole_array(_label_array(path), path)
    else:
        table = _open(path)
        id_place, label_place = table.id_place(), table.label_place()
        if id_place is None or label_place is None:
            raise broken(path, "must have the columns row_id and label", shown(table.header))
        ids, texts = _columns(table, id_place, label_place)
        column = table.header[id_place] or "the index"
        row_id = _whole_texts(ids, path, column)
        label = _whole_texts(texts, path, "label")[_order(row_id, path, column)]
    wrong = np.flatnonzero((label < 0) | (label > 9))
    if len(wrong):
        raise broken(path, "labels must be digits 0-9", f"{label[wrong[0]]} in row {wrong[0]}")
    return label


def read_classes(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Anybody's labels: whole numbers 0 … K-1, or names, which are numbered in sorted order.

    A table gives its column `label`, or the only one that can be meant; a column `row_id`, `id` or `index` says whose.

    Returns:
        int64 (n,), and the K class names.

    Raises:
        UserError: a gap in the numbers, a row without a label, fewer than two classes, or columns that may mean several
            things.
    """
    if path.suffix == ".npy":
        array = _label_array(path)
        names = _texts(array, path) if array.dtype.kind in "US" else None
        label = _whole_array(array, path) if names is None else None
    else:
        names = _table_labels(path)
        label = _whole_texts(names, path, "label") if all(map(_WHOLE.fullmatch, names)) else None
    if label is not None:
        classes = _require_no_gaps(label, path)
    else:
        for row, name in enumerate(names or ()):
            if name in MISSING:
                raise broken(path, "each row must have a label", f"{repr(name) if name else 'none'} in row {row}")
        plain = plain_numbers(names or ())
        classes, label = np.unique([plain[name] for name in names or ()], return_inverse=True)
    if len(classes) < 2:
        raise broken(path, "must have at least two classes", f"only {str(classes[0])!r}")
    return label.astype(np.int64), tuple(str(name) for name in classes)


def _table_labels(path: Path) -> list[str]:
    """The labels of a table, in the order of the rows that they are of."""
    table = _open(path)
    id_place, place = table.id_place(), table.label_place()
    if place is None:
        left = [at for at, name in enumerate(table.names) if at != id_place and name not in _NO_LABELS]
        if len(left) != 1:
            raise broken(path, "must have one column label (or class, target, y …)", shown(table.header))
        place = left[0]
    if id_place is None:
        return _columns(table, place)[0]
    ids, labels = _columns(table, id_place, place)
    return [labels[row] for row in _own_order(ids, table, id_place)]


def _open(path: Path) -> Table:
    table = open_table(path)
    if not table.header:
        raise broken(path, "must have a header and at least one row", "no rows")
    return table


def _columns(table: Table, *places: int) -> list[list[str]]:
    """Whole columns."""
    columns = [list(column) for column in zip(*table.rows(places), strict=True)]
    if not columns:
        raise broken(table.path, "must have a header and at least one row", "no rows")
    return columns


def plain_numbers(names: Iterable[str]) -> dict[str, str]:
    """What each class is called where all are whole numbers: `3.0` is 3, and `01` is 1 where there is a `1` too."""
    names = set(names)
    if not all(map(_WHOLE.fullmatch, names)):
        return {name: name for name in names}
    spellings: dict[int, list[str]] = {}
    for name in names:
        spellings.setdefault(int(name.partition(".")[0]), []).append(name)
    return {
        name: name if len(same) == 1 and "." not in name else str(number)
        for number, same in spellings.items()
        for name in same
    }


def nearly_equal(class_names: Sequence[str]) -> list[str]:
    """A line where classes differ by no more than case, or how an accent is stored: most often one of them is meant."""
    found: dict[str, list[str]] = {}
    for name in class_names:
        found.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(name)
    same = [" and ".join(map(repr, names)) for names in found.values() if len(names) > 1]
    return [f"classes that differ only by case, taken as different ones: {'; '.join(same[:3])}"] if same else []


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


def _order(row_id: np.ndarray, path: Path, column: str) -> np.ndarray:
    """Where the label of row 0, 1, … is, whatever the order of the lines."""
    order = np.argsort(row_id, kind="stable")
    wrong = np.flatnonzero(row_id[order] != np.arange(len(row_id)))
    if len(wrong):
        rule = f"{column} must be 0 to {len(row_id) - 1}, each once"
        raise broken(path, rule, f"{row_id[order][wrong[0]]} in place of {wrong[0]}")
    return order


def _own_order(ids: list[str], table: Table, place: int) -> np.ndarray:
    """The same for anybody's table: rows may be counted from 1, and other ids may stand in ascending order.

    An index that pandas wrote unasked counts where it can be the rows' numbers, and is nothing else.
    """
    column, in_file_order = table.header[place], np.arange(len(ids))
    numbers = _whole_texts(ids, table.path, column) if all(map(_WHOLE.fullmatch, ids)) else None
    if table.names[place] not in IDS:
        counted = numbers is not None and np.array_equal(np.sort(numbers), in_file_order)
        return np.argsort(numbers) if counted and numbers is not None else in_file_order
    if numbers is None:
        keys = [natural(each) for each in ids]
        if all(one < other for one, other in itertools.pairwise(keys)):
            return in_file_order
        rule = f"{column} must be whole numbers, which say the row that a label is of, or ascend"
        raise broken(table.path, f"{rule}; without the column, labels are in the order of the rows", repr(ids[0][:50]))
    if table.names[place] != IDS[0]:
        if np.array_equal(np.sort(numbers), in_file_order + 1):
            numbers = numbers - 1
        if (np.diff(numbers) > 0).all():
            return in_file_order
    return _order(numbers, table.path, column)


def _require_no_gaps(label: np.ndarray, path: Path) -> np.ndarray:
    """The classes 0 … K-1."""
    classes = np.unique(label)
    wrong = np.flatnonzero(classes != np.arange(len(classes)))
    if len(wrong):
        row = np.flatnonzero(label == classes[wrong[0]])[0]
        rule = "labels must be names, or whole numbers that count from 0 without gaps"
        raise broken(path, rule, f"{classes[wrong[0]]} in row {row}, and no {wrong[0]}")
    return classes
