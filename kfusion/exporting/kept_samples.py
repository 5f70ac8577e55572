"""The few samples that a run keeps in `samples.npz`, so that it can be exported where its data are not.

    test_label, train_label     int64 (n,)
    test_row, train_row         int64 (n,), each sample's number in that part of the split
    test_{name}, train_{name}   float32 (n, *shape), in the data's own unit, for each modality

Test samples verify an export; training samples fix the ranges of an 8-bit file. Both are taken evenly over the classes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kfusion.data.dataset import Pairs
from kfusion.data.splits import Split
from kfusion.io import read_arrays
from kfusion.prepared_data import load_own
from kfusion.run_dir import SAMPLES, Run
from kfusion.spec import Spec
from kfusion.validation import UserError

NUM_ROWS = {"test": 64, "train": 300}
MAX_BYTES = 8 * 10**6
"""Of all samples together: of large ones fewer are kept, one of each part at least."""


@dataclass(frozen=True, eq=False)
class KeptSamples:
    """Samples of a run, for an export.

    Args:
        test: of the test part.
        train: of the training part.
        whole_test: the test part itself, where the data had to be read.
    """

    test: Pairs
    train: Pairs
    whole_test: Pairs | None = None

    @property
    def source(self) -> str:
        """Where the samples come from, in words."""
        return "as training kept them" if self.whole_test is None else "read from the run's data"


def keep_samples(run: Run, parts: Split) -> None:
    """Writes `samples.npz` into a run folder.

    Args:
        run: the run.
        parts: its data.
    """
    arrays = {}
    for part, rows in chosen_rows(parts).items():
        pairs: Pairs = getattr(parts, part)
        arrays |= {f"{part}_label": pairs.label[rows], f"{part}_row": rows}
        for name, values in pairs.read(rows).items():
            nothing = np.isnan(values.reshape(len(values), -1)).all(axis=1)
            values[nothing] = 0  # A sample that lacks a modality has a stand-in here, so that each view is verified.
            arrays[f"{part}_{name}"] = values
    run.write_arrays(SAMPLES, arrays)


def kept_samples(run: Run) -> KeptSamples:
    """The samples that a run keeps; those that it would keep, read from its data, where it is an older one.

    Args:
        run: a finished run.

    Raises:
        UserError: the file is damaged; or an older run's data are gone, or are not those that it was trained on.
    """
    path, spec = run.folder / SAMPLES, run.spec()
    if not path.exists():
        _, parts = load_own(run)
        rows = chosen_rows(parts)
        return KeptSamples(parts.test.take(rows["test"]), parts.train.take(rows["train"]), parts.test)
    arrays = read_arrays(path, "must hold the samples that training wrote")
    return KeptSamples(*(_pairs(arrays, part, spec, path) for part in NUM_ROWS))


def chosen_rows(parts: Split) -> dict[str, np.ndarray]:
    """Which rows of the test part and of the training part are kept, ascending; of those that lack nothing, if any."""
    row_bytes = 4 * sum(shape.num_values for shape in parts.test.spec.modalities.values())
    share = min(1.0, MAX_BYTES / row_bytes / sum(NUM_ROWS.values()))
    chosen = {}
    for part, number in NUM_ROWS.items():
        pairs: Pairs = getattr(parts, part)
        whole = np.flatnonzero(pairs.seen(np.arange(len(pairs))).all(axis=1))
        whole = whole if len(whole) else np.arange(len(pairs))
        chosen[part] = whole[evenly(pairs.label[whole], max(1, int(share * number)))]
    return chosen


def evenly(label: np.ndarray, number: int) -> np.ndarray:
    """Rows of a part, as many of each class as of any other while there are as many, spread over the part.

    Args:
        label: int (n,).
        number: how many rows.

    Returns:
        int64 (min(n, number),), ascending; the first row of a class is among them before any second one.
    """
    order = np.argsort(label, kind="stable")
    _, starts, counts = np.unique(label[order], return_index=True, return_counts=True)
    # In rounds: each class gives one row before any gives another.
    rounds = np.arange(len(label)) - np.repeat(starts, counts)
    owner = np.repeat(np.arange(len(starts)), counts)
    shares = np.bincount(owner[np.argsort(rounds, kind="stable")[:number]], minlength=len(starts))
    by_class = np.split(order, starts[1:])
    spread = [
        rows[np.linspace(0, len(rows) - 1, share).astype(int)] for rows, share in zip(by_class, shares, strict=True)
    ]
    return np.sort(np.concatenate(spread)).astype(np.int64)


def _pairs(arrays: dict[str, np.ndarray], part: str, spec: Spec, path: Path) -> Pairs:
    label = arrays.get(f"{part}_label", np.empty(0))
    values = {name: arrays.get(f"{part}_{name}", np.empty(0)) for name in spec.names}
    shapes = {name: each.shape for name, each in values.items()}
    wanted = {name: (len(label), *shape.shape) for name, shape in spec.modalities.items()}
    if not len(label) or shapes != wanted:
        raise UserError(f"{path}: must hold samples of the run's shapes, {wanted}. Found: {shapes}")
    return Pairs(values, dict.fromkeys(spec.names, np.arange(len(label))), label, spec)
