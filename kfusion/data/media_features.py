"""Picture and sound files -> a `Source`: decoded once, kept as arrays, scanned as any other data.

Files -> arrays of features, made once and kept in the user's cache: a training on the same files starts at once.

The name of a kept array is a hash of what it was made from (each file's path, size and time of change, and the front
end's name with its shape) and the fingerprint of the front end itself (`front_ends.py`). So a changed file or front
end makes another array, and nothing is ever stale. The folder is `KFUSION_CACHE`, else `$XDG_CACHE_HOME/kfusion`, else
`~/.cache/kfusion`; delete it whenever you like.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import track

from kfusion.cli import quiet
from kfusion.config import DataConfig
from kfusion.data.dataset import ModalityData, Source, blank_lines, group_ids, scan
from kfusion.data.media_files import TEST, TRAINING, VALIDATION, Item, Listing, list_media, read_manifest
from kfusion.data.splits import hold_out, joined
from kfusion.io import is_live, write_atomically, write_json
from kfusion.modalities import each_of
from kfusion.modalities.base import Modality
from kfusion.modalities.front_ends import Reader, file_reader, fingerprints
from kfusion.spec import ModalitySpec, Spec, audio_spec, image_spec
from kfusion.validation import UserError, broken

BATCH = 64
MAX_BYTES = 2**26
"""Larger files are refused before they are read."""


@dataclass(frozen=True)
class FrontEnd:
    """What turns files into features.

    Args:
        name: what its features are called in data.json.
        fingerprint: of what it does.
        read: it.
        shape: of one file's features.
        dtype: in which they are kept.
    """

    name: str
    fingerprint: str
    read: Reader
    shape: tuple[int, ...]
    dtype: type


def cache_folder() -> Path:
    own = os.environ.get("KFUSION_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kfusion"


def cache_key(paths: Sequence[Path], front_end: str) -> str:
    """What the features of these files are kept under."""
    facts: list[object] = [front_end]
    for path in paths:
        status = path.stat()
        facts.append([str(path.absolute()), status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def features(paths: Sequence[Path], front_end: FrontEnd, console: Console | None) -> tuple[np.ndarray, str]:
    """The features of each file, from the cache or made now.

    Args:
        paths: files, each named once.
        front_end: what reads them.
        console: where progress is shown; None: nowhere.

    Returns:
        (n, *shape), a memory map if it could be kept; and the key, which names the files, not kfusion's version.

    Raises:
        UserError: one line for all files that cannot be read, naming the first.
    """
    shape, dtype = front_end.shape, front_end.dtype
    key = cache_key(paths, f"{front_end.name} {shape} {np.dtype(dtype)}")
    kept = cache_folder() / f"{key}-{front_end.fingerprint}.npy"
    found = _kept(kept, (len(paths), *shape), dtype)
    if found is not None:
        return found, key
    array = _made(paths, front_end, console)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, lambda partial: np.save(partial, array))
        write_json(kept.with_suffix(".json"), {"front_end": front_end.name, "crc32": _checksum(kept)})
    except OSError:
        return array, key  # A full or read-only disk costs the next start its time, not this one its data.
    found = _kept(kept, array.shape, dtype)
    return array if found is None else found, key


def _kept(path: Path, shape: tuple[int, ...], dtype: type) -> np.ndarray | None:
    """The array in the cache, unless it is missing, damaged or something else."""
    try:
        noted = json.loads(path.with_suffix(".json").read_text("utf-8"))["crc32"]
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        sound = array.shape == shape and array.dtype == dtype and _checksum(path) == noted
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    return array if sound else None


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value


def _made(paths: Sequence[Path], front_end: FrontEnd, console: Console | None) -> np.ndarray:
    """Reads all files, in batches."""
    array, refused = np.empty((len(paths), *front_end.shape), front_end.dtype), []
    starts = range(0, len(paths), BATCH)
    shown = is_live(console)
    label = f"reading {len(paths):,} files"
    for start in track(starts, label, console=console, transient=True, disable=not shown):
        batch = paths[start : start + BATCH]
        contents = tf.constant([_content(path) for path in batch])
        with quiet():  # What libjpeg has to say of a file.
            values, reasons = front_end.read(contents)
        array[start : start + len(batch)] = values
        refused += [(path, reason.decode()) for path, reason in zip(batch, reasons.numpy(), strict=True) if reason]
    if refused:
        path, reason = refused[0]
        more = f" (and {len(refused) - 1:,} more of {len(paths):,} files cannot be read)" if len(refused) > 1 else ""
        raise UserError(f"{path}: {reason}{more}")
    return array


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if not 0 < size <= MAX_BYTES:
            raise broken(path, f"a file must have 1 byte to {MAX_BYTES // 2**20} MB", f"{size:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise broken(path, "must be a file that can be read", error.strerror) from None


def load_media(config: DataConfig, console: Console | None = None) -> Source:
    """Reads a folder of picture and sound files, or a manifest of them.

    Args:
        config: `data`, `image_shape` and `limit` are used.
        console: where progress is shown; None: nowhere.

    Returns:
        A source, aligned if the files are pairs; its spec's pixels are in [0, 255]. Where the data have parts of their
        own, it is the training part, with the validation and the test part beside it.

    Raises:
        UserError: one line that names the file, the rule, and what was found.
    """
    where = Path(config.data)
    listing = (list_media(where) if where.is_dir() else read_manifest(where)).limited(config.limit)
    hold_out(_speakers(listing)[1] or None, config, str(where))  # Refuses people before minutes of decoding.
    shapes = {name: _shape_of(name, config) for name in listing.items}
    spec, made_by = Spec(shapes, listing.class_names), fingerprints()
    read = {name: _read(listing.items[name], kind, shape, made_by, console) for name, kind, shape in each_of(spec)}
    scans = {name: scan(each.array, each.row) for name, each in read.items()}
    content = {name: group_ids(found.fingerprint)[0] for name, found in scans.items()}
    speaker, speaker_names = _speakers(listing)
    grouped = any(item.group for item in listing.everything)
    last, nouns = list(listing.items)[-1], {name: f"{kind.file_noun}s" for name, kind, _ in each_of(spec)}
    front_ends = {name: each.front_end for name, each in read.items()}
    whole = Source(
        data={
            name: ModalityData(
                read[name].array,
                _labels(items, spec),
                _groups(content[name], items, grouped),
                read[name].row,
                speaker if name == last else None,
            )
            for name, items in listing.items.items()
        },
        aligned=listing.aligned,
        spec=spec,
        info={
            "name": str(where),
            "layout": listing.layout,
            "files": {f"{kind.noun}s": len(read[name].array) for name, kind, _ in each_of(spec)},
            "keys": {f"{kind.noun}s": read[name].key for name, kind, _ in each_of(spec)},
            # That of the last modality is the data's; each other one has its own.
            "front_end": front_ends.pop(last),
            **{f"{name}_front_end": front_end for name, front_end in front_ends.items()},
            "fingerprints": made_by,
            **{f"{name}_range": [found.low, found.high] for name, found in scans.items()},
            "num_ignored": listing.num_ignored,
            "licence": None,
            **({"grouped_by": "group"} if grouped else {}),
            **({"parts": listing.parts} if listing.parts != ("",) else {}),
        },
        speaker_names=speaker_names,
        notes=(
            *listing.notes,
            *(line for name, items in listing.items.items() for line in _two_labels(nouns[name], items, content[name])),
            *blank_lines(scans[spec.names[0]], nouns[spec.names[0]]),
        ),
    )
    return _in_parts(whole, listing)


def _shape_of(name: str, config: DataConfig) -> ModalitySpec:
    """What the files of a modality are brought to."""
    return image_spec(config.image_shape) if name == "image" else audio_spec()


@dataclass(frozen=True, eq=False)
class _Read:
    """The different files of a modality: their features, each item's row in them, and what they are kept under."""

    array: np.ndarray
    row: np.ndarray
    key: str
    front_end: str


def _read(
    items: tuple[Item, ...], kind: Modality, shape: ModalitySpec, made_by: dict[str, str], console: Console | None
) -> _Read:
    # Bytes hold what files of bytes give; other features need what the network computes in.
    dtype = np.uint8 if kind.is_bounded() else np.float32
    name = kind.front_end(shape)
    front_end = FrontEnd(name, made_by[f"{kind.noun}s"], file_reader(shape), shape.shape, dtype)
    rows: dict[Path, int] = {}
    for item in items:
        rows.setdefault(item.path, len(rows))
    array, key = features(list(rows), front_end, console)
    return _Read(array, np.array([rows[item.path] for item in items], np.int64), key, name)


def _in_parts(whole: Source, listing: Listing) -> Source:
    """The training files' source with the data's own validation and test files beside it, where there are such."""
    if listing.parts == ("",):
        return whole
    found = {
        part: whole.take({name: _places(items, part) for name, items in listing.items.items()})
        for part in listing.parts
    }
    return replace(found[TRAINING], official_val=found.get(VALIDATION), official_test=found.get(TEST))


def _places(items: tuple[Item, ...], part: str) -> np.ndarray:
    return np.flatnonzero([item.part == part for item in items])


def _two_labels(what: str, items: tuple[Item, ...], content: np.ndarray) -> list[str]:
    """A line where files of the same content are in several classes: of one class at most they can be."""
    labels, first, found = [item.label for item in items], {}, []
    for place, key in enumerate(content.tolist()):
        before = first.setdefault(key, place)
        if labels[before] != labels[place]:
            found.append((items[before], items[place]))
    if not found:
        return []
    one, other = found[0]
    such = f"{one.path} ({one.label!r}) and {other.path} ({other.label!r})"
    return [f"{what} of the same content in two classes: {len(found):,}, such as {such}"]


def _labels(items: tuple[Item, ...], spec: Spec) -> np.ndarray:
    number = {name: label for label, name in enumerate(spec.class_names)}
    return np.array([number[item.label] for item in items], np.int64)


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
