"""What is judged: a finished run's network, and labelled pairs that it was not trained on.

The one forward pass: what the network answers to each view of each pair, kept so that it runs but once.

Random numbers of the evaluation, keyed by seed, sample and use: two runs agree, whatever is computed when.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kfusion.config import DataConfig
from kfusion.data.dataset import Pairs, Source, pair_by_label
from kfusion.data.loaders import is_media, load
from kfusion.data.statistics import require_scale, require_within
from kfusion.io import read_arrays, read_back, write_atomically
from kfusion.metrics.modality_conflicts import partners
from kfusion.model.build import Halves
from kfusion.prepared_data import load_own
from kfusion.random_streams import sample_keys, uniform
from kfusion.run_dir import Run
from kfusion.spec import FUSED, MODALITIES, VIEWS, Spec
from kfusion.validation import UserError

CONFLICT = 1
"""The use that setting samples against each other has; the corruptions' uses follow it."""
PER_USE = 4096
"""Numbers that `random_streams.uniform` gives to one use."""
USES = 1024
"""Uses that are set aside for each purpose here: images of up to four million values."""


def draw(seed: int, rows: np.ndarray, purpose: int, num: int) -> np.ndarray:
    """Numbers in [0, 1): float32 (n, num).

    Args:
        seed: ≥ 0.
        rows: int (n,), the samples' places in their part.
        purpose: what they are for.
        num: how many per sample, at most `PER_USE` · `USES`.
    """
    keys = tf.constant(sample_keys(seed, 0, rows))
    starts = range(0, num, PER_USE)
    blocks = [uniform(keys, purpose * USES + at, min(PER_USE, num - start)) for at, start in enumerate(starts)]
    return tf.concat(blocks, axis=1).numpy()


@dataclass(frozen=True, eq=False)
class Subject:
    """Labelled pairs to judge a network by.

    Args:
        name: of the data.
        part: which of its rows, in words.
        pairs: the rows.
        pixel_max: the brightest value that the network was trained on; the pairs' own may differ.
        group: int64 (n,), which rows share a sound.
        speaker: int64 (n,), index into `speaker_names`; None where it is not known.
        speaker_names: who speaks.
        decibels: whether the sounds are known to be MFCC of decibels.
        others: sounds to make babble of.
        val: the run's own validation part; None with other data.
        notes: what was taken for other data where they leave that open, a line each.
    """

    name: str
    part: str
    pairs: Pairs
    pixel_max: int
    group: np.ndarray
    speaker: np.ndarray | None
    speaker_names: tuple[str, ...]
    decibels: bool
    others: Pairs
    val: Pairs | None = None
    notes: tuple[str, ...] = ()

    def read(self, pairs: Pairs, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images float32 (n, height, width, channels) on the network's scale, and audio float32 (n, num_audio)."""
        image, audio = pairs.read(positions)
        return image * np.float32(self.pixel_max / pairs.spec.pixel_max), audio


def own_data(run: Run) -> Subject:
    """The run's own test part, with its validation part.

    Raises:
        UserError: the data are gone, or are not those that the run was trained on.
    """
    source, parts = load_own(run)
    tested = source.official_test or source
    return _subject(run, tested, parts.test, "test part", parts.val, parts.val)


def sound_groups(source: Source, pairs: Pairs) -> np.ndarray:
    """Which of some pairs of a source share a sound, int64 (n,)."""
    return source.audio_group[pairs.audio_position]


def other_data(run: Run, data: str, test_labels: str, seed: int, force: bool) -> Subject:
    """Other data of the same shapes and classes: their labelled test files where they have them, or else their own
    validation files, or else every row.

    Args:
        run: whose network is judged.
        data: 'builtin' or a folder.
        test_labels: a CSV with the labels of the competition's test files.
        seed: pairs images and sounds by class, where the data do not say which belong together.
        force: take data on another scale too, and all rows of the data that the run was trained on.

    Raises:
        UserError: shapes, classes or scale are not those of the run, or it was trained on these very files.
    """
    spec, facts, trained = run.spec(), run.data(), run.config().data
    # Pictures become arrays of the run's shape; arrays have a shape of their own, which must be the run's.
    shape = _picture_shape(data, spec) if is_media(data) else DataConfig.image_shape
    source = load(DataConfig(data=data, test_labels=test_labels, image_shape=shape))
    _require_same(data, source.spec, spec)
    if not force:
        if not source.official_test and _is_trained_on(source, data, facts["source"], trained):
            rule = "--data must be other data than the run was trained on; leave it out to judge by the run's test part"
            raise UserError(f"{data}: {rule}, or give --force. Found: the same files")
        found = source.info["audio_range"]
        require_scale(data, "audio features", (found[0], found[1]), tuple(facts["audio_range"]))
    part = "test files" if source.official_test else "validation files" if source.official_val else "all rows"
    tested = source.official_test or source.official_val or source
    tested = replace(tested, spec=replace(tested.spec, audio_grid=spec.audio_grid))
    low, high = tested.info["audio_range"]
    require_within(data, "audio features", (low, high), tuple(facts["audio_range"]))
    images = np.arange(len(tested.image_label))
    if tested.aligned:
        sounds = images
    else:
        sounds = pair_by_label(tested.image_label, tested.audio_label, np.random.default_rng(seed))
    pairs = tested.pairs(images, sounds)
    return _subject(run, tested, pairs, part, pairs, None)


def _subject(run: Run, source: Source, pairs: Pairs, part: str, others: Pairs, val: Pairs | None) -> Subject:
    return Subject(
        name=source.info.get("name", "data"),
        part=part,
        pairs=pairs,
        pixel_max=run.spec().pixel_max,
        group=sound_groups(source, pairs),
        speaker=None if source.audio_speaker is None else source.audio_speaker[pairs.audio_position],
        speaker_names=source.speaker_names,
        decibels=source.info["front_end"] is not None,
        others=others,
        val=val,
        notes=source.notes if val is None else (),
    )


def _picture_shape(data: str, trained: Spec) -> tuple[int, ...]:
    """The shape that picture files must be read in, the run's.

    Raises:
        UserError: no picture file can be read so.
    """
    shape = trained.image_shape
    try:
        return DataConfig(image_shape=shape).image_shape
    except UserError:
        found = "picture files, which have 1 or 3 channels and up to 1024 × 1024 pixels"
        raise UserError(f"{data}: images must be those of the run ({_short(shape)}). Found: {found}") from None


def _is_trained_on(source: Source, data: str, known: dict[str, Any], trained: DataConfig) -> bool:
    """Whether these are the data that a run was trained on, as far as its data.json tells.

    Names with sizes, and numbers of files, are the same of other data too: then the values' ranges tell them apart. A
    run that used some of its data only noted the ranges of these.
    """
    found = read_back(source.info)
    same_place = data == trained.data or Path(data).resolve() == Path(trained.data).resolve()
    same_values = all(found[name] == known.get(name) for name in ("image_range", "audio_range"))
    if found["files"] == known.get("files"):
        return same_place or bool(trained.limit) or same_values
    return same_place and bool(trained.limit)


def _require_same(data: str, found: Spec, trained: Spec) -> None:
    """Shapes and classes as in training; pixels may be on another scale."""
    for name, what in (("image_shape", "images"), ("audio_grid", "sounds"), ("class_names", "classes")):
        one, other = getattr(found, name), getattr(trained, name)
        # Flat rows are frames one after the other.
        flat = name == "audio_grid" and found.num_audio == trained.num_audio and 1 in (one[0], other[0])
        if one != other and not flat:
            raise UserError(f"{data}: {what} must be those of the run ({_short(other)}). Found: {_short(one)}")


def _short(values: tuple[Any, ...]) -> str:
    if isinstance(values[0], int):
        return " × ".join(map(str, values))
    return ", ".join(map(repr, values[:6])) + (f" … {len(values)} in all" if len(values) > 6 else "")


BATCH_ROWS = 256
VERSION = "1"
"""Of the arrays' meaning: a file of another is not reused."""
Advance = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Answers:
    """What a network says of a subject.

    Args:
        key: fingerprint of the weights, the rows with their contents, and the seed.
        label: int64 (n,).
        group: int64 (n,), which rows share a sound.
        test: class probabilities, float32 (n, views, num_classes), views in the order of `VIEWS`.
        partner: int64 (2, n), for each row one of another class: [0] whose sound, [1] whose image it is shown with.
        conflict: class probabilities of these, float32 (2, n, num_classes).
        val_label: int64 (v,), of the run's validation part; (0,) with other data.
        val: as `test`.
    """

    key: str
    label: np.ndarray
    group: np.ndarray
    test: np.ndarray
    partner: np.ndarray
    conflict: np.ndarray
    val_label: np.ndarray
    val: np.ndarray

    def view(self, name: str, part: str = "test") -> np.ndarray:
        """The class probabilities of one view, float32 (n, num_classes)."""
        return getattr(self, part)[:, list(VIEWS).index(name)]


def fingerprint(subject: Subject, weights: str, seed: int) -> str:
    """What the answers depend on: any other weight, row, pixel or sound gives another."""
    digest = hashlib.sha256(f"{VERSION} {weights} {seed}".encode())
    for pairs in (subject.pairs, *([subject.val] if subject.val else [])):
        digest.update(pairs.label.astype(np.int64).tobytes())
        for start in range(0, len(pairs), 4096):
            rows = np.arange(start, min(start + 4096, len(pairs)))
            for values in subject.read(pairs, rows):
                digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def ask(subject: Subject, halves: Halves, key: str, seed: int, advance: Advance) -> Answers:
    """Runs the forward pass.

    Args:
        subject: whose pairs.
        halves: of the network.
        key: from `fingerprint`.
        seed: decides who is set against whom.
        advance: told how many rows are done.
    """
    label = subject.pairs.label
    image, audio = _encode(subject, subject.pairs, halves, advance)
    draws = draw(seed, np.arange(len(label)), CONFLICT, len(MODALITIES))
    partner = np.stack([partners(label, draws[:, at]) for at in range(len(MODALITIES))])
    conflict = [_answer(halves, image, audio[partner[0]], FUSED), _answer(halves, image[partner[1]], audio, FUSED)]
    val_label, val = np.zeros(0, np.int64), np.zeros((0, len(VIEWS), subject.pairs.spec.num_classes), np.float32)
    if subject.val is not None:
        val_label, val = subject.val.label, views(subject, subject.val, halves, advance)
    return Answers(key, label, subject.group, _views(halves, image, audio), partner, np.stack(conflict), val_label, val)


def views(subject: Subject, pairs: Pairs, halves: Halves, advance: Advance) -> np.ndarray:
    """Class probabilities of some pairs in each of the `VIEWS`, float32 (n, views, num_classes)."""
    return _views(halves, *_encode(subject, pairs, halves, advance))


def _encode(subject: Subject, pairs: Pairs, halves: Halves, advance: Advance) -> tuple[np.ndarray, np.ndarray]:
    parts = []
    for start in range(0, len(pairs), BATCH_ROWS):
        rows = np.arange(start, min(start + BATCH_ROWS, len(pairs)))
        image, audio = subject.read(pairs, rows)
        parts.append((halves.encode("image", image), halves.encode("audio", audio)))
        advance(len(rows))
    image, audio = zip(*parts, strict=True)
    return np.concatenate(image), np.concatenate(audio)


def _views(halves: Halves, image: np.ndarray, audio: np.ndarray) -> np.ndarray:
    return np.stack([_answer(halves, image, audio, view) for view in VIEWS], axis=1)


def _answer(halves: Halves, image: np.ndarray, audio: np.ndarray, view: str) -> np.ndarray:
    starts = range(0, len(image), 16 * BATCH_ROWS)
    ends = [slice(start, start + 16 * BATCH_ROWS) for start in starts]
    return np.concatenate([halves.answer(image[rows], audio[rows], VIEWS[view]) for rows in ends])


def keep(path: Path, answers: Answers) -> None:
    """Writes the answers beside what they depend on."""
    write_atomically(path, lambda partial: np.savez(partial, allow_pickle=False, **vars(answers)))


def kept(path: Path, key: str) -> Answers | None:
    """The answers in a file; None where there is none, or it belongs to other weights or rows, or is damaged."""
    try:
        arrays = read_arrays(path, "must be what kfusion.evaluate wrote")
    except UserError:
        return None
    own = arrays.keys() == {field.name for field in fields(Answers)} and str(arrays["key"]) == key
    return Answers(**{**arrays, "key": key}) if own else None
