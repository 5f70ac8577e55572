"""A run's predictions, and small networks exported without a run: to try what a trained one would take too long for."""

import importlib.util
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest

from kfusion.config import ModelConfig
from kfusion.data.dataset import Pairs
from kfusion.exporting.runtimes import PACKAGES, Request
from kfusion.exporting.samples import Expected, Samples, samples_of
from kfusion.exporting.saved_model import BATCHES, plan_of, write_warmup
from kfusion.exporting.signatures import Endpoints, write_saved_model
from kfusion.exporting.verify import Check, Plan, verify
from kfusion.inference import load_network, predict_views
from kfusion.modalities import each_of
from kfusion.modalities.front_ends import Reader
from kfusion.model.build import build_model
from kfusion.run_dir import Run
from kfusion.spec import Spec

SMALL = Spec.pair(image_shape=(9, 8, 3), audio_grid=(4, 3), class_names=("hut", "tür", "zaun"), pixel_max=1)
NO_TEMPERATURE: dict[str, float] = {}
MISSING = {
    extra: [name for name in names if importlib.util.find_spec(name.replace("-", "_")) is None]
    for extra, names in PACKAGES.items()
    if extra
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
    pairs = Pairs({"image": images, "audio": audio}, {"image": rows, "audio": rows}, rows, Spec())
    return predict_views(load_network(Run(run)), pairs)


def small_network(fusion: str = "late", seed: int = 0, spec: Spec = SMALL) -> keras.Model:
    """An untrained network; each seed gives other weights."""
    keras.utils.set_random_seed(seed)
    config = ModelConfig(
        fusion=fusion, embed_dim=8, hidden_dim=6, filters=(2, 3), audio_units=(5,), image_encoder="conv"
    )  # type: ignore
    sizes = {name: kind.standardised * shape.num_values for name, kind, shape in each_of(spec)}
    mean, variance = ({name: np.full(size, value) for name, size in sizes.items() if size} for value in (2.0, 9.0))
    return build_model(config, spec, mean, variance)


def small_samples(spec: Spec = SMALL, readers: Mapping[str, Reader] | None = None) -> Samples:
    """Random samples; as files too, where there are readers."""
    rng = np.random.default_rng(3)
    values = {
        name: (rng.uniform(0, 1, size) * shape.scale if kind.is_bounded() else rng.normal(2, 3, size)).astype(
            np.float32
        )
        for name, kind, shape in each_of(spec)
        for size in [(64, *shape.shape)]
    }
    rows = np.arange(64)
    return samples_of(Pairs(values, dict.fromkeys(values, rows), rows % spec.num_classes, spec), 64, readers or {})


@dataclass(frozen=True, eq=False)
class Exported:
    """A SavedModel of a small network, and what is to be asked of it."""

    folder: Path
    plan: Plan

    def checks(self) -> dict[str, Check]:
        return {check.title: check for check in verify(self.folder, self.plan)}


def export_small(
    folder: Path,
    network: keras.Model,
    temperature: dict[str, float] = NO_TEMPERATURE,
    spec: Spec = SMALL,
    readers: Mapping[str, Reader] | None = None,
) -> Exported:
    """Exports a small network without publishing it."""
    endpoints, real = Endpoints(network, spec, temperature, readers or {}), small_samples(spec, readers)
    write_saved_model(folder, network, endpoints)
    requests = [Request(signature, real.request(signature, size)) for signature in endpoints.names for size in BATCHES]
    write_warmup(folder, "small", requests)
    return Exported(folder, plan_of(folder, endpoints, real, Expected(network, spec, temperature)))
