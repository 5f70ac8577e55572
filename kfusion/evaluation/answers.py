"""The one forward pass: what the network answers to each view of each pair, kept so that it runs but once."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from kfusion.analysis.deciding import partners
from kfusion.data.pairs import Pairs
from kfusion.evaluation.draws import CONFLICT, draw
from kfusion.evaluation.subject import Subject
from kfusion.model.halves import Halves
from kfusion.rules import UserError
from kfusion.spec import FUSED, MODALITIES, VIEWS
from kfusion.system.files import read_arrays, write_atomically

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
