"""Runs the trials that an oracle hands out: each one training, or several with different seeds.

A training of a trial is a run of kfusion up to the test, which a search must not look at.

keras-tuner's oracles are made safe against a kill at any moment. As they come (1.4.8), their files are written in
place, so that a kill can leave half a file; a trial that has just ended is still listed as running and would be run
twice after a restart; a trial begun but not yet listed is lost for good; the grid forgets where it was, and ends; and a
seed of 0 means a random one.
"""

import gc
import math
import shutil
import time
import traceback
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import keras
import keras_tuner
import numpy as np
import pandas as pd
from keras_tuner import errors, oracles
from keras_tuner.engine import base_tuner
from keras_tuner.engine import trial as trials

from kfusion import run_dir
from kfusion.environment import resident_bytes
from kfusion.io import read_json, write_atomically, write_json, write_text
from kfusion.prepared_data import PreparedData, regather
from kfusion.run_dir import Run
from kfusion.training.fit import best_epoch, read_history, smoothed
from kfusion.training.trainer import fit_run, new_network, open_or_begin
from kfusion.validation import UserError, reason
from tuning.space import Plan, apply, current
from tuning.trials import RETIRED, TRIALS, Repeat

NEVER = 10**9
"""Failures in a row after which keras-tuner would raise; here the supervisor decides."""
COLLISIONS = 1000
"""Random draws in a row that were tried before, after which the space is taken to be used up."""
DIRECTION = {"val_accuracy": "max", "val_loss": "min"}
ENDED = (trials.TrialStatus.COMPLETED, trials.TrialStatus.FAILED)
MAX_ATTEMPTS = 3
"""A trial whose worker died as often fails."""
MAX_GROWTH_BYTES = 512 * 2**20
"""By how much a worker's memory may grow after its first trial."""
PAUSE_SECONDS = 0.5
"""Between two questions of a worker that has to wait for others."""


class FusionHyperModel(keras_tuner.HyperModel):
    """kfusion's network and training as keras-tuner sees them.

    Args:
        plan: of the search.
        prepared: the data of the plan's config; every trial shares its split.
        computes: the arithmetic, for the record.
        repeat: from 0; added to the seed.
    """

    def __init__(self, plan: Plan, prepared: PreparedData, computes: str, repeat: int) -> None:
        super().__init__("kfusion")
        self.plan, self.prepared, self.computes, self.repeat = plan, prepared, computes, repeat
        self.began = time.perf_counter()

    def prepared_of(self, hp: keras_tuner.HyperParameters) -> PreparedData:
        """The trial's config with the data."""
        config = apply(hp.values, self.plan.config)
        training = replace(config.training, seed=config.training.seed + self.repeat)
        return regather(self.prepared, replace(config, training=training))

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """The untrained network. Building it counts as training, as it does in a run."""
        self.began = time.perf_counter()
        return new_network(self.prepared_of(hp))

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
        prepared = self.prepared_of(hp)
        first, last = hp.values.get("tuner/initial_epoch", 0), hp.values.get("tuner/epochs", 0)
        if parent and run_dir.begun(parent) and not run_dir.begun(folder):
            _copy(parent, folder)
        with run_dir.lock(folder):
            run = open_or_begin(folder, prepared, self.computes, resume=run_dir.begun(folder))
            rule = StopRule(run, last, self.plan.settings.objective, self.plan.settings.patience)
            earlier = _seconds(run, len(prepared.parts.train), first)
            if not (run.checkpoint.exists() and rule.met()):
                fit_run(run, prepared, model, callbacks=(rule,))
            seconds = earlier + time.perf_counter() - self.began
        return self._outcome(read_history(run.history), prepared, seconds, model.count_params())

    def _outcome(self, history: pd.DataFrame, prepared: PreparedData, seconds: float, weights: int) -> Repeat:
        epoch = best_epoch(history, prepared.config.training.best_by)
        figures = smoothed(history).loc[epoch]
        return Repeat(
            seed=prepared.config.training.seed,
            score=float(figures[self.plan.settings.objective]),
            val_accuracy=float(figures["val_accuracy"]),
            val_loss=float(figures["val_loss"]),
            best_epoch=epoch,
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
        """Stops the training after an epoch, where the rule is met."""
        if self.met():
            self.model.stop_training = True


def _copy(parent: Path, folder: Path) -> None:
    """A run to go on with, under another name. The config comes last: with it, the folder is a run."""
    folder.mkdir(exist_ok=True)
    names = sorted(path.name for path in parent.iterdir() if path.is_file() and path.name != run_dir.LOCK)
    for name in sorted(names, key="config.json".__eq__):
        write_atomically(folder / name, lambda path, name=name: shutil.copy(parent / name, path))


def _seconds(run: Run, num_rows: int, first: int) -> float:
    """Training time of the epochs that earlier attempts did, after the first few that belong to hyperband's parent."""
    if not run.checkpoint.exists():
        return 0.0
    history = read_history(run.history)
    return float((num_rows / history["samples_per_second"].iloc[first:]).sum())


class SafeOracle(keras_tuner.Oracle):
    """What all four oracles share: whole files, and a faithful reload."""

    def save(self) -> None:
        """Writes the state of the search."""
        write_json(Path(self._get_oracle_fname()), self.get_state())

    def _save_trial(self, trial: Any) -> None:
        write_json(Path(self._get_trial_dir(trial.trial_id)) / "trial.json", trial.get_state())

    def reload(self) -> None:
        """Reads the state: trials that have ended stay as they are, those that had begun are run again.

        Raises:
            UserError: the files are damaged.
        """
        try:
            super().reload()
            # A trial that is not listed was drawn from a state that was never saved: it will be drawn again.
            self.trials = {name: self.trials[name] for name in self.start_order}
        except (ValueError, KeyError, RuntimeError) as error:
            found = reason(error)
            raise UserError(f"{self._get_oracle_fname()}: must be the state of a search. Found: {found}") from error
        begun = [name for name, trial in self.trials.items() if trial.status not in ENDED]
        for name in begun:
            self.trials[name] = trials.Trial(self.trials[name].hyperparameters, name, trials.TrialStatus.RUNNING)
            self._save_trial(self.trials[name])
        self._retry_queue = begun[::-1]  # keras-tuner takes from the end.
        ended = [name for name in self.start_order if name not in begun and name not in self.end_order]
        self.end_order = [name for name in self.end_order if name not in begun] + ended


class RandomOracle(SafeOracle, oracles.RandomSearchOracle):
    """Independent draws, none twice."""


class HyperbandOracle(SafeOracle, oracles.HyperbandOracle):
    """Many short trainings, of which the best go on (Li et al. 2018)."""


class BayesianOracle(SafeOracle, oracles.BayesianOptimizationOracle):
    """A Gaussian process proposes where the upper confidence bound is highest."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Proposes the values of a trial."""
        # A function of the seed and the number of trials, so that a restart proposes the same.
        self._random_state = np.random.RandomState(self.seed + len(self.trials))
        proposal = super().populate_space(trial_id)
        # The process may propose a point again; that would be a trial for nothing.
        tried = proposal["values"] is not None and self._duplicate(proposal["values"])
        return self._random_populate_space() if tried else proposal


class GridOracle(SafeOracle):
    """Every combination of the listed values: trial number n is combination number n, the last parameter fastest."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Proposes the values of a trial, or stops after the last combination."""
        number, values = int(trial_id), {}
        parameters = self.get_space().space
        if number >= math.prod(len(parameter.values) for parameter in parameters):
            return {"status": trials.TrialStatus.STOPPED, "values": None}
        for parameter in reversed(parameters):
            number, index = divmod(number, len(parameter.values))
            values[parameter.name] = parameter.values[index]
        return {"status": trials.TrialStatus.RUNNING, "values": values}


def space_of(plan: Plan) -> keras_tuner.HyperParameters:
    """The plan's parameters as keras-tuner knows them; the defaults are the config's values."""
    space = keras_tuner.HyperParameters()
    for domain in plan.domains:
        domain.declare(space, current(domain.name, plan.config))
    return space


def make_oracle(plan: Plan) -> SafeOracle:
    """The oracle that a plan asks for."""
    kind = plan.settings.tuner
    makers = {"random": RandomOracle, "bayesian": BayesianOracle, "grid": GridOracle, "hyperband": HyperbandOracle}
    special = {"max_epochs": plan.config.training.epochs} if kind == "hyperband" else {}
    oracle = makers[kind](
        objective=keras_tuner.Objective(plan.settings.objective, DIRECTION[plan.settings.objective]),
        hyperparameters=space_of(plan),
        allow_new_entries=False,
        seed=plan.config.training.seed + 1,  # To keras-tuner, 0 is no seed.
        max_consecutive_failed_trials=NEVER,
        **special,
    )
    oracle.max_trials = plan.num_trials
    oracle._max_collisions = COLLISIONS
    oracle.verbose = 0
    return oracle


class SearchTuner(base_tuner.BaseTuner):
    """keras-tuner's loop, with whole files, attempts that are counted and failures that say why.

    Args:
        plan: of the search.
        folder: of the search.
        prepared, computes: the data and the arithmetic; a chief needs none.
    """

    def __init__(self, plan: Plan, folder: Path, prepared: PreparedData | None = None, computes: str = "") -> None:
        self.plan, self.prepared, self.computes = plan, prepared, computes
        self.has_waited, self.least_bytes = False, 0
        super().__init__(make_oracle(plan), directory=str(folder), project_name=TRIALS)

    def save(self) -> None:
        """Writes the states of tuner and oracle."""
        if not self._is_worker():
            self.oracle.save()
        write_json(Path(self._get_tuner_fname()), self.get_state())

    def _get_tuner_fname(self) -> str:
        """A search may be resumed by a worker of another name: one of several, or alone."""
        return super()._get_tuner_fname() if self._is_worker() else str(Path(self.project_dir) / "search.json")

    def on_search_begin(self) -> None:
        """Saves at once: a search that is killed in its first trial must be recognised."""
        self.save()

    def pre_create_trial(self) -> None:
        """Pauses between two requests for a trial: keras-tuner repeats them at once where it has to wait."""
        if self.has_waited:
            time.sleep(PAUSE_SECONDS)
        self.has_waited = True

    def on_trial_begin(self, trial: Any) -> None:
        """Notes that a trial came."""
        self.has_waited = False

    def on_trial_end(self, trial: Any) -> None:
        """Ends a process that has grown: TensorFlow keeps some 40 MB of each training, whatever is cleared."""
        super().on_trial_end(trial)
        self.least_bytes = self.least_bytes or resident_bytes()
        if resident_bytes() - self.least_bytes > MAX_GROWTH_BYTES:
            raise SystemExit(RETIRED)

    def run_trial(self, trial: Any, *fit_args: Any, **fit_kwargs: Any) -> dict[str, float]:
        """All repeats of one trial; those that had ended before a kill are not run again.

        Args:
            trial: keras-tuner's.
            *fit_args: none are used.
            **fit_kwargs: none are used.

        Returns:
            The mean of each objective.

        Raises:
            FailedTrialError: the training failed; the reason is in the trial's error.txt.
            FatalError: the disk is full, which is no fault of the trial.
        """
        folder = Path(self.get_trial_dir(trial.trial_id))
        try:
            self._begin(folder)
            numbers = range(self.plan.settings.repeats)
            repeats = [self._repeat(trial.hyperparameters, folder, number) for number in numbers]
        except OSError as error:
            raise errors.FatalError(f"{error.filename or folder}: {error.strerror or error}") from error
        except Exception as error:
            reason = " ".join(str(error).split()) or "no message"
            write_text(folder / "error.txt", f"{traceback.format_exc()}\n{type(error).__name__}: {reason}\n")
            raise errors.FailedTrialError(reason) from error
        return {name: fmean(getattr(repeat, name) for repeat in repeats) for name in ("val_accuracy", "val_loss")}

    def _begin(self, folder: Path) -> None:
        """Counts this attempt.

        Raises:
            RuntimeError: there were enough.
        """
        path = folder / "attempts.json"
        attempts = read_json(path)["attempts"] + 1 if path.exists() else 1
        if attempts > MAX_ATTEMPTS:
            raise RuntimeError(f"the worker died in each of {MAX_ATTEMPTS} attempts; was it out of memory?")
        write_json(path, {"attempts": attempts, "worker": self.tuner_id})

    def _repeat(self, hp: keras_tuner.HyperParameters, folder: Path, number: int) -> Repeat:
        """One training of a trial, or its result where it had ended before."""
        result, run = folder / f"repeat-{number}.json", folder / f"repeat-{number}"
        if result.exists():
            return Repeat(**read_json(result))
        keras.backend.clear_session()
        gc.collect()
        if self.prepared is None:
            raise RuntimeError("a chief runs no trials")
        hypermodel = FusionHyperModel(self.plan, self.prepared, self.computes, number)
        parent = hp.values.get("tuner/trial_id")
        parent = Path(self.get_trial_dir(parent)) / f"repeat-{number}" if parent else None
        repeat = hypermodel.fit(hp, hypermodel.build(hp), run, parent)
        write_json(result, asdict(repeat))
        if self.plan.settings.tuner != "hyperband":  # Hyperband may go on from the checkpoint.
            (run / "checkpoint.npz").unlink(missing_ok=True)
        return repeat
