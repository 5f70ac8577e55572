"""Media files that cannot be read: found before training, listed with their reasons, and left out if asked.

The first and last bytes of every file are looked at before any is decoded: an empty file, a text, one that was cut off
or whose checksums are wrong costs no time. What only shows when a file is decoded is listed as well.
"""

import csv
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from kfusion.data.media_files import ABSENT, Listing, checked
from kfusion.modalities import modality
from kfusion.validation import UserError, broken

TABLE = "bad_files.csv"
"""Written to the working folder."""
MAX_BYTES = 2**26
"""Larger files are refused before they are read."""
_HEAD_BYTES, _TAIL_BYTES, _READERS = 2**20, 2**16, 8


def header_faults(listing: Listing) -> dict[Path, str]:
    """The files that cannot be read, as far as their first and last bytes tell, and why."""
    files = {item.path: name for name, items in listing.items.items() for item in items if item.path != ABSENT}
    with ThreadPoolExecutor(_READERS) as pool:
        reasons = pool.map(_header_fault, files, files.values())
    return {path: reason for path, reason in zip(files, reasons, strict=True) if reason}


def _header_fault(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if not 0 < size <= MAX_BYTES:
                return f"a file must have 1 byte to {MAX_BYTES // 2**20} MB. Found: {size:,} bytes"
            head = tail = file.read(_HEAD_BYTES)
            if size > len(head):
                file.seek(-_TAIL_BYTES, 2)
                tail = file.read()
    except OSError as error:
        return f"must be a file that can be read. Found: {error.strerror}"
    return modality(name).file_fault(head, tail, size)


def without(listing: Listing, faults: Mapping[Path, str], skip: bool) -> Listing:
    """A listing without the files that cannot be read, nor those that belong together with one; they are in `TABLE`.

    Args:
        listing: all files.
        faults: those that cannot be read, and why.
        skip: go on without them; else they are refused.

    Raises:
        UserError: there are some, and they are not to be left out; or a class has none left.
    """
    if not faults:
        return listing
    bad = {item.path: item.label for item in listing.everything if item.path in faults}
    table = _write_table(faults, bad) if skip or len(faults) > 1 else ""
    if not skip:
        raise UserError(_refusal(faults, len({item.path for item in listing.everything}), table))
    kept = {name: [item.path not in faults for item in items] for name, items in listing.items.items()}
    if listing.aligned:
        rows = [all(row) for row in zip(*kept.values(), strict=True)]
        kept = dict.fromkeys(kept, rows)
    items = {
        name: tuple(item for item, keep in zip(items, kept[name], strict=True) if keep)
        for name, items in listing.items.items()
    }
    rest = replace(listing, items=items)
    if lost := sorted(set(listing.class_names) - set(rest.class_names)):
        raise broken(listing.where, "each class must have files that can be read", f"none of class {lost[0]!r}")
    of_class = ", ".join(f"{num:,} of {label!r}" for label, num in sorted(Counter(bad.values()).items()))
    many = f"{len(bad):,} file{' that' if len(bad) == 1 else 's that'} cannot be read"
    note = f"{many} {'is' if len(bad) == 1 else 'are'} left out: {of_class}{f' ({table})' if table else ''}"
    return checked(replace(rest, notes=(*listing.notes, note)))


def _refusal(faults: Mapping[Path, str], num_files: int, table: str) -> str:
    path, reason = next(iter(faults.items()))
    if len(faults) == 1:
        return f"{path}: {reason} (--skip-bad goes on without it)"
    more = f"{len(faults) - 1:,} more of {num_files:,} files cannot be read"
    listed = f": all are listed in {table}" if table else ""
    return f"{path}: {reason} (and {more}{listed}; --skip-bad goes on without them)"


def _write_table(faults: Mapping[Path, str], labels: Mapping[Path, str]) -> str:
    """The table's name; "" where it cannot be written."""
    try:
        with open(TABLE, "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(("file", "label", "reason"))
            table.writerows((path, labels[path], reason) for path, reason in faults.items())
    except OSError:
        return ""
    return TABLE
