"""A run's network as one file for another runtime: frozen to one function, converted, and verified against the network.

A file in float32 must predict what the network predicts; one of 8-bit integers must classify as well.
"""

import contextlib
import io
import json
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from kfusion.cli import quiet
from kfusion.data.dataset import Pairs
from kfusion.exporting.exporter import ExportContext
from kfusion.exporting.runtimes import FACTS, FORMATS, LABELS, Portable, open_portable, outputs_of
from kfusion.exporting.samples import Arrays
from kfusion.exporting.signatures import DEFAULT, Endpoints, Tensors, one_or_all
from kfusion.exporting.verify import BATCHES, TOLERANCE, Check, distance
from kfusion.modalities import modality
from kfusion.model.trust import Trust
from kfusion.spec import FUSED, Caution, Spec
from kfusion.validation import UserError, reason

OPSET = 18
"""Of ONNX: what the runtimes of 2023 and later have; tf2onnx 1.17 knows none higher."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a ZIP archive can name: the same content makes the same bytes."""


def to_litert(frozen: Any) -> bytes:
    """A .tflite file in float32, its batch free: an interpreter resizes its inputs.

    Args:
        frozen: from `freeze`.
    """
    return tf.lite.TFLiteConverter.from_concrete_functions([frozen.predict.get_concrete_function()], frozen).convert()


def to_int8(litert: bytes, batches: Iterable[Mapping[str, np.ndarray]]) -> bytes:
    """The same file with 8-bit integers in all convolutions and dense layers, per output channel.

    The convolutions' activations get fixed ranges, those of real samples. Those of dense layers are scaled for each
    input as it comes: sounds differ too much from one another for one range. All other operations stay in float32,
    those too that find a word's ends in a sound: indices of frames do not survive 8 bits.

    Args:
        litert: a float32 file.
        batches: each modality and "present" of training samples, one sample each.
    """
    from ai_edge_quantizer import qtyping, quantizer

    # It shows progress bars and sizes, and warns of the memory that calibration takes.
    silence = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        warnings.simplefilter("ignore")
        recipe = quantizer.Quantizer(bytearray(litert))
        for name in (qtyping.TFLOperationName.CONV_2D, qtyping.TFLOperationName.MAX_POOL_2D):
            recipe.add_static_config(".*", name, activation_num_bits=8, weight_num_bits=8)
        recipe.add_dynamic_config(".*", qtyping.TFLOperationName.FULLY_CONNECTED, num_bits=8)
        ranges = recipe.calibrate({DEFAULT: list(batches)}, num_threads=1)
        return bytes(recipe.quantize(ranges).quantized_model)


def with_facts(litert: bytes, facts: Mapping[str, Any]) -> bytes:
    """A .tflite file that carries its facts: a ZIP archive behind the network, as TensorFlow Lite's metadata does.

    A runtime does not look there; `unzip -p model.tflite labels.txt` does.

    Args:
        litert: the network alone.
        facts: ready for JSON, with "class_names".
    """
    file = io.BytesIO(litert)
    labels = "".join(f"{name}\n" for name in facts["class_names"])
    with zipfile.ZipFile(file, "a") as archive:
        for name, text in ((LABELS, labels), (FACTS, json.dumps(facts, ensure_ascii=False, indent=2))):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), text)
    return file.getvalue()


def to_onnx(frozen: Any, facts: Mapping[str, Any]) -> bytes:
    """A .onnx file, checked by ONNX itself, its batch free, its facts in `metadata_props`.

    Args:
        frozen: from `freeze`.
        facts: ready for JSON, with "class_names", "modalities" and "versions".

    Raises:
        UserError: tf2onnx has no translation for an operation of the network.
    """
    import onnx
    import tf2onnx

    model, _ = tf2onnx.convert.from_function(
        frozen.predict,
        input_signature=frozen.predict.input_signature,
        opset=OPSET,
        custom_op_handlers={"SelectV2": (_as_where, []), "Erfc": (_as_erf, [])},
    )
    outputs = {output.name: output for output in model.graph.output}
    del model.graph.output[:]
    model.graph.output.extend(outputs[name] for name in facts["outputs"])
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"
    model.producer_name, model.producer_version = "kfusion", facts["versions"]["kfusion"] or ""
    nouns = [modality(each["kind"]).called(name) for name, each in facts["modalities"].items()]
    model.doc_string = f"Names the class of {one_or_all(nouns)}: {', '.join(facts['class_names'])}."
    values = {"kfusion": json.dumps(facts, ensure_ascii=False), "labels": "\n".join(facts["class_names"])}
    onnx.helper.set_model_props(model, values)
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise UserError(f"the network must be expressible in ONNX. Found: {reason(error)}") from error
    return model.SerializeToString(deterministic=True)


def _as_where(_: Any, node: Any, *__: Any) -> Any:
    """tf2onnx would write a selection as c·x + (1 - c)·y, through which a NaN in an absent modality gets in."""
    node.type = "Where"
    return node


def _as_erf(graph: Any, node: Any, *_: Any) -> None:
    """erfc x = 1 - erf x: ONNX has no erfc, which the attention head's GELU is made of."""
    shape, dtype = graph.get_shape(node.output[0]), graph.get_dtype(node.output[0])
    graph.remove_node(node.name)
    one = graph.make_const(f"{node.name}/one", np.float32(1.0).reshape(())).output[0]
    erf = graph.make_node("Erf", [node.input[0]]).output[0]
    graph.make_node("Sub", [one, erf], name=node.name, outputs=node.output, shapes=[shape], dtypes=[dtype])


class Unchecked(Endpoints):
    """A network as one endpoint that is told what is present, and checks nothing: other runtimes have no such ops."""

    def predict_unchecked(self, *inputs: tf.Tensor) -> Tensors:
        """Each modality in the unit of a request, and `present`, in the order of the spec -> the outputs of a file."""
        *values, present = inputs
        own = {name: each * float(self.spec[name].scale) for name, each in zip(self.spec.names, values, strict=True)}
        outputs = self._predicted(own, present)
        return {name: outputs[name] for name in outputs_of(self.spec.names, self.answers.trust is not None)}


def freeze(
    network: keras.Model,
    spec: Spec,
    temperature: Mapping[str, float],
    trust: Trust | None = None,
    caution: Caution | None = None,
) -> tf.Module:
    """The network's predictions, as a function in whose graph all weights are constants.

    Args:
        network: {name: values, "present"} -> probabilities.
        spec: the modalities and class names.
        temperature: for each of `spec.views`, by which its probabilities are tempered; empty: they stay as they are.
        trust: of the network; None: nothing is said of it.
        caution: how much the network is to be trusted.

    Returns:
        A module with `predict(*values, present) -> {output: tensor}`: float32 (batch, *shape) for each modality in the
        unit of a request, present bool (batch, modalities).
    """
    takes = [tf.TensorSpec((None, *each.shape), tf.float32, name) for name, each in spec.modalities.items()]
    takes.append(tf.TensorSpec((None, len(spec.names)), tf.bool, "present"))
    unchecked = Unchecked(network, spec, temperature, {}, trust=trust, caution=caution).predict_unchecked
    traced = tf.function(unchecked, autograph=False, input_signature=takes)
    # Not only the variables: a Normalization layer's mean is a captured tensor, of which tf2onnx would make an input.
    frozen = convert_variables_to_constants_v2(traced.get_concrete_function())
    # A frozen function gives its outputs in the order of their names, and the names are lost.
    names = sorted(outputs_of(spec.names, trust is not None))

    def predict(*inputs: tf.Tensor) -> Tensors:
        return dict(zip(names, frozen(*inputs), strict=True))

    module = tf.Module()
    module.predict = tf.function(predict, autograph=False, input_signature=takes)  # pyright: ignore
    return module


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
