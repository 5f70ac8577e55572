"""Tables as people keep them, CSV or Parquet: which columns there are, and their rows as texts, one after another.

Every table that kfusion reads comes through here: labels, manifests to train on, manifests to predict. A CSV may be in
UTF-8 or, as some spreadsheets and shells write it, in UTF-16; between its fields may be commas,
semicolons or tabs, whichever divides the header into most. Names of columns count in any case. Memory does not grow
with the rows.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from kfusion.data.checks import broken, open_file
from kfusion.rules import UserError, reason

SUFFIXES = (".csv", ".parquet")
IDS = ("row_id", "id", "index")
"""Columns that say which row is meant; the first goes before the others."""
INDEXES = ("unnamed:_0", "__index_level_0__")
"""What pandas calls a table's index where it has no name of its own; in a CSV also a first column without a name."""
LABELS = ("label", "labels", "class", "class_name", "category", "target", "y", "digit")
"""Columns that hold the classes; the first goes before the others."""
_DELIMITERS = ",;\t"
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
        return tuple("_".join(name.strip().casefold().replace("-", " ").split()) for name in self.header)

    def place(self, *names: str) -> int | None:
        """Where the one column with one of these names is; None where there is none.

        Raises:
            UserError: there are several.
        """
        found = [place for place, name in enumerate(self.names) if name in names]
        if len(found) > 1:
            rule = f"must have one column {' or '.join(names)}"
            raise broken(self.path, rule, shown(self.header[place] for place in found))
        return found[0] if found else None

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
        with _csv_lines(self.path) as lines:
            header = next(lines, [])
            for row in lines:
                if row and len(row) != len(header):
                    rule = f"each line must have {len(header)} fields, as the header has"
                    raise broken(self.path, rule, f"{len(row)} in line {lines.line_num}")
                if row:
                    yield tuple(row[place].strip() for place in places)


def open_table(path: Path) -> Table:
    """The table in a file; anything but `.parquet` is read as CSV.

    Raises:
        UserError: it is no such file, or cannot be read.
    """
    if path.suffix.lower() == ".parquet":
        return Table(path, tuple(_parquet_names(path)))
    with _csv_lines(path) as lines:
        return Table(path, tuple(name.strip() for name in next(lines, [])))


def natural(text: str) -> str:
    """A key by which texts sort with the numbers in them as numbers: 2 before 10."""
    return re.sub(r"[0-9]+", lambda found: f"{len(digits := found[0].lstrip('0')):03d}{digits}", text)


def shown(names: Any) -> str:
    """Names of columns for a message."""
    return ", ".join(map(repr, names)) or "no columns"


@contextmanager
def _csv_lines(path: Path) -> Iterator[Any]:
    """A CSV's lines as lists of fields, from a `csv.reader`; its errors are turned into one line."""
    with open_file(path) as file:
        encoding = _encoding(file.peek(2)[:2])
        try:
            text = io.TextIOWrapper(file, encoding, newline="")
            first = next((line for line in text if line.strip()), "")
            yield csv.reader(chain([first], text), delimiter=_delimiter(first), strict=True)
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
