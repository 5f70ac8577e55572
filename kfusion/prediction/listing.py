"""Input that names files: a manifest or a folder, noted in a small database from which any rows can be read.

So neither a million names nor a sorted folder ever lie in memory, and a job that goes on sees the rows it began with.
"""

import csv
import errno
import io
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from kfusion.data.checks import broken, open_file
from kfusion.data.media_files import PICTURES, SOUNDS
from kfusion.prediction.chunks import Files
from kfusion.prediction.contents import read_contents
from kfusion.spec import MODALITIES
from kfusion.system.files import file_hash, write_atomically

KINDS = dict.fromkeys(PICTURES, "image") | dict.fromkeys(SOUNDS, "audio")
"""What a file in a folder is, by its ending."""
Row = tuple[str, str]


@dataclass(frozen=True)
class FileRows:
    """Rows of files, listed in a database.

    Args:
        listing: the database, from `write_listing`.
        base: what relative names are relative to.
        num_rows: how many.
        said: what is read, for the terminal.
    """

    listing: Path
    base: Path
    num_rows: int
    said: str

    def __len__(self) -> int:
        return self.num_rows

    def read(self, start: int, stop: int) -> Files:
        return read_contents(self.base, self.names(start, stop))

    def names(self, start: int, stop: int) -> list[Row]:
        query = "SELECT image, audio FROM rows WHERE id >= ? AND id < ? ORDER BY id"
        return ask(self.listing, query, (start, stop))

    def num_with(self, modality: str) -> int:
        """Rows that have a file of this modality."""
        return ask(self.listing, f"SELECT count(*) FROM rows WHERE {modality} != ''")[0][0]

    def identity(self) -> dict[str, Any]:
        return {"listing": file_hash(self.listing)}


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
    """The rows of a database as input."""
    num_rows = ask(listing, "SELECT count(*) FROM rows")[0][0]
    return FileRows(listing, base, num_rows, f"{num_rows:,} rows of {source}")


def write_listing(listing: Path, source: Path) -> None:
    """Notes the rows of a manifest or of a folder in a database; numbered from 0, in the input's order.

    Raises:
        UserError: the manifest or the folder breaks a rule.
        OSError: the disk is full.
    """
    if source.is_dir():
        rows = _folder_rows
    elif source.suffix.lower() == ".parquet":
        rows = _parquet_rows
    else:
        rows = _csv_rows

    def write(path: Path) -> None:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, image TEXT NOT NULL, audio TEXT NOT NULL)")
            numbered = ((number, *row) for number, row in enumerate(rows(source, database)))
            database.executemany("INSERT INTO rows VALUES (?, ?, ?)", numbered)
            if not database.execute("SELECT 1 FROM rows").fetchone():
                raise broken(source, "must name at least one file", "no rows")

    try:
        write_atomically(listing, write)
    except sqlite3.OperationalError as error:
        raise OSError(errno.EIO, str(error), str(listing)) from None


def _csv_rows(source: Path, _: sqlite3.Connection) -> Iterator[Row]:
    """The columns `image` and `audio` of a CSV; one of them may be missing."""
    with open_file(source) as file:
        try:
            table = csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline=""), strict=True)
            header = [name.strip() for name in next(table, [])]
            places = _places(source, header)
            for row in table:
                if row and len(row) != len(header):
                    rule = f"each line must have {len(header)} fields, as the header has"
                    raise broken(source, rule, f"{len(row)} in line {table.line_num}")
                if row:
                    image, audio = ("" if place is None else row[place].strip() for place in places)
                    yield image, audio
        except UnicodeDecodeError as error:
            raise broken(source, "must be text in UTF-8", f"byte {error.object[error.start]:#04x}") from None
        except csv.Error as error:
            raise broken(source, "must be a CSV file", error) from None


def _places(source: Path, header: list[str]) -> list[int | None]:
    """Where the columns of the modalities are."""
    if not set(MODALITIES) & set(header):
        raise broken(source, "must have the columns image and audio, or one of them", ", ".join(map(repr, header)))
    return [header.index(name) if name in header else None for name in MODALITIES]


def _parquet_rows(source: Path, _: sqlite3.Connection) -> Iterator[Row]:
    """The same of a Parquet file, a group of rows at a time."""
    from kfusion.prediction import parquet

    with open_file(source):
        pass
    header = parquet.column_names(source)
    _places(source, header)
    for columns in parquet.batches(source, [name for name in MODALITIES if name in header]):
        missing = [""] * len(next(iter(columns.values())))
        texts = (columns.get(name, missing) for name in MODALITIES)
        for image, audio in zip(*texts, strict=True):
            yield str(image or "").strip(), str(audio or "").strip()


def _folder_rows(source: Path, database: sqlite3.Connection) -> Iterator[Row]:
    """Pictures and sounds of one stem are one row; the rows are in the order of the stems."""
    database.execute("CREATE TEMP TABLE media (stem TEXT, kind TEXT, name TEXT, PRIMARY KEY (stem, kind))")
    with os.scandir(source) as entries:
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)
            kind = KINDS.get(suffix.lower())
            if not kind or entry.name.startswith("."):
                continue
            try:
                database.execute("INSERT INTO media VALUES (?, ?, ?)", (stem, kind, entry.name))
            except sqlite3.IntegrityError:
                rule = f"must hold one {'picture' if kind == 'image' else 'sound'} for each stem"
                raise broken(source, rule, f"two of {stem!r}") from None
    if not database.execute("SELECT 1 FROM media").fetchone():
        names = sorted(path.name for path in islice(source.iterdir(), 8))
        rule = "INPUT must hold the .npy files of a layout, or PNG, JPEG and WAV files"
        raise broken(source, rule, ", ".join(names) or "an empty folder")
    query = (
        "SELECT max(CASE kind WHEN 'image' THEN name ELSE '' END), max(CASE kind WHEN 'audio' THEN name ELSE '' END) "
        "FROM media GROUP BY stem ORDER BY stem"
    )
    yield from database.execute(query)
