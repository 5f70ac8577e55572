"""A network as one function without variables, and that as the bytes of a file for another runtime."""

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

from kfusion.exporting.portable_runtime import FACTS, LABELS, outputs_of
from kfusion.exporting.signatures import DEFAULT, Endpoints, Tensors, one_or_all
from kfusion.modalities import modality
from kfusion.model.trust import Trust
from kfusion.spec import Caution, Spec
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
