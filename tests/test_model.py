"""The network: absence is exact, saving is lossless, and the data decides the shapes."""

import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from kfusion.config import ModelConfig
from kfusion.model.build import as_float32, build_model, with_all_views
from kfusion.spec import Spec
from tests.processes import run_python

SMALL = {"filters": (4, 8), "audio_units": (32,), "embed_dim": 16, "hidden_dim": 24}
OTHER = Spec.pair(image_shape=(13, 9, 3), audio_grid=(1, 20), class_names=("cat", "dog", "owl"), pixel_max=1)


def network(fusion="lstm", spec=None, **settings):
    keras.utils.set_random_seed(1)
    spec = spec or Spec()
    config, size = ModelConfig(**{**SMALL, "fusion": fusion, **settings}), spec["audio"].num_values
    return build_model(config, spec, np.linspace(-3, 3, size), np.linspace(0.5, 9, size))


def batch(spec=None, num=6, present=(True, True)):
    spec, rng = spec or Spec(), np.random.default_rng(0)
    return {
        "image": (rng.random((num, *spec["image"].shape)) * spec["image"].scale).astype(np.float32),
        "audio": rng.normal(0, 3, (num, spec["audio"].num_values)).astype(np.float32),
        "present": np.tile(np.array([present]), (num, 1)),
    }


@pytest.mark.parametrize("fusion", ["lstm", "attention", "late"])
class TestEveryHead:
    @pytest.mark.parametrize("spec", [Spec(), OTHER], ids=["digits", "other"])
    def test_answers_are_probabilities_of_the_specs_classes(self, fusion, spec):
        answer = network(fusion, spec)(batch(spec)).numpy()
        assert answer.shape == (6, spec.num_classes)
        np.testing.assert_allclose(answer.sum(axis=1), 1, atol=1e-5)

    @pytest.mark.parametrize(("absent", "present"), [("audio", (True, False)), ("image", (False, True))])
    @pytest.mark.parametrize("value", [0.0, 1e6, np.nan])
    def test_an_absent_modality_has_no_influence_whatever_it_holds(self, fusion, absent, present, value):
        model, alone = network(fusion), batch(present=present)
        replaced = {**alone, absent: np.full_like(alone[absent], value)}
        np.testing.assert_array_equal(model(replaced), model(alone))
        assert np.abs(model(alone) - model(batch())).max() > 1e-5

    def test_rows_of_one_batch_may_lack_different_modalities(self, fusion):
        model, mixed = network(fusion), batch(num=3)
        mixed["present"] = np.array([[True, True], [True, False], [False, True]])
        together = model(mixed).numpy()
        for row in range(3):
            alone = model({name: value[row : row + 1] for name, value in mixed.items()}).numpy()
            np.testing.assert_allclose(together[row], alone[0], atol=1e-6)

    def test_saved_and_loaded_in_safe_mode_it_answers_the_same(self, fusion, tmp_path):
        model = network(fusion)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
        np.testing.assert_array_equal(loaded(batch()), model(batch()))

    def test_exported_graph_answers_the_same_with_an_absent_modality(self, fusion, tmp_path):
        model, alone = network(fusion), batch(present=(True, False))
        model.export(tmp_path / "exported", verbose=False)
        served = tf.saved_model.load(str(tmp_path / "exported"))
        np.testing.assert_allclose(served.serve(alone), model(alone), atol=1e-6)

    def test_both_modalities_receive_gradients(self, fusion):
        model = network(fusion)
        with tf.GradientTape() as tape:
            answer = model(batch())
            loss = -tf.reduce_mean(tf.math.log(answer[:, 3]))
        kernels = [model.get_layer(name).kernel.value for name in ("image_conv1a", "audio_dense1")]
        gradients: list = tape.gradient(loss, kernels)  # type: ignore[assignment]
        assert all(np.abs(gradient.numpy()).max() > 0 for gradient in gradients)

    def test_a_mixed_precision_network_is_kept_in_float32(self, fusion, tmp_path):
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            mixed = network(fusion)
        finally:
            keras.config.set_dtype_policy("float32")
        copy = as_float32(mixed)
        copy.save(tmp_path / "model.keras")
        stored = json.loads(zipfile.ZipFile(tmp_path / "model.keras").read("config.json"))
        assert "bfloat16" not in json.dumps(stored)
        np.testing.assert_allclose(copy(batch()), mixed(batch()), atol=0.03)
        np.testing.assert_array_equal(copy(batch()), network(fusion)(batch()))


@pytest.mark.parametrize("fusion", ["lstm", "attention", "late"])
def test_all_views_are_the_networks_answers_to_each(fusion):
    model = network(fusion, utterance_trim=0.3)
    mixed = batch(num=3)
    mixed["present"] = np.array([[True, True], [True, False], [False, True]])
    answers = with_all_views(model)(mixed).numpy()
    assert answers.shape == (3, 3, 10)
    for index, view in enumerate(Spec().views.values()):
        np.testing.assert_allclose(answers[0, index], model({**mixed, "present": np.array([view] * 3)})[0], atol=1e-6)
    # What is absent stays absent: the other view's question falls back to what there is.
    np.testing.assert_allclose(answers[1], np.tile(model(mixed)[1], (3, 1)), atol=1e-6)


@pytest.mark.slow
def test_all_views_of_loaded_networks_of_every_head_in_another_process(tmp_path):
    """There, names that are free here may be taken by those of the loaded network."""
    paths = [tmp_path / f"{fusion}.keras" for fusion in ("lstm", "attention", "late")]
    for path in paths:
        as_float32(network(path.stem, utterance_trim=0.3)).save(path)
    program = (
        "import sys, keras; from kfusion.model.build import with_all_views;"
        "print(*(with_all_views(keras.saving.load_model(path)).output_shape for path in sys.argv[1:]))"
    )
    done = run_python("-c", program, *paths)
    assert done.stdout == "(None, 3, 10) (None, 3, 10) (None, 3, 10)\n", done.stderr


def test_late_fusion_multiplies_the_posteriors():
    model = network("late")
    both, image, audio = (model(batch(present=p)).numpy() for p in ((True, True), (True, False), (False, True)))
    product = image * audio
    np.testing.assert_allclose(both, product / product.sum(axis=1, keepdims=True), atol=1e-5)


def test_scalings_lie_in_the_graph():
    spec_255, spec_1 = Spec.pair(pixel_max=255), Spec.pair(pixel_max=1)
    large = batch(spec_255)
    small = {**large, "image": large["image"] / 255}
    np.testing.assert_allclose(network(spec=spec_255)(large), network(spec=spec_1)(small), atol=1e-6)
    scaling = network().get_layer("audio_scaling")
    mean, variance = np.linspace(-3, 3, 507), np.linspace(0.5, 9, 507)
    standardised = scaling(batch()["audio"]).numpy()
    np.testing.assert_allclose(standardised, (batch()["audio"] - mean) / np.sqrt(variance), atol=1e-4)


def test_the_papers_network_has_the_papers_shapes():
    model = build_model(ModelConfig(), Spec(), [0.0] * 507, [1.0] * 507)
    shapes = {layer.name: layer.output.shape for layer in model.layers}
    assert shapes["image_conv1b"] == (None, 28, 28, 32)
    assert shapes["image_conv2b"] == (None, 14, 14, 64)
    assert shapes["image_pool2"] == (None, 7, 7, 64)
    assert shapes["image_embedding"] == shapes["audio_embedding"] == (None, 128)
    assert model.get_layer("fusion").units == 256
    kernels = [model.get_layer(f"image_conv{name}").kernel_size[0] for name in ("1a", "1b", "2a", "2b")]
    assert kernels == [5, 5, 3, 3]


def test_a_scaling_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"'mean' must have 507 values, one per feature. Received: 3"):
        build_model(ModelConfig(), Spec(), [0.0] * 3, [1.0] * 3)
