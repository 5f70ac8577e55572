"""The samples of an export: the few that a run keeps, the requests made of them, and what must come back.

A run keeps them in `samples.npz`, so that it can be exported where its data are not, taken evenly over the classes.
Test samples verify an export; training samples fix the ranges of an 8-bit file.

    test_label, train_label     int64 (n,)
    test_row, train_row         int64 (n,), each sample's number in that part of the split
    test_{name}, train_{name}   float32 (n, *shape), in the data's own unit, for each modality

Requests are sent as a client would send them, and the network itself says what is expected. Bad requests are made from
good ones; each has words that its refusal must hold. Files are made anew from pixels and features by the modality's
kind (`Modality.sample_file`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import permutations
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kfusion.data.dataset import Pairs
from kfusion.data.splits import Split
from kfusion.exporting.runtimes import Request
from kfusion.exporting.signatures import READ_BYTES, array_signatures, nothing_in
from kfusion.io import read_arrays
from kfusion.metrics.classification import temper
from kfusion.modalities import each_of, modality
from kfusion.modalities.base import with_wrong_value
from kfusion.modalities.front_ends import Reader
from kfusion.model.answers import TINY
from kfusion.model.build import encoder_of
from kfusion.model.trust import EASY, LEAST, MOST_MODALITIES, Trust
from kfusion.prepared_data import load_own
from kfusion.run_dir import SAMPLES, Run
from kfusion.spec import FUSED, SHARES, Caution, Spec
from kfusion.validation import UserError

NUM_ROWS = {"test": 64, "train": 300}
MAX_BYTES = 8 * 10**6
"""Of all samples together: of large ones fewer are kept, one of each part at least."""


@dataclass(frozen=True, eq=False)
class KeptSamples:
    """Samples of a run, for an export.

    Args:
        test: of the test part.
        train: of the training part.
        whole_test: the test part itself, where the data had to be read.
    """

    test: Pairs
    train: Pairs
    whole_test: Pairs | None = None

    @property
    def source(self) -> str:
        """Where the samples come from, in words."""
        return "as training kept them" if self.whole_test is None else "read from the run's data"


def keep_samples(run: Run, parts: Split) -> None:
    """Writes `samples.npz` into a run folder.

    Args:
        run: the run.
        parts: its data.
    """
    arrays = {}
    for part, rows in chosen_rows(parts).items():
        pairs: Pairs = getattr(parts, part)
        arrays |= {f"{part}_label": pairs.label[rows], f"{part}_row": rows}
        for name, values in pairs.read(rows).items():
            nothing = np.isnan(values.reshape(len(values), -1)).all(axis=1)
            values[nothing] = 0  # A sample that lacks a modality has a stand-in here, so that each view is verified.
            arrays[f"{part}_{name}"] = values
    run.write_arrays(SAMPLES, arrays)


def kept_samples(run: Run) -> KeptSamples:
    """The samples that a run keeps; those that it would keep, read from its data, where it is an older one.

    Args:
        run: a finished run.

    Raises:
        UserError: the file is damaged; or an older run's data are gone, or are not those that it was trained on.
    """
    path, spec = run.folder / SAMPLES, run.spec()
    if not path.exists():
        _, parts = load_own(run)
        rows = chosen_rows(parts)
        return KeptSamples(parts.test.take(rows["test"]), parts.train.take(rows["train"]), parts.test)
    arrays = read_arrays(path, "must hold the samples that training wrote")
    return KeptSamples(*(_pairs(arrays, part, spec, path) for part in NUM_ROWS))


def chosen_rows(parts: Split) -> dict[str, np.ndarray]:
    """Which rows of the test part and of the training part are kept, ascending; of those that lack nothing, if any."""
    row_bytes = 4 * sum(shape.num_values for shape in parts.test.spec.modalities.values())
    share = min(1.0, MAX_BYTES / row_bytes / sum(NUM_ROWS.values()))
    chosen = {}
    for part, number in NUM_ROWS.items():
        pairs: Pairs = getattr(parts, part)
        whole = np.flatnonzero(pairs.seen(np.arange(len(pairs))).all(axis=1))
        whole = whole if len(whole) else np.arange(len(pairs))
        chosen[part] = whole[evenly(pairs.label[whole], max(1, int(share * number)))]
    return chosen


def evenly(label: np.ndarray, number: int) -> np.ndarray:
    """Rows of a part, as many of each class as of any other while there are as many, spread over the part.

    Args:
        label: int (n,).
        number: how many rows.

    Returns:
        int64 (min(n, number),), ascending; the first row of a class is among them before any second one.
    """
    order = np.argsort(label, kind="stable")
    _, starts, counts = np.unique(label[order], return_index=True, return_counts=True)
    # In rounds: each class gives one row before any gives another.
    rounds = np.arange(len(label)) - np.repeat(starts, counts)
    owner = np.repeat(np.arange(len(starts)), counts)
    shares = np.bincount(owner[np.argsort(rounds, kind="stable")[:number]], minlength=len(starts))
    by_class = np.split(order, starts[1:])
    spread = [
        rows[np.linspace(0, len(rows) - 1, share).astype(int)] for rows, share in zip(by_class, shares, strict=True)
    ]
    return np.sort(np.concatenate(spread)).astype(np.int64)


def _pairs(arrays: dict[str, np.ndarray], part: str, spec: Spec, path: Path) -> Pairs:
    label = arrays.get(f"{part}_label", np.empty(0))
    values = {name: arrays.get(f"{part}_{name}", np.empty(0)) for name in spec.names}
    shapes = {name: each.shape for name, each in values.items()}
    wanted = {name: (len(label), *shape.shape) for name, shape in spec.modalities.items()}
    if not len(label) or shapes != wanted:
        raise UserError(f"{path}: must hold samples of the run's shapes, {wanted}. Found: {shapes}")
    return Pairs(values, dict.fromkeys(spec.names, np.arange(len(label))), label, spec)


REFUSED = "INVALID_ARGUMENT"
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class BadRequest:
    """A request, what is wrong with it, and a part of the sentence that says so."""

    title: str
    request: Request
    phrase: str


def bad_arrays(signature: str, good: Arrays, spec: Spec) -> Iterator[BadRequest]:
    """Whatever may be wrong with arrays.

    Args:
        signature: an endpoint that takes arrays, under the modalities' names.
        good: a request to it of three rows or more.
        spec: the modalities.
    """

    def bad(title: str, name: str, values: np.ndarray, phrase: str) -> BadRequest:
        return BadRequest(f"{name}: {title}", Request(signature, {**good, name: values}), phrase)

    for name, values in good.items():
        if name not in spec.names:
            continue
        shape, not_finite = f"{name} must have the shape", f"{name} must be finite"
        yield bad("a number", name, values.ravel()[0], shape)
        yield bad("a row without its batch", name, values[0], shape)
        yield bad("flat, as in a file", name, values.reshape(len(values), -1)[:, :-1], shape)
        yield bad("one axis too many", name, values[None], shape)
        yield bad("a last axis too many", name, values[..., None], shape)
        yield bad("too narrow", name, values[:, :-1], shape)
        yield bad("too wide", name, np.concatenate([values, values[:, :1]], axis=1), shape)
        yield bad("other numbers", name, values.astype(np.float64), "")
        if spec[name].num_values > 1 or signature in array_signatures(spec.names):  # A row of NaN alone may be absent.
            found = f"{not_finite}. Received: NaN or infinity, in row 2"
            if not modality(spec[name]).allows_missing:
                yield bad("NaN", name, with_wrong_value(values, np.nan), found)
        yield bad("infinity", name, with_wrong_value(values, np.inf), not_finite)
        yield bad("-infinity", name, with_wrong_value(values, -np.inf), not_finite)
        if len(good) > 1:
            yield bad("fewer rows", name, values[:-1], "must have the same number of rows")
            yield bad("a single row", name, values[:1], "must have the same number of rows")
        for title, wrong, phrase in modality(spec[name]).bad_values(name, values):
            yield bad(title, name, wrong, phrase)
    empty = {name: values[:0] for name, values in good.items()}
    yield BadRequest("no rows", Request(signature, empty), "must have one row or more")


def bad_files(signature: str, good: Arrays, spec: Spec) -> Iterator[BadRequest]:
    """Whatever may be wrong with files.

    Args:
        signature: an endpoint that takes files.
        good: a request to it of three rows, in which every modality is present; the last row gets the bad file.
        spec: the modalities.
    """
    kinds = {f"{name}_bytes": kind for name, kind, _ in each_of(spec) if f"{name}_bytes" in good}
    arrays = [name for name in good if name not in kinds]

    def bad(title: str, phrase: str, **changed: Any) -> BadRequest:
        return BadRequest(title, Request(signature, {**good, **changed}), phrase)

    nothing = {name: _with_last(good[name], b"") for name in kinds} | {name: good[name] * np.nan for name in arrays}
    yield bad(nothing_in(tuple(kinds), arrays), "in row 2", **nothing)
    for name, kind in kinds.items():
        for title, content, phrase in kind.bad_files(good[name][2]):
            yield bad(title, f"{name}, row 2: {phrase}", **{name: _with_last(good[name], content)})
    (first, *_), (last, kind) = kinds, list(kinds.items())[-1]
    if len(good) > 1:
        yield bad(f"fewer {kind.file_noun}s", "must have the same number of rows", **{last: good[last][:2]})
    alone, shape = np.array(good[first][0], object), "must have the shape (batch,)"
    yield bad(f"a {kinds[first].file_noun} without its batch", f"{first} {shape}", **{first: alone})
    yield bad(f"{kind.file_noun}s of two axes", f"{last} {shape}", **{last: good[last][:, None]})
    yield bad(f"numbers as {kinds[first].file_noun}s", "", **{first: np.zeros(3, np.float32)})
    yield bad("no files at all", "must have one row or more", **{name: values[:0] for name, values in good.items()})
    if arrays:
        yield from bad_arrays(signature, good, spec)


def _with_last(files: np.ndarray, content: bytes) -> np.ndarray:
    """Files, object (n,), the last of which is another."""
    changed = files.copy()
    changed[-1] = content
    return changed


class Expected:
    """What a network predicts, called through Keras as training and evaluation call it.

    Args:
        network: {name: values, "present"} -> probabilities.
        spec: the modalities and class names.
        temperature: for each of `spec.views`; empty: probabilities stay as they are.
        trust: of the network; None: nothing is said of it.
        caution: how much the network is to be trusted.
    """

    def __init__(
        self,
        network: keras.Model,
        spec: Spec,
        temperature: Mapping[str, float],
        trust: Trust | None = None,
        caution: Caution | None = None,
    ) -> None:
        self.spec, self.temperature, self.trust, self.caution = spec, temperature, trust, caution or Caution()
        whole: Any = keras.Model(network.input, [network.output, network.get_layer("fusion").output])
        inputs = {name: tf.TensorSpec((None, *each.shape[1:]), each.dtype) for name, each in network.input.items()}
        # Graphs: without one, a call takes as long for one row as for hundreds.
        self.network = _graph(whole, inputs)
        self.encoders = {name: _graph(encoder_of(network, name), inputs[name]) for name in spec.names}

    def outputs(self, values: Mapping[str, np.ndarray], present: np.ndarray) -> Arrays:
        """The outputs of an endpoint.

        Args:
            values: float32 (n, *shape) for each modality, in the network's unit.
            present: bool (n, modalities).
        """
        names, said, used = self.spec.names, dict[str, np.ndarray](), present
        familiarity = np.ones(present.shape)
        if self.trust:
            encoded = {name: encoder(values[name]) for name, encoder in self.encoders.items()}
            inner = {name: each[int(self.trust.taught)] for name, each in encoded.items()}
            familiarity = self.trust.familiarity(inner, tf.constant(present)).numpy()
            both = self.trust.rests_on(tf.constant(familiarity), tf.constant(present), self.caution.turn_away)
            used, accepted = (each.numpy() for each in both)
            said = {"familiarity": familiarity, "used": used, "accepted": accepted}
        raw, state = self._ask(values, used)
        label, rows = raw.argmax(axis=1), np.arange(len(raw))
        alone = {}
        for at, name in enumerate(names):
            seen = present & (np.arange(len(names)) == at)
            own = self._ask(values, np.where(seen.any(axis=1, keepdims=True), seen, present))[0]
            alone[name] = np.where(present[:, [at]], self._tempered(own, name, familiarity[:, [at]]), 0.0)
        # One modality of several is tempered as it is alone.
        several = used.sum(axis=1, keepdims=True) >= min(2, len(names))
        one = sum(np.where(used[:, [at]], each, 0.0) for at, each in enumerate(alone.values()))
        if self.trust:
            thresholds = self.trust.thresholds(self.caution.coverage)[(used << np.arange(len(names))).sum(axis=1)]
            said["prediction_set"] = raw >= thresholds[:, None]
            said["prediction_set"][rows, label] = True

        def named(classes: np.ndarray) -> np.ndarray:
            return np.array([self.spec.class_names[each].encode() for each in classes], object)

        return {
            "probabilities": np.where(several, self._tempered(raw, FUSED, np.where(used, familiarity, 0)), one),
            "label": label,
            "class_name": named(label),
            **{f"{name}_probabilities": each for name, each in alone.items()},
            **{
                f"{name}_class_name": np.where(present[:, at], named(each.argmax(axis=1)), b"")
                for at, (name, each) in enumerate(alone.items())
            },
            "embedding": state,
            "present": present,
            **({SHARES: self._shares(values, used, label)} if len(names) <= MOST_MODALITIES else {}),
            **said,
        }

    def _ask(self, values: Mapping[str, np.ndarray], seen: np.ndarray) -> tuple[np.ndarray, ...]:
        """Probabilities, and the fused embedding."""
        return tuple(map(np.asarray, self.network({**values, "present": seen})))

    def _shares(self, values: Mapping[str, np.ndarray], used: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Shapley values as the mean gain over all orders in which modalities may come."""
        num, rows = len(self.spec.names), np.arange(len(label))
        orders, total = list(permutations(range(num))), np.zeros(used.shape)
        for order in orders:
            seen, before = np.zeros_like(used), None
            for at in (None, *order):
                if at is not None:
                    seen[:, at] = used[:, at]
                own = self._ask(values, seen)[0].astype(np.float64)
                others = own.copy()
                others[rows, label] = 0
                odds = np.log(np.maximum(own[rows, label], TINY)) - np.log(np.maximum(others.sum(axis=1), TINY))
                if at is not None:
                    total[:, at] += odds - before
                before = odds
        return total / len(orders)

    def _tempered(self, probabilities: np.ndarray, view: str, familiarity: np.ndarray) -> np.ndarray:
        if not self.temperature:
            return probabilities
        temperature = np.full(len(probabilities), self.temperature[view])
        if self.trust and self.trust.taught:
            strange = 1 - np.minimum(familiarity.max(axis=1), EASY) / EASY
            temperature += np.maximum(LEAST - temperature, 0) * strange
        rows = zip(probabilities[:, None], temperature, strict=True)
        return np.concatenate([temper(row, each) for row, each in rows])


def _graph(network: Any, inputs: Any) -> Any:
    return tf.function(partial(network, training=False), [inputs], autograph=False)


@dataclass(frozen=True, eq=False)
class Samples:
    """Real samples, in the network's unit and in a client's.

    Args:
        values: float32 (n, *shape) for each modality, in the network's unit.
        spec: the modalities.
        files: a file of each sample, object (n,), for each modality that comes in files; empty: none can be read.
        readers: what reads them.
    """

    values: Arrays
    spec: Spec
    files: Arrays = field(default_factory=dict)
    readers: Mapping[str, Reader] = field(default_factory=dict)

    @cached_property
    def read(self) -> Arrays:
        """What the front ends make of the files, called outside the exported graph."""
        read = {name: np.asarray(self.readers[name](tf.constant(files))[0]) for name, files in self.files.items()}
        return self.values | read

    def request(self, signature: str, size: int, whole: bool = False) -> Arrays:
        """A batch of the first samples, going round.

        Args:
            signature: an endpoint's name.
            size: number of rows.
            whole: nothing is absent; else some modalities are, where an endpoint takes files.
        """
        rows, names = self._rows(size), self.spec.names
        scaled = {name: self.values[name][rows] / np.float32(self.spec[name].scale) for name in names}
        if taken := array_signatures(names).get(signature):
            return {name: scaled[name] for name in taken}
        present = np.ones((size, len(names)), bool) if whole else self._present(signature, size)
        inputs = {}
        for index, name in enumerate(names):
            if name in self.files:
                inputs[f"{name}_bytes"] = np.where(present[:, index], self.files[name][rows], b"")
            else:
                inputs[name] = np.where(_as_rows(present[:, index], scaled[name]), scaled[name], np.float32(np.nan))
        return inputs

    def expected(self, signature: str, size: int, expected: Expected) -> Arrays:
        """What the network itself says to a request.

        Args:
            signature: an endpoint's name.
            size: number of rows.
            expected: the network.
        """
        rows, present = self._rows(size), self._present(signature, size)
        from_arrays = signature in array_signatures(self.spec.names)
        values = {name: each[rows] for name, each in (self.values if from_arrays else self.read).items()}
        if signature != READ_BYTES:
            return expected.outputs(values, present)
        read = {}
        for index, (name, shape) in enumerate(self.spec.modalities.items()):
            there = _as_rows(present[:, index], values[name])
            read[name] = np.where(there, values[name] / np.float32(shape.scale), np.float32(0))
        return read | {"present": present}

    def _present(self, signature: str, size: int) -> np.ndarray:
        """Which modalities a request holds, bool (size, modalities); of files, each view's in turn."""
        taken = array_signatures(self.spec.names).get(signature)
        views = list(self.spec.views.values()) if taken is None else [[name in taken for name in self.spec.names]]
        return np.array(views)[np.arange(size) % len(views)]

    def _rows(self, size: int) -> np.ndarray:
        return np.arange(size) % len(next(iter(self.values.values())))


def _as_rows(flags: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Flags (n,) with as many axes as the values (n, …)."""
    return flags.reshape(-1, *[1] * (values.ndim - 1))


def samples_of(pairs: Pairs, size: int, readers: Mapping[str, Reader]) -> Samples:
    """The first samples of a part; as files too, where there are readers.

    Args:
        pairs: the part.
        size: how many, if there are as many.
        readers: for each modality whose files are read.
    """
    values, files = pairs.read(np.arange(min(size, len(pairs)))), dict[str, np.ndarray]()
    for name, kind, shape in each_of(pairs.spec):
        if name in readers:
            contents = [kind.sample_file(row, shape, number) for number, row in enumerate(values[name])]
            files[name] = np.array(contents, object)
    return Samples(values, pairs.spec, files, readers)
