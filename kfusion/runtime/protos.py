"""The few messages of TensorFlow and TensorFlow Serving that are read and written here, without either of them.

A message's wire form holds field numbers, not names, and a reader passes over fields that it does not know. So these
are the fields that are used, with the numbers of tensorflow/core (`saved_model`, `meta_graph`, `graph`, `function`,
`node_def`, `tensor`, `tensor_shape`), tensorflow_serving/apis (`prediction_log`, `predict`, `model`) and
google/protobuf (`Int64Value`).
"""

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

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
