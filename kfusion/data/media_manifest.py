"""A manifest -> the files that it names: a CSV or Parquet table with the columns image, audio and label.

A row with both files is a pair. A table whose rows have one file each, the other left empty, has pictures and sounds
apart, which meet by label. The columns `group` (rows that belong together, and so to one part of a split) and `speaker`
are optional.
"""

from pathlib import Path

import pandas as pd

from kfusion.data.checks import broken, open_file
from kfusion.data.labels import read_columns
from kfusion.data.media_files import Item, Listing, checked

SUFFIXES = (".csv", ".parquet")
_NEEDED, _OPTIONAL = ("image", "audio", "label"), ("group", "speaker")


def read_manifest(path: Path) -> Listing:
    """The files that a manifest names.

    Raises:
        UserError: a column is missing, a row has no label or no file, only some rows are pairs, or a file is missing.
    """
    columns = _read_table(path)
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise broken(path, "must have the columns image, audio and label", ", ".join(map(repr, columns)))
    num = len(columns["label"])
    texts = {name: columns.get(name, [""] * num) for name in (*_NEEDED, *_OPTIONAL)}
    rows = [dict(zip(texts, row, strict=True)) for row in zip(*texts.values(), strict=True)]
    num_files = {bool(row["image"]) + bool(row["audio"]) for row in rows}
    for number, row in enumerate(rows):
        if not row["label"] or not (row["image"] or row["audio"]):
            raise broken(path, "each row must have a label and a file", f"none of one in row {number}")
        if len(num_files) > 1 and bool(row["image"]) + bool(row["audio"]) == 1:
            raise broken(path, "either all rows or none must have both files", f"one file only in row {number}")
    images, sounds = (_items(path, rows, name) for name in ("image", "audio"))
    return checked(Listing(path, "manifest", images, sounds, aligned=num_files == {2}))


def _items(path: Path, rows: list[dict[str, str]], name: str) -> tuple[Item, ...]:
    """The files of one column."""
    items, seen = [], set()
    for number, row in enumerate(rows):
        if not row[name]:
            continue
        file = path.parent / row[name]
        if file not in seen and not file.is_file():
            raise broken(path, f"each {name} must be a file", f"no file {row[name]!r} in row {number}")
        seen.add(file)
        items.append(Item(file, row["label"], row["group"], row["speaker"]))
    return tuple(items)


def _read_table(path: Path) -> dict[str, list[str]]:
    """Texts by column."""
    if path.suffix.lower() == ".csv":
        return read_columns(path)
    if path.suffix.lower() != ".parquet":
        raise broken(path, f"a manifest must be one of {', '.join(SUFFIXES)}", path.suffix or "no ending")
    with open_file(path) as file:
        try:
            table = pd.read_parquet(file)
        except ImportError:
            raise broken(path, "Parquet files need the extra: pip install '.[parquet]'", "no package pyarrow") from None
        except Exception as error:  # pyarrow's own errors have no common base but this.
            raise broken(path, "must be a Parquet file", str(error)[:200]) from None
    if not len(table):
        raise broken(path, "must have at least one row", "no rows")
    return {str(name): ["" if pd.isna(cell) else str(cell).strip() for cell in table[name]] for name in table}
