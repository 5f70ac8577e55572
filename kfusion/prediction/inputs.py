"""Input that names files: a manifest or a folder, noted in a small database from which any rows can be read.

So neither a million names nor a sorted folder ever lie in memory, and a job that goes on sees the rows it began with.

What passes from the input to the model: some rows of arrays, or the files of some rows.

The contents of files, and why some could not be read.
"""

import errno
import hashlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kfusion.data.media_files import KINDS, PICTURES, SOUNDS, endings
from kfusion.data.tables import IDS, Table, natural, open_table, shown
from kfusion.io import file_hash, write_atomically
from kfusion.spec import MODALITIES
from kfusion.validation import broken


@dataclass(eq=False)
class Arrays:
    """Rows as a network takes them.

    Args:
        image: float32 (n, height, width, channels) in [0, 1]; zeros where there is none.
        audio: float32 (n, num_audio), in the training data's units; zeros where there is none.
        present: bool (n, 2): image there? sound there?
        reason: one text a row: why it cannot be answered, or "".
    """

    image: Any
    audio: Any
    present: np.ndarray
    reason: list[str]


@dataclass(eq=False)
class Files:
    """Rows as files.

    Args:
        image, audio: the content of each row's file; empty where there is none.
        reason: one text a row: why it cannot be answered, or "".
    """

    image: list[bytes]
    audio: list[bytes]
    reason: list[str]

    @property
    def present(self) -> np.ndarray:
        """bool (n, 2): image there? sound there?"""
        return np.array([[content != b"" for content in contents] for contents in (self.image, self.audio)]).T


class Rows(Protocol):
    """An input of any kind, of which any rows can be read at any time."""

    @property
    def said(self) -> str:
        """What is read, for the terminal."""
        ...

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Arrays | Files:
        """The rows from `start` up to `stop`."""
        ...

    def names(self, start: int, stop: int) -> list[tuple[str, str]] | None:
        """The files of these rows, image and sound; None for an input without files."""
        ...

    def ids(self, start: int, stop: int) -> list[str] | None:
        """What these rows are called in the input; None where they are numbered from 0."""
        ...

    def identity(self) -> dict[str, Any]:
        """What tells this input from another, ready for JSON."""
        ...


MAX_BYTES = 64 * 2**20
"""A longer file is not read: it is no picture of a sign and no recording of a word, and a batch must fit in memory."""


def read_contents(base: Path, names: list[tuple[str, str]]) -> Files:
    """The files of some rows.

    Args:
        base: what relative names are relative to.
        names: a picture and a sound for each row; "" where there is none.
    """
    found = Files([], [], [])
    for row in names:
        contents, reasons = zip(*(_read(base, name, kind) for name, kind in zip(row, MODALITIES, strict=True)))  # noqa: B905
        missing = "" if any(row) else "a row must name a picture or a sound. Found: neither"
        found.image.append(contents[0])
        found.audio.append(contents[1])
        found.reason.append(next(filter(None, reasons), missing))
    return found


def _read(base: Path, name: str, kind: str) -> tuple[bytes, str]:
    """One file's content, or why there is none."""
    if not name:
        return b"", ""
    try:
        # Not blocking: a pipe must be refused, not waited for.
        with open(os.open(os.path.join(base, name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                return b"", f"{kind}: must be a file. Found: a folder, a device or a pipe"
            if not 0 < state.st_size <= MAX_BYTES:
                return b"", f"{kind}: a file must have 1 to {MAX_BYTES} bytes. Found: {state.st_size}"
            return file.read(), ""
    except (OSError, ValueError) as error:
        return b"", f"{kind}: must be a file that can be read. Found: {getattr(error, 'strerror', None) or error}"


Row = tuple[str, str, str | None]
"""A picture, a sound, and what the row is called; None where nothing says it."""


@dataclass(frozen=True)
class FileRows:
    """Rows of files, listed in a database.

    Args:
        listing: the database, from `write_listing`.
        base: what relative names are relative to.
        num_rows: how many.
        has_ids: whether the input says what its rows are called.
        said: what is read, for the terminal.
        notes: what else should be said of the input, a line each.
        source: the fingerprint of the manifest or folder as it is now.
    """

    listing: Path
    base: Path
    num_rows: int
    has_ids: bool
    said: str
    notes: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return self.num_rows

    def read(self, start: int, stop: int) -> Files:
        return read_contents(self.base, self.names(start, stop))

    def names(self, start: int, stop: int) -> list[tuple[str, str]]:
        query = "SELECT image, audio FROM rows WHERE id >= ? AND id < ? ORDER BY id"
        return ask(self.listing, query, (start, stop))

    def ids(self, start: int, stop: int) -> list[str] | None:
        query = "SELECT row_id FROM rows WHERE id >= ? AND id < ? ORDER BY id"
        return [row_id for (row_id,) in ask(self.listing, query, (start, stop))] if self.has_ids else None

    def num_with(self, modality: str) -> int:
        """Rows that have a file of this modality."""
        return ask(self.listing, f"SELECT count(*) FROM rows WHERE {modality} != ''")[0][0]

    def identity(self) -> dict[str, Any]:
        return {"listing": file_hash(self.listing), "source": self.source}


def fingerprint(source: Path) -> str:
    """What tells an input from another, and from itself after a change.

    Of a manifest, its content and the folder that its names count from; of a folder, the name, size and time of change
    of each of its pictures and sounds, in any order.
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


def ask(listing: Path, query: str, values: tuple[int, ...] = ()) -> list[Any]:
    """The answer of a database, opened for reading alone and closed again: threads and machines may ask at once.

    Raises:
        UserError: it is damaged.
    """
    try:
        with closing(sqlite3.connect(f"{listing.resolve().as_uri()}?immutable=1", uri=True)) as database:
            return database.execute(query, values).fetchall()
    except sqlite3.DatabaseError as error:
        raise broken(listing, "must be the list of rows that the job began with; --overwrite it", error) from None


def open_listing(listing: Path, source: Path, base: Path) -> FileRows:
    """The rows of a database as input.

    Args:
        listing: the database.
        source: the manifest or folder that it lists.
        base: what relative names are relative to.
    """
    num_rows, num_ids = ask(listing, "SELECT count(*), count(row_id) FROM rows")[0]
    notes = tuple(note for (note,) in ask(listing, "SELECT note FROM notes"))
    return FileRows(listing, base, num_rows, num_ids > 0, f"{num_rows:,} rows of {source}", notes, fingerprint(source))


def write_listing(listing: Path, source: Path) -> None:
    """Notes the rows of a manifest or of a folder in a database, in the input's order.

    Args:
        listing: the database to be.
        source: the manifest or folder.

    Raises:
        UserError: the manifest or the folder breaks a rule.
        OSError: the disk is full.
    """
    rows = _folder_rows if source.is_dir() else _manifest_rows

    def write(path: Path) -> None:
        with closing(sqlite3.connect(path)) as database, database:
            columns = "id INTEGER PRIMARY KEY, image TEXT NOT NULL, audio TEXT NOT NULL, row_id TEXT"
            database.execute(f"CREATE TABLE rows ({columns})")
            database.execute("CREATE TABLE notes (note TEXT NOT NULL)")
            numbered = ((number, *row) for number, row in enumerate(rows(source, database)))
            database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", numbered)
            if not database.execute("SELECT 1 FROM rows").fetchone():
                raise broken(source, "must name at least one file", "no rows")

    try:
        write_atomically(listing, write)
    except sqlite3.OperationalError as error:
        raise OSError(errno.EIO, str(error), str(listing)) from None


def _note(database: sqlite3.Connection, note: str) -> None:
    database.execute("INSERT INTO notes VALUES (?)", (note,))


def _manifest_rows(source: Path, database: sqlite3.Connection) -> Iterator[Row]:
    """The columns `image` and `audio` of a table, one of which may be missing, and the one that names the rows."""
    table = open_table(source)
    found = {name: table.place(name) for name in MODALITIES}
    there = {name: place for name, place in found.items() if place is not None}
    if not there:
        raise broken(source, "must have the columns image and audio, or one of them", shown(table.header))
    id_place = table.id_place()
    places = [*there.values(), *([] if id_place is None else [id_place])]
    for cells in table.rows(places):
        names = dict(zip(there, cells, strict=False))
        yield names.get("image", ""), names.get("audio", ""), None if id_place is None else cells[-1]
    if id_place is not None:
        _check_ids(source, table, id_place, database)


def _check_ids(source: Path, table: Table, place: int, database: sqlite3.Connection) -> None:
    """What rows are called must tell them apart; an index that does not is none: the rows are numbered."""
    query = "SELECT row_id, count(*) AS num FROM rows GROUP BY row_id HAVING num > 1 OR row_id = '' LIMIT 1"
    for row_id, num in database.execute(query).fetchall():
        if table.names[place] in IDS:
            found = f"{row_id!r} in {num:,} row{'s' * (num > 1)}"
            raise broken(source, f"{table.header[place]} must be given, and another, in each row", found)
        database.execute("UPDATE rows SET row_id = NULL")


def _folder_rows(source: Path, database: sqlite3.Connection) -> Iterator[Row]:
    """Pictures and sounds of one stem are one row; the rows are in the order of the stems, 2 before 10.

    A file of another format has its row too, and there the reason why it is not read; but beside a file of its stem and
    kind that can be read it is left out.
    """
    database.execute("CREATE TEMP TABLE media (stem TEXT, place TEXT, kind TEXT, name TEXT, is_read INTEGER)")
    database.execute("CREATE UNIQUE INDEX temp.one ON media (stem, kind) WHERE is_read")
    folders = []
    with os.scandir(source) as entries:
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)
            kind = _kind(entry.name)
            if kind:
                values = (stem, natural(stem), kind, entry.name, suffix.lower() in (*PICTURES, *SOUNDS))
                try:
                    database.execute("INSERT INTO media VALUES (?, ?, ?, ?, ?)", values)
                except sqlite3.IntegrityError:
                    rule = f"must hold one {'picture' if kind == 'image' else 'sound'} for each stem"
                    raise broken(source, rule, f"two of {stem!r}") from None
            elif not entry.name.startswith(".") and entry.is_dir():
                folders.append(entry.name)
    if not database.execute("SELECT 1 FROM media").fetchone():
        names = sorted(path.name for path in islice(source.iterdir(), 8))
        rule = "INPUT must hold the .npy files of a layout, or PNG, JPEG and WAV files; its folders are not looked into"
        raise broken(source, rule, ", ".join(names) or "an empty folder")
    if folders:
        few = ", ".join(map(repr, sorted(folders)[:3])) + (" …" if len(folders) > 3 else "")
        _note(database, f"folders in INPUT are not looked into: {len(folders):,} ({few})")
    order = "row_number() OVER (PARTITION BY stem, kind ORDER BY is_read DESC, name)"
    ranked = f"(SELECT *, {order} AS rank FROM media)"
    if left := endings(name for (name,) in database.execute(f"SELECT name FROM {ranked} WHERE rank > 1")):
        _note(database, f"files are left out beside another of their stem: {left}")
    one = "max(CASE kind WHEN '{}' THEN name ELSE '' END)"
    columns = ", ".join(one.format(name) for name in MODALITIES)
    yield from database.execute(
        f"SELECT {columns}, NULL FROM {ranked} WHERE rank = 1 GROUP BY place, stem ORDER BY place, stem"
    )


def _kind(name: str) -> str | None:
    """What a file in a folder is, by its ending; None for any other and for hidden ones."""
    return None if name.startswith(".") else KINDS.get(os.path.splitext(name)[1].lower())
