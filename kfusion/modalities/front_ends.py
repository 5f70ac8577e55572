"""The front end of each kind that comes in files: its reader, as a graph, and a fingerprint of what that does.

A network must read files as its training data were read, and features in the cache must be those that would be made
now. So the fingerprint is made from the front end itself: the source of its function and of every function and class of
kfusion that this one uses, without comments and docstrings, and the value of every constant that they name.
"""

import ast
import hashlib
import inspect
import re
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from functools import cache
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import tensorflow as tf

from kfusion.io import cache_folder, write_atomically
from kfusion.modalities import each_of, front_end_of, kinds, modality
from kfusion.modalities.base import Modality
from kfusion.spec import ModalitySpec, Spec

_PACKAGE = "kfusion."
_PLAIN = (bool, int, float, complex, str, bytes, tuple, list, dict, type(None))
"""Constants whose text says all."""

_FILES = tf.TensorSpec([None], tf.string, "contents")
_RESULTS = ["Identity:0", "Identity_1:0"]
_LOADING = threading.Lock()
Reader = Callable[[Any], tuple[tf.Tensor, tf.Tensor]]
"""Contents of files, string (batch,) -> what the network takes, and why each could not be read, "" where it could."""


def file_reader(spec: ModalitySpec, raw: bool = False) -> Reader:
    """What reads the files of a modality, as one graph, which is traced once: that takes seconds.

    The graph for standard files of kfusion's own kinds is kept in the user's cache, for the next process.

    Args:
        spec: of the modality.
        raw: whether files come as they are, and not from `Modality.standard_file`.
    """
    kind = modality(spec)
    if raw or not type(kind).__module__.startswith(_PACKAGE):
        return _calling(_traced(kind, spec, raw))

    def read(contents: Any) -> tuple[tf.Tensor, tf.Tensor]:
        with _LOADING:  # By one thread; the others wait for it.
            reader = _kept(kind, spec)
        return reader(contents)

    return read


@cache
def _traced(kind: Modality, spec: ModalitySpec, raw: bool) -> Any:
    """A concrete function: another one is traced a second time by its second caller."""
    read = kind.raw_reader() if raw else kind.reader()
    graph = tf.function(lambda contents: read(contents, spec), input_signature=[_FILES], autograph=False)
    return graph.get_concrete_function()


@cache
def _kept(kind: Modality, spec: ModalitySpec) -> Reader:
    """The graph from the cache, or else one that is traced now and put there."""
    key = hashlib.sha256(f"{fingerprint(kind.reader())} {spec} {tf.__version__}".encode()).hexdigest()[:32]
    path, graph = cache_folder() / f"{key}.graph", tf.compat.v1.GraphDef()

    def imported(contents: Any) -> list[tf.Tensor]:
        return tf.graph_util.import_graph_def(graph, {"contents": contents}, _RESULTS, name="")

    try:
        checksum, content = path.read_bytes().split(b"\n", 1)
        if hashlib.sha256(content).hexdigest().encode() == checksum:
            graph.ParseFromString(content)
            return _calling(tf.compat.v1.wrap_function(imported, [_FILES]))
    except (OSError, ValueError):
        pass  # There is none, or a damaged one.
    traced = _traced(kind, spec, False)
    content = traced.graph.as_graph_def().SerializeToString(deterministic=True)
    if [tensor.name for tensor in traced.outputs] == _RESULTS:
        with suppress(OSError):  # The next process has to trace it, too.
            path.parent.mkdir(parents=True, exist_ok=True)
            checksum = hashlib.sha256(content).hexdigest().encode()
            write_atomically(path, lambda partial: partial.write_bytes(checksum + b"\n" + content))
    return _calling(traced)


def _calling(graph: Any) -> Reader:
    return lambda contents: tuple(graph(tf.convert_to_tensor(contents)))


def readers_of(spec: Spec, source: Mapping[str, Any], raw: bool = False) -> tuple[dict[str, Reader], dict[str, str]]:
    """What reads the files of each modality for a network, and why those of others cannot be read.

    Args:
        spec: the modalities.
        source: what the network's run notes of its data.
        raw: whether files come as they are, and not from `Modality.standard_file`.

    Returns:
        A reader, or the reason, for each modality.
    """
    readers, reasons = dict[str, Reader](), dict[str, str]()
    for name, kind, shape in each_of(spec):
        reason = kind.unreadable(front_end_of(name, source), shape)
        if reason:
            reasons[name] = reason
        else:
            readers[name] = file_reader(shape, raw)
    return readers, reasons


def heard(values: Any, reasons: Any, counts: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """What was read of the windows of some files, without those in which nothing is heard, where others are.

    Args:
        values: (windows, *shape).
        reasons: string (windows,), why each could not be read, or "".
        counts: int32 (batch,), how many each file has, ≥ 1.

    Returns:
        The values of the windows that are left, the reason of each file, string (batch,), and how many each has left.
    """
    first, row = tf.cumsum(counts, exclusive=True), tf.repeat(tf.range(tf.size(counts)), counts)
    good = tf.equal(reasons, "")
    num_good = tf.math.unsorted_segment_sum(tf.cast(good, tf.int32), row, tf.size(counts))
    only = tf.logical_and(tf.equal(tf.range(tf.size(row)), tf.gather(first, row)), tf.gather(num_good, row) == 0)
    kept = tf.boolean_mask(values, tf.logical_or(good, only))
    return kept, tf.where(num_good > 0, "", tf.gather(reasons, first)), tf.maximum(num_good, 1)


def fingerprints() -> dict[str, str]:
    """The fingerprints of the front ends of all modalities that come in files, by their nouns, as a run notes them."""
    of_files = [modality(name) for name in kinds() if modality(name).suffixes]
    return {f"{kind.noun}s": fingerprint(kind.raw_reader()) for kind in of_files}


def fingerprint(function: Callable[..., Any]) -> str:
    """32 hexadecimal digits that stand for what a function does, and for all of kfusion that it uses.

    Args:
        function: any; of a `functools.partial`, the arguments that it holds count too.
    """
    # By names without their modules: a function that only moves does what it did.
    used = sorted((name.rpartition(".")[2], meaning) for name, meaning in _used(function).items())
    text = "\0".join(f"{name}\0{meaning}" for name, meaning in used)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def note_on(source: Mapping[str, Any]) -> str:
    """A sentence where files were read by other front ends at training than they would be now; else "".

    Args:
        source: what a run notes of its data; runs on other data, and old ones, have no fingerprints.
    """
    noted = source.get("fingerprints")
    changed = [nouns for nouns, print_ in fingerprints().items() if noted.get(nouns, print_) != print_] if noted else []
    if not changed:
        return ""
    return f"files of {' and '.join(changed)} are read otherwise than at training, by another version of kfusion"


def _used(function: Any) -> dict[str, str]:
    """The source of each function and class, and the value of each constant, by its module's name and its own."""
    meanings, waiting = dict[str, str](), [inspect.unwrap(getattr(function, "func", function))]
    for word, value in getattr(function, "keywords", {}).items():
        meanings[f"{_PACKAGE}{word}"] = repr(value)
        waiting += [type(value)] if is_dataclass(value) else []
    while waiting:
        member = waiting.pop()
        name = f"{member.__module__}.{member.__qualname__}"
        if name in meanings:
            continue
        meanings[name] = f"{_source(member)} {getattr(member, '__defaults__', None)}"
        for word, value in _named(member):
            value, constant = inspect.unwrap(value) if callable(value) else value, f"{member.__module__}.{word}"
            if isinstance(value, FunctionType | type) and value.__module__.startswith(_PACKAGE):
                waiting.append(value)
            elif isinstance(value, np.ndarray | np.generic):
                meanings[constant] = f"{value.dtype} {value.shape} {value.tobytes().hex()}"
            elif isinstance(value, _PLAIN) or (is_dataclass(value) and not isinstance(value, type)):
                # Where a function lies in memory is another place in each process; what it does counts.
                meanings[constant] = re.sub(r" at 0x[0-9a-f]+", "", repr(value))
                waiting += _functions_in(value)
            elif isinstance(value, set | frozenset):
                meanings[constant] = repr(sorted(value))
    return meanings


def _functions_in(value: Any) -> list[Any]:
    """The functions of kfusion in a constant, at any depth."""
    if isinstance(value, FunctionType):
        return [value] if value.__module__.startswith(_PACKAGE) else []
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    return [function for part in parts for function in _functions_in(part)]


def _named(value: Any) -> Iterator[tuple[str, Any]]:
    """The names of its module that a function, or the methods of a class, use, and what these stand for."""
    members = vars(value).values() if isinstance(value, type) else [value]
    for member in members:
        function = member.fget if isinstance(member, property) else member
        if not isinstance(function, FunctionType):
            continue
        codes, known = [function.__code__], function.__globals__
        while codes:
            code = codes.pop()
            codes += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
            yield from ((name, known[name]) for name in code.co_names if name in known)


@cache
def _source(value: Any) -> str:
    """The source of a function or class, without comments and docstrings; its code where there is no source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(value)))
    except OSError:
        return value.__code__.co_code.hex() if isinstance(value, FunctionType) else value.__qualname__
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            # What is but a string does nothing.
            node.body = [
                line for line in node.body if not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
            ]
    return ast.unparse(tree)
