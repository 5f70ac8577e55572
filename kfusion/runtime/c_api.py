"""SavedModels in TensorFlow's C++ runtime, as a server holds them, by ctypes and without Python's TensorFlow.

The C API comes from the libraries inside TensorFlow's wheel. What the runtime aborts on aborts the process, as it would
the server: what a signature says of the graph is therefore compared with the graph once, when the model is loaded.
"""

import ctypes
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from kfusion.runtime.protos import (
    NUMBERS,
    NUMPY,
    SAVED_MODEL_FILE,
    STRING,
    TAG,
    read_signatures,
    require_variables,
    type_name,
)
from kfusion.validation import UserError

RESOURCE_EXHAUSTED, UNIMPLEMENTED = 8, 12
CODES = {
    **{3: "INVALID_ARGUMENT", 5: "NOT_FOUND", RESOURCE_EXHAUSTED: "RESOURCE_EXHAUSTED", 9: "FAILED_PRECONDITION"},
    **{UNIMPLEMENTED: "UNIMPLEMENTED", 13: "INTERNAL"},
}
"""Names of the status codes that a model may answer with; any other is given as its number."""
ONE_PASS = b"R\x04R\x02`\x01"
"""A ConfigProto: graph_options.rewrite_options.meta_optimizer_iterations = ONE. Before its first run a graph is made
better once and not twice, which takes three quarters of the time; its answers take as long as before."""
STRING_BYTES = 24
"""The size of one string in a tensor, a TF_TString."""


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
    ("TF_SetConfig", None, (c_void_p, c_char_p, c_size_t, c_void_p)),
    ("TF_LoadSessionFromSavedModel", c_void_p, (*[c_void_p] * 2, c_char_p, POINTER(c_char_p), c_int, *[c_void_p] * 3)),
    ("TF_CloseSession", None, (c_void_p, c_void_p)),
    ("TF_DeleteSession", None, (c_void_p, c_void_p)),
    ("TF_GraphOperationByName", c_void_p, (c_void_p, c_char_p)),
    ("TF_OperationNumOutputs", c_int, (c_void_p,)),
    ("TF_OperationOutputType", c_int, (Port,)),
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
    """A TF_Tensor with a copy of an array; object arrays of bytes become strings. To be deleted by the caller.

    Raises:
        UserError: the array is of a type that a tensor cannot carry.
        Refused: there is no memory for it.
    """
    if values.dtype not in NUMBERS:
        raise UserError(f"'values' must be numbers, booleans or bytes. Received: {values.dtype}")
    api, texts = library(), values.ravel().tolist() if values.dtype == object else []
    for text in texts:  # Before anything is allocated: a tensor that is half filled cannot be deleted.
        if type(text) is not bytes:
            raise UserError(f"'values' of strings must be bytes. Received: {type(text).__name__}")
    shape = (c_int64 * values.ndim)(*values.shape)
    size = STRING_BYTES * values.size if values.dtype == object else values.nbytes
    handle = api.TF_AllocateTensor(NUMBERS[values.dtype], shape, values.ndim, size)
    if not handle:
        raise Refused(RESOURCE_EXHAUSTED, f"no memory for a tensor of {size} bytes")
    start = api.TF_TensorData(handle) or 0
    for index, text in enumerate(texts):
        api.TF_StringInit(start + STRING_BYTES * index)
        api.TF_StringCopy(start + STRING_BYTES * index, text, len(text))
    if values.dtype != object and size:
        ctypes.memmove(start, np.ascontiguousarray(values).ctypes.data, size)
    return handle


def to_array(handle: int) -> np.ndarray:
    """A copy of a TF_Tensor's content; strings become an object array of bytes.

    Raises:
        Refused: it is of a type that numpy has not, such as a resource or a variant.
    """
    api = library()
    shape = tuple(api.TF_Dim(handle, axis) for axis in range(api.TF_NumDims(handle)))
    kind = api.TF_TensorType(handle)
    if kind not in NUMPY:
        raise Refused(UNIMPLEMENTED, f"a tensor of type {type_name(kind)} cannot be read")
    start = api.TF_TensorData(handle) or 0
    if kind == STRING:
        places = range(start, start + STRING_BYTES * int(np.prod(shape)), STRING_BYTES)
        texts = [ctypes.string_at(api.TF_StringGetDataPointer(at), api.TF_StringGetSize(at)) for at in places]
        out = np.empty(len(texts), object)
        out[:] = texts
        return out.reshape(shape)
    return np.frombuffer(ctypes.string_at(start, api.TF_TensorByteSize(handle)), NUMPY[kind]).reshape(shape).copy()


REFERENCE = 100
"""What is added to the type of a variable of TensorFlow 1, which gives a reference to its value."""


class ServedModel:
    """A SavedModel that answers, until it is closed.

    Args:
        folder: the version's folder, with `saved_model.pb` in it.

    Raises:
        UserError: the folder holds no SavedModel, no weights, or signatures that its graph does not have.
        Refused: the runtime cannot load it.
    """

    def __init__(self, folder: Path) -> None:
        self.signatures = read_signatures(folder)
        require_variables(folder)
        api = library()
        options, tags = api.TF_NewSessionOptions(), (c_char_p * 1)(TAG.encode())
        self._session: Any = None
        self._graph: Any = api.TF_NewGraph()
        try:
            with status() as error:
                api.TF_SetConfig(options, ONE_PASS, len(ONE_PASS), error)
            with status() as error:
                self._session = api.TF_LoadSessionFromSavedModel(
                    options, None, str(folder).encode(), tags, 1, self._graph, None, error
                )
            self._check(folder / SAVED_MODEL_FILE)
        except BaseException:
            self.close()
            raise
        finally:
            api.TF_DeleteSessionOptions(options)

    def __enter__(self) -> "ServedModel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the session and its memory back."""
        (session, self._session), (graph, self._graph) = (self._session, None), (self._graph, None)
        try:
            if session:
                with status() as error:
                    library().TF_CloseSession(session, error)
        finally:
            if session:
                with status() as error:
                    library().TF_DeleteSession(session, error)
            if graph:
                library().TF_DeleteGraph(graph)

    def ask(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        """One request.

        Args:
            signature: an endpoint's name.
            inputs: an array for each of its inputs; object arrays of bytes for strings.
            outputs: which of its outputs to compute; none named: all.

        Returns:
            {alias: array} of the outputs.

        Raises:
            Refused: the runtime's error status.
            UserError: a signature, input or output of that name is missing, or the model is closed.
        """
        if self._session is None:
            raise UserError("the model must be open. Found: it is closed")
        if signature not in self.signatures:
            raise UserError(f"'signature' must be one of {', '.join(self.signatures)}. Received: {signature!r}")
        known = self.signatures[signature]
        wanted = list(outputs or known.outputs)
        if inputs.keys() != known.inputs.keys():
            raise UserError(f"'inputs' must be {', '.join(known.inputs)}. Received: {', '.join(inputs)}")
        if not known.outputs.keys() >= set(wanted):
            raise UserError(f"'outputs' must be of {', '.join(known.outputs)}. Received: {', '.join(wanted)}")
        feeds = (Port * len(inputs))(*(self._port(known.inputs[name][0]) for name in inputs))
        fetches = (Port * len(wanted))(*(self._port(known.outputs[name][0]) for name in wanted))
        given, got = (c_void_p * len(inputs))(), (c_void_p * len(wanted))()
        api = library()
        try:
            for index, values in enumerate(inputs.values()):
                given[index] = to_tensor(np.asarray(values))
            with status() as error:
                api.TF_SessionRun(
                    self._session, None, feeds, given, len(given), fetches, got, len(got), None, 0, None, error
                )
            return {name: to_array(handle) for name, handle in zip(wanted, got, strict=True) if handle}
        finally:
            for handle in (*given, *got):
                if handle:
                    api.TF_DeleteTensor(handle)

    def _port(self, tensor: str) -> Port:
        """The place in the graph that a tensor's name, `operation:number`, means; without an operation: none."""
        operation, _, number = tensor.partition(":")
        index = int(number) if number.isdecimal() and len(number) < 10 else -1 if number else 0
        return Port(library().TF_GraphOperationByName(self._graph, operation.encode()), index)

    def _check(self, path: Path) -> None:
        """Every tensor that a signature names must be there, and of the type that the signature says.

        Raises:
            UserError: one is not; the runtime would follow a null pointer, or take one type for another.
        """
        api = library()
        for signature, known in self.signatures.items():
            for alias, (tensor, dtype, _) in [*known.inputs.items(), *known.outputs.items()]:
                port, where = self._port(tensor), f"{path}: {signature}, {alias}"
                if not port.operation or not 0 <= port.index < api.TF_OperationNumOutputs(port.operation):
                    raise UserError(f"{where}: must be a tensor of the graph. Found: {tensor!r}, which it has not")
                found = api.TF_OperationOutputType(port)
                if found not in (dtype, dtype + REFERENCE):
                    rule = f"must be of the type that its signature says, {type_name(dtype)}"
                    raise UserError(f"{where}: {rule}. Found: {type_name(found)} in the graph")
