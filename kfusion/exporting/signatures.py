"""The endpoints of an exported model: named inputs, guards, named outputs.

    serving_default   image float32 (batch, height, width, channels) in [0, 1], audio float32 (batch, num_audio)
    image_only        image
    audio_only        audio
    raw_bytes         image_bytes, audio_bytes: string (batch,), the content of files; "" where there is none
    read_bytes        the same

Each gives, for every row, the `OUTPUTS`; the last one what `raw_bytes` reads from the files, as `serving_default`
takes it: what the model sees and hears.

What stands between a request and the network: rules that answer a bad request with a sentence.

A rule's sentence names the input, what it must be and what arrived; a server hands it on as INVALID_ARGUMENT. It has
no quotation marks, since TensorFlow puts a backslash before each.

TensorFlow's optimizer believes what the ops of a graph need: where an input reaches a convolution, or `EnsureShape`,
it takes the input's rank for proven and computes `Rank` and the axes of full reductions beforehand, so that a check by
them no longer checks. Measured with TensorFlow 2.21: such a graph, fed an image of two axes, aborts the process. Hence
inputs are declared without a rank, rules read `tf.shape` only, and `Reshape`, which proves nothing about its input,
parts the checked from the unchecked.

What turns files into what a run's network takes, where that is known.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from kfusion.data.statistics import MAX_MAGNITUDE
from kfusion.modalities.audio.features import can_read_sounds
from kfusion.modalities.front_ends import Reader, file_reader
from kfusion.run_dir import Run
from kfusion.spec import FUSED, MODALITIES, VIEWS, Spec


def front_end_of(run: Run) -> tuple[dict[str, Reader], str]:
    """What reads files for a run's network, for each modality; or nothing, and why.

    Returns:
        readers, and a reason that is empty where there are some.
    """
    spec, front_end = run.spec(), run.data()["source"]["front_end"]
    channels = spec.image_shape[2]
    if front_end is None:
        return {}, "how sounds became this data's features is not known"
    if not can_read_sounds(front_end, spec):
        return {}, f"sound files cannot be turned into features of the front end {front_end!r}"
    if channels not in (1, 3):
        return {}, f"picture files have 1 or 3 channels, this data's images {channels}"
    # Every endpoint calls the same functions: tracing them takes most of an export's time.
    return {name: file_reader(name, spec) for name in MODALITIES}, ""


Text = Callable[[], tf.Tensor]


def demand(rule: tf.Tensor, text: Text) -> tf.Operation:
    """Fails with a sentence, composed only then, unless the rule holds.

    Args:
        rule: bool ().
        text: gives the sentence, string ().
    """
    return tf.debugging.Assert(rule, [text()], summarize=1)


def listed(values: tf.Tensor) -> tf.Tensor:
    """int32 (n,) -> "(3, 28, 28)"."""
    return tf.strings.join(["(", tf.strings.reduce_join(tf.strings.as_string(values), separator=", "), ")"])


def shaped(name: str, values: tf.Tensor, sizes: Sequence[int]) -> tf.Tensor:
    """The values, if they have the shape (batch, *sizes); else the request fails."""
    shape = tf.shape(values)
    # Padded, so that one comparison tells a wrong rank and a wrong size without looking past the end.
    padded = tf.concat([shape, tf.fill([len(sizes) + 2], -1)], axis=0)
    rule = tf.reduce_all(tf.equal(padded[1 : len(sizes) + 2], tf.constant([*sizes, -1])), axis=0)
    rule = tf.logical_and(rule, padded[0] >= 0)
    right = f"({', '.join(['batch', *map(str, sizes)])})" if sizes else "(batch,)"
    text = f"{name} must have the shape {right}. Received: "
    with tf.control_dependencies([demand(rule, lambda: tf.strings.join([text, listed(shape)]))]):
        return tf.ensure_shape(tf.reshape(values, [-1, *sizes]), [None, *sizes])


def same_batch(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
    """The inputs, if all have the same number of rows, and one at least; else the request fails."""
    sizes = [tf.shape(values)[0] for values in inputs.values()]
    names = " and ".join(inputs)
    received = tf.strings.reduce_join(tf.strings.as_string(tf.stack(sizes)), separator=" and ")
    text = f"{names} must have the same number of rows. Received: "
    rules = [demand(tf.equal(sizes[0], size), lambda: tf.strings.join([text, received])) for size in sizes[1:]]
    rules.append(demand(sizes[0] > 0, lambda: tf.constant(f"{names} must have one row or more. Received: 0")))
    with tf.control_dependencies(rules):
        return {name: tf.identity(values) for name, values in inputs.items()}


def finite(name: str, values: tf.Tensor) -> tf.Tensor:
    """float32 (batch, …), if none is NaN or infinite; else the request fails, naming the first such row."""
    flat = tf.reshape(values, [tf.shape(values)[0], -1])
    return _each_row(name, values, tf.reduce_all(tf.math.is_finite(flat), axis=1), "be finite", "NaN or infinity")


def within(name: str, values: tf.Tensor, limit: float) -> tf.Tensor:
    """float32 (batch, …), if none is farther from zero than the limit; else the request fails, naming the first row."""
    flat = tf.reshape(values, [tf.shape(values)[0], -1])
    good = tf.reduce_max(tf.abs(flat), axis=1) <= limit

    def text() -> tf.Tensor:
        row = tf.gather(flat, tf.argmin(tf.cast(good, tf.int32), axis=0))
        value = tf.strings.as_string(tf.gather(row, tf.argmax(tf.abs(row), axis=0)), shortest=True)
        rule = f"{name} must be within {-limit:g} and {limit:g}. Received: "
        return tf.strings.join([rule, value, ", in row ", first(good)])

    with tf.control_dependencies([demand(tf.reduce_all(good, axis=0), text)]):
        return tf.identity(values)


def within_unit(name: str, values: tf.Tensor) -> tf.Tensor:
    """float32 (batch, …), if all are in [0, 1]; else the request fails, naming the first row that is not."""
    flat = tf.reshape(values, [tf.shape(values)[0], -1])
    inside = tf.reduce_all(tf.logical_and(flat >= 0.0, flat <= 1.0), axis=1)
    return _each_row(name, values, inside, "be in [0, 1]", "values outside; divide 0-255 by 255")


def _each_row(name: str, values: tf.Tensor, good: tf.Tensor, rule: str, found: str) -> tf.Tensor:
    """The values, if `good`, bool (batch,), is true for each row."""
    text = f"{name} must {rule}. Received: {found}, in row "
    with tf.control_dependencies([demand(tf.reduce_all(good, axis=0), lambda: tf.strings.join([text, first(good)]))]):
        return tf.identity(values)


def first(good: tf.Tensor) -> tf.Tensor:
    """The number of the first row that is not good, as a string."""
    return tf.strings.as_string(tf.argmin(tf.cast(good, tf.int32), axis=0))


def one_present(image_bytes: tf.Tensor, audio_bytes: tf.Tensor) -> tf.Tensor:
    """Which modalities a row of files holds, bool (batch, 2); the request fails where one holds none."""
    present = tf.stack([tf.not_equal(image_bytes, ""), tf.not_equal(audio_bytes, "")], axis=1)
    text = "image_bytes or audio_bytes must hold a file. Received: two empty strings, in row "
    good = tf.reduce_any(present, axis=1)
    with tf.control_dependencies([demand(tf.reduce_all(good, axis=0), lambda: tf.strings.join([text, first(good)]))]):
        return tf.identity(present)


def readable(name: str, values: tf.Tensor, reason: tf.Tensor) -> tf.Tensor:
    """What was read from files, if none has a reason, string (batch,), why it could not be read."""
    good = tf.equal(reason, "")
    why = tf.gather(reason, tf.argmin(tf.cast(good, tf.int32), axis=0))
    # Anything but ASCII comes out of TensorFlow as numbers.
    text = [f"{name}, row ", first(good), ": ", tf.strings.regex_replace(why, "×", "x")]
    with tf.control_dependencies([demand(tf.reduce_all(good, axis=0), lambda: tf.strings.join(text))]):
        return tf.identity(values)


SIGNATURES = ("serving_default", "image_only", "audio_only")
"""Of every model."""
RAW_BYTES, READ_BYTES = "raw_bytes", "read_bytes"
"""Of models whose front end is known."""
OUTPUTS = {
    "probabilities": "the answer to all that is there",
    "label": "its most probable class",
    "class_name": "the name of that class",
    "image_probabilities": "the answer to the image alone; zeros where there is none",
    "audio_probabilities": "the answer to the sound alone; zeros where there is none",
    "embedding": "what the fusion head made of all that is there",
    "present": "image there? sound there?",
}
"""What each endpoint gives for every row of its batch: (batch, num_classes), (batch,), (batch, size) or (batch, 2)."""
ANY_SHAPE: Any = None
Answer = dict[str, tf.Tensor]


class Endpoints:
    """A network as endpoints.

    Args:
        network: {"image", "audio", "present"} -> probabilities, of `kfusion.model.build`.
        spec: the shapes and class names.
        temperature: for each of the `VIEWS`, by which its probabilities are tempered; empty: they stay as they are.
        readers: for each modality, what reads its files; empty: no `raw_bytes`.
        audio_limit: how far from zero a sound's values may be.
    """

    def __init__(
        self,
        network: keras.Model,
        spec: Spec,
        temperature: Mapping[str, float],
        readers: Mapping[str, Reader],
        audio_limit: float = MAX_MAGNITUDE,
    ) -> None:
        self.spec, self.temperature, self.readers, self.audio_limit = spec, temperature, readers, audio_limit
        self.encoders = {
            name: keras.Model(network.input[name], network.get_layer(f"{name}_embedding_dropout").output)
            for name in MODALITIES
        }
        asked = [network.get_layer("steps").output, network.input["present"]]
        self.head = keras.Model(asked, [network.output, network.get_layer("fusion").output])

    @property
    def names(self) -> list[str]:
        """The signatures that there are."""
        return [*SIGNATURES, *((RAW_BYTES, READ_BYTES) if self.readers else ())]

    def serving_default(self, image: tf.Tensor, audio: tf.Tensor) -> Answer:
        inputs = same_batch(image=self._image_shaped(image), audio=self._audio_shaped(audio))
        return self._answer(self._pixels(inputs["image"]), self._features(inputs["audio"]))

    def image_only(self, image: tf.Tensor) -> Answer:
        return self._answer(image=self._pixels(same_batch(image=self._image_shaped(image))["image"]))

    def audio_only(self, audio: tf.Tensor) -> Answer:
        return self._answer(audio=self._features(same_batch(audio=self._audio_shaped(audio))["audio"]))

    def raw_bytes(self, image_bytes: tf.Tensor, audio_bytes: tf.Tensor) -> Answer:
        return self._answer(**self._read(image_bytes, audio_bytes))

    def read_bytes(self, image_bytes: tf.Tensor, audio_bytes: tf.Tensor) -> Answer:
        read = self._read(image_bytes, audio_bytes)
        outputs = {**read, "image": read["image"] / float(self.spec.pixel_max)}
        return {name: tf.identity(values, name=f"read_{name}") for name, values in outputs.items()}

    def _read(self, image_bytes: tf.Tensor, audio_bytes: tf.Tensor) -> Answer:
        """Files -> image, audio and present, as the network takes them; zeros for what is absent."""
        given = {"image_bytes": image_bytes, "audio_bytes": audio_bytes}
        given = same_batch(**{name: shaped(name, values, ()) for name, values in given.items()})
        present = one_present(**given)
        read = {}
        with tf.control_dependencies([present]):
            for name in MODALITIES:
                values, reason = self.readers[name](tf.identity(given[f"{name}_bytes"]))
                read[name] = readable(f"{name}_bytes", values, reason)
        return {**read, "present": present}

    def _image_shaped(self, image: tf.Tensor) -> tf.Tensor:
        return shaped("image", image, self.spec.image_shape)

    def _audio_shaped(self, audio: tf.Tensor) -> tf.Tensor:
        return shaped("audio", audio, (self.spec.num_audio,))

    def _pixels(self, image: tf.Tensor) -> tf.Tensor:
        """[0, 1] -> the network's own units."""
        return within_unit("image", finite("image", image)) * float(self.spec.pixel_max)

    def _features(self, audio: tf.Tensor) -> tf.Tensor:
        return within("audio", finite("audio", audio), self.audio_limit)

    def _answer(
        self, image: tf.Tensor | None = None, audio: tf.Tensor | None = None, present: tf.Tensor | None = None
    ) -> Answer:
        """What the network says of images, sounds, or both; each is encoded once."""
        given = {name: values for name, values in (("image", image), ("audio", audio)) if values is not None}
        embedded = {name: self.encoders[name](values, training=False) for name, values in given.items()}
        any_of_them = next(iter(embedded.values()))
        steps = tf.stack([embedded.get(name, tf.zeros_like(any_of_them)) for name in MODALITIES], axis=1)
        batch = tf.shape(steps)[0]
        everywhere = tf.constant([[name in given for name in MODALITIES]])
        there: Any = tf.repeat(everywhere, batch, axis=0) if present is None else present
        views = VIEWS if len(given) == len(MODALITIES) else {FUSED: VIEWS[FUSED]}
        # One call of the head for all views: at a batch of one, the number of ops is what takes the time.
        asked = tf.concat([tf.logical_and(there, tf.constant([view])) for view in views.values()], axis=0)
        said, state = self.head([tf.tile(steps, [len(views), 1, 1]), asked], training=False)
        answers = dict(zip(views, tf.split(said, len(views)), strict=True))
        return self._named(answers, state[:batch], there)

    def _named(self, answers: Mapping[str, tf.Tensor], embedding: tf.Tensor, present: tf.Tensor) -> Answer:
        """The outputs, from the answers to each view; where only one modality is given, the fused one is its answer."""
        label = tf.argmax(answers[FUSED], axis=1, output_type=tf.int64)
        alone = {}
        for index, name in enumerate(MODALITIES):
            tempered = self._tempered(answers.get(name, answers[FUSED]), self.temperature.get(name, 1.0))
            alone[name] = tf.where(present[:, index : index + 1], tempered, tf.zeros_like(tempered))
        fused = self._tempered(answers[FUSED], self.temperature.get(FUSED, 1.0))
        both = tf.reduce_all(present, axis=1, keepdims=True)
        outputs = {
            "probabilities": tf.where(both, fused, alone["image"] + alone["audio"]),
            "label": label,
            "class_name": tf.gather(tf.constant(self.spec.class_names), label),
            **{f"{name}_probabilities": alone[name] for name in MODALITIES},
            "embedding": tf.reshape(embedding, [tf.shape(embedding)[0], embedding.shape[-1]]),
            "present": present,
        }
        return {name: tf.identity(values, name=name) for name, values in outputs.items()}

    def _tempered(self, probabilities: tf.Tensor, temperature: float) -> tf.Tensor:
        """p'ₖ = pₖ^(1/T) / Σⱼ pⱼ^(1/T), as `metrics.classification.temper`."""
        if temperature == 1.0:
            return probabilities
        logs = tf.math.log(tf.maximum(probabilities, float(np.finfo(np.float32).tiny)))
        return tf.nn.softmax(logs / temperature, axis=1)


def input_specs(spec: Spec) -> dict[str, dict[str, tf.TensorSpec]]:
    """What each endpoint takes: {signature: {input: its shape and type}}."""
    image = tf.TensorSpec((None, *spec.image_shape), tf.float32, "image")
    audio = tf.TensorSpec((None, spec.num_audio), tf.float32, "audio")
    files = [tf.TensorSpec((None,), tf.string, f"{name}_bytes") for name in MODALITIES]
    taken = {"serving_default": [image, audio], "image_only": [image], "audio_only": [audio]}
    taken |= {RAW_BYTES: files, READ_BYTES: files}
    return {signature: {str(each.name): each for each in given} for signature, given in taken.items()}


def write_saved_model(folder: Path, network: keras.Model, endpoints: Endpoints) -> None:
    """Writes `saved_model.pb` and its weights into a folder."""
    specs = {name: given for name, given in input_specs(endpoints.spec).items() if name in endpoints.names}
    archive: Any = keras.export.ExportArchive()
    archive.track(network)
    for signature, given in specs.items():
        # Without a rank: see `guards`.
        unranked = [tf.TensorSpec(ANY_SHAPE, each.dtype, name) for name, each in given.items()]
        archive.add_endpoint(signature, getattr(endpoints, signature), unranked)
    archive.write_out(str(folder), verbose=False)
    _declare_shapes(folder, specs)


def _declare_shapes(folder: Path, specs: Mapping[str, Mapping[str, tf.TensorSpec]]) -> None:
    """Writes the inputs' shapes to where clients and `saved_model_cli` read them; the graph stays as it is."""
    path = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in saved.meta_graphs:
        for signature, given in specs.items():
            for name, spec in given.items():
                graph.signature_def[signature].inputs[name].tensor_shape.CopyFrom(spec.shape.as_proto())
    path.write_bytes(saved.SerializeToString(deterministic=True))
    # It speaks of the file as it was.
    (folder / "fingerprint.pb").unlink(missing_ok=True)
