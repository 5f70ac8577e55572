"""JSON values -> arrays, and arrays -> JSON values, by the rules of TensorFlow Serving's REST interface."""

import base64
import binascii
from array import array
from itertools import chain
from typing import Any

import numpy as np

from kfusion.runtime.dtypes import FLOAT, NUMPY, STRING, shape_text, type_name
from kfusion.serving.answers import Refusal

BASE64, BYTES_SUFFIX = "b64", "_bytes"


def is_base64(value: Any) -> bool:
    """Whether a JSON value is {"b64": "…"}."""
    return type(value) is dict and len(value) == 1 and type(value.get(BASE64)) is str


def read_tensor(value: Any, name: str, dtype: int, shape: tuple[int, ...] | None, strict: bool) -> np.ndarray:
    """A nested list as an array.

    Args:
        value: what JSON gave, the batch outermost.
        name: the input's, for the sentence.
        dtype: TensorFlow's number of the input's type.
        shape: the input's; -1 is free, None leaves the number of axes free too.
        strict: look at each number by itself, since numpy takes true for 1.

    Raises:
        Refusal: 400; the value is ragged, or of another type or shape.
    """
    if dtype == FLOAT and shape and shape[0] == -1 and not strict:
        fast = _fast_floats(value, shape)
        if fast is not None:
            return fast
    if dtype == STRING:
        values = _strings(value, name)
    elif dtype in NUMPY:
        values = _numbers(value, name, dtype, strict)
    else:
        raise Refusal(400, f"'{name}' is of type {type_name(dtype)}, which JSON cannot carry")
    if shape is not None and not _fits(values.shape, shape):
        raise Refusal(400, f"'{name}' must have shape {shape_text(shape)}. Received: {values.shape}")
    return values


def _fits(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(found) == len(wanted) and all(size in (-1, given) for size, given in zip(wanted, found, strict=True))


def _fast_floats(value: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """A regular nested list of finite numbers as float32, in half of numpy's time; None where it is anything else."""
    try:
        level, sizes = value, [len(value)]
        for size in shape[1:]:
            if set(map(len, level)) != {size}:
                return None
            sizes.append(size)
            level = list(chain.from_iterable(level))
        with np.errstate(over="ignore"):
            out = np.frombuffer(array("d", level)).astype(np.float32).reshape(sizes)
    except (TypeError, ValueError, OverflowError):
        return None
    return out if type(value) is list and np.isfinite(out).all() else None


def _numbers(value: Any, name: str, dtype: int, strict: bool) -> np.ndarray:
    kind = np.dtype(NUMPY[dtype])
    try:
        values = np.array(value)
    except (ValueError, OverflowError) as error:
        raise Refusal(400, f"'{name}' must be a regular nested list: all lists of a level of one length") from error
    if not values.size:
        raise Refusal(400, f"'{name}' must not be empty. Received: shape {values.shape}")
    allowed = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}[kind.kind]
    if values.dtype.kind not in allowed or (strict and kind.kind != "b" and _holds_truth(value)):
        raise Refusal(400, f"'{name}' must hold values of type {type_name(dtype)} only")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(kind)
    if kind.kind == "f" and kind.itemsize < 8:
        lost = np.isinf(cast) & ~np.isinf(values)
    else:
        lost = cast != values if kind.kind in "iu" else np.False_
    if np.any(lost):
        raise Refusal(400, f"'{name}' holds a number that {type_name(dtype)} cannot")
    return cast


def _holds_truth(value: Any) -> bool:
    """Whether true or false is anywhere in nested lists."""
    return any(map(_holds_truth, value)) if type(value) is list else type(value) is bool


def _strings(value: Any, name: str) -> np.ndarray:
    """An object array of bytes."""
    if type(value) is not list:
        out = np.empty((), object)
        out[()] = _text(value, name, 0)
        return out
    if value and type(value[0]) is list:
        parts = [_strings(part, name) for part in value]
        if len({part.shape for part in parts}) != 1:
            raise Refusal(400, f"'{name}' must be a regular nested list: all lists of a level of one length")
        return np.stack(parts)
    if not value:
        raise Refusal(400, f"'{name}' must not be empty. Received: shape (0,)")
    out = np.empty(len(value), object)
    out[:] = [_text(part, name, row) for row, part in enumerate(value)]
    return out


def _text(value: Any, name: str, row: int) -> bytes:
    if type(value) is str:
        return value.encode("utf-8", "surrogatepass")
    if not is_base64(value):
        raise Refusal(400, f"'{name}', row {row}: must be a string or {{\"b64\": base64 text}}")
    text = "".join(value[BASE64].split())
    try:
        # The real server takes base64 without its padding too.
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, f"Unable to base64 decode '{name}', row {row}") from error


def plain(name: str, values: np.ndarray) -> Any:
    """An output as JSON writes it: numbers as they are, strings as text, or as base64 if the name ends in `_bytes`."""
    if values.dtype != object:
        return np.ascontiguousarray(values)
    if values.ndim:
        return [plain(name, part if isinstance(part, np.ndarray) else _scalar(part)) for part in values]
    text = values.item()
    if name.endswith(BYTES_SUFFIX):
        return {BASE64: base64.b64encode(text).decode("ascii")}
    return text.decode("utf-8", "replace")


def _scalar(text: bytes) -> np.ndarray:
    out = np.empty((), object)
    out[()] = text
    return out
