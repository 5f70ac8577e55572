"""TensorFlow Serving's REST bodies: JSON text of a predict request -> arrays, and arrays -> JSON text of its response.

A request holds either `instances`, a row after the other, or `inputs`, a column after the other; the response then
holds `predictions` or `outputs`. A single input or output goes without its name.

Reference: tensorflow.org/tfx/serving/api_rest
"""

import base64
import binascii
import json
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson
from starlette.exceptions import HTTPException

from kfusion.runtime.protos import FLOAT, NUMPY, STRING, Signature, shape_text, type_name

BASE64, BYTES_SUFFIX = "b64", "_bytes"


def is_base64(value: Any) -> bool:
    """Whether a JSON value is {"b64": "…"}."""
    return type(value) is dict and len(value) == 1 and type(value.get(BASE64)) is str


def read_tensor(value: Any, name: str, dtype: int, shape: tuple[int, ...] | None, strict: bool) -> np.ndarray:
    """A nested list as an array.

    Args:
        value: parsed JSON, the batch outermost.
        name: the input's, for errors.
        dtype: TensorFlow's number of the input's type.
        shape: the input's; -1 is free, None leaves the number of axes free too.
        strict: look at each number by itself, since numpy takes true for 1.

    Raises:
        HTTPException: 400; the value is ragged, or of another type or shape.
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
        raise HTTPException(400, f"'{name}' is of type {type_name(dtype)}, which JSON cannot carry")
    if shape is not None and not _fits(values.shape, shape):
        raise HTTPException(400, f"'{name}' must have shape {shape_text(shape)}. Received: {values.shape}")
    return values


def _fits(shape: tuple[int, ...], declared: tuple[int, ...]) -> bool:
    return len(shape) == len(declared) and all(free in (-1, size) for free, size in zip(declared, shape, strict=True))


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
        raise HTTPException(
            400, f"'{name}' must be a regular nested list: all lists of a level of one length"
        ) from error
    if not values.size:
        raise HTTPException(400, f"'{name}' must not be empty. Received: shape {values.shape}")
    allowed = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}[kind.kind]
    if values.dtype.kind not in allowed or (strict and kind.kind != "b" and _holds_truth(value)):
        raise HTTPException(400, f"'{name}' must hold values of type {type_name(dtype)} only")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(kind)
    if kind.kind == "f" and kind.itemsize < 8:
        lost = np.isinf(cast) & ~np.isinf(values)
    else:
        lost = cast != values if kind.kind in "iu" else np.False_
    if np.any(lost):
        raise HTTPException(400, f"'{name}' holds a number that {type_name(dtype)} cannot")
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
            raise HTTPException(400, f"'{name}' must be a regular nested list: all lists of a level of one length")
        return np.stack(parts)
    if not value:
        raise HTTPException(400, f"'{name}' must not be empty. Received: shape (0,)")
    out = np.empty(len(value), object)
    out[:] = [_text(part, name, row) for row, part in enumerate(value)]
    return out


def _text(value: Any, name: str, row: int) -> bytes:
    if type(value) is str:
        return value.encode("utf-8", "surrogatepass")
    if not is_base64(value):
        raise HTTPException(400, f"'{name}', row {row}: must be a string or {{\"b64\": base64 text}}")
    text = "".join(value[BASE64].split())
    try:
        # The real server takes base64 without its padding too.
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise HTTPException(400, f"Unable to base64 decode '{name}', row {row}") from error


def plain(name: str, values: np.ndarray) -> Any:
    """An output ready for JSON.

    Args:
        name: the output's; strings are base64 if it ends in `_bytes`, else text.
        values: numbers of any shape, or an object array of bytes.
    """
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


DEFAULT_SIGNATURE = "serving_default"
_BRACKETS = np.zeros(256, np.int8)
_BRACKETS[list(b"[{")], _BRACKETS[list(b"]}")] = 1, -1
_NO_BRACKETS = bytes(value for value in range(256) if value not in b"[]{}")


@dataclass(frozen=True)
class Request:
    """A predict request whose tensors have not been read: that takes the signature.

    Args:
        signature: the endpoint's name.
        by_rows: whether `value` is that of `instances`, not of `inputs`.
        strict: whether true or false is somewhere in the text.
    """

    signature: str
    by_rows: bool
    value: Any
    strict: bool


def read_request(body: bytes, max_depth: int) -> Request:
    """The JSON text of a predict request.

    Args:
        body: the text.
        max_depth: deepest nesting of lists and objects.

    Raises:
        HTTPException: 400; it is no JSON, too deep, or not of TensorFlow Serving's form.
    """
    document = read_json(body, max_depth)
    if type(document) is not dict:
        raise HTTPException(400, "the request must be a JSON object with 'instances' or 'inputs'")
    signature = document.get("signature_name", DEFAULT_SIGNATURE)
    if type(signature) is not str:
        raise HTTPException(400, "'signature_name' key must be a string value.")
    strict = b"true" in body or b"false" in body
    if "instances" in document and "inputs" in document:
        raise HTTPException(400, "expecting only one of 'inputs' or 'instances' keys to exist")
    if "instances" in document:
        rows = document["instances"]
        if type(rows) is not list:
            raise HTTPException(400, "Expecting 'instances' to be a list/array")
        if not rows:
            raise HTTPException(400, "No values in 'instances' array")
        return Request(signature or DEFAULT_SIGNATURE, True, rows, strict)
    if "inputs" in document:
        return Request(signature or DEFAULT_SIGNATURE, False, document["inputs"], strict)
    raise HTTPException(400, "Missing 'inputs' or 'instances' key")


def read_json(body: bytes, max_depth: int) -> Any:
    """A JSON text, in which NaN, Infinity and -Infinity may stand too.

    Args:
        body: the text.
        max_depth: deepest nesting of lists and objects.

    Raises:
        HTTPException: 400.
    """
    if not body.strip():
        raise HTTPException(400, "JSON Parse error: The document is empty")
    brackets = body.translate(None, _NO_BRACKETS)
    if len(brackets) > max_depth:
        depth = np.cumsum(_BRACKETS[np.frombuffer(brackets, np.uint8)], dtype=np.int64).max()
        if depth > max_depth:
            raise HTTPException(400, f"JSON Parse error: lists and objects must nest at most {max_depth} deep")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if b"NaN" not in body and b"Infinity" not in body:
            raise HTTPException(400, f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        where = f" at offset: {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise HTTPException(400, f"JSON Parse error: no valid JSON{where}") from error


def read_inputs(request: Request, signature: Signature, max_batch: int) -> tuple[dict[str, np.ndarray], int]:
    """The tensors of a request, and the size of its batch (that of its first input).

    Args:
        request: from `read_request`.
        signature: the endpoint's inputs.
        max_batch: most rows of an input.

    Raises:
        HTTPException: 400.
    """
    names = list(signature.inputs)
    if not names:
        raise HTTPException(400, f"Failed to get input map for signature: {request.signature[:100]}")
    columns = _rows_to_columns(request.value, names) if request.by_rows else _columns(request.value, names)
    arrays = {}
    for name, (_, dtype, shape) in signature.inputs.items():
        arrays[name] = read_tensor(columns[name], name, dtype, shape, request.strict)
        num_rows = arrays[name].shape[0] if arrays[name].ndim else 1
        if num_rows > max_batch:
            raise HTTPException(
                400, f"'{name}' must have at most {max_batch} rows in one request. Received: {num_rows}"
            )
    sizes = {name: array.shape[0] if array.ndim else 1 for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise HTTPException(400, f"all inputs must have the same number of rows. Received: {listed}")
    return arrays, sizes[names[0]]


def _rows_to_columns(rows: list[Any], names: list[str]) -> dict[str, list[Any]]:
    named = type(rows[0]) is dict and not is_base64(rows[0])
    if not named:
        if len(names) > 1:
            raise HTTPException(400, f"'instances' must be a list of objects with the keys {', '.join(names)}")
        wrong = [row for row, value in enumerate(rows) if type(value) is dict and not is_base64(value)]
        if wrong:
            raise HTTPException(400, f"Expecting value/list but got object at item {wrong[0]} of input list")
        return {names[0]: rows}
    for row, value in enumerate(rows):
        if type(value) is not dict or is_base64(value):
            raise HTTPException(400, f"Expecting object but got list at item {row} of input list")
        if len(value) != len(names) or any(name not in value for name in names):
            raise HTTPException(400, f"'instances', element {row}: keys must be equal to: {','.join(names)}")
    return {name: [row[name] for row in rows] for name in names}


def _columns(value: Any, names: list[str]) -> dict[str, Any]:
    if type(value) is not dict or is_base64(value):
        if len(names) > 1:
            raise HTTPException(400, f"'inputs' must be an object with the keys {', '.join(names)}")
        return {names[0]: value}
    for name in names:
        if name not in value:
            raise HTTPException(400, f"Missing named input: {name} in 'inputs' object.")
    return value


def write_outputs(outputs: Mapping[str, np.ndarray], by_rows: bool) -> bytes:
    """The body of a predict response, outputs in the order of their names.

    Args:
        outputs: arrays by name.
        by_rows: one object a row, or one list an output.

    Raises:
        HTTPException: 400; in row form, an output has no batch axis, or another size than the others.
    """
    values = {name: plain(name, outputs[name]) for name in sorted(outputs)}
    if by_rows:
        sizes = {name: array.shape[0] if array.ndim else -1 for name, array in outputs.items()}
        if len(set(sizes.values())) != 1 or -1 in sizes.values():
            raise HTTPException(400, f"the outputs have no common batch size; use 'inputs' instead. Found: {sizes}")
        names, size = list(values), next(iter(sizes.values()))
        one = len(names) == 1
        rows = [values[names[0]][row] if one else {name: values[name][row] for name in names} for row in range(size)]
        return _dump({"predictions": rows}, outputs)
    return _dump({"outputs": next(iter(values.values())) if len(values) == 1 else values}, outputs)


def _dump(document: dict[str, Any], outputs: Mapping[str, np.ndarray]) -> bytes:
    if all(np.isfinite(array).all() for array in outputs.values() if array.dtype.kind == "f"):
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    # As the real server, and against the JSON standard: NaN, Infinity and -Infinity as they are.
    return json.dumps(document, default=lambda value: value.tolist()).encode()
