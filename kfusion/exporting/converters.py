"""A frozen network -> the bytes of a file for another runtime.

A network as one function without variables: what the converters to other runtimes take.
"""

import contextlib
import io
import json
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from kfusion.exporting.portable_runtime import FACTS, LABELS, OUTPUTS
from kfusion.exporting.signatures import Answer, Endpoints
from kfusion.spec import MODALITIES, Spec
from kfusion.validation import UserError, reason

OPSET = 18
"""Of ONNX: what the runtimes of 2023 and later have; tf2onnx 1.17 knows none higher."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a ZIP archive can name: the same content makes the same bytes."""


def to_litert(frozen: Any) -> bytes:
    """A .tflite file in float32, its batch free: an interpreter resizes its inputs.

    Args:
        frozen: from `frozen.freeze`.
    """
    return tf.lite.TFLiteConverter.from_concrete_functions([frozen.answer.get_concrete_function()], frozen).convert()


def to_int8(litert: bytes, batches: Iterable[Mapping[str, np.ndarray]]) -> bytes:
    """The same file with 8-bit integers in all convolutions and dense layers, per output channel.

    The convolutions' activations get fixed ranges, those of some real pairs. Those of dense layers are scaled for each
    input as it comes: sounds differ too much from one another for one range. All other operations stay in float32,
    those too that find a word's ends in a sound: indices of frames do not survive 8 bits.

    Args:
        litert: a float32 file.
        batches: "image", "audio" and "present" of training pairs, one pair each.
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
        ranges = recipe.calibrate({"serving_default": list(batches)}, num_threads=1)
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
        frozen: from `frozen.freeze`.
        facts: ready for JSON, with "class_names" and "versions".

    Raises:
        UserError: tf2onnx has no translation for an operation of the network.
    """
    import onnx
    import tf2onnx

    model, _ = tf2onnx.convert.from_function(
        frozen.answer,
        input_signature=frozen.answer.input_signature,
        opset=OPSET,
        custom_op_handlers={"SelectV2": (_as_where, []), "Erfc": (_as_erf, [])},
    )
    outputs = {output.name: output for output in model.graph.output}
    del model.graph.output[:]
    model.graph.output.extend(outputs[name] for name in OUTPUTS)
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"
    model.producer_name, model.producer_version = "kfusion", facts["versions"]["kfusion"] or ""
    model.doc_string = f"Names the class of an image, a sound, or both: {', '.join(facts['class_names'])}."
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


class Unguarded(Endpoints):
    """A network as one endpoint that is told what is present, and checks nothing: other runtimes have no such ops."""

    def answer(self, image: tf.Tensor, audio: tf.Tensor, present: tf.Tensor) -> Answer:
        said = self._answer(image * float(self.spec.pixel_max), audio, present)
        return {name: said[name] for name in OUTPUTS}


def freeze(network: keras.Model, spec: Spec, temperature: Mapping[str, float]) -> tf.Module:
    """The network's answers, as a function in whose graph all weights are constants.

    Args:
        network: {"image", "audio", "present"} -> probabilities.
        spec: its shapes.
        temperature: for each of the `VIEWS`, by which its probabilities are tempered; empty: they stay as they are.

    Returns:
        A module with `answer(image, audio, present) -> {output: tensor}`: image float32 (batch, height, width,
        channels) in [0, 1], audio float32 (batch, num_audio), present bool (batch, 2).
    """
    takes = [
        tf.TensorSpec((None, *spec.image_shape), tf.float32, "image"),
        tf.TensorSpec((None, spec.num_audio), tf.float32, "audio"),
        tf.TensorSpec((None, len(MODALITIES)), tf.bool, "present"),
    ]
    traced = tf.function(Unguarded(network, spec, temperature, {}).answer, autograph=False, input_signature=takes)
    # Not only the variables: a Normalization layer's mean is a captured tensor, of which tf2onnx would make an input.
    frozen = convert_variables_to_constants_v2(traced.get_concrete_function())
    # A frozen function gives its outputs in the order of their names, and the names are lost.
    names = sorted(OUTPUTS)

    def answer(image: tf.Tensor, audio: tf.Tensor, present: tf.Tensor) -> Answer:
        return dict(zip(names, frozen(image, audio, present), strict=True))

    module = tf.Module()
    module.answer = tf.function(answer, autograph=False, input_signature=takes)  # pyright: ignore
    return module
