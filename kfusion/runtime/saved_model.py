"""What a SavedModel's file says without being loaded: its endpoints, and every op in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfusion.rules import UserError
from kfusion.runtime.protos import message

TAG = "serve"
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
    path = folder / "saved_model.pb"
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


def read_ops(folder: Path) -> set[str]:
    """The kinds of all ops, those of nested functions too; calls of the graph's own functions aside."""
    graph = read_meta_graph(folder).graph_def
    functions = list(graph.library.function)
    nodes = [*graph.node, *(node for function in functions for node in function.node_def)]
    return {node.op for node in nodes} - {function.signature.name for function in functions}
