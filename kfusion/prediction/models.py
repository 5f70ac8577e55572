"""What answers: the network of a run folder, or an exported version; both give the same for the same rows.

An exported version runs through TensorFlow's C API, by the endpoints that a server uses: it needs neither Keras nor
Python's TensorFlow, which are imported where a run is loaded and not before.
"""

import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kfusion.cli import quiet
from kfusion.data.statistics import Range, as_range
from kfusion.io import file_hash, read_json
from kfusion.modalities import each_of, kinds
from kfusion.prediction.inputs import Arrays, Files
from kfusion.prediction.outputs import Probabilities
from kfusion.run_dir import open_finished, read_temperature
from kfusion.runtime.c_api import Refused, ServedModel, library
from kfusion.runtime.protos import ASSETS, LABELS, Signature, read_labels, read_signatures
from kfusion.spec import FUSED, SHARES, TRUSTED, Caution, ModalitySpec, Spec
from kfusion.validation import UserError, broken


class Model(Protocol):
    """What answers rows."""

    folder: Path
    spec: Spec
    ranges: dict[str, Range]
    """Lowest and highest value of each modality that is not bounded, at training; without those that nobody knows."""
    confidence_note: str
    """What the confidences are, for the terminal."""
    note: str
    """What else is to be known of this model before files are read; "" for nothing."""
    identity: str
    """Tells this model from another."""
    unreadable: dict[str, str]
    """For each modality whose files this model cannot read: why."""
    columns_of_tables: dict[str, str | list[str]]
    """What the columns of a table are, where the training data were one; see `data.columns.Columns`."""

    def prepare(self, rows: Arrays | Files) -> Arrays | Files:
        """What can be done ahead of the answer, in another thread."""
        ...

    def answer(self, rows: Arrays | Files) -> Probabilities:
        """The probabilities, and `TRUSTED` and `SHARES` where the model has them; see `outputs.Probabilities`.

        Those of rows with a reason mean nothing. Reasons may be added to the rows.
        """
        ...


def load_model(folder: Path, all_views: bool, caution: Caution | None = None) -> Model:
    """The model in a folder.

    Args:
        folder: a run folder, or an exported version.
        all_views: also predict from each modality alone.
        caution: how much a run's network is to be trusted; None: as usual, or as a version was exported.

    Raises:
        UserError: it is neither, or it is damaged.
    """
    if (folder / "config.json").is_file():
        with quiet():
            import tensorflow  # noqa: F401
        return RunModel(folder, all_views, caution)
    if (folder / "saved_model.pb").is_file():
        if caution is not None:
            rule = "'turn_away' and 'coverage' must be left out with an exported version, which has its own"
            raise UserError(f"{rule}. Received: {caution.turn_away:g} and {caution.coverage:g}")
        with quiet():
            library()
        return VersionModel(folder, all_views)
    received = "neither" if folder.is_dir() else "a file" if folder.exists() else "no such folder"
    versions = sorted(int(path.name) for path in folder.glob("*/") if path.name.isdecimal())
    if versions:
        received = f"version{'s' * (len(versions) > 1)} {', '.join(map(str, versions))}; name one of them"
    raise UserError(f"{folder}: MODEL must be a run folder or an exported version. Found: {received}")


class RunModel:
    """The best network of a finished run.

    Args:
        folder: the run folder.
        all_views: also predict from each modality alone.
        caution: how much it is to be trusted; None: as usual.

    Raises:
        UserError: it is not a finished run, or a file of it is damaged.
    """

    def __init__(self, folder: Path, all_views: bool, caution: Caution | None = None) -> None:
        import tensorflow as tf

        from kfusion.inference import load_fitting
        from kfusion.modalities.front_ends import note_on, readers_of
        from kfusion.model.answers import Answers
        from kfusion.model.trust import read_trust

        run = open_finished(folder)
        facts = run.data()
        self.folder, self.spec, self.all_views = folder, run.spec(), all_views
        self.ranges = _ranges(facts, folder / "data.json", self.spec)
        self.unreadable = readers_of(self.spec, facts["source"])[1]
        self.columns_of_tables = facts["source"].get("columns", {})
        self.note = note_on(facts["source"])
        temperature, trust, caution = read_temperature(run), read_trust(run), caution or Caution()
        calibrated = f"tempered by {run.calibration.name}" if temperature else "the network's own, not calibrated"
        self.confidence_note = f"confidences: {calibrated}"
        self.identity = f"{file_hash(run.best)} {temperature}{f' {caution}' if trust else ''}"
        network = load_fitting(run)
        answers = Answers(network, self.spec, temperature, trust, caution)
        scale = {name: float(shape.scale) for name, shape in self.spec.modalities.items()}
        signature = {name: tf.TensorSpec(x.shape, x.dtype) for name, x in network.input.items()}

        def answer(batch: dict[str, Any], counts: Any = None) -> Any:
            values = {name: batch[name] * scale[name] if scale[name] != 1 else batch[name] for name in scale}
            return answers(values, batch["present"], counts)

        self._cutters = {name: kind.windows(shape) for name, kind, shape in each_of(self.spec)}
        counted = {name: tf.TensorSpec((None,), tf.int32) for name, cutter in self._cutters.items() if cutter}
        # Traced where the first long file comes.
        self._pooling = tf.function(answer, input_signature=[signature, counted], autograph=False)
        # Concrete: to TensorFlow, the functions of several runs in one process look like one that is traced again.
        answering = tf.function(lambda batch: answer(batch), input_signature=[signature], autograph=False)
        self._answer = answering.get_concrete_function()

    def prepare(self, rows: Arrays | Files) -> Arrays:
        """Reads files as the training data were read."""
        if isinstance(rows, Arrays):
            return rows
        values, reasons, counts = {}, [rows.reason], {}
        for name, contents in rows.contents.items():
            if name in rows.numbers:
                values[name] = rows.numbers[name]
                continue
            read, reason, num = self._read_windows(name, contents)
            counts |= {} if num is None else {name: num}
            scale = self.spec[name].scale
            values[name] = read if scale == 1 else read / np.float32(scale)
            reasons.append(reason)
        reason = [next(filter(None, row), "") for row in zip(*reasons, strict=True)]
        several = counts if any((num > 1).any() for num in counts.values()) else {}
        return Arrays(values, rows.present, reason, several)

    def _read_windows(self, name: str, contents: Sequence[bytes]) -> tuple[Any, list[str], np.ndarray | None]:
        """As `_read`, of all windows of the files; and how many each file has, None where they are never cut."""
        cut = self._cutters[name]
        if cut is None:
            return *self._read(name, contents), None
        from kfusion.modalities.front_ends import heard

        parts = [[window.content for window in cut(content)] for content in contents]
        counts = np.array([len(part) for part in parts], np.int32)
        values, reason = self._read(name, [piece for part in parts for piece in part])
        if (counts == 1).all():
            return values, reason, counts
        values, reason, counts = (each.numpy() for each in heard(values, reason, counts))
        return values, [text.decode() for text in reason], counts

    def _read(self, name: str, contents: Sequence[bytes]) -> tuple[np.ndarray, list[str]]:
        """Files of one modality as a network takes them, and why some could not be read."""
        import tensorflow as tf

        from kfusion.modalities import front_ends

        if not any(contents):
            return np.zeros((len(contents), *self.spec[name].shape), np.float32), [""] * len(contents)
        try:
            with quiet(even_if_failing=True):
                values, reason = front_ends.file_reader(self.spec[name])(tf.constant(contents))
            return values.numpy(), [f"{name}: {text.decode()}" if text else "" for text in reason.numpy()]
        except tf.errors.OpError as error:
            # What only the decoder finds damaged fails the whole batch: in two parts, it fails alone in the end.
            if len(contents) == 1:
                text = f"{name}: cannot be decoded. Found: {_first_line(str(error.message))}"
                return np.zeros((1, *self.spec[name].shape), np.float32), [text]
            middle = len(contents) // 2
            parts = [self._read(name, part) for part in (contents[:middle], contents[middle:])]
            return np.concatenate([values for values, _ in parts]), [text for _, reason in parts for text in reason]

    def answer(self, rows: Arrays | Files) -> Probabilities:
        """See `Model`."""
        import tensorflow as tf

        rows = self.prepare(rows)
        # A row must hold something, even where its prediction will be thrown away.
        present = rows.present | ~rows.present.any(axis=1, keepdims=True)
        batch = {name: tf.constant(values) for name, values in {**rows.values, "present": present}.items()}
        outputs = self._pooling(batch, rows.counts) if rows.counts else self._answer(batch)
        columns = _columns(self.spec, self.all_views, outputs)
        return {view: outputs[column].numpy() for view, column in columns.items()}


def _columns(spec: Spec, all_views: bool, outputs: Container[str]) -> dict[str, str]:
    """Which output is which of `Probabilities`.

    Args:
        spec: the modalities.
        all_views: each modality's own too.
        outputs: the names of those that there are.
    """
    columns = {FUSED: "probabilities", **{name: f"{name}_probabilities" for name in spec.names}}
    if len(spec.names) == 1:  # What its only modality says alone is the answer.
        columns = dict.fromkeys(columns, columns[FUSED])
    columns = columns if all_views else {FUSED: columns[FUSED]}
    return columns | {name: name for name in (*TRUSTED, SHARES) if name in outputs}


def _first_line(message: str) -> str:
    """The first line of an operation's message, without the graph's names."""
    line = message.splitlines()[0]
    return line.removeprefix("{{function_node ").partition("}} ")[2] or line


def _ranges(facts: Any, path: Path, spec: Spec) -> dict[str, Range]:
    """The range of each modality that is not bounded, as a file notes them.

    Raises:
        UserError: the file is damaged.
    """
    noted = facts if isinstance(facts, dict) else {}
    unbounded = [name for name, kind, _ in each_of(spec) if not kind.is_bounded()]
    return {name: as_range(noted.get(f"{name}_range"), path, name) for name in unbounded}


DEFAULT, FILES, READ = "serving_default", "raw_bytes", "read_bytes"
"""Endpoints for all modalities: as arrays, as files, and what is read from files."""
_ASSERTED = re.compile(r"assertion failed: \[(.*?)\](?:\s*\[\[.*)?", re.DOTALL)
_PLACE = re.compile(r"(\w+)_bytes, row \d+: ")


class VersionModel:
    """A SavedModel that `kfusion.export` wrote.

    Args:
        folder: the version's.
        all_views: also predict from each modality alone.

    Raises:
        UserError: it cannot be loaded, or was written by something else.
    """

    def __init__(self, folder: Path, all_views: bool) -> None:
        self.folder, signatures, facts = folder, read_signatures(folder), folder / ASSETS / "data.json"
        noted = read_json(facts) if facts.is_file() else {}
        if not (folder / ASSETS / LABELS).is_file() or DEFAULT not in signatures:
            raise _another(folder)
        self.spec = _spec(folder, noted, signatures)
        self.columns = _columns(self.spec, all_views, signatures[DEFAULT].outputs)
        # What takes the arrays of some modalities and nothing else, by these.
        self.endpoints = {frozenset(known.inputs): name for name, known in sorted(signatures.items())}
        self.endpoints[frozenset(self.spec.names)] = DEFAULT
        self.ranges = _ranges(noted, facts, self.spec) if facts.is_file() else {}
        self.columns_of_tables = noted.get("columns", {})
        self.unreadable = {
            name: f"it has no endpoint {FILES}" if kind.suffixes else kind.unreadable(None, shape)
            for name, kind, shape in each_of(self.spec)
            if not kind.suffixes or FILES not in signatures
        }
        self.confidence_note, self.note = "confidences: as the exported model gives them", ""
        try:
            self._served = ServedModel(folder)
        except Refused as error:
            received = str(error).partition("\n")[0]
            raise UserError(f"{folder}: must be a SavedModel that can be loaded. Found: {received}") from error
        parts = [folder / "saved_model.pb", *sorted((folder / "variables").glob("*"))]
        self.identity = " ".join(map(file_hash, parts))

    def prepare(self, rows: Arrays | Files) -> Arrays | Files:
        """Nothing: the version reads files itself."""
        return rows

    def answer(self, rows: Arrays | Files) -> Probabilities:
        """See `Model`."""
        good, answers = np.array([not reason for reason in rows.reason]), Probabilities()
        wide = {"familiarity": len(self.spec.names), "used": len(self.spec.names), SHARES: len(self.spec.names)}
        for view in self.columns:
            shape = (len(good),) if view == "accepted" else (len(good), wide.get(view, self.spec.num_classes))
            answers[view] = np.zeros(shape, bool if view in ("used", "accepted", "prediction_set") else np.float32)
        if isinstance(rows, Files):
            self._answer_files(rows, np.flatnonzero(good), answers)
            return answers
        for present in np.unique(rows.present[good], axis=0):
            names = [name for name, here in zip(self.spec.names, present, strict=True) if here]
            chosen = np.flatnonzero(good & (rows.present == present).all(axis=1))
            endpoint = self.endpoints.get(frozenset(names))
            if endpoint is None:
                for row in chosen:
                    rows.reason[row] = f"a row must have all modalities or one. Found: {' and '.join(names)}"
                continue
            # A whole batch needs no copy.
            whole = len(chosen) == len(good)
            values = {name: rows.values[name] if whole else rows.values[name][chosen] for name in names}
            self._ask(endpoint, values, answers, chosen)
        return answers

    def _ask(self, endpoint: str, inputs: dict[str, Any], answers: Probabilities, chosen: np.ndarray) -> None:
        """Puts what an endpoint returns into the answers to some rows."""
        # By their names in order, as the signature has them.
        outputs = self._served.ask(endpoint, dict(sorted(inputs.items())), tuple({*self.columns.values()}))
        for view, column in self.columns.items():
            answers[view][chosen] = outputs[column]

    def read(self, rows: Files) -> Arrays:
        """What the version makes of one row of files, before it answers."""
        try:
            with quiet(even_if_failing=True):
                inputs = dict(sorted(self._file_inputs(rows, np.arange(1)).items()))
                read = self._served.ask(READ, inputs, (*self.spec.names, "present"))
        except Refused as error:
            zeros = {name: np.zeros((1, *shape.shape), np.float32) for name, shape in self.spec.modalities.items()}
            return Arrays(zeros, np.zeros((1, len(zeros)), bool), [_sentence(str(error))])
        return Arrays({name: read[name] for name in self.spec.names}, read["present"], [""])

    def _file_inputs(self, rows: Files, chosen: np.ndarray) -> dict[str, Any]:
        inputs = {}
        for name, kind, shape in each_of(self.spec):
            if kind.suffixes:
                inputs[f"{name}_bytes"] = np.array([rows.contents[name][row] for row in chosen], object)
            elif name in rows.numbers:
                inputs[name] = rows.numbers[name][chosen]
            else:  # A row of NaN is absent.
                inputs[name] = np.full((len(chosen), *shape.shape), np.nan, np.float32)
        return inputs

    def _answer_files(self, rows: Files, chosen: np.ndarray, answers: Probabilities) -> None:
        """One bad file fails its batch: each part is tried again, until the file is alone."""
        if not len(chosen):
            return
        try:
            with quiet(even_if_failing=True):
                self._ask(FILES, self._file_inputs(rows, chosen), answers, chosen)
        except Refused as error:
            if len(chosen) == 1:
                rows.reason[chosen[0]] = _sentence(str(error))
                return
            for part in np.array_split(chosen, 2):
                self._answer_files(rows, part, answers)


def _sentence(text: str) -> str:
    """An endpoint's message on a bad row, without the graph's names and the row's number in the batch."""
    asserted = _ASSERTED.fullmatch(text)
    return _PLACE.sub(r"\1: ", " ".join((asserted[1] if asserted else text.partition(" [[{{")[0]).split()), count=1)


def _another(folder: Path) -> UserError:
    rule = "must be a version made by 'python -m kfusion.export'"
    return UserError(f"{folder}: {rule}. Found: another SavedModel")


def _spec(folder: Path, noted: Any, signatures: dict[str, Signature]) -> Spec:
    """The modalities of a version: those that it notes; else of each kind that has an endpoint of its own.

    Args:
        folder: the version's.
        noted: the content of its data.json.
        signatures: its endpoints, by name.

    Raises:
        UserError: it declares no shapes, or was written by something else.
    """
    names = tuple(read_labels(folder, signatures[DEFAULT]))
    if isinstance(noted, dict) and "modalities" in noted:
        try:
            shapes = dict(Spec.from_json({**noted, "class_names": names}).modalities)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            rule = "'modalities' must hold a kind and a shape for each name"
            raise broken(folder / ASSETS / "data.json", rule, error) from None
    else:
        inputs = {kind: signatures[f"{kind}_only"].inputs.get(kind) for kind in kinds() if f"{kind}_only" in signatures}
        shapes = {}
        for kind, tensor in inputs.items():
            shape = (tensor[2] or ())[1:] if tensor else ()
            if not shape or min(shape) < 1:
                raise UserError(f"a version must declare the shapes of its inputs. Found: {kind} {shape}")
            # How many frames a sound has is not declared: it is one.
            shapes[kind] = ModalitySpec(kind, shape, (1, *shape) if len(shape) == 1 else shape)
    if not shapes or not {f"{name}_only" for name in shapes} <= signatures.keys():
        raise _another(folder)
    return Spec(shapes, names)
