"""What is evaluated and what the network predicts for it: labelled samples that it was not trained on.

    EvaluationSet   the run's own test part (`own_data`), or other labelled data (`other_data`)
    Predictions     the one forward pass, kept in answers.npz and used again while weights and samples are the same

Random numbers of an evaluation are a function of seed, sample and purpose: two evaluations agree, whatever is computed
when.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kfusion.config import DataConfig
from kfusion.data.dataset import Pairs, Source, pair_by_label
from kfusion.data.loaders import is_media, join, load
from kfusion.data.statistics import require_scale, require_within
from kfusion.inference import pool
from kfusion.io import read_arrays, read_back, write_atomically
from kfusion.metrics.modalities import partners
from kfusion.modalities import each_of
from kfusion.model.build import Halves
from kfusion.prepared_data import load_own
from kfusion.random_streams import MAX_NUMBERS, USES_PER_EVALUATION, Stream, sample_keys, uniform
from kfusion.run_dir import Run
from kfusion.spec import FUSED, Spec
from kfusion.validation import UserError

BATCH_ROWS = 256
VERSION = "1"
"""Of the arrays' meaning: a file of another is not reused."""
Advance = Callable[[int], None]


def draw(seed: int, rows: np.ndarray, purpose: int, num: int) -> np.ndarray:
    """Numbers in [0, 1): float32 (n, num).

    Args:
        seed: ≥ 0.
        rows: int (n,), the samples' places in their part.
        purpose: the number of a stream of evaluations, which says what they are for.
        num: how many per sample, at most `MAX_NUMBERS` · `USES_PER_EVALUATION`.
    """
    keys = tf.constant(sample_keys(seed, 0, rows))
    uses = enumerate(range(0, num, MAX_NUMBERS), purpose * USES_PER_EVALUATION)
    blocks = [uniform(keys, use, min(MAX_NUMBERS, num - start)) for use, start in uses]
    return tf.concat(blocks, axis=1).numpy()


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Labelled samples to evaluate a network on.

    Args:
        name: of the data.
        part: which of its rows, in words.
        pairs: the samples.
        trained: the spec of the run; the samples' own scales may differ from it.
        group: int64 (n,), which samples share a row of the last modality, such as a sound.
        speaker: int64 (n,), index into `speaker_names`; None where it is not known.
        speaker_names: who speaks.
        front_end: what made the features; None where nobody knows.
        others: samples whose rows corruptions may mix in.
        val: the run's own validation part; None with other data.
        notes: what was taken for other data where they leave that open, a line each.
        origin: of which of `origins` each sample has each modality, see `Source.origin`; empty: there is but one.
        origins: what the sources are called.
        files: for each modality that comes from files (n,), the file of each sample, "" for none.
    """

    name: str
    part: str
    pairs: Pairs
    trained: Spec
    group: np.ndarray
    speaker: np.ndarray | None
    speaker_names: tuple[str, ...]
    front_end: str | None
    others: Pairs
    val: Pairs | None = None
    notes: tuple[str, ...] = ()
    origin: Mapping[str, np.ndarray] = field(default_factory=dict)
    origins: tuple[str, ...] = ()
    files: Mapping[str, np.ndarray] = field(default_factory=dict)

    def read(self, pairs: Pairs, positions: np.ndarray, version: int = 0) -> dict[str, np.ndarray]:
        """Some samples on the network's scale.

        Args:
            pairs: of which samples; those of this set, or its others.
            positions: int (k,), in [0, len(pairs)).
            version: 0: themselves; else which of their copies.

        Returns:
            float32 (k, *shape) for each modality.
        """
        draws = np.full(len(positions), version) if version else None
        factor = {name: np.float32(self.trained[name].scale / pairs.spec[name].scale) for name in pairs.spec.names}
        return {name: values * factor[name] for name, values in pairs.read(positions, draws).items()}


def whole_rows(pairs: Pairs) -> np.ndarray:
    """The samples that lack no modality, of which alone modalities can be compared: int (k,).

    All samples, where there are fewer than two classes of such.
    """
    whole = np.flatnonzero(pairs.seen(np.arange(len(pairs))).all(axis=1))
    return whole if len(np.unique(pairs.label[whole])) > 1 else np.arange(len(pairs))


def own_data(run: Run) -> EvaluationSet:
    """The run's own test part, with its validation part.

    Raises:
        UserError: the data are gone, or are not those that the run was trained on.
    """
    source, parts = load_own(run)
    return evaluation_set(run.spec(), source.official_test or source, parts.test, "test part", parts.val, parts.val)


def evaluation_set(
    trained: Spec, source: Source, pairs: Pairs, part: str, others: Pairs, val: Pairs | None
) -> EvaluationSet:
    """Samples of a source, with what the source knows of them.

    Args:
        trained: the spec of the run.
        source: the data.
        pairs: samples of it.
        part: which of its rows they are, in words.
        others: samples whose rows corruptions may mix in.
        val: the run's own validation part; None with other data.
    """
    spoken, (name, last) = source.spoken, list(source.data.items())[-1]
    speaker = source[spoken].speaker if spoken else None
    return EvaluationSet(
        name=source.info.get("name", "data"),
        part=part,
        pairs=pairs,
        trained=trained,
        group=last.group[pairs.positions[name]],
        speaker=None if speaker is None else speaker[pairs.positions[spoken]],
        speaker_names=source.speaker_names,
        front_end=source.info["front_end"],
        others=others,
        val=val,
        notes=source.notes if val is None else (),
        origin=source.origin(pairs),
        origins=source.origins,
        files=source.files(pairs),
    )


def other_data(run: Run, data: str | tuple[str, ...], test_labels: str, seed: int, force: bool) -> EvaluationSet:
    """Other data of the same shapes and classes: their labelled test files where they have them, or else their own
    validation files, or else every row.

    Args:
        run: whose network is evaluated.
        data: 'builtin', a folder or a table, or several of these as one.
        test_labels: a CSV with the labels of the competition's test files.
        seed: pairs the modalities' rows by class, where the data do not say which belong together.
        force: take data on another scale too, and all rows of the data that the run was trained on.

    Raises:
        UserError: shapes, classes or scale are not those of the run, or it was trained on these very files.
    """
    spec, facts = run.spec(), run.data()
    config = DataConfig(data=data, test_labels=test_labels)
    sources, data = (
        {each: _read(run, replace(config, data=each)) for each in config.sources},
        " + ".join(config.sources),
    )
    source = next(iter(sources.values())) if len(sources) == 1 else _in_order(join(sources), spec)
    _require_same(data, source.spec, spec)
    if source.info.get("columns", {}) != facts["source"].get("columns", source.info.get("columns", {})):
        raise UserError(f"{data}: columns must be those of the run, in its order. Found: others")
    unbounded = [name for name, kind, _ in each_of(spec) if not kind.is_bounded()]
    if not force:
        for called, own in sources.items():
            if own.official_test or not _is_trained_on(own, called, facts["source"], run.config().data):
                continue
            rule = "--data must be other data than the run was trained on; leave it out to judge by the run's test part"
            raise UserError(f"{called}: {rule}, or give --force. Found: the same files")
        for name in unbounded:
            require_scale(data, f"{name} features", _range(source.info, name), _range(facts, name))
    part = "test files" if source.official_test else "validation files" if source.official_val else "all rows"
    tested = source.official_test or source.official_val or source
    # Flat rows get the grid of the run.
    modalities = {name: replace(shape, grid=spec[name].grid) for name, shape in tested.spec.modalities.items()}
    tested = replace(tested, spec=replace(tested.spec, modalities=modalities))
    for name in unbounded:
        require_within(data, f"{name} features", _range(tested.info, name), _range(facts, name))
    rng, label = np.random.default_rng(seed), tested.anchor.label
    first = next(iter(tested.data))
    pairs = tested.pairs(
        {
            name: np.arange(len(label)) if tested.aligned or name == first else pair_by_label(label, rows.label, rng)
            for name, rows in tested.data.items()
        }
    )
    return evaluation_set(spec, tested, pairs, part, pairs, None)


def _read(run: Run, config: DataConfig) -> Source:
    """One source, as the run's own data were read."""
    data, settings = config.sources[0], {}
    # Files become arrays of the run's shape; arrays have a shape of their own, which must be the run's.
    if is_media(data):
        settings |= _file_settings(data, run.spec())
        if any(kind.windows(shape) for _, kind, shape in each_of(run.spec())):
            settings["word_copies"] = run.config().data.word_copies
    if Path(data).is_file():
        settings["columns"] = run.config().data.columns
    return load(replace(config, **settings))


def _in_order(source: Source, trained: Spec) -> Source:
    """Several sources as one, whose classes have the order of the run's, where they are the same."""
    names = source.spec.class_names
    if set(names) != set(trained.class_names):
        return source
    number = np.array([trained.class_names.index(name) for name in names])
    data = {name: replace(each, label=number[each.label]) for name, each in source.data.items()}
    parts = {
        part: _in_order(own, trained) for part in ("official_val", "official_test") if (own := getattr(source, part))
    }
    return replace(source, data=data, spec=replace(source.spec, class_names=trained.class_names), **parts)


def _range(facts: Mapping[str, Any], name: str) -> tuple[float, float]:
    low, high = facts[f"{name}_range"]
    return low, high


def _file_settings(data: str, trained: Spec) -> dict[str, Any]:
    """The settings with which files are read in the run's shapes.

    Raises:
        UserError: no file can be read so.
    """
    settings = {}
    for _, kind, shape in each_of(trained):
        own = kind.file_settings(shape)
        try:
            DataConfig(**own)
        except UserError:
            rule = f"{kind.noun}s must be those of the run ({_short(shape.grid)})"
            raise UserError(f"{data}: {rule}. Found: {kind.file_noun} files, {kind.file_limits}") from None
        settings |= own
    return settings


def _is_trained_on(source: Source, data: str, known: dict[str, Any], trained: DataConfig) -> bool:
    """Whether these are the data that a run was trained on, as far as its data.json tells.

    Names with sizes, and numbers of files, are the same of other data too: then the values' ranges tell them apart. A
    run that used some of its data only noted the ranges of these.
    """
    info = read_back(source.info)
    same_place = any(data == own or Path(data).resolve() == Path(own).resolve() for own in trained.sources)
    same_values = all(info[f"{name}_range"] == known.get(f"{name}_range") for name in source.spec.names)
    if info["files"] == known.get("files"):
        return same_place or bool(trained.limit) or same_values
    return same_place and (bool(trained.limit) or len(trained.sources) > 1)


def _require_same(data: str, own: Spec, trained: Spec) -> None:
    """Modalities, shapes and classes as in training; pixels may be on another scale."""
    rules: list[tuple[str, tuple, tuple, bool]] = [("modalities", own.names, trained.names, own.names == trained.names)]
    for name, kind, shape in each_of(trained) if own.names == trained.names else ():
        # Flat rows are the frames one after the other.
        flat = own[name].shape == shape.shape and 1 in (own[name].grid[0], shape.grid[0])
        rules.append((f"{kind.noun}s", own[name].grid, shape.grid, own[name].grid == shape.grid or flat))
    rules.append(("classes", own.class_names, trained.class_names, own.class_names == trained.class_names))
    for what, received, wanted, is_same in rules:
        if not is_same:
            raise UserError(f"{data}: {what} must be those of the run ({_short(wanted)}). Found: {_short(received)}")


def _short(values: tuple[Any, ...]) -> str:
    if isinstance(values[0], int):
        return " × ".join(map(str, values))
    return ", ".join(map(repr, values[:6])) + (f" … {len(values)} in all" if len(values) > 6 else "")


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a network predicts for an evaluation set. Views have the order of `Spec.views`.

    Args:
        key: fingerprint of the weights, the rows with their contents, and the seed.
        label: int64 (n,).
        group: int64 (n,), see `EvaluationSet`.
        test: class probabilities, float32 (n, views, num_classes).
        partner: int64 (modalities, n), for each modality, from the last to the first, and each row another row of
            another class, whose values of this modality it is shown with. Empty for a single modality.
        conflict: class probabilities of these, float32 (modalities, n, num_classes).
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


def fingerprint(samples: EvaluationSet, weights: str, seed: int) -> str:
    """What the predictions depend on: any other weight, row or value gives another.

    Args:
        samples: for which the network predicts.
        weights: fingerprint of the network's file.
        seed: decides the conflicts.
    """
    digest = hashlib.sha256(f"{VERSION} {weights} {seed}".encode())
    for pairs in (samples.pairs, *([samples.val] if samples.val else [])):
        digest.update(b"windows" * (pairs.windowed.num_versions - 1))
        digest.update(pairs.label.astype(np.int64).tobytes())
        if pairs.present is not None:
            digest.update(pairs.seen(np.arange(len(pairs))).tobytes())
        for start in range(0, len(pairs), 4096):
            rows = np.arange(start, min(start + 4096, len(pairs)))
            for values in samples.read(pairs, rows).values():
                digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def predict(samples: EvaluationSet, halves: Halves, key: str, seed: int, advance: Advance) -> Predictions:
    """Runs the forward pass.

    Args:
        samples: for which the network predicts.
        halves: of the network.
        key: from `fingerprint`.
        seed: decides which rows are set against each other.
        advance: is given the number of rows that are done.
    """
    label, spec = samples.pairs.label, samples.pairs.spec
    windows = _encode(samples, samples.pairs, halves, advance)
    shuffled = spec.names[::-1] if len(spec.names) > 1 else ()
    draws = draw(seed, np.arange(len(label)), Stream.CONFLICT.number, len(spec.names))
    partner, conflict = np.zeros((0, len(label)), np.int64), np.zeros((0, len(label), spec.num_classes), np.float32)
    if shuffled:
        whole = whole_rows(samples.pairs)
        partner = np.tile(np.arange(len(label)), (len(shuffled), 1))
        for at in range(len(shuffled)):
            partner[at, whole] = whole[partners(label[whole], draws[whole, at])]
        conflict = np.stack(
            [
                pool(np.stack([_head(halves, {**each, name: each[name][rows]}, spec.views[FUSED]) for each in windows]))
                for name, rows in zip(shuffled, partner, strict=True)
            ]
        )
    val_label, val = np.zeros(0, np.int64), np.zeros((0, len(spec.views), spec.num_classes), np.float32)
    if samples.val is not None:
        val_label, val = samples.val.label, predict_views(samples, samples.val, halves, advance)
    test = _views(halves, windows, samples.pairs)
    return Predictions(key, label, samples.group, test, partner, conflict, val_label, val)


def predict_views(samples: EvaluationSet, pairs: Pairs, halves: Halves, advance: Advance) -> np.ndarray:
    """Class probabilities of some samples in each view, float32 (n, views, num_classes).

    Args:
        samples: knows the scale.
        pairs: the samples.
        halves: of the network.
        advance: is given the number of rows that are done.
    """
    return _views(halves, _encode(samples, pairs, halves, advance), pairs)


Embedded = dict[str, np.ndarray]


def _encode(samples: EvaluationSet, pairs: Pairs, halves: Halves, advance: Advance) -> list[Embedded]:
    """The embeddings of each modality, float32 (n, embed_dim), in each window of long files."""
    pairs, found = pairs.windowed, []
    for version in range(pairs.num_versions):
        batches = []
        for start in range(0, len(pairs), BATCH_ROWS):
            rows = np.arange(start, min(start + BATCH_ROWS, len(pairs)))
            read = samples.read(pairs, rows, version)
            batches.append({name: halves.encode(name, values) for name, values in read.items()})
            advance(0 if version else len(rows))
        found.append({name: np.concatenate([batch[name] for batch in batches]) for name in pairs.spec.names})
    return found


def _views(halves: Halves, windows: list[Embedded], pairs: Pairs) -> np.ndarray:
    """The probabilities of each view; from all that a sample has, where it has nothing of the view's."""
    views: list[Any] = list(pairs.spec.views.values())
    if pairs.present is not None:
        own = pairs.seen(np.arange(len(pairs)))
        seen = [own & np.array(view) for view in views]
        views = [np.where(each.any(axis=1, keepdims=True), each, own) for each in seen]
    return np.stack([pool(np.stack([_head(halves, each, present) for each in windows])) for present in views], axis=1)


def _head(halves: Halves, embedded: Embedded, present: Any) -> np.ndarray:
    seen = np.broadcast_to(np.array(present), (len(next(iter(embedded.values()))), len(embedded)))
    num_rows = len(next(iter(embedded.values())))
    blocks = [slice(start, start + 16 * BATCH_ROWS) for start in range(0, num_rows, 16 * BATCH_ROWS)]
    return np.concatenate(
        [halves.answer({name: each[rows] for name, each in embedded.items()}, seen[rows]) for rows in blocks]
    )


def save_predictions(path: Path, predictions: Predictions) -> None:
    """Writes the predictions beside what they depend on.

    Args:
        path: the file.
        predictions: its content.
    """
    write_atomically(path, lambda partial: np.savez(partial, allow_pickle=False, **vars(predictions)))


def load_predictions(path: Path, key: str) -> Predictions | None:
    """The predictions in a file; None where there is none, or it belongs to other weights or rows, or is damaged.

    Args:
        path: the file.
        key: from `fingerprint`.
    """
    try:
        arrays = read_arrays(path, "must be what kfusion.evaluate wrote")
    except UserError:
        return None
    own = arrays.keys() == {field.name for field in fields(Predictions)} and str(arrays["key"]) == key
    return Predictions(**{**arrays, "key": key}) if own else None
