"""The endpoints of an exported model: named inputs, validated; named outputs.

    serving_default   each modality as an array: float32 (batch, *shape), in the unit of a request
    {name}_only       one modality, likewise
    raw_bytes         {name}_bytes for each modality: string (batch,), the content of files; "" where there is none. A
                      modality whose kind has no file form is an array here too, {name}: a row of NaN is absent
    read_bytes        the same inputs

For a picture and a sound, `serving_default` takes image, float32 (batch, height, width, channels) in [0, 1], and audio,
float32 (batch, num_values). Each endpoint gives, for every row, the outputs that `meanings` lists; `read_bytes` gives
what `raw_bytes` reads from the files, as `serving_default` takes it: what the model sees and hears.
Of a file that is longer than those of training, `raw_bytes` pools the answers to its windows; `read_bytes` gives its
middle.

A request that breaks a rule is answered with a sentence that names the input, what it must be and what arrived; a
server hands it on as INVALID_ARGUMENT. It has no quotation marks, since TensorFlow puts a backslash before each.

TensorFlow's optimizer believes what the ops of a graph need: where an input reaches a convolution, or `EnsureShape`,
it takes the input's rank for proven and computes `Rank` and the axes of full reductions beforehand, so that a check by
them no longer checks. Measured with TensorFlow 2.21: such a graph, fed an image of two axes, aborts the process. Hence
inputs are declared without a rank, rules read `tf.shape` only, and `Reshape`, which proves nothing about its input,
parts the checked from the unchecked.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from kfusion.modalities import each_of, modality
from kfusion.modalities.base import MAX_MAGNITUDE
from kfusion.modalities.front_ends import Reader, heard
from kfusion.model.answers import Answers, Counts
from kfusion.model.trust import Trust
from kfusion.spec import SHARES, Caution, Spec

DEFAULT, RAW_BYTES, READ_BYTES = "serving_default", "raw_bytes", "read_bytes"


def array_signatures(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The endpoints of every model, which take arrays, and the modalities that each takes.

    Args:
        names: of the modalities.
    """
    return {DEFAULT: tuple(names), **{f"{name}_only": (name,) for name in names}}


def meanings(spec: Spec) -> dict[str, str]:
    """What each output says of a row: (batch, num_classes), (batch,), (batch, size) or (batch, modalities).

    A model of whose trust nothing is known has no `TRUSTED`, one of very many modalities no shares.
    """
    nouns = {name: kind.called(name) for name, kind, _ in each_of(spec)}
    listed = " and ".join(f"the {noun}" for noun in nouns.values())
    return {
        "probabilities": "the answer to all that is there",
        "label": "its most probable class",
        "class_name": "the name of that class",
        **{
            f"{name}_probabilities": f"the answer to the {nouns[name]} alone; zeros where there is none"
            for name in nouns
        },
        **{
            f"{name}_class_name": f"the class that the {nouns[name]} alone names; empty where there is none"
            for name in nouns
        },
        "embedding": "what the fusion head made of all that is there",
        "present": " ".join(f"{noun} there?" for noun in nouns.values()),
        SHARES: f"what {listed} each add to the log-odds of the label, as Shapley values",
        "familiarity": f"of {listed}: the share of known inputs that are stranger; 0 where there is none",
        "used": f"does the answer rest on {listed}?",
        "accepted": "is any of it familiar? If not, the answer means nothing",
        "prediction_set": "which classes it may be, with the coverage that the model promises",
    }


def one_or_all(nouns: Sequence[str], before: str = "", after: str = "") -> str:
    """What a model takes, in words, such as "an image, a sound, or both".

    Args:
        nouns: one for each modality.
        before: more words, as in "of an image, of a sound, or of both together".
        after: the same.
    """
    each = [f"{before}a{'n' if noun[0] in 'aeiou' else ''} {noun}" for noun in nouns]
    together = "both" if len(nouns) == 2 else "all"
    return each[0] if len(each) == 1 else ", ".join([*each, f"or {before}{together}{after}"])


def why_no_files(spec: Spec, reasons: Mapping[str, str]) -> str:
    """Why a model has no `raw_bytes`; "" where it has.

    It needs every file to be readable; a kind that comes in no files does not prevent it, unless there is no other.

    Args:
        spec: the modalities.
        reasons: for each modality that cannot be read from files, why.
    """
    come_in_files = [name for name, kind, _ in each_of(spec) if kind.suffixes]
    return next((reasons[name] for name in come_in_files or spec.names if name in reasons), "")


def nothing_in(file_inputs: Sequence[str], array_inputs: Sequence[str]) -> str:
    """What a row of `raw_bytes` holds if it holds no modality at all, in words.

    Args:
        file_inputs: names of the inputs that take files.
        array_inputs: names of those that take arrays.
    """
    if array_inputs:
        return "empty strings and NaN"
    return {1: "an empty string", 2: "two empty strings"}.get(len(file_inputs), f"{len(file_inputs)} empty strings")


Text = Callable[[], tf.Tensor]


def _demand(rule: tf.Tensor, text: Text) -> tf.Operation:
    """Fails with a sentence, composed only then, unless the rule holds: bool (), and what gives string ()."""
    return tf.debugging.Assert(rule, [text()], summarize=1)


def _listed(values: tf.Tensor) -> tf.Tensor:
    """A shape in words: int32 (n,) -> "(3, 28, 28)"."""
    return tf.strings.join(["(", tf.strings.reduce_join(tf.strings.as_string(values), separator=", "), ")"])


def _shaped(name: str, values: tf.Tensor, sizes: Iterable[Any]) -> tf.Tensor:
    """The values, if they have the shape (batch, *sizes); else the request fails."""
    sizes, shape = list(sizes), tf.shape(values)
    # Padded, so that one comparison tells a wrong rank and a wrong size without looking past the end.
    padded = tf.concat([shape, tf.fill([len(sizes) + 2], -1)], axis=0)
    rule = tf.reduce_all(tf.equal(padded[1 : len(sizes) + 2], tf.constant([*sizes, -1])), axis=0)
    rule = tf.logical_and(rule, padded[0] >= 0)
    right = f"({', '.join(['batch', *map(str, sizes)])})" if sizes else "(batch,)"
    text = f"{name} must have the shape {right}. Received: "
    with tf.control_dependencies([_demand(rule, lambda: tf.strings.join([text, _listed(shape)]))]):
        return tf.ensure_shape(tf.reshape(values, [-1, *sizes]), [None, *sizes])


def _same_batch(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
    """The inputs, if all have the same number of rows, and one at least; else the request fails."""
    sizes = [tf.shape(values)[0] for values in inputs.values()]
    names = " and ".join(inputs)
    received = tf.strings.reduce_join(tf.strings.as_string(tf.stack(sizes)), separator=" and ")
    text = f"{names} must have the same number of rows. Received: "
    rules = [_demand(tf.equal(sizes[0], size), lambda: tf.strings.join([text, received])) for size in sizes[1:]]
    rules.append(_demand(sizes[0] > 0, lambda: tf.constant(f"{names} must have one row or more. Received: 0")))
    with tf.control_dependencies(rules):
        return {name: tf.identity(values) for name, values in inputs.items()}


def _finite(name: str, values: tf.Tensor) -> tf.Tensor:
    """float32 (batch, …), if none is NaN or infinite; else the request fails, naming the first such row."""
    flat = tf.reshape(values, [tf.shape(values)[0], -1])
    good, text = tf.reduce_all(tf.math.is_finite(flat), axis=1), f"{name} must be finite. Received: NaN or infinity"
    return _for_each_row(values, good, lambda: tf.strings.join([text, ", in row ", _first(good)]))


def _within(name: str, values: tf.Tensor, limit: float) -> tf.Tensor:
    """float32 (batch, …), if none is farther from zero than the limit; else the request fails, naming the first row."""
    flat = tf.reshape(values, [tf.shape(values)[0], -1])
    good = tf.reduce_max(tf.abs(flat), axis=1) <= limit

    def text() -> tf.Tensor:
        row = tf.gather(flat, tf.argmin(tf.cast(good, tf.int32), axis=0))
        value = tf.strings.as_string(tf.gather(row, tf.argmax(tf.abs(row), axis=0)), shortest=True)
        rule = f"{name} must be within {-limit:g} and {limit:g}. Received: "
        return tf.strings.join([rule, value, ", in row ", _first(good)])

    return _for_each_row(values, good, text)


def _within_unit(name: str, values: tf.Tensor) -> tf.Tensor:
    """float32 (batch, …), if all are in [0, 1]; else the request fails, naming the first row that is not."""
    flat = tf.reshape(values, [tf.shape(values)[0], -1])
    inside = tf.reduce_all(tf.logical_and(flat >= 0.0, flat <= 1.0), axis=1)
    text = f"{name} must be in [0, 1]. Received: values outside; divide 0-255 by 255, in row "
    return _for_each_row(values, inside, lambda: tf.strings.join([text, _first(inside)]))


def _for_each_row(values: tf.Tensor, good: tf.Tensor, text: Text) -> tf.Tensor:
    """The values, if `good`, bool (batch,), is true for each row; else the request fails with the sentence."""
    with tf.control_dependencies([_demand(tf.reduce_all(good, axis=0), text)]):
        return tf.identity(values)


def _first(good: tf.Tensor) -> tf.Tensor:
    """The number of the first row that is not good, as a string."""
    return tf.strings.as_string(tf.argmin(tf.cast(good, tf.int32), axis=0))


def _one_present(inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Which modalities each row holds; the request fails where one holds none.

    Args:
        inputs: for each modality string (batch,), "" where it is absent; or float32 (batch, …), NaN where it is.

    Returns:
        bool (batch, modalities).
    """
    files = [name for name, values in inputs.items() if values.dtype == tf.string]
    arrays = [name for name in inputs if name not in files]
    present = tf.stack([_is_present(values) for values in inputs.values()], axis=1)
    *others, last = inputs
    must = f"{', '.join(others)} or {last}" if others else last
    what = " or ".join(["a file"] * bool(files) + ["numbers"] * bool(arrays))
    text = f"{must} must hold {what}. Received: {nothing_in(files, arrays) if files else 'NaN'}, in row "
    good = tf.reduce_any(present, axis=1)
    return _for_each_row(present, good, lambda: tf.strings.join([text, _first(good)]))


def _is_present(values: tf.Tensor) -> tf.Tensor:
    if values.dtype == tf.string:
        return tf.not_equal(values, "")
    flat = tf.reshape(values, [tf.shape(values)[0], -1])
    # NaN alone differs from itself.
    return tf.reduce_any(tf.equal(flat, flat), axis=1)


def _readable(name: str, values: tf.Tensor, reason: tf.Tensor) -> tf.Tensor:
    """What was read from files, if no row has a reason, string (batch,), why not; else the request fails with it."""
    good = tf.equal(reason, "")
    why = tf.gather(reason, tf.argmin(tf.cast(good, tf.int32), axis=0))
    # Anything but ASCII comes out of TensorFlow as numbers.
    text = [f"{name}, row ", _first(good), ": ", tf.strings.regex_replace(why, "×", "x")]
    return _for_each_row(values, good, lambda: tf.strings.join(text))


ANY_SHAPE: Any = None
Tensors = dict[str, tf.Tensor]


class Endpoints:
    """A network as endpoints.

    Args:
        network: {name: values, "present"} -> probabilities, of `kfusion.model.build`.
        spec: the modalities and class names.
        temperature: for each of `spec.views`, by which its probabilities are tempered; empty: they stay as they are.
        readers: for each modality that comes in files, what reads them; empty: no `raw_bytes`.
        limits: for each modality how far from zero its values may be, in the network's unit; left out: very far.
        trust: of the network; None: nothing is said of it.
        caution: how much the network is to be trusted.
    """

    def __init__(
        self,
        network: keras.Model,
        spec: Spec,
        temperature: Mapping[str, float],
        readers: Mapping[str, Reader],
        limits: Mapping[str, float] | None = None,
        trust: Trust | None = None,
        caution: Caution | None = None,
    ) -> None:
        self.spec, self.readers, self.limits = spec, readers, limits or {}
        cutters = {name: kind.windows(shape, in_graph=True) for name, kind, shape in each_of(spec) if name in readers}
        self.cutters = {name: cutter for name, cutter in cutters.items() if cutter}
        self.arrays = array_signatures(spec.names)
        self.answers = Answers(network, spec, temperature, trust, caution)

    @property
    def names(self) -> list[str]:
        """The signatures that there are."""
        return [*self.arrays, *((RAW_BYTES, READ_BYTES) if self.readers else ())]

    def inputs(self, signature: str) -> dict[str, tf.TensorSpec]:
        """What an endpoint takes: the shape and type of each input, by its name."""
        specs = {}
        for name in self.arrays.get(signature, self.spec.names):
            if signature in self.arrays or name not in self.readers:
                specs[name] = tf.TensorSpec((None, *self.spec[name].shape), tf.float32, name)
            else:
                specs[f"{name}_bytes"] = tf.TensorSpec((None,), tf.string, f"{name}_bytes")
        return specs

    def predict(self, signature: str, inputs: Mapping[str, tf.Tensor]) -> Tensors:
        """The outputs of an endpoint.

        Args:
            signature: its name.
            inputs: its inputs, of any shape; what breaks a rule fails the request.
        """
        specs = self.inputs(signature).items()
        values = _same_batch(**{name: _shaped(name, inputs[name], spec.shape[1:]) for name, spec in specs})
        if signature in self.arrays:
            own = {name: self._in_own_unit(name, each) for name, each in values.items()}
            return self._predicted(own, self._present(own))
        read, present, counts = self._read(values, self.cutters if signature == RAW_BYTES else {})
        if signature == RAW_BYTES:
            return self._predicted(read, present, counts)
        scaled = {
            name: each / float(self.spec[name].scale) if self.spec[name].scale > 1 else each
            for name, each in read.items()
        }
        return {name: tf.identity(each, name=f"read_{name}") for name, each in (scaled | {"present": present}).items()}

    def _present(self, values: Tensors) -> tf.Tensor | None:
        """Which modalities the rows of arrays have, bool (batch, modalities); None: each that `values` has."""
        may_lack = [name for name in values if modality(self.spec[name]).allows_missing]
        if not may_lack:
            return None
        columns = dict(zip(values, tf.unstack(_one_present(values), axis=1), strict=True))
        none = tf.zeros_like(next(iter(columns.values())))
        return tf.stack([columns.get(name, none) for name in self.spec.names], axis=1)

    def _read(self, inputs: Tensors, cutters: Mapping[str, Any]) -> tuple[Tensors, tf.Tensor, Tensors]:
        """Files and arrays -> each modality in the network's unit, zeros where it is absent; and what is present.

        Of modalities whose files are cut, the values of all windows, and how many each row has.
        """
        present, read, counts = _one_present(inputs), Tensors(), Tensors()
        with tf.control_dependencies([present]):
            for index, name in enumerate(self.spec.names):
                if name in self.readers:
                    contents = tf.identity(inputs[f"{name}_bytes"])
                    if name in cutters:
                        contents, counts[name] = cutters[name](contents)
                    values, reason = self.readers[name](contents)
                    if name in cutters:
                        values, reason, counts[name] = heard(values, reason, counts[name])
                    read[name] = _readable(f"{name}_bytes", values, reason)
                else:
                    there = tf.reshape(present[:, index], [-1] + [1] * len(self.spec[name].shape))
                    read[name] = self._in_own_unit(name, tf.where(there, inputs[name], tf.zeros_like(inputs[name])))
        return read, present, counts

    def _in_own_unit(self, name: str, values: tf.Tensor) -> tf.Tensor:
        """A request's values in the network's unit; those that are not finite or too large fail the request.

        NaN passes where numbers may be missing.
        """
        kind, scale = modality(self.spec[name]), float(self.spec[name].scale)
        known = tf.equal(values, values)
        checked = _finite(name, tf.where(known, values, tf.zeros_like(values)) if kind.allows_missing else values)
        if kind.is_bounded():
            checked = _within_unit(name, checked)
        else:
            checked = _within(name, checked, self.limits.get(name, MAX_MAGNITUDE) / scale)
        checked = checked if scale == 1 else checked * scale
        return tf.where(known, checked, values) if kind.allows_missing else checked

    def _predicted(
        self, values: Mapping[str, tf.Tensor], present: tf.Tensor | None = None, counts: Counts | None = None
    ) -> Tensors:
        """The outputs for some modalities, or all of them.

        Args:
            values: in the network's unit.
            present: bool (batch, modalities); None: all that `values` has.
            counts: see `Answers`.
        """
        there: Any = present
        if present is None:
            batch = tf.shape(next(iter(values.values())))[0]
            there = tf.repeat(tf.constant([[name in values for name in self.spec.names]]), batch, axis=0)
        outputs = self.answers(values, there, counts)
        class_names = tf.constant(self.spec.class_names)
        outputs |= {"class_name": tf.gather(class_names, outputs["label"]), "present": there}
        for at, name in enumerate(self.spec.names):
            named = tf.gather(class_names, tf.argmax(outputs[f"{name}_probabilities"], axis=1))
            outputs[f"{name}_class_name"] = tf.where(there[:, at], named, "")
        return {name: tf.identity(outputs[name], name=name) for name in meanings(self.spec) if name in outputs}


def write_saved_model(folder: Path, network: keras.Model, endpoints: Endpoints) -> None:
    """Writes `saved_model.pb` and its weights.

    Args:
        folder: where to.
        network: what the endpoints are made of.
        endpoints: all of them are written.
    """
    specs = {signature: endpoints.inputs(signature) for signature in endpoints.names}
    graphs = {}
    for signature, inputs in specs.items():
        # Without a rank: see above. Concrete: Keras' ExportArchive has TensorFlow trace each function twice.
        unranked = [tf.TensorSpec(ANY_SHAPE, each.dtype, name) for name, each in inputs.items()]
        answer = tf.function(partial(_predict, endpoints, signature, tuple(inputs)), unranked, autograph=False)
        graphs[signature] = answer.get_concrete_function()
    tracked: Any = tf.Module()
    tracked.weights = [each.value for each in network.variables]
    tf.saved_model.save(tracked, str(folder), graphs)
    _declare_shapes(folder, specs)


def _predict(endpoints: Endpoints, signature: str, names: tuple[str, ...], *values: tf.Tensor) -> Tensors:
    return endpoints.predict(signature, dict(zip(names, values, strict=True)))


def _declare_shapes(folder: Path, specs: Mapping[str, Mapping[str, tf.TensorSpec]]) -> None:
    """Writes the inputs' shapes to where clients and `saved_model_cli` read them; the graph stays as it is."""
    path = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in saved.meta_graphs:
        for signature, inputs in specs.items():
            for name, spec in inputs.items():
                graph.signature_def[signature].inputs[name].tensor_shape.CopyFrom(spec.shape.as_proto())
    path.write_bytes(saved.SerializeToString(deterministic=True))
    # The fingerprint is of the file as it was.
    (folder / "fingerprint.pb").unlink(missing_ok=True)
