"""The rows of a manifest or of a folder, noted in a small database, from which any of them can be read.

Neither a million names nor a sorted folder ever lie in memory, and a job that is resumed reads the rows that it began
with.
"""

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from kfusion.data.columns import numbers, places_of
from kfusion.data.media_files import endings, file_columns
from kfusion.data.tables import IDS, NOTHING, Table, natural, open_table, shown
from kfusion.io import write_atomically
from kfusion.modalities import is_visible, kind_that_reads
from kfusion.modalities.base import Modality
from kfusion.prediction.inputs import columns_in_sql, files_in, in_files, visible_kind
from kfusion.spec import Spec
from kfusion.validation import broken

TABLE_ROWS = 4096
"""Rows of a table that are read at a time."""
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
            texts = "".join(f"{columns_in_sql((name,))} TEXT NOT NULL, " for name in kinds)
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
    places, taken = file_columns(table, kinds)
    if not places:
        wanted = f"columns {' and '.join(kinds)}, or one of them" if len(kinds) > 1 else f"column {next(iter(kinds))}"
        raise broken(source, f"must have the {wanted}", shown(table.header))
    if taken:
        _note(database, f"columns of {source.name} are taken by their names: {', '.join(taken)}")
    id_place = table.id_place()
    for cells in table.rows([*places.values(), *([] if id_place is None else [id_place])]):
        files = {name: "" if text.casefold() in NOTHING else text for name, text in zip(places, cells, strict=False)}
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
                files = (
                    ["" if text.casefold() in NOTHING else text for text in texts[0]] if texts else [""] * len(block)
                )
                filled.append(files)
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
    for name, entry in files_in(source):
        stem, kind = os.path.splitext(name)[0], visible_kind(entry.name)
        if kind in name_of:
            values = (stem, natural(stem), name_of[kind], name, kind_that_reads(name) == kind)
            try:
                database.execute("INSERT INTO media VALUES (?, ?, ?, ?, ?)", values)
            except sqlite3.IntegrityError:
                rule = f"must hold one {kinds[name_of[kind]].file_noun} for each stem"
                raise broken(source, rule, f"two of {stem!r}") from None
        elif kind:
            others.append(name)
        elif is_visible(entry.name) and entry.is_dir():
            folders.append(name)
    if not database.execute("SELECT 1 FROM media").fetchone():
        names = sorted(path.name for path in islice(source.iterdir(), 8))
        *formats, last = [word for kind in kinds.values() for word in kind.formats.split(" or ")]
        words = f"{', '.join(formats)} and {last}" if formats else last
        rule = f"INPUT must hold the .npy files of a layout, or {words} files"
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
