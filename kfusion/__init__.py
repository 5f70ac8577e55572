"""kfusion: one decision from a picture and a sound, or from any registered modalities.

    from kfusion import FusionClassifier, load

Files directly in this package are commands that one runs (`python -m kfusion.train`); folders are the nouns they use.

What is imported from here is fetched when it is first used, so that `import kfusion` takes no time. After it, Keras
loads the networks of run folders: `keras.saving.load_model("runs/paper-1/best.keras")`.
"""

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kfusion.classifier import FusionClassifier, load
    from kfusion.config import HEADS, AugmentConfig, Config, DataConfig, ModelConfig, TrainingConfig
    from kfusion.modalities.audio.encoder import UtteranceNorm
    from kfusion.modalities.encoders import encode_audio, encode_convolutional, encode_dense, encode_image
    from kfusion.model.build import build_model
    from kfusion.model.fusion import JoinedPosteriors, ModalityTokens
    from kfusion.prediction.estimator import Classifier, ExportedClassifier
    from kfusion.recipes import RECIPES
    from kfusion.spec import ModalitySpec, Spec
    from kfusion.training.optimizers import WarmupCosine
    from kfusion.validation import UserError

__version__ = "0.1.0"
__all__ = [
    "HEADS",
    "RECIPES",
    "AugmentConfig",
    "Classifier",
    "Config",
    "DataConfig",
    "ExportedClassifier",
    "FusionClassifier",
    "JoinedPosteriors",
    "ModalitySpec",
    "ModalityTokens",
    "ModelConfig",
    "Spec",
    "TrainingConfig",
    "UserError",
    "UtteranceNorm",
    "WarmupCosine",
    "build_model",
    "encode_audio",
    "encode_convolutional",
    "encode_dense",
    "encode_image",
    "load",
]

_HOMES = {
    "kfusion.classifier": ("FusionClassifier", "load"),
    "kfusion.config": ("AugmentConfig", "Config", "DataConfig", "HEADS", "ModelConfig", "TrainingConfig"),
    "kfusion.recipes": ("RECIPES",),
    "kfusion.model.build": ("build_model",),
    "kfusion.modalities.encoders": ("encode_audio", "encode_convolutional", "encode_dense", "encode_image"),
    "kfusion.model.fusion": ("JoinedPosteriors", "ModalityTokens"),
    "kfusion.modalities.audio.encoder": ("UtteranceNorm",),
    "kfusion.prediction.estimator": ("Classifier", "ExportedClassifier"),
    "kfusion.validation": ("UserError",),
    "kfusion.spec": ("ModalitySpec", "Spec"),
    "kfusion.training.optimizers": ("WarmupCosine",),
}
"""Where each public name lives."""


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'kfusion' has no attribute {name!r}")
    from kfusion.cli import quiet

    with quiet():  # TensorFlow's start-up chatter, where it is this that starts it.
        value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


LAYERS = ("kfusion.model.fusion", "kfusion.modalities.audio.encoder", "kfusion.modalities.image.encoder")
"""The modules whose layers a saved network may hold; importing them makes the layers known to Keras."""


class _WhenKerasIsImported:
    """Imports `LAYERS` right after Keras, and not before: Keras brings TensorFlow, which takes seconds.

    A finder of modules (`sys.meta_path`) that lets the others find Keras.
    """

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """The others' module spec of Keras; None for any other module.

        Args:
            name: of the module.
            path: as the import system gives it.
            target: as the import system gives it.
        """
        if name != "keras":
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            loader, execute = spec.loader, spec.loader.exec_module

            def execute_both(module: ModuleType) -> None:
                vars(loader).pop("exec_module", None)  # The loader's own again.
                execute(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                    _register()

            # Only what is executed counts: TensorFlow looks for Keras long before it is imported.
            loader.exec_module = execute_both
        return spec


def _register() -> None:
    for name in LAYERS:
        importlib.import_module(name)


if "keras" in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _WhenKerasIsImported())
