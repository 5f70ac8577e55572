"""Runs the trials that an oracle hands out: each one training, or several with different seeds."""

import gc
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import keras
import keras_tuner
from keras_tuner import errors
from keras_tuner.engine import base_tuner

from kfusion.material import Material
from kfusion.system.environment import resident_bytes
from kfusion.system.files import read_json, write_json, write_text
from tuning.hypermodel import FusionHyperModel
from tuning.oracles import make_oracle
from tuning.plan import Plan
from tuning.trials import TRIALS, Repeat
from tuning.worker import RETIRED

MAX_ATTEMPTS = 3
"""A trial whose worker died as often fails."""
MAX_GROWTH_BYTES = 512 * 2**20
"""By how much a worker's memory may grow after its first trial."""
PAUSE_SECONDS = 0.5
"""Between two questions of a worker that has to wait for others."""


class SearchTuner(base_tuner.BaseTuner):
    """keras-tuner's loop, with whole files, attempts that are counted and failures that say why.

    Args:
        plan: of the search.
        folder: of the search.
        material, computes: the data and the arithmetic; a chief needs none.
    """

    def __init__(self, plan: Plan, folder: Path, material: Material | None = None, computes: str = "") -> None:
        self.plan, self.material, self.computes = plan, material, computes
        self.asked, self.floor = False, 0
        super().__init__(make_oracle(plan), directory=str(folder), project_name=TRIALS)

    def save(self) -> None:
        if not self._is_worker():
            self.oracle.save()
        write_json(Path(self._get_tuner_fname()), self.get_state())

    def _get_tuner_fname(self) -> str:
        """Who goes on with a search may have another name than who began it: one of several, or alone."""
        return super()._get_tuner_fname() if self._is_worker() else str(Path(self.project_dir) / "search.json")

    def on_search_begin(self) -> None:
        self.save()  # A search killed in its first trial must be known again.

    def pre_create_trial(self) -> None:
        """keras-tuner asks again at once where it is told to wait."""
        if self.asked:
            time.sleep(PAUSE_SECONDS)
        self.asked = True

    def on_trial_begin(self, trial: Any) -> None:
        self.asked = False

    def on_trial_end(self, trial: Any) -> None:
        """TensorFlow keeps some 40 MB of each training, whatever is cleared: the process makes room for a new one."""
        super().on_trial_end(trial)
        self.floor = self.floor or resident_bytes()
        if resident_bytes() - self.floor > MAX_GROWTH_BYTES:
            raise SystemExit(RETIRED)

    def run_trial(self, trial: Any, *fit_args: Any, **fit_kwargs: Any) -> dict[str, float]:
        """All repeats of one trial; those that have ended before a kill are not run again.

        Raises:
            FailedTrialError: the training failed; the reason is in the trial's error.txt.
            FatalError: the disk is full: that is no fault of the trial.
        """
        place = Path(self.get_trial_dir(trial.trial_id))
        try:
            self._begin(place)
            repeats = [
                self._repeat(trial.hyperparameters, place, number) for number in range(self.plan.settings.repeats)
            ]
        except OSError as error:
            raise errors.FatalError(f"{error.filename or place}: {error.strerror or error}") from error
        except Exception as error:
            reason = " ".join(str(error).split()) or "no message"
            write_text(place / "error.txt", f"{traceback.format_exc()}\n{type(error).__name__}: {reason}\n")
            raise errors.FailedTrialError(reason) from error
        return {name: fmean(getattr(repeat, name) for repeat in repeats) for name in ("val_accuracy", "val_loss")}

    def _begin(self, place: Path) -> None:
        """Counts this attempt.

        Raises:
            RuntimeError: there were enough.
        """
        path = place / "attempts.json"
        attempts = read_json(path)["attempts"] + 1 if path.exists() else 1
        if attempts > MAX_ATTEMPTS:
            raise RuntimeError(f"the worker died in each of {MAX_ATTEMPTS} attempts; was it out of memory?")
        write_json(path, {"attempts": attempts, "worker": self.tuner_id})

    def _repeat(self, hp: keras_tuner.HyperParameters, place: Path, number: int) -> Repeat:
        done = place / f"repeat-{number}.json"
        if done.exists():
            return Repeat(**read_json(done))
        keras.backend.clear_session()
        gc.collect()
        material = self.material
        if material is None:
            raise RuntimeError("a chief runs no trials")
        hypermodel = FusionHyperModel(self.plan, material, self.computes, number)
        parent = hp.values.get("tuner/trial_id")
        parent = Path(self.get_trial_dir(parent)) / f"repeat-{number}" if parent else None
        repeat = hypermodel.fit(hp, hypermodel.build(hp), place / f"repeat-{number}", parent)
        write_json(done, asdict(repeat))
        if self.plan.settings.tuner != "hyperband":  # Which may go on from here.
            (place / f"repeat-{number}" / "checkpoint.npz").unlink(missing_ok=True)
        return repeat
