"""Small SavedModels made by hand, without kfusion's exporter: what a server and a client need of a version, no more."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kfusion.runtime.protos import fill_tensor, message

CLASSES = ("hut", "tür", "zaun")
SHAPES = {"image": (6, 5, 1), "audio": (26,), "vector": (3,)}


class Tiny(tf.Module):
    """y = factor · x."""

    def __init__(self, factor: float) -> None:
        self.factor = tf.Variable(tf.constant(factor, tf.float32))

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, "x")])
    def answer(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": self.factor * x}


def write_warmup(folder: Path, signature: str, inputs: dict[str, np.ndarray]) -> None:
    """One request that a server runs while it loads the model."""
    request = message("PredictRequest")(model_spec={"name": "tiny", "signature_name": signature})
    for name, values in inputs.items():
        fill_tensor(request.inputs[name], values)
    (folder / "assets.extra").mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        writer.write(message("PredictionLog")(predict_log={"request": request}).SerializeToString())


def export_tiny(folder: Path, factor: float) -> Path:
    """The smallest model that has weights, a signature `serving_default`, x -> y, and a warm-up request."""
    module = Tiny(factor)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.answer})
    write_warmup(folder, "serving_default", {"x": np.ones(2, np.float32)})
    return folder


def export_modalities(
    folder: Path, names: tuple[str, ...], files: tuple[str, ...] = (), wary_of: tuple[str, ...] = ()
) -> Path:
    """A version of some of the modalities in `SHAPES`.

    A modality's probabilities are the softmax of three sums: of every third of its values from the first, the second
    and the third on. The fused ones are the mean of those of the modalities that are there.

    Args:
        folder: where it is written.
        names: of the modalities.
        files: those that `raw_bytes` and `read_bytes` read from files, as the first bytes of a file; none: there are no
            such endpoints. They take the others as arrays, in which a row of NaN is absent.
        wary_of: modalities that are unfamiliar where any of their values is above 0.5; none: the version does not say.
            What is unfamiliar is treated as absent beside another one. The shares are the first class's probabilities,
            and the prediction sets hold all classes.
    """
    module: Any = tf.Module()
    raw = {f"{name}_bytes": tf.TensorSpec((None,), tf.string, f"{name}_bytes") for name in files}
    raw |= {name: tf.TensorSpec((None, *SHAPES[name]), tf.float32, name) for name in names if name not in files}
    arrays = {name: tf.TensorSpec((None, *SHAPES[name]), tf.float32, name) for name in names}

    def outputs(values: dict[str, tf.Tensor], present: tf.Tensor) -> dict[str, tf.Tensor]:
        alone, familiar = {}, []
        for index, name in enumerate(names):
            flat = tf.reshape(values.get(name, tf.zeros_like(present[:, :1], tf.float32)), [tf.shape(present)[0], -1])
            sums = tf.stack([tf.reduce_sum(flat[:, start::3], axis=1) for start in range(3)], axis=1)
            alone[name] = tf.where(present[:, index : index + 1], tf.nn.softmax(sums), tf.zeros_like(sums))
            strange = tf.reduce_any(flat > 0.5, axis=1) if name in wary_of else tf.zeros_like(present[:, 0])
            familiar.append(tf.logical_and(present[:, index], tf.logical_not(strange)))
        known = tf.stack(familiar, axis=1)
        accepted = tf.reduce_any(known, axis=1)
        used = tf.where(accepted[:, None], known, present)
        weight = tf.cast(used, tf.float32)
        counted = tf.stack(list(alone.values()), axis=1) * weight[:, :, None]
        fused = tf.reduce_sum(counted, axis=1) / tf.reduce_sum(weight, axis=1, keepdims=True)
        label = tf.argmax(fused, axis=1)
        named = {f"{name}_probabilities": probabilities for name, probabilities in alone.items()}
        class_name = tf.gather(tf.constant(CLASSES), label)
        told = {"familiarity": tf.cast(known, tf.float32), "used": used, "accepted": accepted}
        told |= {"shares": counted[:, :, 0], "prediction_set": fused >= 0}
        named |= {"present": present, **(told if wary_of else {})}
        return {"probabilities": fused, "label": label, "class_name": class_name, **named}

    def by_arrays(**values: tf.Tensor) -> dict[str, tf.Tensor]:
        for name, array in values.items():
            rule = tf.reduce_all(tf.abs(array) <= 1000.0)
            with tf.control_dependencies([tf.debugging.Assert(rule, [f"{name} must be within -1000 and 1000"])]):
                values[name] = tf.identity(array)
        size = tf.shape(next(iter(values.values())))[0]
        return outputs(values, tf.repeat(tf.constant([[name in values for name in names]]), size, axis=0))

    def read(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        values, present = {}, []
        for name in names:
            if name in files:
                content, size = inputs[f"{name}_bytes"], int(np.prod(SHAPES[name]))
                lengths = tf.strings.length(content)
                rule = tf.reduce_all(tf.logical_or(lengths >= size, lengths == 0))
                with tf.control_dependencies([tf.debugging.Assert(rule, [f"{name}_bytes, row 0: must be longer"])]):
                    content = tf.identity(content)
                numbers = tf.io.decode_raw(content, tf.uint8, fixed_length=size)
                values[name] = tf.reshape(tf.cast(numbers, tf.float32) / 255.0, [-1, *SHAPES[name]])
                present.append(tf.not_equal(content, ""))
            else:
                present.append(tf.reduce_any(tf.math.is_finite(inputs[name]), axis=1))
                values[name] = tf.where(present[-1][:, None], inputs[name], 0.0)
        return {**values, "present": tf.stack(present, axis=1)}

    def by_files(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        values = read(**inputs)
        return outputs(values, values["present"])

    signatures = {"serving_default": tf.function(by_arrays).get_concrete_function(**arrays)}
    for name in names:
        signatures[f"{name}_only"] = tf.function(by_arrays).get_concrete_function(**{name: arrays[name]})
    if files:
        signatures["raw_bytes"] = tf.function(by_files).get_concrete_function(**raw)
        signatures["read_bytes"] = tf.function(read).get_concrete_function(**raw)
    tf.saved_model.save(module, str(folder), signatures=signatures)
    write_warmup(folder, "serving_default", {name: np.ones((1, *SHAPES[name]), np.float32) for name in names})
    (folder / "assets.extra" / "labels.txt").write_text("".join(f"{name}\n" for name in CLASSES), encoding="utf-8")
    return folder


def write_examples(folder: Path, examples: list[dict[str, Any]]) -> None:
    """Examples that travel with a version."""
    document = {"licence": "CC0", "examples": examples}
    (folder / "assets.extra" / "examples.json").write_text(json.dumps(document), encoding="utf-8")
