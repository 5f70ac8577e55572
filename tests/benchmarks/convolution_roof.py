"""The convolution roof: the network's four convolutions alone, forward and backward, as TensorFlow and oneDNN do them.

No training of this network through TensorFlow can be faster than this on the same machine. Counted: the four forward
passes, the gradients of the four kernels, and the gradients of the inputs of the last three (the first one's input is
the image, which needs none). No bias, activation, pooling or reading of data.
Run by the benchmark: `python -m tests.benchmarks.convolution_roof`.
"""

from typing import Any

import tensorflow as tf

from tests.benchmarks.answering import answer
from tests.benchmarks.convolutions import CONVOLUTIONS, PASSES


class Roof:
    """Args: batch_size; dtype, 'float32' or 'bfloat16'."""

    def __init__(self, batch_size: int, dtype: str) -> None:
        self.batch_size = batch_size
        tensors = [self._tensors(convolution, dtype) for convolution in CONVOLUTIONS]
        # Variables, so that nothing can be computed once and kept.
        self.tensors = [[tf.Variable(tensor) for tensor in group] for group in tensors]

        @tf.function
        def step():
            results = []
            for place, (image, kernel, error) in enumerate(self.tensors):
                results.append(tf.nn.conv2d(image, kernel, 1, "SAME"))
                results.append(
                    tf.raw_ops.Conv2DBackpropFilter(
                        input=image, filter_sizes=kernel.shape, out_backprop=error, strides=[1, 1, 1, 1], padding="SAME"
                    )
                )
                if PASSES[place] == 3:
                    results.append(
                        tf.raw_ops.Conv2DBackpropInput(
                            input_sizes=image.shape,
                            filter=kernel,
                            out_backprop=error,
                            strides=[1, 1, 1, 1],
                            padding="SAME",
                        )
                    )
            return results

        self.step = step

    def _tensors(self, convolution: tuple[int, int, int, int], dtype: str) -> list[tf.Tensor]:
        side, kernel, channels, filters = convolution
        shapes = (
            (self.batch_size, side, side, channels),
            (kernel, kernel, channels, filters),
            (self.batch_size, side, side, filters),
        )
        return [tf.cast(tf.random.stateless_normal(shape, (1, 2)), dtype) for shape in shapes]

    def train(self, steps: int) -> float:
        """Run the convolutions of `steps` batches; one number of the last, to be sure that it was computed."""
        results = self.step()
        for _ in range(steps - 1):
            results = self.step()
        return float(tf.reduce_max(tf.cast(results[-1], tf.float32)))

    def versions(self) -> dict[str, Any]:
        return {"tensorflow": tf.__version__}


if __name__ == "__main__":
    answer(Roof)
