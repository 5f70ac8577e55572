"""A model in one file, for runtimes other than TensorFlow: opened and asked with the runtime alone.

Every such file takes

    image     float32 (batch, height, width, channels), in [0, 1]
    audio     float32 (batch, num_audio)
    present   bool (batch, 2): image there? sound there? What is in an absent one's place has no influence, NaN neither.

and gives the `OUTPUTS`. It checks nothing: a wrong shape is refused by the runtime, but a NaN, or a pixel of 255, gets
an answer that means nothing. What it was made from is in it too, as JSON: `facts`.
"""

import importlib.util
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kfusion.validation import UserError, reason

OUTPUTS = ("probabilities", "label", "image_probabilities", "audio_probabilities", "embedding")
"""What a file gives for every row; the meanings are those of `signatures.OUTPUTS`."""
FACTS, LABELS = "kfusion.json", "labels.txt"
"""What a .tflite file carries behind the network, as a ZIP archive: see `convert.with_facts`."""
PACKAGES = {
    "litert": ("ai-edge-litert", "ai-edge-quantizer"),
    "onnx": ("tf2onnx", "onnx", "onnxruntime"),
}
"""What an extra brings; the modules' names are the packages', with underscores."""


@dataclass(frozen=True)
class Format:
    """A kind of file: how its name ends, and the extra that it needs."""

    suffix: str
    extra: str


FORMATS = {
    "litert": Format(".tflite", "litert"),
    "litert-int8": Format(".tflite", "litert"),
    "onnx": Format(".onnx", "onnx"),
}


class Portable(Protocol):
    """An open file."""

    facts: dict[str, Any]

    def ask(self, image: np.ndarray, audio: np.ndarray, present: np.ndarray) -> dict[str, np.ndarray]:
        """The `OUTPUTS` for a batch of any size."""
        ...


def check_extra(extra: str) -> None:
    """
    Raises:
        UserError: a package that the extra brings is missing.
    """
    missing = [name for name in PACKAGES[extra] if importlib.util.find_spec(name.replace("-", "_")) is None]
    if missing:
        raise UserError(
            f"files for other runtimes need the extra: pip install 'kfusion[{extra}]' (from a checkout: "
            f"pip install '.[{extra}]'). Found: no package {', '.join(missing)}"
        )


class LiteRTFile:
    """A .tflite file in the LiteRT runtime.

    Args:
        path: the file.
        num_threads: processors that one question may use.
    """

    def __init__(self, path: Path, num_threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with zipfile.ZipFile(path) as behind:
            self.facts = json.loads(behind.read(FACTS))
        # Kept: the runner holds it by a weak reference.
        self.interpreter = Interpreter(str(path), num_threads=num_threads)
        # Now, not at the first question: it is then that the runtime says what it has chosen to compute with.
        self.interpreter.allocate_tensors()
        self.runner = self.interpreter.get_signature_runner()

    def ask(self, image: np.ndarray, audio: np.ndarray, present: np.ndarray) -> dict[str, np.ndarray]:
        return self.runner(image=image, audio=audio, present=present)


class OnnxFile:
    """A .onnx file in ONNX Runtime, on the processor.

    Args:
        path: the file.
        num_threads: processors that one question may use.
    """

    def __init__(self, path: Path, num_threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.facts = json.loads(self.session.get_modelmeta().custom_metadata_map["kfusion"])

    def ask(self, image: np.ndarray, audio: np.ndarray, present: np.ndarray) -> dict[str, np.ndarray]:
        said = self.session.run(list(OUTPUTS), {"image": image, "audio": audio, "present": present})
        return dict(zip(OUTPUTS, map(np.asarray, said), strict=True))


def open_portable(path: Path, num_threads: int = 1) -> Portable:
    """A file made by `kfusion.export --format`.

    Raises:
        UserError: it is none, or the runtime refuses it.
    """
    kinds: dict[str, type] = {".tflite": LiteRTFile, ".onnx": OnnxFile}
    if path.suffix not in kinds:
        raise UserError(f"{path}: must end in {' or '.join(kinds)}. Found: {path.suffix or 'no ending'}")
    if not path.is_file():
        raise UserError(f"{path}: must be a file made by 'python -m kfusion.export --format'. Found: no such file")
    try:
        return kinds[path.suffix](path, num_threads)
    except ImportError as error:
        raise UserError(f"{path}: needs its runtime. Found: {error}") from None
    except Exception as error:  # Each runtime has exceptions of its own.
        found = reason(error)
        raise UserError(f"{path}: must be a file made by 'python -m kfusion.export'. Found: {found}") from error
