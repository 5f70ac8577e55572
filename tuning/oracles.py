"""keras-tuner's oracles, made safe against a kill at any moment.

As they come (1.4.8), their files are written in place, so that a kill can leave half a file; a trial that has just
ended is still listed as running and would be run twice after a restart; a trial begun but not yet listed is lost for
good; the grid forgets where it was, and ends; and a seed of 0 means a random one.
"""

import math
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner import oracles
from keras_tuner.engine import trial as trials

from kfusion.rules import UserError, reason
from kfusion.system.files import write_json
from tuning.plan import Plan
from tuning.space import current

NEVER = 10**9
"""Failures in a row after which keras-tuner would raise; here the supervisor decides."""
COLLISIONS = 1000
"""Random draws in a row that were tried before, after which the space is taken to be used up."""
DIRECTION = {"val_accuracy": "max", "val_loss": "min"}
ENDED = (trials.TrialStatus.COMPLETED, trials.TrialStatus.FAILED)


class Safe(keras_tuner.Oracle):
    """What all four oracles get: whole files, and a faithful reload."""

    def save(self) -> None:
        write_json(Path(self._get_oracle_fname()), self.get_state())

    def _save_trial(self, trial: Any) -> None:
        write_json(Path(self._get_trial_dir(trial.trial_id)) / "trial.json", trial.get_state())

    def reload(self) -> None:
        """Trials that have ended stay as they are; those that had begun are run again; each counts once.

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
        broken = [name for name, trial in self.trials.items() if trial.status not in ENDED]
        for name in broken:
            self.trials[name] = trials.Trial(self.trials[name].hyperparameters, name, trials.TrialStatus.RUNNING)
            self._save_trial(self.trials[name])
        self._retry_queue = broken[::-1]  # keras-tuner takes from the end.
        ended = [name for name in self.start_order if name not in broken and name not in self.end_order]
        self.end_order = [name for name in self.end_order if name not in broken] + ended


class RandomOracle(Safe, oracles.RandomSearchOracle):
    """Independent draws, none twice."""


class HyperbandOracle(Safe, oracles.HyperbandOracle):
    """Many short trainings, of which the best go on (Li et al. 2018)."""


class BayesianOracle(Safe, oracles.BayesianOptimizationOracle):
    """A Gaussian process proposes where the upper confidence bound is highest."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        # A function of the seed and the number of trials, so that a restart proposes the same.
        self._random_state = np.random.RandomState(self.seed + len(self.trials))
        answer = super().populate_space(trial_id)
        # It may well propose again what it believes in; that would be a trial for nothing.
        tried = answer["values"] is not None and self._duplicate(answer["values"])
        return self._random_populate_space() if tried else answer


class GridOracle(Safe):
    """Every combination of the listed values: trial number n is combination number n, the last parameter fastest."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
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


def make_oracle(plan: Plan) -> Safe:
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
