"""All state of a training run in one file, so that a resumed run goes on bit for bit.

Keras' own `BackupAndRestore` leaves out the seed generators of dropout layers; here every variable of the model and of
the optimizer is kept, and the history, by epoch. The order of samples and their augmentation need no state: they are
functions of (seed, epoch, sample).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kfusion.rules import UserError
from kfusion.system.files import read_arrays

Row = dict[str, float]
SaveFile = Callable[[Path, Callable[[Path], object]], None]


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Args:
        epoch: epochs completed.
        history: one row of figures per completed epoch.
    """

    epoch: int = 0
    history: tuple[Row, ...] = ()


def _variables(model: keras.Model) -> dict[str, Any]:
    optimizer: Any = model.optimizer
    named = {f"model/{n}": variable for n, variable in enumerate(model.variables)}
    return named | {f"optimizer/{n}": variable for n, variable in enumerate(optimizer.variables)}


def save_state(path: Path, model: keras.Model, progress: Progress, save_file: SaveFile) -> None:
    """Writes everything that a later process needs to go on from here, through `save_file` (atomic)."""
    arrays = {name: np.asarray(variable) for name, variable in _variables(model).items()}
    facts = {"epoch": progress.epoch, "history": list(progress.history)}
    arrays["progress"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    save_file(path, lambda partial: np.savez(partial, allow_pickle=False, **arrays))


def load_state(path: Path, model: keras.Model) -> Progress:
    """Sets the model's and the optimizer's variables to what `save_state` wrote.

    Raises:
        UserError: the file is damaged or belongs to another model.
    """
    optimizer: Any = model.optimizer
    optimizer.build(model.trainable_variables)
    arrays = read_arrays(path, "a checkpoint must be whole")
    if "progress" not in arrays:
        raise UserError(f"{path}: a checkpoint must say how far it has come. Found: none of it")
    facts = json.loads(arrays.pop("progress").tobytes())
    variables = _variables(model)
    if {n: tuple(v.shape) for n, v in variables.items()} != {n: a.shape for n, a in arrays.items()}:
        raise UserError(f"{path}: a checkpoint must fit the model that resumes. Found: other variables")
    for name, variable in variables.items():
        variable.assign(arrays[name])
    return Progress(facts["epoch"], tuple(facts["history"]))
