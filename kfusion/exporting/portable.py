"""A run's network as one file for another runtime: written, and verified against the network itself.

A file in float32 must predict what the network predicts; one of 8-bit integers must classify as well.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kfusion.cli import quiet
from kfusion.data.dataset import Pairs
from kfusion.exporting.converters import freeze, to_int8, to_litert, to_onnx, with_facts
from kfusion.exporting.exporter import ExportContext
from kfusion.exporting.portable_runtime import FORMATS, Portable, open_portable
from kfusion.exporting.sample_requests import Arrays
from kfusion.exporting.verify import BATCHES, TOLERANCE, Check, distance
from kfusion.spec import FUSED, Spec

EMBEDDING_TOLERANCE = 1e-4
"""Of an embedding, in which the runtimes' roundings have not gone through a softmax yet, as a share of its scale."""
MAX_DROP, MAX_ROWS = 0.005, 2
"""An 8-bit file may lose this share of its accuracy, or this many rows where that is more, in each view."""
BATCH_SIZE = 250


def convert_litert(context: ExportContext, folder: Path) -> None:
    """Writes a .tflite file in float32; arguments as for `convert_int8`."""
    _path(context, folder).write_bytes(with_facts(_litert(context), context.facts))


def convert_int8(context: ExportContext, folder: Path) -> None:
    """Writes a .tflite file of 8-bit integers.

    Args:
        context: of the export.
        folder: where to.
    """
    content = _litert(context)
    with quiet():
        small = to_int8(content, one_by_one(context.samples.train))
    _path(context, folder).write_bytes(with_facts(small, context.facts))


def convert_onnx(context: ExportContext, folder: Path) -> None:
    """Writes a .onnx file; arguments as for `convert_int8`."""
    with quiet():
        content = to_onnx(_frozen(context), context.facts)
    _path(context, folder).write_bytes(content)


def verify_file(context: ExportContext, folder: Path) -> list[Check]:
    """Whether a file predicts what the network does; arguments as for `verify_int8`."""
    return same_predictions(_path(context, folder), context)


def verify_int8(context: ExportContext, folder: Path) -> list[Check]:
    """Whether a file of 8-bit integers classifies as well as one in float32, which is itself verified.

    Args:
        context: of the export.
        folder: where `convert_int8` wrote it.
    """
    path, samples = _path(context, folder), context.samples
    exact = folder.with_name(f"float32-{path.name}")
    exact.write_bytes(with_facts(_litert(context), context.facts))
    checks = same_predictions(exact, context)
    return checks + same_accuracy(path, exact, samples.test if samples.whole_test is None else samples.whole_test)


def _path(context: ExportContext, folder: Path) -> Path:
    return folder / FORMATS[context.options.format].file


def _litert(context: ExportContext) -> bytes:
    with quiet():
        return to_litert(_frozen(context))


def _frozen(context: ExportContext) -> Any:
    return freeze(context.network, context.spec, context.temperature, context.trust, context.options.caution)


def same_predictions(path: Path, context: ExportContext) -> list[Check]:
    """Whether a file predicts what the network does for real samples, one check for each view.

    An absent modality is given as NaN, which must have no influence.

    Args:
        path: the file.
        context: of the export; as many samples as the largest of the `BATCHES` are used.
    """
    model, spec, pairs = _opened(path), context.spec, context.samples.test
    rows = np.arange(max(BATCHES)) % len(pairs)
    values = pairs.read(rows)
    outputs = model.facts["outputs"]
    parts = {"probabilities": tuple(name for name in outputs if name != "embedding"), "embedding": ("embedding",)}
    checks = []
    for view, seen in spec.views.items():
        present = np.tile([seen], (len(rows), 1))
        known = context.expected.outputs(values, present)
        # Embeddings of another scale than a probability's, as late fusion's, are compared by their scale.
        scale = max(1.0, float(np.abs(known["embedding"]).max()))
        inputs = [
            each if is_seen else np.full_like(each, np.nan)
            for each, is_seen in zip(_scaled(values, spec), seen, strict=True)
        ]
        off = dict.fromkeys(parts, 0.0)
        for size in BATCHES:
            predicted = model.ask(*(each[:size] for each in (*inputs, present)))
            for part, names in parts.items():
                off[part] = max(off[part], distance(_only(predicted, names), _only(known, names, size)))
        found = ", ".join(f"{part} ± {value:.1e}" for part, value in off.items())
        passed = off["probabilities"] <= TOLERANCE and off["embedding"] <= EMBEDDING_TOLERANCE * scale
        checks.append(Check(_title(view, spec), passed, found))
    return checks


def same_accuracy(path: Path, exact: Path, pairs: Pairs) -> list[Check]:
    """Whether a file classifies as well as an exact one, in each view.

    Args:
        path: the file, of 8-bit integers.
        exact: of the same network, in float32.
        pairs: labelled; all are used.
    """
    right, wanted = _num_right(path, pairs), _num_right(exact, pairs)
    allowed = max(MAX_ROWS, int(MAX_DROP * len(pairs)))
    checks = []
    for view in pairs.spec.views:
        share = {"int8": right[view] / len(pairs), "float32": wanted[view] / len(pairs)}
        drop = 100 * (share["float32"] - share["int8"])
        found = f"accuracy {share['int8']:.4f}, drop {drop:.2f} points, {len(pairs)} rows"
        checks.append(Check(f"int8, {_title(view, pairs.spec)}", wanted[view] - right[view] <= allowed, found))
    return checks


def one_by_one(pairs: Pairs) -> Iterator[Arrays]:
    """Samples as the inputs of a file, one at a time."""
    scaled = _scaled(pairs.read(np.arange(len(pairs))), pairs.spec)
    for row in range(len(pairs)):
        inputs = {name: values[row : row + 1] for name, values in zip(pairs.spec.names, scaled, strict=True)}
        yield {**inputs, "present": np.ones((1, len(scaled)), bool)}


def _only(outputs: Arrays, names: tuple[str, ...], size: int | None = None) -> Arrays:
    return {name: outputs[name][:size] for name in names}


def _scaled(values: Arrays, spec: Spec) -> list[np.ndarray]:
    """Each modality in the unit of a request, in their order."""
    return [values[name] / np.float32(shape.scale) for name, shape in spec.modalities.items()]


def _opened(path: Path) -> Portable:
    with quiet():
        return open_portable(path)


def _title(view: str, spec: Spec) -> str:
    return f"{view} alone" if view != FUSED else "both" if len(spec.names) == 2 else "all"


def _num_right(path: Path, pairs: Pairs) -> dict[str, int]:
    """How many samples a file gets right, for each view."""
    model, right = _opened(path), dict.fromkeys(pairs.spec.views, 0)
    for start in range(0, len(pairs), BATCH_SIZE):
        rows = np.arange(start, min(start + BATCH_SIZE, len(pairs)))
        inputs = _scaled(pairs.read(rows), pairs.spec)
        outputs = model.ask(*inputs, np.ones((len(rows), len(inputs)), bool))
        for view in right:
            classes = outputs["label"] if view == FUSED else outputs[f"{view}_probabilities"].argmax(axis=1)
            right[view] += int((classes == pairs.label[rows]).sum())
    return right
