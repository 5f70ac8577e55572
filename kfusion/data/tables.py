"""Tables as people keep them, CSV, Excel or Parquet; and the labels, classes and groups in tables and .npy files.

Every table that kfusion reads comes through here: labels, manifests to train on, manifests to predict. Its rows come as
texts, one after another, so that memory does not grow with them. A text may be in UTF-8 or, as some spreadsheets and
shells write it, in UTF-16; between its fields may be commas, semicolons or tabs, whichever divides the header into
most, or what a first line `sep=;` names. Of an Excel workbook the first sheet is read. Names of columns count in any
case. Rows are counted from 0, the header aside; empty ones at the end are none.
"""

import csv
import io
import itertools
import os
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from kfusion.data.array_files import open_array, open_file
from kfusion.modalities import kinds
from kfusion.validation import UserError, broken, reason

SUFFIXES = (".csv", ".tsv", ".txt", ".xlsx", ".parquet")
IDS = ("row_id", "id", "index")
"""Columns that say which row is meant; the first goes before the others."""
INDEXES = ("unnamed:_0", "__index_level_0__")
"""What pandas calls a table's index where it has no name of its own; in a CSV also a first column without a name."""
LABELS = ("label", "labels", "class", "class_name", "category", "target", "y", "digit")
"""Columns that hold the classes; the first goes before the others."""
_DELIMITERS = ",;\t"
_STATED = re.compile(r"sep=([,;\t|])", re.IGNORECASE)
"""A first line with which some programs tell Excel what divides the fields."""
_PARQUET_ROWS = 65536


@dataclass(frozen=True)
class Table:
    """A table in a file.

    Args:
        path: the file.
        header: the columns' names, as they are written.
    """

    path: Path
    header: tuple[str, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns' names in the way that they are compared: without case, `_` for spaces and hyphens."""
        return tuple(map(column_key, self.header))

    @cached_property
    def delimiter(self) -> str:
        """What divides the fields of a text; "" in any other table."""
        if self.path.suffix.lower() in (".parquet", ".xlsx"):
            return ""
        with _csv_lines(self.path) as lines:
            return lines.dialect.delimiter

    def place(self, *names: str) -> int | None:
        """Where the one column with one of these names is; None where there is none.

        Raises:
            UserError: there are several.
        """
        places = [place for place, name in enumerate(self.names) if name in names]
        if len(places) > 1:
            rule = f"must have one column {' or '.join(names)}"
            raise broken(self.path, rule, shown(self.header[place] for place in places))
        return places[0] if places else None

    def id_place(self) -> int | None:
        """Where the column is that says which row is meant.

        Raises:
            UserError: there are several that might.
        """
        for names in (IDS[:1], IDS[1:]):
            if (place := self.place(*names)) is not None:
                return place
        return 0 if self.names[:1] == ("",) else self.place(*INDEXES)

    def label_place(self) -> int | None:
        """Where the column with the classes is.

        Raises:
            UserError: there are several that might be.
        """
        place = self.place(LABELS[0])
        return self.place(*LABELS[1:]) if place is None else place

    def rows(self, places: Sequence[int]) -> Iterator[tuple[str, ...]]:
        """These columns of each row, as stripped texts; "" where a cell is empty.

        Raises:
            UserError: the file is damaged, or a line of it has more or fewer fields than the header.
        """
        if self.path.suffix.lower() == ".parquet":
            yield from _parquet_rows(self.path, [self.header[place] for place in places])
            return
        num, num_empty = len(self.header), 0
        for line, row in itertools.islice(_lines(self.path), 1, None):
            if len(row) < num or any(row[num:]):
                raise broken(
                    self.path, f"each line must have {num} fields, as the header has", f"{len(row)} in line {line}"
                )
            if not any(row):
                num_empty += 1
                continue
            yield from itertools.repeat(("",) * len(places), num_empty)
            num_empty = 0
            yield tuple(row[place].strip() for place in places)


def open_table(path: Path) -> Table:
    """The table in a file; anything but `.parquet` and `.xlsx` is read as text.

    Raises:
        UserError: it is no such file, or cannot be read.
    """
    if path.suffix.lower() == ".parquet":
        return Table(path, tuple(_parquet_names(path)))
    _, header = next(_lines(path), (0, []))
    return Table(path, tuple(name.strip() for name in header))


def named_file(base: Path, text: str) -> Path:
    """The file that a cell names: `~` is the home folder, and backslashes divide folders, unless there is such a file.

    Args:
        base: the table's folder, from which names count.
        text: the cell.
    """
    path = base / os.path.expanduser(text)
    return path if "\\" not in text or path.exists() else base / os.path.expanduser(text.replace("\\", "/"))


def column_key(name: str) -> str:
    """A column's name as it is compared: without case, `_` for spaces and hyphens."""
    return "_".join(name.strip().casefold().replace("-", " ").split())


def natural(text: str) -> str:
    """A key by which texts sort with the numbers in them as numbers: 2 before 10."""
    return re.sub(r"[0-9]+", lambda number: f"{len(digits := number[0].lstrip('0')):03d}{digits}", text)


def shown(names: Any) -> str:
    """Names of columns for a message."""
    return ", ".join(map(repr, names)) or "no columns"


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The header of a text or a workbook and the rows below it, as lists of fields, each with its line's number."""
    if path.suffix.lower() == ".xlsx":
        rows = enumerate(_sheet_rows(path), 1)
        header = next((row for row in rows if any(row[1])), (0, list[str]()))
        yield header
        # Rows end where their last value is.
        yield from ((line, row + [""] * (len(header[1]) - len(row))) for line, row in rows)
        return
    with _csv_lines(path) as lines:
        yield from ((lines.line_num, row) for row in lines if row)


def _sheet_rows(path: Path) -> Iterator[list[str]]:
    """The rows of a workbook's first sheet, each up to its last value."""
    try:
        import openpyxl
    except ImportError:
        raise UserError(
            "Excel files need the extra: pip install 'kfusion[excel]' (from a checkout: pip install '.[excel]'). "
            "Found: no package openpyxl"
        ) from None
    with open_file(path) as file:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Of styles.
                book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            sheet: Any = book.worksheets[0]
            sheet.reset_dimensions()  # Not every program writes them right.
            for row in sheet.iter_rows(values_only=True):
                texts = [_text(cell) for cell in row]
                while texts and not texts[-1]:
                    texts.pop()
                yield texts
        except Exception as error:  # openpyxl raises whatever it meets in a damaged file.
            raise broken(path, "must be an Excel workbook (.xlsx) that can be read", reason(error)) from None


@contextmanager
def _csv_lines(path: Path) -> Iterator[Any]:
    """A text's lines as lists of fields, from a `csv.reader`; its errors are turned into one line."""
    with open_file(path) as file:
        encoding = _encoding(file.peek(2)[:2])
        try:
            text = io.TextIOWrapper(file, encoding, newline="")
            full = (line for line in text if line.strip())
            first = next(full, "")
            delimiter = _delimiter(first)
            if stated := _STATED.fullmatch(first.strip("\r\n")):
                delimiter, first = stated[1], next(full, "")
            yield csv.reader(chain([first], text), delimiter=delimiter, strict=True)
        except UnicodeDecodeError as error:
            rule = "must be text in UTF-8, which spreadsheets call 'CSV UTF-8' where one saves the table"
            raise broken(path, rule, f"byte {error.object[error.start]:#04x}") from None
        except csv.Error as error:
            raise broken(path, "must be a CSV file", error) from None


def _encoding(start: bytes) -> str:
    """What a file's first two bytes tell of its texts: a mark, or a zero in a letter of UTF-16 without one."""
    if start in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    return {0: "utf-16-be", 1: "utf-16-le"}.get(start.find(b"\0"), "utf-8-sig")


def _delimiter(header: str) -> str:
    """What divides a header into most fields; the comma where none does better."""
    return max(_DELIMITERS, key=lambda delimiter: len(next(csv.reader([header], delimiter=delimiter), [])))


def arrow() -> Any:
    """The package pyarrow.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            "Parquet files need the extra: pip install 'kfusion[parquet]' (from a checkout: pip install "
            "'.[parquet]'). Found: no package pyarrow"
        ) from None
    return pyarrow


def _parquet_names(path: Path) -> list[str]:
    pyarrow = arrow()
    try:
        with open_file(path) as file:
            return pyarrow.parquet.read_schema(file).names
    except pyarrow.ArrowException as error:
        raise broken(path, "must be a Parquet file", reason(error)) from None


def _parquet_rows(path: Path, names: list[str]) -> Iterator[tuple[str, ...]]:
    """Some columns of a Parquet file, read some rows at a time."""
    pyarrow = arrow()
    try:
        with open_file(path) as opened, pyarrow.parquet.ParquetFile(opened) as file:
            for batch in file.iter_batches(_PARQUET_ROWS, columns=list(names)):
                columns = batch.to_pydict()
                yield from zip(*([_text(cell) for cell in columns[name]] for name in names), strict=True)
    except pyarrow.ArrowException as error:
        raise broken(path, "must be a Parquet file", reason(error)) from None


def _text(cell: Any) -> str:
    """A cell of a typed table as a CSV has it; whole numbers without a point, as where a column was all whole."""
    if cell is None or cell != cell:  # NaN is not even itself.
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return (cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell)).strip()


_WHOLE = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?")
MISSING = {"", "nan", "NaN", "NAN", "None", "<NA>", "NaT"}
"""What pandas and Python write where there is no label."""
NOTHING = {text.casefold() for text in MISSING} | {"na", "n/a", "null"}
"""What spreadsheets and programs write where there is no number or no file, in lower case."""
_NO_LABELS = {*IDS, "file", "filename", "file_name", "path", "group", "speaker"}
"""Columns that say something else than the class; so do those that are called like a kind of file."""


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
        left = [at for at, name in enumerate(table.names) if at != id_place and name not in (*_NO_LABELS, *kinds())]
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
    alike: dict[str, list[str]] = {}
    for name in class_names:
        alike.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(name)
    same = [" and ".join(map(repr, names)) for names in alike.values() if len(names) > 1]
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
        keys = list(map(natural, ids))
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
