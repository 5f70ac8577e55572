"""Which arithmetic is chosen, and that it is said."""

import keras
import pytest
import tensorflow as tf

from kfusion.environment import GRAPH_OPTION, apply_precision, hardware_has_bfloat16, resolve_precision


def test_auto_takes_what_the_hardware_has():
    has = hardware_has_bfloat16()
    assert resolve_precision("auto") == ("bfloat16" if has else "float32")
    assert resolve_precision("float32") == "float32"
    if not has:
        with pytest.raises(ValueError, match="'precision' must be 'float32' or 'auto' on hardware without bfloat16"):
            resolve_precision("bfloat16")


def test_on_a_processor_the_graph_is_rewritten_and_weights_stay_float32():
    try:
        assert apply_precision("bfloat16") == "bfloat16 by oneDNN graph rewrite, float32 weights"
        assert tf.config.optimizer.get_experimental_options()[GRAPH_OPTION] is True
        assert keras.layers.Dense(2).dtype_policy.name == "float32"
    finally:
        assert apply_precision("float32") == "float32"
    assert tf.config.optimizer.get_experimental_options()[GRAPH_OPTION] is False
