"""Requests to an exported model: real pairs as a client would send them, and what the network itself answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kfusion.analysis.calibration import temper
from kfusion.data.front_ends import Reader
from kfusion.data.pairs import Pairs
from kfusion.exporting.files import picture_file, sound_file
from kfusion.exporting.signatures import READ_BYTES
from kfusion.spec import FUSED, MODALITIES, VIEWS

Arrays = dict[str, np.ndarray]
TAKEN = {"serving_default": MODALITIES, "image_only": ("image",), "audio_only": ("audio",)}
"""The modalities that an endpoint takes as arrays."""


class Expected:
    """What a network answers, asked through Keras as training and evaluation ask it.

    Args:
        network: {"image", "audio", "present"} -> probabilities.
        class_names: in the order of the labels.
        temperature: for each of the `VIEWS`; empty: probabilities stay as they are.
    """

    def __init__(self, network: keras.Model, class_names: tuple[str, ...], temperature: Mapping[str, float]) -> None:
        self.class_names, self.temperature = class_names, temperature
        self.network: Any = keras.Model(network.input, [network.output, network.get_layer("fusion").output])

    def answer(self, pixels: np.ndarray, audio: np.ndarray, present: np.ndarray) -> Arrays:
        """The outputs of an endpoint.

        Args:
            pixels: float32 (n, height, width, channels), in the network's units.
            audio: float32 (n, num_audio).
            present: bool (n, 2).
        """
        said = {view: self._view(pixels, audio, present, view) for view in VIEWS}
        raw, state = said[FUSED]
        label = raw.argmax(axis=1)
        tempered = {view: self._tempered(values, view) for view, (values, _) in said.items()}
        alone = {name: np.where(present[:, [i]], tempered[name], 0.0) for i, name in enumerate(MODALITIES)}
        either = np.where(present[:, :1], tempered["image"], tempered["audio"])
        return {
            "probabilities": np.where(present.all(axis=1, keepdims=True), tempered[FUSED], either),
            "label": label,
            "class_name": np.array([self.class_names[each].encode() for each in label], object),
            **{f"{name}_probabilities": alone[name] for name in MODALITIES},
            "embedding": state,
            "present": present,
        }

    def _view(self, pixels: np.ndarray, audio: np.ndarray, present: np.ndarray, view: str) -> tuple[Any, Any]:
        asked = present & np.array([VIEWS[view]])
        asked = np.where(asked.any(axis=1, keepdims=True), asked, present)
        said, state = self.network({"image": pixels, "audio": audio, "present": asked}, training=False)
        return np.asarray(said), np.asarray(state)

    def _tempered(self, probabilities: np.ndarray, view: str) -> np.ndarray:
        return temper(probabilities, self.temperature[view]) if self.temperature else probabilities


@dataclass(frozen=True, eq=False)
class Samples:
    """Real pairs, in the network's units and in a client's.

    Args:
        pixels: float32 (n, height, width, channels), in [0, spec.pixel_max].
        audio: float32 (n, num_audio).
        pixel_max: the brightest pixel.
        files: for each modality, a file of each pair, object (n,); empty: none can be read.
        readers: for each modality, what reads files.
    """

    pixels: np.ndarray
    audio: np.ndarray
    pixel_max: int
    files: Arrays = field(default_factory=dict)
    readers: Mapping[str, Reader] = field(default_factory=dict)

    @cached_property
    def read(self) -> Arrays:
        """What the front end makes of the files, asked outside the exported graph."""
        return {name: np.asarray(self.readers[name](tf.constant(self.files[name]))[0]) for name in MODALITIES}

    def request(self, signature: str, size: int) -> Arrays:
        """A batch of the first `size` pairs, going round; of files, some are absent."""
        rows = np.arange(size) % len(self.audio)
        if signature in TAKEN:
            both = {"image": self.pixels[rows] / np.float32(self.pixel_max), "audio": self.audio[rows]}
            return {name: both[name] for name in TAKEN[signature]}
        present = self.present(signature, size)
        return {
            f"{name}_bytes": np.where(present[:, index], self.files[name][rows], b"")
            for index, name in enumerate(MODALITIES)
        }

    def whole_files(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Pictures and sounds of the first `size` pairs, none absent, object (size,) each."""
        rows = np.arange(size) % len(self.audio)
        return self.files["image"][rows], self.files["audio"][rows]

    def present(self, signature: str, size: int) -> np.ndarray:
        """Which modalities that request holds, bool (size, 2)."""
        if signature in TAKEN:
            return np.tile([[name in TAKEN[signature] for name in MODALITIES]], (size, 1))
        return np.array(list(VIEWS.values()))[np.arange(size) % len(VIEWS)]

    def expected(self, signature: str, size: int, expected: Expected) -> Arrays:
        """What the network itself answers to that request."""
        rows, present = np.arange(size) % len(self.audio), self.present(signature, size)
        given = {"image": self.pixels, "audio": self.audio} if signature in TAKEN else self.read
        given = {name: values[rows] for name, values in given.items()}
        if signature != READ_BYTES:
            return expected.answer(given["image"], given["audio"], present)
        image = np.where(present[:, :1, None, None], given["image"] / np.float32(self.pixel_max), np.float32(0))
        return {"image": image, "audio": np.where(present[:, 1:], given["audio"], np.float32(0)), "present": present}


def samples(pairs: Pairs, size: int, readers: Mapping[str, Reader]) -> Samples:
    """The first pairs of a part, `size` of them if there are as many; as files too, where there are readers."""
    pixels, audio = pairs.read(np.arange(min(size, len(pairs))))
    spec, files = pairs.spec, dict[str, np.ndarray]()
    if readers:
        files["image"] = np.array([picture_file(row, spec) for row in pixels], object)
        files["audio"] = np.array([sound_file(row, spec, number) for number, row in enumerate(audio)], object)
    return Samples(pixels, audio, spec.pixel_max, files, readers)
