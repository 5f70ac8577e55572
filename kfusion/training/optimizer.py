"""AdamW whose update is one pass over the weights."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("kfusion")
class FusedAdamW(keras.optimizers.AdamW):
    """Keras' AdamW with TensorFlow's fused Adam kernel in place of a dozen operations per variable.

    The same equation, so weights differ in rounding only:

        m = β₁ m + (1 - β₁) g,  v = β₂ v + (1 - β₂) g²,  θ = θ - lr √(1 - β₂ᵗ) / (1 - β₁ᵗ) · m / (√v + ε)

    after Keras' own decoupled weight decay, θ = θ - lr · weight_decay · θ. Reference: Kingma and Ba 2015, the last
    lines of section 2; Loshchilov and Hutter 2019.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value, tf.float32) + 1.0
        beta_1, beta_2 = tf.constant(self.beta_1, tf.float32), tf.constant(self.beta_2, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(self._momentums[index]),
            v=_handle(self._velocities[index]),
            beta1_power=tf.pow(beta_1, step),
            beta2_power=tf.pow(beta_2, step),
            lr=tf.cast(learning_rate, tf.float32),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.constant(self.epsilon, tf.float32),
            grad=tf.cast(gradient, tf.float32),
        )


def _handle(variable: Any) -> Any:
    """TensorFlow's handle of a Keras or a TensorFlow variable."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle
