"""The endpoints of an exported model: named inputs, guards, named outputs.

    serving_default   image float32 (batch, height, width, channels) in [0, 1], audio float32 (batch, num_audio)
    image_only        image
    audio_only        audio
    raw_bytes         image_bytes, audio_bytes: string (batch,), the content of files; "" where there is none
    read_bytes        the same

Each gives, for every row, the `OUTPUTS`; the last one what `raw_bytes` reads from the files, as `serving_default`
takes it: what the model sees and hears.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from kfusion.data.front_ends import Reader
from kfusion.data.scale import MAX_MAGNITUDE
from kfusion.exporting import guards
from kfusion.spec import FUSED, MODALITIES, VIEWS, Spec

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
        inputs = guards.same_batch(image=self._image_shaped(image), audio=self._audio_shaped(audio))
        return self._answer(self._pixels(inputs["image"]), self._features(inputs["audio"]))

    def image_only(self, image: tf.Tensor) -> Answer:
        return self._answer(image=self._pixels(guards.same_batch(image=self._image_shaped(image))["image"]))

    def audio_only(self, audio: tf.Tensor) -> Answer:
        return self._answer(audio=self._features(guards.same_batch(audio=self._audio_shaped(audio))["audio"]))

    def raw_bytes(self, image_bytes: tf.Tensor, audio_bytes: tf.Tensor) -> Answer:
        return self._answer(**self._read(image_bytes, audio_bytes))

    def read_bytes(self, image_bytes: tf.Tensor, audio_bytes: tf.Tensor) -> Answer:
        read = self._read(image_bytes, audio_bytes)
        outputs = {**read, "image": read["image"] / float(self.spec.pixel_max)}
        return {name: tf.identity(values, name=f"read_{name}") for name, values in outputs.items()}

    def _read(self, image_bytes: tf.Tensor, audio_bytes: tf.Tensor) -> Answer:
        """Files -> image, audio and present, as the network takes them; zeros for what is absent."""
        given = {"image_bytes": image_bytes, "audio_bytes": audio_bytes}
        given = guards.same_batch(**{name: guards.shaped(name, values, ()) for name, values in given.items()})
        present = guards.one_present(**given)
        read = {}
        with tf.control_dependencies([present]):
            for name in MODALITIES:
                values, reason = self.readers[name](tf.identity(given[f"{name}_bytes"]))
                read[name] = guards.readable(f"{name}_bytes", values, reason)
        return {**read, "present": present}

    def _image_shaped(self, image: tf.Tensor) -> tf.Tensor:
        return guards.shaped("image", image, self.spec.image_shape)

    def _audio_shaped(self, audio: tf.Tensor) -> tf.Tensor:
        return guards.shaped("audio", audio, (self.spec.num_audio,))

    def _pixels(self, image: tf.Tensor) -> tf.Tensor:
        """[0, 1] -> the network's own units."""
        return guards.within_unit("image", guards.finite("image", image)) * float(self.spec.pixel_max)

    def _features(self, audio: tf.Tensor) -> tf.Tensor:
        return guards.within("audio", guards.finite("audio", audio), self.audio_limit)

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
        """p'ₖ = pₖ^(1/T) / Σⱼ pⱼ^(1/T), as `analysis.calibration.temper`."""
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
