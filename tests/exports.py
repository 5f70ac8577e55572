"""Small networks, exported without a run: to try what a trained one would take too long for."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from kfusion.config import ModelConfig
from kfusion.exporting.exporter import plan_of
from kfusion.exporting.prove import Request
from kfusion.exporting.requests import Expected, Samples
from kfusion.exporting.signatures import SIGNATURES, Endpoints, write_saved_model
from kfusion.exporting.verify import Check, Plan, verify
from kfusion.exporting.warmup import BATCHES, write_warmup
from kfusion.model.build import build_model
from kfusion.spec import Spec

SMALL = Spec(image_shape=(9, 8, 3), audio_grid=(4, 3), class_names=("hut", "tür", "zaun"), pixel_max=1)
NO_TEMPERATURE: dict[str, float] = {}


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
