"""Columns of a table as modalities: `--columns image=photo vector=age,weight,glucose_* label=risk`.

What follows the equals sign names columns of the table, in any case: one, several between commas, a range `A..B` in the
table's order, or a pattern with `*`. A single column of paths is a modality in files; numbers are the rows of one. An
empty cell, or `nan`, is a number that is missing; where the fields are divided by semicolons, a comma may be the
decimal point. A name that is no kind is a vector of this name. `label`, `group` and `speaker` are columns too.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import compress, islice
from pathlib import Path

import numpy as np

from kfusion.data.media_files import ABSENT, Item, Listing, checked, lacking
from kfusion.data.tables import MISSING, NOTHING, Table, column_key, named_file, open_table, plain_numbers, shown
from kfusion.modalities import kind_named
from kfusion.spec import RESERVED
from kfusion.validation import UserError, broken

OTHERS = ("label", "group", "speaker")
"""Columns that are no modality."""
Columns = dict[str, str | list[str]]
"""For each modality the column of its files, or the columns of its numbers."""


def parse(columns: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """`name=A,B` -> {name: (A, B)}.

    Raises:
        UserError: one is of another form, or a name is there twice or reserved.
    """
    wanted: dict[str, tuple[str, ...]] = {}
    for text in columns:
        name, _, listed = text.partition("=")
        parts = tuple(part.strip() for part in listed.split(","))
        free = name in OTHERS or (name.isidentifier() and name not in RESERVED)
        if not free or not all(parts) or (name in OTHERS and len(parts) > 1):
            rule = "'columns' must be name=COLUMN, name=A,B, name=A..B or name=A_*"
            raise UserError(f"{rule}, and label a single column. Received: {text!r}")
        if name in wanted:
            raise UserError(f"'columns' must have each name once. Received: {name!r} twice")
        wanted[name] = parts
    if not wanted.keys() - set(OTHERS):
        raise UserError(f"'columns' must name a modality, such as vector=A..B. Received: {' '.join(wanted)}")
    return wanted


def places_of(table: Table, name: str, parts: Sequence[str]) -> tuple[int, ...]:
    """Where the columns are that some words name.

    Args:
        table: the table.
        name: what they are of, for messages.
        parts: columns, ranges `A..B` and patterns.

    Raises:
        UserError: there is no such column, or it is named twice.
    """
    places: list[int] = []
    for part in parts:
        first, dots, last = part.partition("..")
        if dots and part not in table.header:
            start, stop = _place(table, name, first), _place(table, name, last)
            if start > stop:
                raise broken(table.path, f"'columns' {name}={part}: must go from left to right", f"{last!r} first")
            found = list(range(start, stop + 1))
        elif "*" in part and part not in table.header:
            found = [place for place, key in enumerate(table.names) if fnmatchcase(key, column_key(part))]
            if not found:
                raise broken(table.path, f"'columns' {name}={part}: must match a column", _shown(table))
        else:
            found = [_place(table, name, part)]
        if again := set(found) & set(places):
            rule = f"'columns' {name}: each column must be named once"
            raise broken(table.path, rule, f"{table.header[min(again)]!r} twice")
        places += found
    return tuple(places)


def _place(table: Table, name: str, column: str) -> int:
    if column in table.header:
        return table.header.index(column)
    places = [place for place, key in enumerate(table.names) if key == column_key(column)]
    if len(places) != 1:
        found = f"{len(places)} of them" if places else _shown(table)
        raise broken(table.path, f"'columns' {name}={column}: must be a column of the table", found)
    return places[0]


def _shown(table: Table) -> str:
    more = len(table.header) - 12
    return shown(islice(table.header, 12)) + (f" and {more} more" if more > 0 else "")


def read_columns(path: Path, columns: Iterable[str]) -> Listing:
    """The rows of a table of which some columns are modalities.

    Args:
        path: the table.
        columns: see above.

    Raises:
        UserError: a column is missing, no number, or used twice; or a row breaks a manifest's rules.
    """
    wanted, table = parse(columns), open_table(path)
    places = {name: places_of(table, name, parts) for name, parts in wanted.items()}
    _require_apart(table, places)
    for name in OTHERS:
        place = table.label_place() if name == "label" else table.place(name)
        if name not in places and place is not None:
            places[name] = (place,)
    if "label" not in places:
        raise broken(path, "'columns' must name the column of the classes: label=COLUMN", _shown(table))
    _require_apart(table, {name: places[name] for name in (*wanted, "label")})
    used = [place for of_name in places.values() for place in of_name]
    cells = dict(zip(used, zip(*table.rows(used), strict=True), strict=False))
    if not cells:
        raise broken(path, "must have a header and at least one row", "no rows")
    texts: dict[str, list[Sequence[str]]] = {
        name: [cells[place] for place in of_name] for name, of_name in places.items()
    }
    return _listing(table, {name: places[name] for name in wanted if name not in OTHERS}, texts)


def _listing(table: Table, places: Mapping[str, tuple[int, ...]], texts: Mapping[str, list[Sequence[str]]]) -> Listing:
    """The listing of the modalities at some places, from the texts of all columns."""
    path, (label,) = table.path, texts["label"]
    for row, text in enumerate(label):
        if text in MISSING:
            raise broken(path, "each row must have a label", f"{text!r} in row {row}")
    plain, nothing = plain_numbers(label), [""] * len(label)
    facts = [[plain[text] for text in label], *(texts.get(name, [nothing])[0] for name in OTHERS[1:])]
    items, values, used = {}, dict[str, np.ndarray](), Columns()
    for name, of_name in places.items():
        header = [table.header[place] for place in of_name]
        if kind_named(name).suffixes and are_files(texts[name]):
            used[name] = header[0]
            items[name] = tuple(_file(path, name, row, text) for row, text in enumerate(texts[name][0]))
        else:
            if kind_named(name).is_bounded():
                raise broken(path, f"'columns' {name}: must be one column of files", shown(header[:3]))
            used[name], values[name] = header, numbers(table, name, header, texts[name])
            rows = np.where(np.isnan(values[name]).all(axis=1), -1, np.arange(len(label)))
            items[name] = tuple(Item(ABSENT, "", row=row) for row in rows.tolist())
    items = {
        name: tuple(
            Item(item.path, of_class, group, speaker, row=item.row)
            for item, of_class, group, speaker in zip(of_name, *facts, strict=True)
        )
        for name, of_name in items.items()
    }
    has = [any(item.is_present for item in row) for row in zip(*items.values(), strict=True)]
    items = {name: tuple(compress(of_name, has)) for name, of_name in items.items()}
    empty = len(has) - sum(has)
    if empty == len(has):
        raise broken(path, f"a row must have a value of {' or '.join(items)}", "none in any row")
    notes = [f"rows of which nothing is known are left out: {empty:,} of {len(has):,}"] if empty else []
    notes += lacking(items)
    return checked(Listing(path, "manifest", items, True, notes=tuple(notes), values=values, columns=used))


def _require_apart(table: Table, places: Mapping[str, Sequence[int]]) -> None:
    """No column may be two things, least of all the label and an input."""
    owner: dict[int, str] = {}
    for name, of_name in places.items():
        for place in of_name:
            if owner.setdefault(place, name) != name:
                found = f"{table.header[place]!r} for {owner[place]} and {name}"
                raise broken(table.path, "'columns': each column must be one thing", found)


def are_files(texts: Sequence[Sequence[str]]) -> bool:
    """Whether some columns are one of paths: its first cell that is not empty is no number.

    Args:
        texts: the cells of each column.
    """
    first = next((text for text in texts[0] if text.casefold() not in NOTHING), "")
    try:
        float(first.replace(",", "."))
    except ValueError:
        return len(texts) == 1 and bool(first)
    return False


def _file(path: Path, name: str, row: int, text: str) -> Item:
    if text.casefold() in NOTHING:
        return Item(ABSENT, "")
    if not (file := named_file(path.parent, text)).is_file():
        raise broken(path, f"each {name} must be a file", f"no file {text!r} in row {row}")
    return Item(file, "")


def numbers(table: Table, name: str, header: Sequence[str], texts: Sequence[Sequence[str]]) -> np.ndarray:
    """Cells as numbers, NaN where they are missing.

    Args:
        table: where they are.
        name: of the modality.
        header: the columns' names.
        texts: the cells of each column.

    Returns:
        float32 (rows, columns).

    Raises:
        UserError: a cell is no number, or is missing where that is not allowed.
    """
    comma = table.delimiter == ";"
    columns = np.empty((len(texts), len(texts[0])), np.float64)
    for place, column in enumerate(texts):
        for row, text in enumerate(column):
            try:
                columns[place, row] = _number(text, comma)
            except ValueError:
                rule = f"'columns' {name}: each cell of {header[place]!r} must be a number"
                raise broken(table.path, rule, f"{text[:50]!r} in row {row}") from None
    missing = np.isnan(columns)
    some = np.argwhere(missing & ~missing.all(axis=0))
    if len(some) and not kind_named(name).allows_missing:
        place, row = some[0]
        rule = f"'columns' {name}: a row must have all of its numbers or none"
        raise broken(table.path, rule, f"none in {header[place]!r} in row {row}")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(columns.T, np.float32)


def _number(text: str, comma: bool) -> float:
    """A cell's number; NaN where it is empty."""
    if text.casefold() in NOTHING:
        return np.nan
    if comma and "." not in text:
        text = text.replace(",", ".", 1)
    return float(text) if "_" not in text else float("no number")
