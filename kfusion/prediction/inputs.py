"""The input of a prediction: what passes from it to the model, and rows of files, which `job.py` notes down."""

import hashlib
import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kfusion.cli import quiet
from kfusion.data.tables import named_file
from kfusion.io import file_hash
from kfusion.modalities import each_of, is_visible, kind_of_file, modality, one_of
from kfusion.modalities.base import Modality
from kfusion.spec import Spec
from kfusion.validation import UserError, broken

MAX_BYTES = 64 * 2**20
"""A longer file is not read: it is no picture of a sign and no recording of a word, and a batch must fit in memory."""


@dataclass(eq=False)
class Arrays:
    """Rows as arrays, in the unit of a request.

    Args:
        values: for each modality of the model, float32 (n, *shape): in [0, 1] where `Modality.is_bounded`, else in the
            training data's unit; zeros where a row lacks the modality.
        present: bool (n, modalities), which of them each row has, in the model's order.
        reason: for each row why it cannot be answered, or "".
        counts: of modalities of which some rows have several windows: int32 (n,), how many each row has. The values of
            these are those of all windows, one row's after those of another.
    """

    values: dict[str, Any]
    present: np.ndarray
    reason: list[str]
    counts: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(eq=False)
class Files:
    """Rows as files.

    Args:
        contents: for each modality of the model, the content of each row's file; empty where there is none.
        reason: for each row why it cannot be answered, or "".
        numbers: of modalities that are columns of a table: float32 (n, *shape); NaN where there is nothing.
    """

    contents: dict[str, list[bytes]]
    reason: list[str]
    numbers: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def present(self) -> np.ndarray:
        """bool (n, modalities), which of them each row has, in the model's order."""
        columns = [
            _has_numbers(self.numbers[name]) if name in self.numbers else [content != b"" for content in column]
            for name, column in self.contents.items()
        ]
        return np.array(columns).T


def _has_numbers(values: np.ndarray) -> np.ndarray:
    """Which rows are not NaN alone: bool (n,)."""
    return np.asarray(~np.isnan(values.reshape(len(values), -1)).all(axis=1))


class Rows(Protocol):
    """An input of any kind, of which any rows can be read at any time."""

    @property
    def description(self) -> str:
        """What is read, for the terminal."""
        ...

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Arrays | Files:
        """The rows from `start` up to `stop`."""
        ...

    def files(self, start: int, stop: int) -> dict[str, list[str]] | None:
        """The files of these rows by modality, "" where a row has none; None for an input without files."""
        ...

    def ids(self, start: int, stop: int) -> list[str] | None:
        """What these rows are called in the input; None where they are numbered from 0."""
        ...

    def identity(self) -> dict[str, Any]:
        """What tells this input from another, ready for JSON."""
        ...


def in_files(spec: Spec) -> dict[str, Modality]:
    """The modalities of a model that may come in files, in its order."""
    return {name: kind for name, kind, _ in each_of(spec) if kind.suffixes}


def read_contents(
    base: Path, files: Mapping[str, Sequence[str]], spec: Spec, numbers: Mapping[str, np.ndarray] | None = None
) -> Files:
    """The files of some rows.

    Args:
        base: what relative names are relative to.
        files: for some modalities a name for each row; "" where there is none.
        spec: the modalities of the model.
        numbers: of other modalities: float32 (n, *shape), NaN where there is nothing; None: there are none.
    """
    with quiet():  # What libraries have to say of a damaged file: its row says it.
        read = {name: [_read(base, file, name, modality(spec[name])) for file in files[name]] for name in files}
    nouns = [kind.file_noun for kind in in_files(spec).values()]
    nothing = f"a row must name {one_of(nouns)}. Found: {'neither' if len(nouns) == 2 else 'none'}"
    reason = []
    for names, row in zip(zip(*files.values(), strict=True), zip(*read.values(), strict=True), strict=True):
        reasons = (why for _, why in row if why)
        reason.append(next(reasons, "" if any(names) else nothing))
    if numbers:
        has = np.any([_has_numbers(values) for values in numbers.values()], axis=0)
        reason = ["" if there and why == nothing else why for there, why in zip(has, reason, strict=True)]
    absent = [(b"", "")] * len(reason)
    contents = {name: [content for content, _ in read.get(name, absent)] for name in spec.names}
    return Files(contents, reason, dict(numbers or {}))


def _read(base: Path, file: str, name: str, kind: Modality) -> tuple[bytes, str]:
    """One file's content, in a format that every model reads, or why there is none."""
    if not file:
        return b"", ""
    try:
        # Not blocking: a pipe must be refused, not waited for.
        with open(os.open(named_file(base, file), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
            state = os.fstat(opened.fileno())
            if not stat.S_ISREG(state.st_mode):
                return b"", f"{name}: must be a file. Found: a folder, a device or a pipe"
            if not 0 < state.st_size <= MAX_BYTES:
                return b"", f"{name}: a file must have 1 to {MAX_BYTES} bytes. Found: {state.st_size}"
            return kind.standard_file(opened.read()), ""
    except UserError as error:
        return b"", f"{name}: {error}"
    except (OSError, ValueError) as error:
        return b"", f"{name}: must be a file that can be read. Found: {getattr(error, 'strerror', None) or error}"


@dataclass(frozen=True, eq=False)
class FilesOf:
    """Files that a program names.

    Args:
        columns: for some modalities the file of each row; "" where there is none.
        spec: the modalities of the model.
        description: what they are called.
    """

    columns: dict[str, list[str]]
    spec: Spec
    description: str = "X"

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def read(self, start: int, stop: int) -> Files:
        """The contents of the files, from where the program runs."""
        return read_contents(Path(), self.files(start, stop), self.spec)

    def files(self, start: int, stop: int) -> dict[str, list[str]]:
        """As the program names them."""
        return {name: column[start:stop] for name, column in self.columns.items()}

    def ids(self, start: int, stop: int) -> None:
        """None: rows are numbered."""
        return None

    def num_with(self, name: str) -> int:
        """Rows that have a file of a modality."""
        return sum(map(bool, self.columns.get(name, ())))

    def identity(self) -> dict[str, Any]:
        """Nothing: a program's rows are no job's."""
        return {}


@dataclass(frozen=True)
class FileRows:
    """Rows of files, listed in a database.

    Args:
        listing: the database, from `write_listing`.
        base: what relative names are relative to.
        spec: the modalities of the model.
        num_rows: how many.
        has_ids: whether the input says what its rows are called.
        description: what is read, for the terminal.
        notes: what else should be said of the input, a line each.
        source: the fingerprint of the manifest or folder as it is now.
        columns: what the columns of a table are; see `data.columns.Columns`. Empty where they are called like files.
    """

    listing: Path
    base: Path
    spec: Spec
    num_rows: int
    has_ids: bool
    description: str
    notes: tuple[str, ...]
    source: str
    columns: Mapping[str, str | list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.num_rows

    def read(self, start: int, stop: int) -> Arrays | Files:
        """The contents of the files, and the numbers; arrays where there are numbers alone."""
        numbers = self._numbers(start, stop)
        if numbers.keys() == self.columns.keys() and numbers:
            return _arrays(numbers, self.spec)
        return read_contents(self.base, self.files(start, stop), self.spec, numbers)

    def _numbers(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """The modalities that are numbers: float32 (n, *shape), NaN where there is nothing."""
        names = [name for name, column in self.columns.items() if not isinstance(column, str)]
        if not names:
            return {}
        query = f"SELECT {columns_in_sql(names)} FROM rows WHERE id >= ? AND id < ? ORDER BY id"
        rows = select(self.listing, query, (start, stop))
        return {
            name: np.stack([np.frombuffer(row[place], np.float32) for row in rows]).reshape(-1, *self.spec[name].shape)
            for place, name in enumerate(names)
        }

    def files(self, start: int, stop: int) -> dict[str, list[str]]:
        """As the input names them."""
        names = _in_files(self.spec, self.columns)
        if not names:
            return {}
        query = f"SELECT {columns_in_sql(names)} FROM rows WHERE id >= ? AND id < ? ORDER BY id"
        rows = select(self.listing, query, (start, stop))
        return {name: [row[place] for row in rows] for place, name in enumerate(names)}

    def ids(self, start: int, stop: int) -> list[str] | None:
        """As the input has them."""
        query = "SELECT row_id FROM rows WHERE id >= ? AND id < ? ORDER BY id"
        return [row_id for (row_id,) in select(self.listing, query, (start, stop))] if self.has_ids else None

    def num_with(self, name: str) -> int:
        """Rows that have a file of a modality."""
        if name not in _in_files(self.spec, self.columns):
            return 0
        return select(self.listing, f"SELECT count(*) FROM rows WHERE {columns_in_sql((name,))} != ''")[0][0]

    def identity(self) -> dict[str, Any]:
        """The listing and the input, as they are now."""
        return {"listing": file_hash(self.listing), "source": self.source}


def _in_files(spec: Spec, columns: Mapping[str, str | list[str]]) -> tuple[str, ...]:
    """The modalities of an input that are files."""
    if columns:
        return tuple(name for name, column in columns.items() if isinstance(column, str))
    return tuple(in_files(spec))


def _arrays(numbers: Mapping[str, np.ndarray], spec: Spec) -> Arrays:
    """Rows of numbers alone as arrays; what a row lacks has NaN."""
    num_rows, values = len(next(iter(numbers.values()))), dict(numbers)
    values = {name: values.get(name, np.full((num_rows, *spec[name].shape), np.nan, "f4")) for name in spec.names}
    present = np.stack([_has_numbers(each) for each in values.values()], axis=1)
    reason = ["" if any(row) else "a row must have numbers. Found: none" for row in present]
    return Arrays(values, present, reason)


BATCH_ROWS, WINDOWED_ROWS = 1024, 32
"""Rows that are read at once; fewer where files may be long: a recording of ten minutes has some 50 MB."""


def batch_rows(rows: Rows, spec: Spec) -> int:
    """How many rows of an input are read at once.

    Args:
        rows: the input.
        spec: of the model.
    """
    long = isinstance(rows, FileRows | FilesOf) and any(kind.windows(shape) for _, kind, shape in each_of(spec))
    return WINDOWED_ROWS if long else BATCH_ROWS


def columns_in_sql(names: Sequence[str]) -> str:
    """Names of columns for a query; brackets, since SQLite takes an unknown name in quotation marks for a text."""
    return ", ".join(f"[{name}]" for name in names)


def fingerprint(source: Path) -> str:
    """What tells an input from another, and from itself after a change.

    Of a manifest, its content and the folder that its names count from; of a folder, the name, size and time of change
    of each file of any kind that kfusion knows, in any order.
    """
    if not source.is_dir():
        return f"{source.parent.resolve()} {file_hash(source)}"
    total = 0
    for name, entry in files_in(source):
        if visible_kind(entry.name):
            try:
                state = entry.stat()
                facts = f"{state.st_size} {state.st_mtime_ns} {name}"
            except OSError:  # A link to nothing has a row, which says so.
                facts = name
            total += int.from_bytes(hashlib.sha256(os.fsencode(facts)).digest())
    return f"{source.resolve()} {total % 2**256:064x}"


def files_in(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """What is in a folder, by names from there; where no file of any kind is, what is in its subfolders too.

    Args:
        folder: such as one of pictures and sounds, or one with a subfolder for each class.
    """
    with os.scandir(folder) as entries:
        deep = not any(visible_kind(entry.name) for entry in entries)
    yield from _entries(folder, "", deep)


def _entries(folder: Path, below: str, deep: bool) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with os.scandir(folder / below) as entries:
        for entry in entries:
            name = below + entry.name
            # As in training, a class may be a link to a folder; what is further below may not, since it may go round.
            if deep and is_visible(entry.name) and entry.is_dir() and not (below and entry.is_symlink()):
                yield from _entries(folder, f"{name}/", deep)
            else:
                yield name, entry


def visible_kind(name: str) -> str:
    """The kind of a file in a folder, by its ending; "" for any other and for hidden ones."""
    return kind_of_file(name) if is_visible(name) else ""


def select(listing: Path, query: str, values: tuple[int, ...] = ()) -> list[Any]:
    """The rows that a database returns; it is opened for reading alone, so that threads and machines may share it.

    Args:
        listing: the database.
        query: in SQL.
        values: of the query's question marks.

    Raises:
        UserError: it is damaged.
    """
    try:
        with closing(sqlite3.connect(f"{listing.resolve().as_uri()}?immutable=1", uri=True)) as database:
            return database.execute(query, values).fetchall()
    except sqlite3.DatabaseError as error:
        raise broken(listing, "must be the list of rows that the job began with; --overwrite it", error) from None


def open_listing(
    listing: Path, source: Path, spec: Spec, columns: Mapping[str, str | list[str]] | None = None
) -> FileRows:
    """The rows of a database as input.

    Args:
        listing: the database.
        source: the manifest or folder that it lists.
        spec: the modalities of the model.
        columns: see `FileRows`.
    """
    num_rows, num_ids = select(listing, "SELECT count(*), count(row_id) FROM rows")[0]
    notes = tuple(note for (note,) in select(listing, "SELECT note FROM notes"))
    base, text = source if source.is_dir() else source.parent, f"{num_rows:,} rows of {source}"
    used = {} if columns is None or source.is_dir() else columns
    return FileRows(listing, base, spec, num_rows, num_ids > 0, text, notes, fingerprint(source), used)
