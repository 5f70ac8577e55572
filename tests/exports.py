"""A run's answers, and small networks exported without a run: to try what a trained one would take too long for."""

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kfusion.config import ModelConfig
from kfusion.data.dataset import Pairs
from kfusion.exporting.assets import BATCHES, write_warmup
from kfusion.exporting.portable_runtime import PACKAGES
from kfusion.exporting.sample_requests import Expected, Samples
from kfusion.exporting.saved_model import plan_of
from kfusion.exporting.signatures import SIGNATURES, Endpoints, write_saved_model
from kfusion.exporting.subprocess_runner import Request
from kfusion.exporting.verify import Check, Plan, verify
from kfusion.inference import load_network, predict_views
from kfusion.model.build import build_model
from kfusion.run_dir import Run
from kfusion.spec import Spec

SMALL = Spec(image_shape=(9, 8, 3), audio_grid=(4, 3), class_names=("hut", "tür", "zaun"), pixel_max=1)
NO_TEMPERATURE: dict[str, float] = {}
MISSING = {
    extra: [name for name in names if importlib.util.find_spec(name.replace("-", "_")) is None]
    for extra, names in PACKAGES.items()
}
EXTRAS = [
    pytest.param(
        extra,
        marks=pytest.mark.skipif(bool(missing), reason=f"needs the extra {extra}: pip install {' '.join(missing)}"),
    )
    for extra, missing in MISSING.items()
]
needs_litert = pytest.mark.skipif(bool(MISSING["litert"]), reason="needs the extra litert")


def copied(run: Path, folder: Path) -> Path:
    """A run that a test may change."""
    shutil.copytree(run, folder)
    return folder


def views(run: Path, images: np.ndarray, audio: np.ndarray) -> dict[str, np.ndarray]:
    """The run's answers, by the way that evaluates it: {view: probabilities (n, 10)}."""
    rows = np.arange(len(images))
    return predict_views(load_network(Run(run)), Pairs(images, audio, rows, rows, rows, Spec()))


def small_network(fusion: str = "late", seed: int = 0) -> keras.Model:
    """An untrained network on `SMALL`; each seed gives other weights."""
    keras.utils.set_random_seed(seed)
    config = ModelConfig(fusion=fusion, embed_dim=8, hidden_dim=6, filters=(2, 3), audio_units=(5,))  # type: ignore
    return build_model(config, SMALL, np.full(SMALL.num_audio, 2.0), np.full(SMALL.num_audio, 9.0))


def small_samples() -> Samples:
    rng = np.random.default_rng(3)
    pixels = rng.uniform(0, 1, (64, *SMALL.image_shape)).astype(np.float32)
    return Samples(pixels, rng.normal(2, 3, (64, SMALL.num_audio)).astype(np.float32), SMALL.pixel_max)


@dataclass(frozen=True, eq=False)
class Exported:
    """A SavedModel of a small network, and what is to be asked of it."""

    folder: Path
    plan: Plan

    def checks(self) -> dict[str, Check]:
        return {check.title: check for check in verify(self.folder, self.plan)}


def export_small(folder: Path, network: keras.Model, temperature: dict[str, float] = NO_TEMPERATURE) -> Exported:
    """Exports a small network without publishing it."""
    endpoints, real = Endpoints(network, SMALL, temperature, {}), small_samples()
    write_saved_model(folder, network, endpoints)
    requests = [Request(signature, real.request(signature, size)) for signature in SIGNATURES for size in BATCHES]
    write_warmup(folder, "small", requests)
    return Exported(folder, plan_of(folder, endpoints, real, Expected(network, SMALL.class_names, temperature)))


class Tiny(tf.Module):
    """y = factor · x."""

    def __init__(self, factor: float) -> None:
        self.factor = tf.Variable(tf.constant(factor, tf.float32))

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, "x")])
    def answer(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": self.factor * x}


def export_tiny(folder: Path, factor: float) -> Path:
    """The smallest model that has weights, a signature `serving_default`, x -> y, and a warm-up request."""
    module = Tiny(factor)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.answer})
    write_warmup(folder, "tiny", [Request("serving_default", {"x": np.ones(2, np.float32)})])
    return folder
