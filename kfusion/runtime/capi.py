"""TensorFlow's C API by ctypes, from the libraries inside its wheel: status, tensors, and the functions that are used.

No Python TensorFlow is imported.
"""

import ctypes
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from kfusion.rules import UserError

CODES = {3: "INVALID_ARGUMENT", 5: "NOT_FOUND", 9: "FAILED_PRECONDITION", 12: "UNIMPLEMENTED", 13: "INTERNAL"}
"""Names of the status codes that a model may answer with; any other is given as its number."""
STRING, STRING_BYTES = 7, 24
"""The data type of strings, and the size of one of its elements, a TF_TString."""
DTYPES: dict[int, Any] = {
    **{1: np.float32, 2: np.float64, 3: np.int32, 4: np.uint8, 5: np.int16, 6: np.int8, 9: np.int64, 10: np.bool_},
    **{22: np.uint32, 23: np.uint64},
}
NUMBERS = {np.dtype(kind): number for number, kind in DTYPES.items()}


class Refused(Exception):
    """The runtime's error status: its `number`, its `code`, such as INVALID_ARGUMENT, and its message."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number, self.code = number, CODES.get(number, str(number))


class Port(ctypes.Structure):
    """TF_Output: an operation and the number of its output."""

    _fields_ = (("operation", c_void_p), ("index", c_int))


_FUNCTIONS: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
    ("TF_NewStatus", c_void_p, ()),
    ("TF_DeleteStatus", None, (c_void_p,)),
    ("TF_GetCode", c_int, (c_void_p,)),
    ("TF_Message", c_char_p, (c_void_p,)),
    ("TF_NewGraph", c_void_p, ()),
    ("TF_DeleteGraph", None, (c_void_p,)),
    ("TF_NewSessionOptions", c_void_p, ()),
    ("TF_DeleteSessionOptions", None, (c_void_p,)),
    ("TF_LoadSessionFromSavedModel", c_void_p, (*[c_void_p] * 2, c_char_p, POINTER(c_char_p), c_int, *[c_void_p] * 3)),
    ("TF_CloseSession", None, (c_void_p, c_void_p)),
    ("TF_DeleteSession", None, (c_void_p, c_void_p)),
    ("TF_GraphOperationByName", c_void_p, (c_void_p, c_char_p)),
    ("TF_AllocateTensor", c_void_p, (c_int, POINTER(c_int64), c_int, c_size_t)),
    ("TF_DeleteTensor", None, (c_void_p,)),
    ("TF_TensorData", c_void_p, (c_void_p,)),
    ("TF_TensorType", c_int, (c_void_p,)),
    ("TF_NumDims", c_int, (c_void_p,)),
    ("TF_Dim", c_int64, (c_void_p, c_int)),
    ("TF_TensorByteSize", c_size_t, (c_void_p,)),
    ("TF_StringInit", None, (c_void_p,)),
    ("TF_StringCopy", None, (c_void_p, c_char_p, c_size_t)),
    ("TF_StringGetDataPointer", c_void_p, (c_void_p,)),
    ("TF_StringGetSize", c_size_t, (c_void_p,)),
    (
        "TF_SessionRun",
        None,
        (
            *(c_void_p, c_void_p, POINTER(Port), POINTER(c_void_p), c_int, POINTER(Port), POINTER(c_void_p), c_int),
            *(c_void_p, c_int, c_void_p, c_void_p),
        ),
    ),
)


@cache
def library() -> ctypes.CDLL:
    """The C API of the TensorFlow that is installed."""
    found = importlib.util.find_spec("tensorflow")
    if found is None or not found.submodule_search_locations:
        raise UserError("the C API needs TensorFlow: pip install tensorflow. Found: no package tensorflow")
    folder = Path(found.submodule_search_locations[0])
    ending = "lib{}.2.dylib" if sys.platform == "darwin" else "lib{}.so.2"
    ctypes.CDLL(str(folder / ending.format("tensorflow_framework")))
    loaded = ctypes.CDLL(str(folder / ending.format("tensorflow_cc")))
    for name, returns, takes in _FUNCTIONS:
        function = getattr(loaded, name)
        function.restype, function.argtypes = returns, takes
    return loaded


@contextmanager
def status() -> Iterator[int]:
    """A TF_Status for one call.

    Raises:
        Refused: the call set it to anything but OK.
    """
    handle = library().TF_NewStatus()
    try:
        yield handle
        code = library().TF_GetCode(handle)
        if code:
            raise Refused(code, library().TF_Message(handle).decode("utf-8", "replace"))
    finally:
        library().TF_DeleteStatus(handle)


def to_tensor(values: np.ndarray) -> int:
    """A TF_Tensor with a copy of an array; object arrays of bytes become strings. To be deleted by the caller."""
    api = library()
    shape = (c_int64 * values.ndim)(*values.shape)
    if values.dtype == object:
        handle = api.TF_AllocateTensor(STRING, shape, values.ndim, STRING_BYTES * values.size)
        start = api.TF_TensorData(handle) or 0
        for index, text in enumerate(values.ravel().tolist()):
            api.TF_StringInit(start + STRING_BYTES * index)
            api.TF_StringCopy(start + STRING_BYTES * index, text, len(text))
        return handle
    handle = api.TF_AllocateTensor(NUMBERS[values.dtype], shape, values.ndim, values.nbytes)
    if values.nbytes:
        ctypes.memmove(api.TF_TensorData(handle), np.ascontiguousarray(values).ctypes.data, values.nbytes)
    return handle


def to_array(handle: int) -> np.ndarray:
    """A copy of a TF_Tensor's content; strings become an object array of bytes."""
    api = library()
    shape = tuple(api.TF_Dim(handle, axis) for axis in range(api.TF_NumDims(handle)))
    kind = api.TF_TensorType(handle)
    start = api.TF_TensorData(handle) or 0
    if kind == STRING:
        places = range(start, start + STRING_BYTES * int(np.prod(shape)), STRING_BYTES)
        texts = [ctypes.string_at(api.TF_StringGetDataPointer(at), api.TF_StringGetSize(at)) for at in places]
        out = np.empty(len(texts), object)
        out[:] = texts
        return out.reshape(shape)
    return np.frombuffer(ctypes.string_at(start, api.TF_TensorByteSize(handle)), DTYPES[kind]).reshape(shape).copy()
