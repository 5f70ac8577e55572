"""kfusion: one decision from a picture and a sound.

Files directly in this package are verbs that one runs (`python -m kfusion.train`); folders are the nouns they use.

After `import kfusion`, Keras loads the networks of run folders: `keras.saving.load_model("runs/paper-1/best.keras")`.
"""

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

LAYERS = ("kfusion.model.fusion", "kfusion.model.utterance")
"""The modules whose layers a saved network may hold; importing them makes the layers known to Keras."""


class _WhenKerasIsImported:
    """Imports `LAYERS` right after Keras, and not before: Keras brings TensorFlow, which takes seconds.

    A finder of modules (`sys.meta_path`) that lets the others find Keras.
    """

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != "keras":
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        found = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if found is not None and found.loader is not None:
            loader, execute = found.loader, found.loader.exec_module

            def execute_both(module: ModuleType) -> None:
                vars(loader).pop("exec_module", None)  # The loader's own again.
                execute(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                    _register()

            # Only what is executed counts: TensorFlow looks for Keras long before it is imported.
            loader.exec_module = execute_both
        return found


def _register() -> None:
    for name in LAYERS:
        importlib.import_module(name)


if "keras" in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _WhenKerasIsImported())
