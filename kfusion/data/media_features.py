"""Media files -> a `Source`: each file becomes features once, which are kept and scanned as any other data.

Features are arrays in the user's cache, so that a training on the same files starts at once. The name of such an array
is a hash of what it was made from (each file's path, size and time of change, and the front end's name with its shape)
and the fingerprint of the front end itself (`front_ends.py`). So a changed file or front end makes another array, and
nothing is ever stale. Where training asks for changed copies of the files (`word_copies`), their features are made and
kept the same way, beside those of the files. The folder is `KFUSION_CACHE`, else `$XDG_CACHE_HOME/kfusion`, else
`~/.cache/kfusion`; it may be deleted at any time.

Files that cannot be read are found before training, listed with their reasons, and left out if asked. The first and
last bytes of every file are looked at before any is decoded: an empty file, a text, one that was cut off or whose
checksums are wrong costs no time. What only shows when a file is decoded is listed as well.
"""

import csv
import hashlib
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import track

from kfusion.cli import quiet
from kfusion.config import DataConfig
from kfusion.data.array_files import blank_lines, group_ids, own_groups, scan, scan_finite
from kfusion.data.columns import read_columns
from kfusion.data.dataset import ModalityData, Source
from kfusion.data.media_files import (
    ABSENT,
    TEST,
    TRAINING,
    VALIDATION,
    Item,
    Listing,
    checked,
    list_media,
    read_manifest,
)
from kfusion.data.splits import hold_out, joined
from kfusion.io import cache_folder, is_live, write_atomically, write_json
from kfusion.modalities import each_of, kind_named, modality
from kfusion.modalities.base import Modality
from kfusion.modalities.front_ends import Reader, file_reader, fingerprint, fingerprints
from kfusion.spec import ModalitySpec, Spec
from kfusion.validation import UserError, broken

BATCH, BATCH_BYTES = 256, 2**26
"""Files that are read together, the larger they are the fewer."""
NUM_THREADS = 2


@dataclass(frozen=True)
class FrontEnd:
    """What turns files into features.

    Args:
        name: what its features are called in data.json.
        fingerprint: of what it does.
        read: it.
        shape: of one file's features.
        dtype: in which they are kept.
        standard: see `Modality.standard_file`.
        made_of: a standard file -> the files whose features are its own.
    """

    name: str
    fingerprint: str
    read: Reader
    shape: tuple[int, ...]
    dtype: type
    standard: Callable[[bytes], bytes] = bytes
    made_of: Callable[[bytes], list[bytes]] = lambda content: [content]


def cache_key(paths: Sequence[Path], front_end: str) -> str:
    """What the features of some files are kept under.

    Args:
        paths: the files.
        front_end: what makes the features, with their shape.
    """
    facts: list[object] = [front_end]
    for path in paths:
        status = path.stat()
        facts.append([str(path.absolute()), status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def features(
    paths: Sequence[Path], front_end: FrontEnd, console: Console | None
) -> tuple[np.ndarray, str, dict[Path, str]]:
    """The features of each file, from the cache or made now.

    Args:
        paths: files, each named once.
        front_end: what reads them.
        console: where progress is shown; None: nowhere.

    Returns:
        (n, *shape), a memory map if it could be kept; the key, which names the files, not kfusion's version; and the
        files that cannot be read, with their reasons: their rows are zeros.
    """
    shape, dtype = front_end.shape, front_end.dtype
    key = cache_key(paths, f"{front_end.name} {shape} {np.dtype(dtype)}")
    file = cache_folder() / f"{key}-{front_end.fingerprint}.npy"
    cached = _kept(file, (len(paths), *shape), dtype)
    if cached is not None:
        array, faults = cached
        return array, key, {paths[int(row)]: reason for row, reason in faults.items()}
    array, faults = _made(paths, front_end, console)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda partial: np.save(partial, array))
        of_row = {str(row): faults[path] for row, path in enumerate(paths) if path in faults}
        noted = {"front_end": front_end.name, "crc32": _checksum(file), "faults": of_row}
        write_json(file.with_suffix(".json"), noted)
    except OSError:
        return array, key, faults  # A full or read-only disk costs the next start its time, not this one its data.
    cached = _kept(file, array.shape, dtype)
    return array if cached is None else cached[0], key, faults


def _kept(path: Path, shape: tuple[int, ...], dtype: type) -> tuple[np.ndarray, dict[str, str]] | None:
    """The array in the cache and the rows that could not be read, unless it is missing, damaged or something else."""
    try:
        noted = json.loads(path.with_suffix(".json").read_text("utf-8"))
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        sound = array.shape == shape and array.dtype == dtype and _checksum(path) == noted["crc32"]
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    return (array, noted.get("faults", {})) if sound else None


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value


def _made(paths: Sequence[Path], front_end: FrontEnd, console: Console | None) -> tuple[np.ndarray, dict[Path, str]]:
    """Reads all files, in batches on all cores: their features, and why some cannot be read."""
    array, refused = np.empty((len(paths), *front_end.shape), front_end.dtype), dict[Path, str]()
    mean_size = sum(path.stat().st_size for path in paths) // max(len(paths), 1)
    size = min(max(BATCH_BYTES // (mean_size + 1), 1), BATCH)
    batches = [paths[start : start + size] for start in range(0, len(paths), size)]
    label = f"reading {len(paths):,} files"

    def made(batch: Sequence[Path]) -> tuple[np.ndarray, list[str]]:
        contents, faults = zip(*(_standard_content(path, front_end) for path in batch), strict=True)
        files = [file for content in contents for file in front_end.made_of(content)]
        values, reasons = front_end.read(tf.constant(files))
        reasons = np.reshape(reasons, (len(batch), -1))[:, 0]
        reasons = [fault or reason.decode() for fault, reason in zip(faults, reasons, strict=True)]
        return np.reshape(values, (len(batch), *front_end.shape)), reasons

    pool, silent = ThreadPoolExecutor(os.cpu_count()), not is_live(console)
    try:
        with quiet():  # What libraries have to say of a file.
            read = pool.map(made, batches)
            shown = track(read, label, len(batches), console=console, transient=True, disable=silent)
            for number, (values, reasons) in enumerate(shown):
                array[number * size : (number + 1) * size] = values
                refused |= {path: reason for path, reason in zip(batches[number], reasons, strict=True) if reason}
    finally:
        pool.shutdown(cancel_futures=True)
    return array, refused


def _standard_content(path: Path, front_end: FrontEnd) -> tuple[bytes, str]:
    """A file as the front end reads it, or nothing and the rule that the file breaks."""
    try:
        return front_end.standard(path.read_bytes()), ""
    except OSError as error:
        return b"", f"must be a file that can be read. Found: {error.strerror}"
    except UserError as error:
        return b"", str(error)


def load_media(config: DataConfig, console: Console | None = None) -> Source:
    """Reads a folder of media files, or a manifest of them.

    Args:
        config: `data`, `limit`, `skip_bad` and what says how files are read are used.
        console: where progress is shown; None: nowhere.

    Returns:
        A source, aligned if the files belong together. Where the data have parts of their own, it is the training part,
        with the validation and the test part beside it.

    Raises:
        UserError: one line that names the file, the rule, and what was found.
    """
    where = Path(str(config.data))
    whole = _listed(where, config.columns).limited(config.limit)
    hold_out(_speakers(whole)[1] or None, config, str(where))  # Refuses people before minutes of decoding.
    faults = header_faults(whole)
    listing = without(whole, faults, config.skip_bad)
    shapes, taken = _shapes(listing, config)
    spec, made_by = Spec(shapes, listing.class_names), fingerprints()
    read = {
        name: _numbers(listing, name)
        if name in listing.values
        else _read(items, *_of(spec, name), made_by, config.word_copies, console)
        for name, items in listing.items.items()
    }
    for files in read.values():
        faults |= files.faults
    listing = without(whole, faults, config.skip_bad)
    speaker, speaker_names = _speakers(listing)
    rows = {name: files.rows_of(listing.items[name]) for name, files in read.items()}
    here = {name: np.array([item.is_present for item in items]) for name, items in listing.items.items()}
    scans, content = {}, {}
    for name, kind, _ in each_of(spec):
        array, used = read[name].array, rows[name][here[name]]
        numeric = name in listing.values
        scans[name] = scan_finite(array, used, where, kind.allows_missing) if numeric else scan(array, used)
        content[name] = np.zeros(len(here[name]), np.int64)
        content[name][here[name]] = group_ids(scans[name].fingerprint)[0]
        content[name] = own_groups(content[name], None if here[name].all() else here[name])
    grouped = any(item.group for item in listing.everything)
    number, last = {name: label for label, name in enumerate(spec.class_names)}, spec.names[-1]
    data, notes = {}, [*listing.notes, *taken]
    for name, items in listing.items.items():
        label = np.array([number[item.label] for item in items], np.int64)
        group = _groups(content[name], items, grouped)
        who, present = speaker if name == last else None, None if here[name].all() else here[name]
        files = np.array([str(path) for path in read[name].place] or [""], object) if read[name].place else None
        data[name] = ModalityData(
            read[name].array, label, group, rows[name], who, present, copies=read[name].copies, files=files
        )
        notes += _two_labels(f"{kind_named(name).file_noun}s", items, content[name])
    in_files = [name for name in spec.names if name not in listing.values]
    notes += [line for name in in_files for line in blank_lines(scans[name], f"{modality(name).file_noun}s")]
    # That of the last modality is the data's; each other one has its own.
    main = next((name for name in reversed(spec.names) if kind_named(name).suffixes), last)
    info = {
        "name": str(where),
        "layout": listing.layout,
        "files": {f"{kind.called(name)}s": len(np.unique(rows[name][here[name]])) for name, kind, _ in each_of(spec)},
        "keys": {f"{kind.called(name)}s": read[name].key for name, kind, _ in each_of(spec)},
        **{"front_end" if name == main else f"{name}_front_end": read[name].front_end for name in reversed(read)},
        "fingerprints": made_by,
        **{f"{name}_range": [scanned.low, scanned.high] for name, scanned in scans.items()},
        "num_ignored": listing.num_ignored,
        "licence": None,
        **({"grouped_by": "group"} if grouped else {}),
        **({"columns": listing.columns} if listing.columns else {}),
        **({"parts": listing.parts} if listing.parts != ("",) else {}),
    }
    return _in_parts(Source(data, listing.aligned, spec, info, speaker_names, notes=tuple(notes)), listing)


@dataclass(frozen=True, eq=False)
class _Files:
    """The different files of a modality: their features, each file's row in them, and what they are kept under."""

    array: np.ndarray
    place: dict[Path, int]
    key: str
    front_end: str | None
    faults: dict[Path, str]
    copies: np.ndarray | None = None

    def rows_of(self, items: Sequence[Item]) -> np.ndarray:
        """The row of each item's features; any row where it has none."""
        rows = [self.place.get(item.path, 0) if item.row < 0 else item.row for item in items]
        return np.array(rows, np.int64)


def _listed(where: Path, columns: tuple[str, ...]) -> Listing:
    """What a folder or a table holds."""
    if columns:
        return read_columns(where, columns)
    return list_media(where) if where.is_dir() else read_manifest(where)


def _of(spec: Spec, name: str) -> tuple[Modality, ModalitySpec]:
    return modality(spec[name]), spec[name]


def _shapes(listing: Listing, config: DataConfig) -> tuple[dict[str, ModalitySpec], list[str]]:
    """What each modality's rows are, and sentences on what was taken for numbers."""
    shapes, notes = {}, []
    for name in listing.items:
        kind, values = kind_named(name), listing.values.get(name)
        if values is None:
            paths = [item.path for item in listing.items[name] if item.is_present]
            shapes[name], note = kind.spec_of_files(config, paths)
            notes += [note] if note else []
            continue
        shapes[name], note = kind.spec_of(values.shape, listing.where, 1)
        notes += [note] if note else []
    return shapes, notes


def _numbers(listing: Listing, name: str) -> _Files:
    """The rows of numbers of a table; as a key, a hash of them."""
    values = listing.values[name]
    return _Files(values, {}, hashlib.sha256(values.tobytes()).hexdigest()[:32], None, {})


def _read(
    items: tuple[Item, ...],
    kind: Modality,
    shape: ModalitySpec,
    made_by: dict[str, str],
    num_copies: int,
    console: Console | None,
) -> _Files:
    # Bytes hold what files of bytes give; other features need what the network computes in.
    dtype = np.uint8 if kind.is_bounded() else np.float32
    name = kind.front_end(shape)
    front_end = FrontEnd(name, made_by[f"{kind.noun}s"], file_reader(shape), shape.shape, dtype, kind.standard_file)
    rows: dict[Path, int] = {}
    for item in items:
        if item.is_present:
            rows.setdefault(item.path, len(rows))
    array, key, faults = features(list(rows), front_end, console)
    vary = kind.variants(shape, list(rows)) if num_copies else None
    if not vary:
        return _Files(array, rows, key, name, faults)
    copied = replace(
        front_end,
        fingerprint=f"{front_end.fingerprint}-{fingerprint(vary)}",
        shape=(num_copies, *shape.shape),
        dtype=np.float16,
        made_of=lambda content: vary(content, num_copies, zlib.crc32(content)),
    )
    return _Files(array, rows, key, name, faults, features(list(rows), copied, console)[0])


def _in_parts(whole: Source, listing: Listing) -> Source:
    """The training files' source with the data's own validation and test files beside it, where there are such."""
    if listing.parts == ("",):
        return whole

    def taken(part: str) -> Source | None:
        places = {name: [item.part == part for item in items] for name, items in listing.items.items()}
        some = {name: np.flatnonzero(of_part) for name, of_part in places.items()}
        return whole.take(some) if part in listing.parts else None

    training = taken(TRAINING) or whole
    return replace(training, official_val=taken(VALIDATION), official_test=taken(TEST))


def _two_labels(what: str, items: tuple[Item, ...], content: np.ndarray) -> list[str]:
    """A line where files of the same content are in several classes: of one class at most they can be."""
    first: dict[int, Item] = {}
    files = [(key, item) for key, item in zip(content.tolist(), items, strict=True) if item.path != ABSENT]
    pairs = [(first.setdefault(key, item), item) for key, item in files]
    pairs = [(one, other) for one, other in pairs if one.label != other.label]
    if not pairs:
        return []
    one, other = pairs[0]
    such = f"{one.path} ({one.label!r}) and {other.path} ({other.label!r})"
    return [f"{what} of the same content in two classes: {len(pairs):,}, such as {such}"]


def _groups(contents: np.ndarray, items: tuple[Item, ...], grouped: bool) -> np.ndarray:
    """Equal contents belong together, and so do items of one named group."""
    if not grouped:
        return contents
    # Items of no group are groups of their own.
    names = [item.group or f"\0{place}" for place, item in enumerate(items)]
    return joined(contents, np.unique(names, return_inverse=True)[1].astype(np.int64))


def _speakers(listing: Listing) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Who speaks in each file of the last modality, where all are known."""
    names = [item.speaker for item in list(listing.items.values())[-1]]
    if not all(names):
        return None, ()
    unique, place = np.unique(names, return_inverse=True)
    return place.astype(np.int64), tuple(unique.tolist())


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
