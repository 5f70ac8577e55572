"""The input of a prediction: what passes from it to the model, and rows of files, from a manifest or a folder.

The rows of a manifest or folder are noted in a small database, from which any of them can be read: neither a million
names nor a sorted folder ever lie in memory, and a job that is resumed reads the rows that it began with.
"""

import errno
import hashlib
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kfusion.data.columns import numbers, places_of
from kfusion.data.media_files import endings
from kfusion.data.tables import IDS, MISSING, Table, natural, open_table, shown
from kfusion.io import file_hash, write_atomically
from kfusion.modalities import each_of, is_visible, kind_of_file, kind_that_reads, modality, one_of
from kfusion.modalities.base import Modality
from kfusion.spec import Spec
from kfusion.validation import UserError, broken

TABLE_ROWS = 4096
"""Rows of a table that are read at a time."""
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
    """

    values: dict[str, Any]
    present: np.ndarray
    reason: list[str]


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
        with open(os.open(os.path.join(base, file), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
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
        query = f"SELECT {_columns(names)} FROM rows WHERE id >= ? AND id < ? ORDER BY id"
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
        query = f"SELECT {_columns(names)} FROM rows WHERE id >= ? AND id < ? ORDER BY id"
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
        return select(self.listing, f"SELECT count(*) FROM rows WHERE {_columns((name,))} != ''")[0][0]

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


def _columns(names: Sequence[str]) -> str:
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
    with os.scandir(source) as entries:
        for entry in entries:
            if _kind(entry.name):
                try:
                    state = entry.stat()
                    facts = f"{state.st_size} {state.st_mtime_ns} {entry.name}"
                except OSError:  # A link to nothing has a row, which says so.
                    facts = entry.name
                total += int.from_bytes(hashlib.sha256(os.fsencode(facts)).digest())
    return f"{source.resolve()} {total % 2**256:064x}"


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


Row = tuple[str | bytes | None, ...]
"""A file of each modality that may come in files, or the bytes of its numbers; and what the row is called, if anything
says it."""


def write_listing(
    listing: Path, source: Path, spec: Spec, columns: Mapping[str, str | list[str]] | None = None
) -> None:
    """Notes the rows of a manifest or of a folder in a database, in the input's order.

    Args:
        listing: the database to be.
        source: the manifest or folder.
        spec: the modalities of the model.
        columns: what the columns of a table are; see `data.columns.Columns`. None: they are called like the modalities.

    Raises:
        UserError: the manifest or the folder breaks a rule.
        OSError: the disk is full.
    """
    kinds: dict[str, Any] = in_files(spec)
    rows: Callable[..., Iterator[Row]] = _folder_rows if source.is_dir() else _manifest_rows
    if columns and not source.is_dir():
        kinds, rows = dict(columns), _table_rows
    if not kinds:
        raise broken(source, "INPUT must hold .npy files: nothing that this model takes comes in other files", "none")

    def write(path: Path) -> None:
        with closing(sqlite3.connect(path)) as database, database:
            texts = "".join(f"{_columns((name,))} TEXT NOT NULL, " for name in kinds)
            database.execute(f"CREATE TABLE rows (id INTEGER PRIMARY KEY, {texts}row_id TEXT)")
            database.execute("CREATE TABLE notes (note TEXT NOT NULL)")
            numbered = ((number, *row) for number, row in enumerate(rows(source, kinds, database)))
            database.executemany(f"INSERT INTO rows VALUES (?, {'?, ' * len(kinds)}?)", numbered)
            if not database.execute("SELECT 1 FROM rows").fetchone():
                raise broken(source, "must name at least one file", "no rows")

    try:
        write_atomically(listing, write)
    except sqlite3.OperationalError as error:
        raise OSError(errno.EIO, str(error), str(listing)) from None


def _note(database: sqlite3.Connection, note: str) -> None:
    database.execute("INSERT INTO notes VALUES (?)", (note,))


def _manifest_rows(source: Path, kinds: Mapping[str, Modality], database: sqlite3.Connection) -> Iterator[Row]:
    """The modalities' columns of a table, some of which may be missing, and the one that names the rows."""
    table = open_table(source)
    places = {name: place for name in kinds if (place := table.place(name.casefold())) is not None}
    if not places:
        wanted = f"columns {' and '.join(kinds)}, or one of them" if len(kinds) > 1 else f"column {next(iter(kinds))}"
        raise broken(source, f"must have the {wanted}", shown(table.header))
    id_place = table.id_place()
    for cells in table.rows([*places.values(), *([] if id_place is None else [id_place])]):
        files = dict(zip(places, cells, strict=False))
        yield (*(files.get(name, "") for name in kinds), None if id_place is None else cells[-1])
    if id_place is not None:
        _check_ids(source, table, id_place, database)


def _table_rows(source: Path, columns: Mapping[str, str | list[str]], database: sqlite3.Connection) -> Iterator[Row]:
    """The files and numbers of a table's columns, and the column that names the rows."""
    table = open_table(source)
    listed = {name: [column] if isinstance(column, str) else column for name, column in columns.items()}
    there = {name: any(column in table.header for column in of_name) for name, of_name in listed.items()}
    if not any(there.values()):
        raise broken(source, "must have the columns of the training table", shown(table.header[:12]))
    places = {name: places_of(table, name, of_name) if there[name] else () for name, of_name in listed.items()}
    id_place = table.id_place()
    used = [*(place for of_name in places.values() for place in of_name), *([] if id_place is None else [id_place])]
    cells = table.rows(used)
    while block := list(islice(cells, TABLE_ROWS)):
        of_place = dict(zip(used, zip(*block, strict=True), strict=False))
        filled: list[Sequence[str | bytes | None]] = []
        for name, of_name in places.items():
            texts = [of_place[place] for place in of_name]
            if isinstance(columns[name], str):
                filled.append(["" if text in MISSING else text for text in texts[0]] if texts else [""] * len(block))
            else:
                values = numbers(table, name, listed[name], texts) if texts else _nothing(len(block), len(listed[name]))
                filled.append([row.tobytes() for row in values])
        yield from zip(*filled, [None] * len(block) if id_place is None else of_place[id_place], strict=True)
    if id_place is not None:
        _check_ids(source, table, id_place, database)


def _nothing(num_rows: int, num_values: int) -> np.ndarray:
    return np.full((num_rows, num_values), np.nan, np.float32)


def _check_ids(source: Path, table: Table, place: int, database: sqlite3.Connection) -> None:
    """What rows are called must tell them apart; an index that does not is none: the rows are numbered."""
    query = "SELECT row_id, count(*) AS num FROM rows GROUP BY row_id HAVING num > 1 OR row_id = '' LIMIT 1"
    for row_id, num in database.execute(query).fetchall():
        if table.names[place] in IDS:
            received = f"{row_id!r} in {num:,} row{'s' * (num > 1)}"
            raise broken(source, f"{table.header[place]} must be given, and another, in each row", received)
        database.execute("UPDATE rows SET row_id = NULL")


def _folder_rows(source: Path, kinds: Mapping[str, Modality], database: sqlite3.Connection) -> Iterator[Row]:
    """Files of one stem are one row; the rows are in the order of the stems, 2 before 10.

    A file of another format has its row too, and there the reason why it is not read; but beside a file of its stem and
    kind that can be read it is left out.
    """
    name_of = {kind.kind: name for name, kind in kinds.items()}
    if len(name_of) < len(kinds):
        rule = f"INPUT must be a manifest, since several of {', '.join(kinds)} are of one kind"
        raise broken(source, rule, "a folder of files")
    database.execute("CREATE TEMP TABLE media (stem TEXT, place TEXT, modality TEXT, name TEXT, is_read INTEGER)")
    database.execute("CREATE UNIQUE INDEX temp.one ON media (stem, modality) WHERE is_read")
    folders, others = [], []
    with os.scandir(source) as entries:
        for entry in entries:
            stem, kind = os.path.splitext(entry.name)[0], _kind(entry.name)
            if kind in name_of:
                values = (stem, natural(stem), name_of[kind], entry.name, kind_that_reads(entry.name) == kind)
                try:
                    database.execute("INSERT INTO media VALUES (?, ?, ?, ?, ?)", values)
                except sqlite3.IntegrityError:
                    rule = f"must hold one {kinds[name_of[kind]].file_noun} for each stem"
                    raise broken(source, rule, f"two of {stem!r}") from None
            elif kind:
                others.append(entry.name)
            elif is_visible(entry.name) and entry.is_dir():
                folders.append(entry.name)
    if not database.execute("SELECT 1 FROM media").fetchone():
        names = sorted(path.name for path in islice(source.iterdir(), 8))
        *formats, last = [word for kind in kinds.values() for word in kind.formats.split(" or ")]
        words = f"{', '.join(formats)} and {last}" if formats else last
        rule = f"INPUT must hold the .npy files of a layout, or {words} files; its folders are not looked into"
        raise broken(source, rule, ", ".join(names) or "an empty folder")
    if folders:
        few = ", ".join(map(repr, sorted(folders)[:3])) + (" …" if len(folders) > 3 else "")
        _note(database, f"folders in INPUT are not looked into: {len(folders):,} ({few})")
    if others:
        _note(database, f"files of what the model does not take are left out: {endings(others)}")
    order = "row_number() OVER (PARTITION BY stem, modality ORDER BY is_read DESC, name)"
    ranked = f"(SELECT *, {order} AS rank FROM media)"
    if left := endings(name for (name,) in database.execute(f"SELECT name FROM {ranked} WHERE rank > 1")):
        _note(database, f"files are left out beside another of their stem: {left}")
    columns = ", ".join(f"max(CASE modality WHEN '{name}' THEN name ELSE '' END)" for name in kinds)
    yield from database.execute(
        f"SELECT {columns}, NULL FROM {ranked} WHERE rank = 1 GROUP BY place, stem ORDER BY place, stem"
    )


def _kind(name: str) -> str:
    """The kind of a file in a folder, by its ending; "" for any other and for hidden ones."""
    return kind_of_file(name) if is_visible(name) else ""
