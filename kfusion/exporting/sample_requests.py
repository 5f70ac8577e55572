"""Requests to an exported model: real pairs as a client would send them, and what the network itself answers.

Requests that must be refused, made from good ones; each with the words that its refusal must hold.

Picture and sound files made from a run's own pairs, to warm up and to prove the endpoint that takes files.

Runs keep pixels and features, not files. A picture is kept as it is, in PNG. A sound is made anew from its features:
noise, whose spectrum in each frame is what the features say. It is no voice, but it has what a network listens to.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kfusion.data.dataset import Pairs
from kfusion.exporting.signatures import READ_BYTES
from kfusion.exporting.subprocess_runner import Request
from kfusion.metrics.classification import temper
from kfusion.modalities.audio.synthesis import sound_file, wav_file
from kfusion.modalities.front_ends import Reader
from kfusion.modalities.image import Image
from kfusion.modalities.image.png import png_file
from kfusion.spec import FUSED, MODALITIES, VIEWS

REFUSED = "INVALID_ARGUMENT"


@dataclass(frozen=True, eq=False)
class BadRequest:
    """A request, what is wrong with it, and a part of the sentence that says so."""

    title: str
    request: Request
    phrase: str


def bad_arrays(signature: str, good: dict[str, np.ndarray]) -> Iterator[BadRequest]:
    """Whatever may be wrong with arrays.

    Args:
        signature: an endpoint that takes arrays.
        good: a request to it of three rows or more.
    """

    def bad(title: str, name: str, values: np.ndarray, phrase: str) -> BadRequest:
        return BadRequest(f"{name}: {title}", Request(signature, {**good, name: values}), phrase)

    for name, values in good.items():
        shape = f"{name} must have the shape"
        yield bad("a number", name, values.ravel()[0], shape)
        yield bad("a row without its batch", name, values[0], shape)
        yield bad("flat, as in a file", name, values.reshape(len(values), -1)[:, :-1], shape)
        yield bad("one axis too many", name, values[None], shape)
        yield bad("a last axis too many", name, values[..., None], shape)
        yield bad("too narrow", name, values[:, :-1], shape)
        yield bad("too wide", name, np.concatenate([values, values[:, :1]], axis=1), shape)
        yield bad("other numbers", name, values.astype(np.float64), "")
        yield bad("NaN", name, _with(values, np.nan), f"{name} must be finite. Received: NaN or infinity, in row 2")
        yield bad("infinity", name, _with(values, np.inf), f"{name} must be finite")
        yield bad("-infinity", name, _with(values, -np.inf), f"{name} must be finite")
        if len(good) > 1:
            yield bad("fewer rows", name, values[:-1], "must have the same number of rows")
            yield bad("a single row", name, values[:1], "must have the same number of rows")
    if "image" in good:
        yield bad("0 to 255", "image", good["image"] * 255, "image must be in [0, 1]")
        yield bad("below 0", "image", _with(good["image"], -0.01), "image must be in [0, 1]")
    if "audio" in good:
        yield bad("an absurd number", "audio", _with(good["audio"], 3e38), "audio must be within")
        yield bad("an absurd number below 0", "audio", _with(good["audio"], -3e38), "Received: -3e+38, in row 2")
    empty = {name: values[:0] for name, values in good.items()}
    yield BadRequest("no rows", Request(signature, empty), "must have one row or more")


def bad_files(signature: str, image: np.ndarray, audio: np.ndarray) -> Iterator[BadRequest]:
    """Whatever may be wrong with files.

    Args:
        signature: an endpoint that takes files.
        image, audio: good ones, object (3,) each; the last row gets the bad one.
    """
    good = {"image_bytes": image, "audio_bytes": audio}

    def bad(title: str, phrase: str, **files: bytes) -> BadRequest:
        changed = {name: np.array([*values[:2], files.get(name, values[2])], object) for name, values in good.items()}
        return BadRequest(title, Request(signature, changed), phrase)

    def shape(title: str, phrase: str, **inputs: np.ndarray) -> BadRequest:
        return BadRequest(title, Request(signature, {**good, **inputs}), phrase)

    text = b"This is a text file.\n" * 20
    yield bad("two empty strings", "in row 2", image_bytes=b"", audio_bytes=b"")
    yield bad("a truncated PNG", "image_bytes, row 2: ", image_bytes=image[2][: len(image[2]) // 2])
    yield bad("a damaged PNG", "image_bytes, row 2: ", image_bytes=_flipped(image[2]))
    yield bad("a text as a picture", "image_bytes, row 2: ", image_bytes=text)
    yield bad(
        "a PNG header of 20000 x 20000",
        "image_bytes, row 2: ",
        image_bytes=png_file((20_000, 20_000, 8, 0, 0, 0, 0), bytes(1000)),
    )
    yield bad("a text as a sound", "audio_bytes, row 2: ", audio_bytes=text)
    yield bad("a WAV with a wrong header", "audio_bytes, row 2: ", audio_bytes=b"RIFX" + audio[2][4:])
    yield bad("a WAV cut off", "audio_bytes, row 2: ", audio_bytes=audio[2][: len(audio[2]) // 2])
    yield bad("a 24-bit WAV", "audio_bytes, row 2: ", audio_bytes=wav_file(bytes(3 * 8000), 3))
    yield bad("a WAV of no samples", "audio_bytes, row 2: ", audio_bytes=wav_file(b""))
    yield bad("a silent WAV", "audio_bytes, row 2: must hold a sound", audio_bytes=wav_file(bytes(2 * 8000)))
    yield bad("ten minutes of sound", "audio_bytes, row 2: ", audio_bytes=wav_file(bytes(600 * 8000), 1))
    yield shape("fewer sounds", "must have the same number of rows", audio_bytes=audio[:2])
    yield shape(
        "a picture without its batch",
        "image_bytes must have the shape (batch,)",
        image_bytes=np.array(image[0], object),
    )
    yield shape("sounds of two axes", "audio_bytes must have the shape (batch,)", audio_bytes=audio[:, None])
    yield shape("numbers as pictures", "", image_bytes=np.zeros(3, np.float32))
    yield shape("no files at all", "must have one row or more", image_bytes=image[:0], audio_bytes=audio[:0])


def _flipped(content: bytes) -> bytes:
    """A file with one byte changed, in its middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def _with(values: np.ndarray, wrong: float) -> np.ndarray:
    """A copy with one wrong value, in row 2."""
    copy = values.copy()
    copy[2].flat[copy[2].size // 2] = wrong
    return copy


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
        files["image"] = np.array([Image().sample_file(row, spec["image"]) for row in pixels], object)
        files["audio"] = np.array([sound_file(row, spec["audio"], number) for number, row in enumerate(audio)], object)
    return Samples(pixels, audio, spec.pixel_max, files, readers)
