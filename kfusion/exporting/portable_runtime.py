"""The formats of an export; and models in one file, for runtimes other than TensorFlow, opened with the runtime alone.

Every such file takes one array for each modality, by its name, and `present`. For a picture and a sound:

    image     float32 (batch, height, width, channels), in [0, 1]
    audio     float32 (batch, num_values)
    present   bool (batch, modalities): what is there. What is in an absent one's place has no influence, NaN neither.

It gives the outputs that `outputs_of` lists, and checks nothing: a wrong shape is refused by the runtime, but a NaN, or
a pixel of 255, gets an answer that means nothing. What it was made from is in it too, as JSON: `facts`.

Nothing in here needs TensorFlow.
"""

import importlib
import importlib.util
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kfusion.spec import SHARES, TRUSTED, Spec
from kfusion.validation import UserError, reason

FACTS, LABELS = "kfusion.json", "labels.txt"
"""What a .tflite file carries behind the network, as a ZIP archive: see `converters.with_facts`."""
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
