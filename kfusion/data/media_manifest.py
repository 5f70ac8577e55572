"""A manifest -> the files that it names: a CSV or Parquet table with the columns image, audio and label.

A row with both files is a pair. A table whose rows have one file each, the other left empty, has pictures and sounds
apart, which meet by label. The columns `group` (rows that belong together, and so to one part of a split) and `speaker`
are optional. Names of columns count in any case, and `class`, `target` and the like are labels too (`tables.LABELS`).
"""

import os
from pathlib import Path

from kfusion.data.checks import broken
from kfusion.data.labels import MISSING, plain_numbers
from kfusion.data.media_files import Item, Listing, checked
from kfusion.data.tables import SUFFIXES, Table, open_table, shown

_SPLITS = ("split", "part", "subset", "fold")
_FILES, _OPTIONAL = ("image", "audio"), ("group", "speaker")
Row = dict[str, str]


def read_manifest(path: Path) -> Listing:
    """The files that a manifest names.

    Raises:
        UserError: a column is missing or there twice, a row has no label or no file, only some rows are pairs, or a
            file is missing or has two labels.
    """
    rows, notes = _rows(path)
    num_files = {bool(row["image"]) + bool(row["audio"]) for row in rows}
    for number, row in enumerate(rows):
        if row["label"] in MISSING or not (row["image"] or row["audio"]):
            found = repr(row["label"]) if row["label"] in MISSING - {""} else "none of one"
            raise broken(path, "each row must have a label and a file", f"{found} in row {number}")
        if len(num_files) > 1 and bool(row["image"]) + bool(row["audio"]) == 1:
            raise broken(path, "either all rows or none must have both files", f"one file only in row {number}")
    plain = plain_numbers(row["label"] for row in rows)
    images, sounds = (_items(path, rows, name, plain) for name in _FILES)
    if any(row["speaker"] for row in rows) and not all(item.speaker for item in sounds):
        notes.append("the column speaker is not used: it is empty in some rows")
    return checked(Listing(path, "manifest", images, sounds, num_files == {2}, notes=tuple(notes)))


def _rows(path: Path) -> tuple[list[Row], list[str]]:
    """The rows, by the names of the columns that are used; and what should be said of others."""
    if path.suffix.lower() not in SUFFIXES:
        raise broken(path, f"a manifest must be one of {', '.join(SUFFIXES)}", path.suffix or "no ending")
    table = open_table(path)
    places = _places(table)
    there = {name: place for name, place in places.items() if place is not None}
    missing = dict.fromkeys(places, "")
    rows = [missing | dict(zip(there, row, strict=True)) for row in table.rows(list(there.values()))]
    if not rows:
        raise broken(path, "must have a header and at least one row", "no rows")
    unused = [name for name, plain in zip(table.header, table.names, strict=True) if plain in _SPLITS]
    return rows, [f"the column {name} is not used: the parts are dealt anew" for name in unused]


def _places(table: Table) -> dict[str, int | None]:
    """Where each column is that is used; None for those that may be missing."""
    places = {name: table.place(name) for name in (*_FILES, *_OPTIONAL)} | {"label": table.label_place()}
    if None in (places["image"], places["audio"], places["label"]):
        raise broken(table.path, "must have the columns image, audio and label", shown(table.header))
    return places


def _items(path: Path, rows: list[Row], name: str, plain: dict[str, str]) -> tuple[Item, ...]:
    """The files of one column."""
    items, label_of = [], {}
    for number, row in enumerate(rows):
        if not row[name]:
            continue
        file, label = path.parent / row[name], plain[row["label"]]
        same = os.path.normpath(file)
        if same not in label_of and not file.is_file():
            raise broken(path, f"each {name} must be a file", f"no file {row[name]!r} in row {number}")
        if (other := label_of.setdefault(same, label)) != label:
            found = f"{row[name]!r} with {other!r} and {label!r} (row {number})"
            raise broken(path, "each file must have one label", found)
        items.append(Item(file, label, row["group"], row["speaker"]))
    return tuple(items)
