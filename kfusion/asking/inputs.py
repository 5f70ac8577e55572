"""What a client is given, pictures and sounds as files or arrays -> the signature that fits, and its inputs."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from kfusion.data.layouts import MAX_CHANNELS, are_channels_first, without_channel
from kfusion.rules import UserError

File = str | os.PathLike[str] | bytes


def read_inputs(image: Any, audio: Any) -> tuple[str, dict[str, np.ndarray]]:
    """The signature that fits what is given, and its inputs."""
    given = {name: value for name, value in (("image", image), ("audio", audio)) if value is not None}
    if not given:
        raise UserError("'image' or 'audio' must be given. Received: neither")
    kinds = {name: _is_files(value) for name, value in given.items()}
    if all(kinds.values()):
        contents = {name: _contents(name, value) for name, value in given.items()}
        size = max(map(len, contents.values()))
        inputs = {f"{name}_bytes": contents.get(name, _object([b""] * size)) for name in ("image", "audio")}
        signature = "raw_bytes"
    elif any(kinds.values()):
        raise UserError("'image' and 'audio' must both be files or both be arrays. Received: one of each")
    else:
        inputs = {name: _pixels(value) if name == "image" else _features(value) for name, value in given.items()}
        signature = "serving_default" if len(given) == 2 else f"{next(iter(given))}_only"
    sizes = {name: len(values) for name, values in inputs.items()}
    if len(set(sizes.values())) > 1:
        raise UserError(f"all inputs must have the same number of rows. Received: {sizes}")
    return signature, inputs


def _is_files(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(isinstance(part, str | os.PathLike | bytes) for part in value)
    return isinstance(value, str | os.PathLike | bytes)


def _contents(name: str, value: Any) -> np.ndarray:
    """The files' contents; b"" in a list is a file that is not there, as None is."""
    if isinstance(value, list | tuple):
        return _object([b"" if file is None or file == b"" else _content(name, file) for file in value])
    return _object([_content(name, value)])


def _content(name: str, file: File) -> bytes:
    if isinstance(file, str) and not file:
        raise UserError(f"'{name}' must name a file; leave it out where there is none. Received: ''")
    if isinstance(file, bytes):
        where, content = f"'{name}'", file
    else:
        try:
            where, content = str(file), Path(file).read_bytes()
        except OSError as error:
            raise UserError(f"{file}: the {name} file must be readable. Found: {error.strerror}") from error
    if not content:
        raise UserError(f"{where}: the {name} file must not be empty. Found: 0 bytes")
    return content


def _object(contents: list[bytes]) -> np.ndarray:
    out = np.empty(len(contents), object)
    out[:] = contents
    return out


def _pixels(value: Any) -> np.ndarray:
    """float32 (batch, height, width, channels) in [0, 1]; channels that can only come first are moved to the end."""
    array = np.asarray(value)
    scale = 255 if array.dtype == np.uint8 else 1
    if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] > MAX_CHANNELS):
        array = array[..., np.newaxis]
    if array.ndim == 3:
        array = array[np.newaxis]
    if array.ndim != 4:
        raise UserError(f"'image' must have 2, 3 or 4 axes. Received: shape {array.shape}")
    height, width, channels = array.shape[1:]
    if are_channels_first((height, width, channels)):
        array = np.moveaxis(array, 1, -1)
    return array.astype(np.float32) / np.float32(scale)


def _features(value: Any) -> np.ndarray:
    """float32 (batch, num_audio); frames of coefficients one after the other."""
    array = np.atleast_2d(np.asarray(value, np.float32))
    if array.ndim == 2:
        return array
    if len(without_channel(array.shape[1:])) != 2:
        raise UserError(f"'audio' must have 1 to 3 axes. Received: shape {array.shape}")
    return array.reshape(len(array), -1)
