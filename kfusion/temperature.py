"""The temperatures of a run: what `kfusion.evaluate` has fitted and kept, for the stages that give probabilities."""

import hashlib

from kfusion.rules import UserError
from kfusion.run import Run
from kfusion.spec import VIEWS
from kfusion.system.files import read_json


def read_temperature(run: Run) -> dict[str, float]:
    """By what the answer to each of the `VIEWS` is to be tempered; none where the run has not been evaluated.

    Raises:
        UserError: the file is damaged, or was fitted for other weights than the run's best.
    """
    path = run.calibration
    if not path.exists():
        return {}
    found = read_json(path)
    given = found.get("temperature") if isinstance(found, dict) else None
    if not isinstance(given, dict) or not all(_is_temperature(given.get(view)) for view in VIEWS):
        raise UserError(f"{path}: 'temperature' must give a number > 0 for {', '.join(VIEWS)}. Found: {given!r}")
    weights = found.get("weights", "")
    if weights and weights != hashlib.sha256(run.best.read_bytes()).hexdigest():
        raise UserError(f"{path}: must be of the run's weights; run kfusion.evaluate again. Found: another best.keras")
    return {view: float(given[view]) for view in VIEWS}


def _is_temperature(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
