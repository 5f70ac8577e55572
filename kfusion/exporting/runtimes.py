"""The formats of an export, and what opens them without Python's TensorFlow: a file in its runtime, a SavedModel in a
process of its own, since what goes wrong there may abort it.

A portable file takes one array for each modality, by its name, and `present`. For a picture and a sound:

    image     float32 (batch, height, width, channels), in [0, 1]
    audio     float32 (batch, num_values)
    present   bool (batch, modalities): what is there. What is in an absent one's place has no influence, NaN neither.

It gives the outputs that `outputs_of` lists, and checks nothing: a wrong shape is refused by the runtime, but a NaN, or
a pixel of 255, gets an answer that means nothing. What it was made from is in it too, as JSON: `facts`.

`ask_apart` starts this file as `python -m kfusion.exporting.runtimes FOLDER`. Requests come on its standard input, and
each reply leaves as soon as it is there: a line of JSON each, an array as the base64 of TensorFlow's tensor message.
"""

import base64
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kfusion.cli import BEFORE_TENSORFLOW
from kfusion.runtime.protos import fill_tensor, message, read_array
from kfusion.spec import SHARES, TRUSTED, Spec
from kfusion.validation import UserError, reason

FACTS, LABELS = "kfusion.json", "labels.txt"
"""What a .tflite file carries behind the network, as a ZIP archive: see `portable.with_facts`."""
PACKAGES = {
    "": (),
    "litert": ("ai-edge-litert", "ai-edge-quantizer"),
    "onnx": ("tf2onnx", "onnx", "onnxruntime"),
}
"""What an extra brings; the modules' names are the packages', with underscores."""


def outputs_of(names: Sequence[str], trusted: bool = False) -> tuple[str, ...]:
    """What a file gives for every row, in this order; the meanings are those of `signatures.meanings`.

    Args:
        names: of its modalities.
        trusted: whether something is known of the network's trust.
    """
    plain = ("probabilities", "label", *(f"{name}_probabilities" for name in names), "embedding")
    return (*plain, SHARES, *TRUSTED) if trusted else plain


def check_extra(extra: str) -> None:
    """Requires the packages of an extra; "" needs none.

    Raises:
        UserError: one of them is missing.
    """
    missing = [name for name in PACKAGES[extra] if importlib.util.find_spec(name.replace("-", "_")) is None]
    if missing:
        raise UserError(
            f"files for other runtimes need the extra: pip install 'kfusion[{extra}]' (from a checkout: "
            f"pip install '.[{extra}]'). Found: no package {', '.join(missing)}"
        )


class Portable(Protocol):
    """An open file."""

    facts: dict[str, Any]
    inputs: tuple[str, ...]

    def ask(self, *values: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs for a batch of any size: each modality's values in the order of `inputs`, then `present`."""
        ...


def _inputs(facts: dict[str, Any]) -> tuple[str, ...]:
    """Files of earlier versions say nothing of their modalities: they take those of the digits."""
    return (*facts.get("modalities", Spec().names), "present")


class LiteRTFile:
    """A .tflite file in the LiteRT runtime.

    Args:
        path: the file.
        num_threads: processors that one call may use.
    """

    def __init__(self, path: Path, num_threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with zipfile.ZipFile(path) as behind:
            self.facts = json.loads(behind.read(FACTS))
        self.inputs = _inputs(self.facts)
        # Kept: the runner holds it by a weak reference.
        self.interpreter = Interpreter(str(path), num_threads=num_threads)
        # Now, not at the first call: it is then that the runtime says what it has chosen to compute with.
        self.interpreter.allocate_tensors()
        self.runner = self.interpreter.get_signature_runner()

    def ask(self, *values: np.ndarray) -> dict[str, np.ndarray]:
        """See `Portable`."""
        return self.runner(**dict(zip(self.inputs, values, strict=True)))


class OnnxFile:
    """A .onnx file in ONNX Runtime, on the processor.

    Args:
        path: the file.
        num_threads: processors that one call may use.
    """

    def __init__(self, path: Path, num_threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.facts = json.loads(self.session.get_modelmeta().custom_metadata_map["kfusion"])
        self.inputs = _inputs(self.facts)
        self.outputs = tuple(self.facts.get("outputs", outputs_of(self.inputs[:-1])))

    def ask(self, *values: np.ndarray) -> dict[str, np.ndarray]:
        """See `Portable`."""
        results = self.session.run(list(self.outputs), dict(zip(self.inputs, values, strict=True)))
        return dict(zip(self.outputs, map(np.asarray, results), strict=True))


@dataclass(frozen=True)
class Format:
    """What a run can be exported as.

    Args:
        convert: the function of `kfusion.exporting` that writes it into a folder, by its module and name; it and
            `verify` get an `ExportContext` and the folder. By names, since what writes a format needs TensorFlow.
        verify: the function that gives the checks of what was written.
        file: the name of the one file that it is; "" for a folder of several.
        extra: what must be installed besides.
        runtime: what opens the file.
        quantised: it holds 8-bit numbers: its accuracy is measured.
    """

    convert: str
    verify: str
    file: str = ""
    extra: str = ""
    runtime: type[LiteRTFile] | type[OnnxFile] | None = None
    quantised: bool = False

    def function(self, name: str) -> Callable[..., Any]:
        """The function that `convert` or `verify` names."""
        module, _, function = name.rpartition(".")
        return getattr(importlib.import_module(f"kfusion.exporting.{module}"), function)


FORMATS = {
    "savedmodel": Format("saved_model.convert", "saved_model.verify_folder"),
    "litert": Format("portable.convert_litert", "portable.verify_file", "model.tflite", "litert", LiteRTFile),
    "litert-int8": Format(
        "portable.convert_int8", "portable.verify_int8", "model.tflite", "litert", LiteRTFile, quantised=True
    ),
    "onnx": Format("portable.convert_onnx", "portable.verify_file", "model.onnx", "onnx", OnnxFile),
}
"""Every format by its name, as `kfusion.export --format` and `FusionClassifier.export` take it."""


def open_portable(path: Path, num_threads: int = 1) -> Portable:
    """Opens a file made by `kfusion.export --format`.

    Args:
        path: the file.
        num_threads: processors that one call may use.

    Raises:
        UserError: it is none, or the runtime refuses it.
    """
    runtimes = {Path(each.file).suffix: each.runtime for each in FORMATS.values() if each.runtime}
    if path.suffix not in runtimes:
        raise UserError(f"{path}: must end in {' or '.join(runtimes)}. Found: {path.suffix or 'no ending'}")
    if not path.is_file():
        raise UserError(f"{path}: must be a file made by 'python -m kfusion.export --format'. Found: no such file")
    try:
        return runtimes[path.suffix](path, num_threads)
    except ImportError as error:
        raise UserError(f"{path}: needs its runtime. Found: {error}") from None
    except Exception as error:  # Each runtime has exceptions of its own.
        found = reason(error)
        raise UserError(f"{path}: must be a file made by 'python -m kfusion.export'. Found: {found}") from error


TIMEOUT_SECONDS = 900.0
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, eq=False)
class Request:
    """Arrays for an endpoint; object arrays of bytes for its strings. No `outputs`: all of them."""

    signature: str
    inputs: dict[str, np.ndarray]
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Reply:
    """What came back: `outputs`, or the `code` and `text` of the refusal."""

    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    code: str = "OK"
    text: str = ""


@dataclass(frozen=True, eq=False)
class Session:
    """What became of a process.

    Args:
        replies: one for each request that was answered before the process ended, in order.
        load_seconds: how long loading took; NaN where it failed.
        modules: what the process had imported.
        end: "" where it ended well, else how it ended, and its last words.
    """

    replies: list[Reply]
    load_seconds: float
    modules: frozenset[str]
    end: str


def ask_apart(folder: Path, requests: Sequence[Request], timeout_s: float = TIMEOUT_SECONDS) -> Session:
    """Loads a SavedModel in a new process and sends it all requests, one after the other.

    Args:
        folder: a SavedModel.
        requests: to it.
        timeout_s: longest time for all of it, after which the process is killed.
    """
    command = [sys.executable, "-m", "kfusion.exporting.runtimes", str(folder)]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**BEFORE_TENSORFLOW, **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    lines = b"".join(_line({**vars(request), "inputs": _packed(request.inputs)}) for request in requests)
    try:
        done = subprocess.run(command, input=lines, capture_output=True, env=env, timeout=timeout_s)
        output, status = done.stdout, done.returncode
        end = "" if status == 0 else _last_words(status, done.stderr.decode("utf-8", "replace"))
    except subprocess.TimeoutExpired as error:  # The process has been killed.
        output, end = error.stdout or b"", f"not answered within {timeout_s:g} s"
    # The last line may have been cut off by the end of the process.
    start, *replies = [json.loads(line) for line in output.splitlines(keepends=True) if line.endswith(b"\n")] or [{}]
    return Session(
        [Reply(_unpacked(reply["outputs"]), reply["code"], reply["text"]) for reply in replies],
        start.get("load_seconds", float("nan")),
        frozenset(start.get("modules", ())),
        end,
    )


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values).encode() + b"\n"


def _packed(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Arrays as JSON can carry them."""
    packed = {}
    for name, values in arrays.items():
        fill_tensor(tensor := message("Tensor")(), values)
        packed[name] = base64.b64encode(tensor.SerializeToString()).decode("ascii")
    return packed


def _unpacked(packed: Mapping[str, str]) -> dict[str, np.ndarray]:
    return {name: read_array(message("Tensor").FromString(base64.b64decode(text))) for name, text in packed.items()}


def _last_words(status: int, text: str) -> str:
    """How a process ended, in one line."""
    how = f"killed by signal {-status}" if status < 0 else f"status {status}"
    lines = [line for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "Check failed" in line] or lines[-1:]
    return ": ".join([how, *telling[:1]])


def main() -> None:
    """Answers the requests on standard input."""
    from kfusion.runtime.c_api import Refused, ServedModel

    requests = [json.loads(line) for line in sys.stdin.buffer]
    began = time.perf_counter()
    with ServedModel(Path(sys.argv[1])) as model:
        _write({"load_seconds": time.perf_counter() - began, "modules": sorted(sys.modules)})
        for request in requests:
            try:
                reply = Reply(model.ask(request["signature"], _unpacked(request["inputs"]), request["outputs"]))
            except Refused as error:
                reply = Reply(code=error.code, text=str(error))
            _write({**vars(reply), "outputs": _packed(reply.outputs)})


def _write(values: Mapping[str, Any]) -> None:
    sys.stdout.buffer.write(_line(values))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
