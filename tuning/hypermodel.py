"""One training of a trial: a run of kfusion up to the test, which a search must not look at."""

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import pandas as pd

from kfusion import run as runs
from kfusion.material import Material, regather
from kfusion.run import Run
from kfusion.system.files import write_atomically
from kfusion.trainer import fit_run, new_network, open_or_begin
from kfusion.training.callbacks import best_epoch, read_history, smoothed
from tuning.plan import Plan
from tuning.space import apply
from tuning.trials import Repeat


class FusionHyperModel(keras_tuner.HyperModel):
    """kfusion's network and training as keras-tuner sees them.

    Args:
        plan: of the search.
        material: the data of the plan's config; every trial shares its split.
        computes: the arithmetic, for the record.
        repeat: from 0; added to the seed.
    """

    def __init__(self, plan: Plan, material: Material, computes: str, repeat: int) -> None:
        super().__init__("kfusion")
        self.plan, self.material, self.computes, self.repeat = plan, material, computes, repeat
        self.began = time.perf_counter()

    def material_of(self, hp: keras_tuner.HyperParameters) -> Material:
        """The trial's config with the data."""
        config = apply(hp.values, self.plan.config)
        training = replace(config.training, seed=config.training.seed + self.repeat)
        return regather(self.material, replace(config, training=training))

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """The untrained network. Building it counts as training, as it does in a run."""
        self.began = time.perf_counter()
        return new_network(self.material_of(hp))

    def fit(self, hp: keras_tuner.HyperParameters, model: keras.Model, folder: Path, parent: Path | None) -> Repeat:
        """Trains it with the trial's batch size, epochs, learning rate and the rest, or goes on where it was killed.

        Args:
            hp: the trial's parameters.
            model: from `build`, just now.
            folder: the run folder.
            parent: the run folder that hyperband continues.

        Raises:
            UserError: the training diverged, or the folder holds another run.
        """
        material = self.material_of(hp)
        first, last = hp.values.get("tuner/initial_epoch", 0), hp.values.get("tuner/epochs", 0)
        if parent and runs.begun(parent) and not runs.begun(folder):
            _copy(parent, folder)
        with runs.lock(folder):
            run = open_or_begin(folder, material, self.computes, resume=runs.begun(folder))
            rule = StopRule(run, last, self.plan.settings.objective, self.plan.settings.patience)
            earlier = _seconds(run, len(material.parts.train), first)
            if not (run.checkpoint.exists() and rule.met()):
                fit_run(run, material, model, callbacks=(rule,))
            seconds = earlier + time.perf_counter() - self.began
        return self._outcome(read_history(run.history), material, seconds, model.count_params())

    def _outcome(self, history: pd.DataFrame, material: Material, seconds: float, weights: int) -> Repeat:
        kept = best_epoch(history)
        figures = smoothed(history).loc[kept]
        return Repeat(
            seed=material.config.training.seed,
            score=float(figures[self.plan.settings.objective]),
            val_accuracy=float(figures["val_accuracy"]),
            val_loss=float(figures["val_loss"]),
            best_epoch=kept,
            epochs=len(history),
            seconds=seconds,
            weights=weights,
        )


class StopRule(keras.callbacks.Callback):
    """Stops at hyperband's epoch, or when patience ends; reads the history, so that a restart changes nothing.

    Args:
        run: the run that trains.
        last: the epoch to stop after; 0: the config's last.
        objective: "val_accuracy" or "val_loss".
        patience: epochs without a better objective; 0: endless.
    """

    def __init__(self, run: Run, last: int, objective: str, patience: int) -> None:
        super().__init__()
        self.run, self.last, self.objective, self.patience = run, last, objective, patience

    def met(self) -> bool:
        """Whether the epochs so far are enough."""
        values = read_history(self.run.history)[self.objective]
        better = values.cummax() if self.objective == "val_accuracy" else values.cummin()
        waited = int((better == better.iloc[-1]).sum()) - 1
        return bool(self.last and len(values) >= self.last) or bool(self.patience and waited >= self.patience)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.met():
            self.model.stop_training = True


def _copy(parent: Path, folder: Path) -> None:
    """A run to go on with, under another name. The config comes last: with it, the folder is a run."""
    folder.mkdir(exist_ok=True)
    names = sorted(path.name for path in parent.iterdir() if path.is_file() and path.name != runs.LOCK)
    for name in sorted(names, key="config.json".__eq__):
        write_atomically(folder / name, lambda path, name=name: shutil.copy(parent / name, path))


def _seconds(run: Run, num_rows: int, first: int) -> float:
    """Training time of the epochs that earlier attempts did, after the first few that belong to hyperband's parent."""
    if not run.checkpoint.exists():
        return 0.0
    history = read_history(run.history)
    return float((num_rows / history["samples_per_second"].iloc[first:]).sum())
