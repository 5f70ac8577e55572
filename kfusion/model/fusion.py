"""Fusion heads: the embeddings of the modalities that are present -> class probabilities.

A head is one function here and one entry in `kfusion.config.HEADS`, with a description in one line; `--fusion`, the
search space and the reports read it there. Its contract, which `kfusion.model.build.build_model` checks:

    head(steps, present, config, spec) -> probabilities

- `steps`, float32 (batch, modalities, embed_dim): an embedding per modality, in the order of `spec.names`; all zeros
  for an absent one, whatever its input held. `present`, bool (batch, modalities): at least one is true in each row. An
  absent modality must not change the answer: mask it, do not merely add its zeros.
- `config` is the `ModelConfig`, of which `hidden_dim` is the head's width; `spec` names the modalities and the classes.
- The layer named `fusion` gives the fused embedding, float (batch, k), any k ≥ 1: `embed` and the exported signatures
  read it.
- The layer named `probabilities` is the last one: a softmax over (batch, num_classes) in float32, whatever the policy.
- Every layer's name is its own: an exported file finds weights by it.

Of the network around the head, others rely on the layers `steps`, `{name}_embedding` and `{name}_embedding_dropout`.
"""

from typing import Any

import keras
from keras import layers, ops

from kfusion.config import HEADS, ModelConfig
from kfusion.spec import Spec

__all__ = ["HEADS", "JoinedPosteriors", "ModalityTokens", "fuse_attention", "fuse_late", "fuse_lstm"]

NUM_HEADS = 4
"""Attention heads of the transformer encoder."""


def fuse_lstm(steps: Any, present: Any, config: ModelConfig, spec: Spec) -> Any:
    """The paper's head: an LSTM reads the embeddings, a softmax names the class.

    A time step is a modality, not a moment: the first modality's embedding is step 1, the second's step 2, and the
    LSTM's state after the last present step is the fused representation. The mask makes it skip an absent step. The
    loop is unrolled, so that the exported graph holds plain matrix products and no cuDNN op.

    Args:
        steps: float32 (batch, modalities, embed_dim).
        present: bool (batch, modalities).
        config: the network's settings.
        spec: the modalities and the classes.

    Returns:
        Probabilities, float32 (batch, num_classes).
    """
    state = layers.LSTM(config.hidden_dim, unroll=True, name="fusion")(steps, mask=present)
    return layers.Dense(spec.num_classes, activation="softmax", dtype="float32", name="probabilities")(state)


def fuse_attention(steps: Any, present: Any, config: ModelConfig, spec: Spec) -> Any:
    """The paper's outlook: one transformer encoder layer over a class token and the modalities' steps.

    Pre-norm residual blocks (attention, then a feed-forward layer of `hidden_dim`); absent steps are masked out of the
    attention; the class token's output is the fused representation. Reference: Vaswani et al. 2017; Xiong et al. 2020.

    Args:
        steps: float32 (batch, modalities, embed_dim).
        present: bool (batch, modalities).
        config: the network's settings.
        spec: the modalities and the classes.

    Returns:
        Probabilities, float32 (batch, num_classes).
    """
    tokens = ModalityTokens(name="tokens")(steps)
    size = max(config.embed_dim // NUM_HEADS, 1)
    seen = ops.concatenate([ops.ones_like(present[:, :1]), present], axis=1)
    x = layers.LayerNormalization(name="attention_norm")(tokens)
    attention = layers.MultiHeadAttention(NUM_HEADS, size, flash_attention=False, name="attention")
    tokens = tokens + attention(x, x, attention_mask=ops.expand_dims(seen, 1))
    x = layers.LayerNormalization(name="feed_forward_norm")(tokens)
    x = layers.Dense(config.hidden_dim, activation="gelu", name="feed_forward1")(x)
    tokens = tokens + layers.Dense(config.embed_dim, name="feed_forward2")(x)
    state = layers.LayerNormalization(name="fusion")(tokens[:, 0])
    return layers.Dense(spec.num_classes, activation="softmax", dtype="float32", name="probabilities")(state)


def fuse_late(steps: Any, present: Any, config: ModelConfig, spec: Spec) -> Any:
    """Late fusion: each modality has its own softmax, and the present ones' log posteriors are added.

    p(y | x_1, x_2, …) ∝ exp(Σ_m log p(y | x_m)) where the classes are equally likely a priori and the modalities are
    independent given the class. Reference: Kittler et al. 1998, the product rule.

    Args:
        steps: float32 (batch, modalities, embed_dim).
        present: bool (batch, modalities).
        config: the network's settings.
        spec: the modalities and the classes.

    Returns:
        Probabilities, float32 (batch, num_classes).
    """
    logits = [
        layers.Dense(spec.num_classes, dtype="float32", name=f"{name}_logits")(steps[:, index])
        for index, name in enumerate(spec.names)
    ]
    joined = JoinedPosteriors(name="fusion")(ops.stack(logits, axis=1), present)
    return layers.Softmax(dtype="float32", name="probabilities")(joined)


@keras.saving.register_keras_serializable("kfusion")
class ModalityTokens(layers.Layer):
    """(batch, steps, dim) -> (batch, 1 + steps, dim): a learned class token first, each step marked by its modality."""

    def build(self, input_shape: Any) -> None:
        """Makes the weights."""
        _, steps, dim = input_shape
        small = keras.initializers.RandomNormal(stddev=0.02)
        self.class_token = self.add_weight(shape=(1, 1, dim), initializer=small, name="class_token")
        self.positions = self.add_weight(shape=(1, steps, dim), initializer=small, name="positions")

    def call(self, steps: Any) -> Any:
        """See the class."""
        token = ops.zeros_like(steps[:, :1]) + ops.cast(self.class_token, steps.dtype)
        return ops.concatenate([token, steps + ops.cast(self.positions, steps.dtype)], axis=1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the output, for Keras."""
        return (input_shape[0], input_shape[1] + 1, input_shape[2])


@keras.saving.register_keras_serializable("kfusion")
class JoinedPosteriors(layers.Layer):
    """Logits (batch, modalities, classes) and present (batch, modalities) -> Σ log softmax of those present."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, logits: Any, present: Any) -> Any:
        """See the class."""
        posteriors = ops.log_softmax(logits, axis=-1)
        return ops.sum(ops.where(ops.expand_dims(present, -1), posteriors, 0.0), axis=1)

    def compute_output_shape(self, logits_shape: Any, present_shape: Any) -> Any:
        """The shape of the output, for Keras."""
        return (logits_shape[0], logits_shape[2])
