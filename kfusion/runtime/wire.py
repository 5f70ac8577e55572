"""Arrays <-> TensorFlow's tensor message, without TensorFlow.

A message holds its values either as raw bytes, or as a list, in which the last value stands for all that are missing.
"""

from typing import Any

import numpy as np

from kfusion.rules import UserError
from kfusion.runtime.dtypes import NUMBERS, NUMPY, STRING, type_name

_FIELDS = {
    **{1: "float_val", 2: "double_val", STRING: "string_val", 9: "int64_val", 10: "bool_val"},
    **dict.fromkeys((3, 4, 5, 6), "int_val"),
    **{22: "uint32_val", 23: "uint64_val"},
}


def fill_tensor(tensor: Any, values: np.ndarray) -> None:
    """Writes an array into an empty Tensor message; object arrays of bytes become strings.

    Raises:
        UserError: the array is of a type that a message cannot carry.
    """
    if values.dtype not in NUMBERS:
        raise UserError(f"'values' must be numbers, booleans or bytes. Received: {values.dtype}")
    tensor.dtype = NUMBERS[values.dtype]
    for size in values.shape:
        tensor.tensor_shape.dim.add(size=size)
    if tensor.dtype == STRING:
        tensor.string_val.extend(values.ravel().tolist())
    else:
        tensor.tensor_content = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes()


def read_array(tensor: Any) -> np.ndarray:
    """The array in a Tensor message; strings become an object array of bytes.

    Raises:
        UserError: the type is unknown, or the values do not fit the shape.
    """
    if tensor.dtype not in NUMPY:
        raise UserError(f"a tensor of type {type_name(tensor.dtype)} cannot be read")
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    kind = np.dtype(NUMPY[tensor.dtype])
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, kind.newbyteorder("<")).astype(kind).reshape(shape)
    listed = list(getattr(tensor, _FIELDS[tensor.dtype]))
    size = int(np.prod(shape))
    if len(listed) > size or (size and not listed):
        raise UserError(f"a tensor of shape {shape} must have {size} values. Received: {len(listed)}")
    values = np.empty(len(listed), kind)
    values[:] = listed
    return np.concatenate([values, np.repeat(values[-1:], size - len(values))]).reshape(shape)
