"""Requests that must be refused, made from good ones; each with the words that its refusal must hold."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kfusion.exporting.files import png_file, wav_file
from kfusion.exporting.prove import Request

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
