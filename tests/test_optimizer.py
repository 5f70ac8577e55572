"""The fused update against Keras' own."""

import keras
import numpy as np

from kfusion.training.optimizers import FusedAdamW, WarmupCosine


def trained(kind):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(7, "relu"), keras.layers.Dense(3, "softmax")])
    optimizer = kind(WarmupCosine(0.05, 3, 30), weight_decay=0.1, beta_1=0.8, beta_2=0.95, epsilon=1e-4)
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(60, 5)), rng.integers(0, 3, 60), batch_size=10, epochs=5, shuffle=False, verbose=0)
    return model.get_weights()


def test_thirty_updates_equal_those_of_keras():
    for ours, theirs in zip(trained(FusedAdamW), trained(keras.optimizers.AdamW), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-6)


def test_the_optimizer_survives_serialisation():
    optimizer = FusedAdamW(1e-3, weight_decay=0.02, beta_1=0.85)
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(copy, FusedAdamW)
    assert copy.get_config() == optimizer.get_config()
