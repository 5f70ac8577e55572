"""What lies inside a network between its inputs and its answer."""

import keras

from kfusion.spec import FUSED, MODALITIES

LAYERS = {**{name: f"{name}_embedding" for name in MODALITIES}, FUSED: "fusion"}
"""Which layer's output is which embedding."""


def with_embeddings(network: keras.Model) -> keras.Model:
    """The network cut off at its embeddings, sharing its weights; one forward pass gives all three.

    Args:
        network: as `build_model` made it, maybe loaded from a file.

    Returns:
        A model: {"image", "audio", "present"} -> {"image": float32 (batch, embed_dim), "audio": the same, "fused":
        (batch, k)}. The fused one is what the softmax reads: the LSTM's state, k = `hidden_dim`; the transformer's
        class token, k = `embed_dim`; or late fusion's sum of log posteriors, k = `num_classes`.
    """
    outputs = {name: network.get_layer(layer).output for name, layer in LAYERS.items()}
    return keras.Model(network.input, outputs, name=f"{network.name}_embeddings")
