"""TensorFlow's messages, read and written without TensorFlow: SavedModels, tensors, requests for TensorFlow Serving.

A message's wire form holds field numbers, not names, and a reader passes over fields that it does not know. So
`MESSAGES` lists only the fields that are used, with the numbers of tensorflow/core (`saved_model`, `meta_graph`,
`graph`, `function`, `node_def`, `tensor`, `tensor_shape`), tensorflow_serving/apis (`prediction_log`, `predict`,
`model`) and google/protobuf (`Int64Value`).

A Tensor message holds its values either as raw bytes, or as a list, in which the last value stands for all that are
missing.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from kfusion.validation import UserError

FLOAT, STRING = 1, 7
DTYPES: dict[int, tuple[str, Any, str]] = {
    1: ("FLOAT", np.float32, "float_val"),
    2: ("DOUBLE", np.float64, "double_val"),
    3: ("INT32", np.int32, "int_val"),
    4: ("UINT8", np.uint8, "int_val"),
    5: ("INT16", np.int16, "int_val"),
    6: ("INT8", np.int8, "int_val"),
    7: ("STRING", np.object_, "string_val"),
    9: ("INT64", np.int64, "int64_val"),
    10: ("BOOL", np.bool_, "bool_val"),
    22: ("UINT32", np.uint32, "uint32_val"),
    23: ("UINT64", np.uint64, "uint64_val"),
}
"""TensorFlow's numbers of the data types that requests can carry: its name, NumPy's type, and the message's field."""
OTHER_NAMES = {0: "INVALID", 8: "COMPLEX64", 14: "BFLOAT16", 19: "HALF", 20: "RESOURCE", 21: "VARIANT"}
NUMPY = {number: kind for number, (_, kind, _) in DTYPES.items()}
NUMBERS = {np.dtype(kind): number for number, kind in NUMPY.items()}


def type_name(number: int) -> str:
    """Such as DT_FLOAT."""
    name, *_ = DTYPES.get(number, (OTHER_NAMES.get(number, number),))
    return f"DT_{name}"


def plain_name(number: int) -> str:
    """A type as NumPy calls it, such as float32; or string."""
    return "string" if number == STRING else np.dtype(NUMPY[number]).name if number in NUMPY else str(number)


def shape_text(shape: tuple[int, ...] | None) -> str:
    """A shape as an error names it: (batch, 28, 28, 1)."""
    if shape is None:
        return "any"
    sizes = ["batch" if size < 0 and axis == 0 else "any" if size < 0 else str(size) for axis, size in enumerate(shape)]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def fill_tensor(tensor: Any, values: np.ndarray) -> None:
    """Writes an array into an empty Tensor message.

    Args:
        tensor: the message.
        values: of any shape; object arrays of bytes become strings.

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
    listed = list(getattr(tensor, DTYPES[tensor.dtype][2]))
    size = int(np.prod(shape))
    if len(listed) > size or (size and not listed):
        raise UserError(f"a tensor of shape {shape} must have {size} values. Received: {len(listed)}")
    values = np.empty(len(listed), kind)
    values[:] = listed
    return np.concatenate([values, np.repeat(values[-1:], size - len(values))]).reshape(shape)


PACKAGE = "kfusion"
SCALARS = {
    **{"double": 1, "float": 2, "int64": 3, "uint64": 4, "int32": 5, "bool": 8, "string": 9, "bytes": 12},
    "uint32": 13,
}
"""Numbers of `FieldDescriptorProto.Type`; any other kind is a message of this table."""

MESSAGES: dict[str, dict[int, str]] = {
    "Dim": {1: "int64 size"},
    "TensorShape": {2: "repeated Dim dim", 3: "bool unknown_rank"},
    "Tensor": {
        1: "int32 dtype",
        2: "TensorShape tensor_shape",
        4: "bytes tensor_content",
        5: "repeated float float_val",
        6: "repeated double double_val",
        7: "repeated int32 int_val",
        8: "repeated bytes string_val",
        10: "repeated int64 int64_val",
        11: "repeated bool bool_val",
        16: "repeated uint32 uint32_val",
        17: "repeated uint64 uint64_val",
    },
    "TensorInfo": {1: "string name", 2: "int32 dtype", 3: "TensorShape tensor_shape"},
    "SignatureDef": {1: "map TensorInfo inputs", 2: "map TensorInfo outputs", 3: "string method_name"},
    "Node": {1: "string name", 2: "string op"},
    "OpDef": {1: "string name"},
    "Function": {1: "OpDef signature", 3: "repeated Node node_def"},
    "Library": {1: "repeated Function function"},
    "Graph": {1: "repeated Node node", 2: "Library library"},
    "MetaInfo": {4: "repeated string tags"},
    "MetaGraph": {1: "MetaInfo meta_info_def", 2: "Graph graph_def", 5: "map SignatureDef signature_def"},
    "SavedModel": {1: "int64 saved_model_schema_version", 2: "repeated MetaGraph meta_graphs"},
    "Int64Value": {1: "int64 value"},
    "ModelSpec": {1: "string name", 2: "Int64Value version", 3: "string signature_name", 4: "string version_label"},
    "PredictRequest": {1: "ModelSpec model_spec", 2: "map Tensor inputs"},
    "PredictResponse": {1: "map Tensor outputs", 2: "ModelSpec model_spec"},
    "PredictLog": {1: "PredictRequest request"},
    "PredictionLog": {6: "PredictLog predict_log"},
}


def message(name: str) -> Any:
    """The class of one of the `MESSAGES`."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{PACKAGE}.{name}"))


@cache
def _pool() -> Any:
    """The messages, apart from those that TensorFlow knows itself."""
    file = descriptor_pb2.FileDescriptorProto(name="kfusion.proto", package=PACKAGE, syntax="proto3")
    for title, fields in MESSAGES.items():
        described = file.message_type.add(name=title)
        for number, words in fields.items():
            _describe(described, number, words.split())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _describe(described: Any, number: int, words: list[str]) -> None:
    """Adds a field that is written as in a .proto file; `map KIND` stands for `map<string, KIND>`."""
    *label, kind, name = words
    if label == ["map"]:
        entry = described.nested_type.add(name="".join(part.title() for part in name.split("_")) + "Entry")
        entry.options.map_entry = True
        _describe(entry, 1, ["string", "key"])
        _describe(entry, 2, [kind, "value"])
        kind, label = f"{described.name}.{entry.name}", ["repeated"]
    field = described.field.add(name=name, number=number, label=3 if label else 1)
    field.type = SCALARS.get(kind, 11)
    if kind not in SCALARS:
        field.type_name = f".{PACKAGE}.{kind}"


SAVED_MODEL_FILE, TAG = "saved_model.pb", "serve"
ASSETS, LABELS = "assets.extra", "labels.txt"
"""The folder of what travels with a model, and the file of its class names in there."""
VARIABLES = frozenset({"VarHandleOp", "VariableV2", "Variable"})
"""Operations whose values lie beside the graph, in `variables/`."""
Tensors = dict[str, tuple[str, int, tuple[int, ...] | None]]
"""{alias: (tensor's name, dtype's number, shape)}; a size of -1 is free, a shape of None unknown."""


@dataclass(frozen=True)
class Signature:
    """An endpoint."""

    inputs: Tensors
    outputs: Tensors


def read_meta_graph(folder: Path) -> Any:
    """The graph and the signatures that a SavedModel holds under the tag `serve`.

    Raises:
        UserError: the file is missing or damaged, or holds none.
    """
    path = folder / SAVED_MODEL_FILE
    try:
        found = message("SavedModel").FromString(path.read_bytes()).meta_graphs
    except Exception as error:  # protobuf's own error has no public base class
        raise UserError(f"{path}: must be a SavedModel. Found: {error}") from error
    served = [graph for graph in found if TAG in graph.meta_info_def.tags]
    if not served:
        raise UserError(f"{path}: must hold a graph tagged 'serve'. Found: {len(found)} graphs without it")
    return served[0]


def read_signatures(folder: Path) -> dict[str, Signature]:
    """The endpoints of a SavedModel, by name."""

    def tensors(infos: Any) -> Tensors:
        def shape(info: Any) -> tuple[int, ...] | None:
            return None if info.unknown_rank else tuple(dim.size for dim in info.dim)

        return {alias: (info.name, info.dtype, shape(info.tensor_shape)) for alias, info in sorted(infos.items())}

    found = read_meta_graph(folder).signature_def
    # TensorFlow notes its own initialization as an endpoint with a name of this kind.
    names = sorted(name for name in found if not name.startswith("__"))
    return {name: Signature(tensors(found[name].inputs), tensors(found[name].outputs)) for name in names}


def read_labels(folder: Path, signature: Signature | None) -> list[str]:
    """The class names that travel with a model, in the order of its probabilities.

    Args:
        folder: a SavedModel.
        signature: an endpoint, for the number of its probabilities.

    Raises:
        UserError: the file is missing or no text, or names another number of classes.
    """
    path = folder / ASSETS / LABELS
    try:
        # By line feeds alone: a name may hold any other character that Python takes for the end of a line.
        names = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except OSError as error:
        raise UserError(f"{path}: the file must be readable. Found: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: must be UTF-8 text. Found: {error}") from error
    _, _, shape = signature.outputs.get("probabilities", ("", 0, None)) if signature else ("", 0, None)
    if shape and shape[-1] not in (-1, len(names)):
        raise UserError(f"{path}: must name the model's {shape[-1]} classes. Found: {len(names)} lines")
    return names


def require_variables(folder: Path) -> None:
    """The weights of a SavedModel must be beside it: the runtime loads it without, and then refuses each request.

    Raises:
        UserError: the graph has variables, and the folder no file of them.
    """
    index = folder / "variables" / "variables.index"
    if not index.is_file() and VARIABLES & read_ops(folder):
        raise UserError(f"{folder}: must hold its weights, variables/{index.name}. Found: no such file")


def read_ops(folder: Path) -> set[str]:
    """The kinds of all ops, those of nested functions too; calls of the graph's own functions aside."""
    graph = read_meta_graph(folder).graph_def
    functions = list(graph.library.function)
    nodes = [*graph.node, *(node for function in functions for node in function.node_def)]
    return {node.op for node in nodes} - {function.signature.name for function in functions}
