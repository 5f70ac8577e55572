"""A network as one function without variables: what the converters to other runtimes take."""

from collections.abc import Mapping

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from kfusion.exporting.portable import OUTPUTS
from kfusion.exporting.signatures import Answer, Endpoints
from kfusion.spec import MODALITIES, Spec


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
