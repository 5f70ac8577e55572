"""What a SavedModel's file says without being loaded: its endpoints, and every op in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfusion.rules import UserError
from kfusion.runtime.protos import message

FILE, TAG = "saved_model.pb", "serve"
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
    path = folder / FILE
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
