"""Who decides: what the fused answer makes of modalities that agree, disagree, or are set against each other.

Classes are int (n,): `label` the truth, `predicted` the class that each view names: "fused", and each modality alone by
its name, in the spec's order. Whatever comes back as a dict can be written as JSON.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kfusion.metrics.classification import LATE_FUSION, require
from kfusion.spec import FUSED
from kfusion.validation import UserError

Classes = Mapping[str, NDArray]


def _alone(predicted: Classes) -> dict[str, NDArray]:
    """The classes that each modality alone names."""
    return {name: classes for name, classes in predicted.items() if name not in (FUSED, LATE_FUSION)}


def agreement(label: NDArray, predicted: Classes) -> list[dict[str, Any]]:
    """The cases of each modality right or wrong, and how the fused answer does in each.

    Args:
        label: (n,).
        predicted: (n,) for each view.

    Returns:
        2^M entries `{name: bool for each of the M modalities, "num_rows", "num_fused_right"}`.
    """
    right = {name: classes == label for name, classes in _alone(predicted).items()}
    cases = []
    for case in product((True, False), repeat=len(right)):
        rows = np.all([each == wanted for each, wanted in zip(right.values(), case, strict=True)], axis=0)
        num_right = int(np.sum(predicted[FUSED][rows] == label[rows]))
        cases.append({**dict(zip(right, case, strict=True)), "num_rows": int(rows.sum()), "num_fused_right": num_right})
    return cases


def disagreement(label: NDArray, predicted: Classes) -> dict[str, Any]:
    """Rows whose modalities do not all name one class: whom the fused answer follows, and who was right.

    Args:
        label: (n,).
        predicted: (n,) for each view.

    Returns:
        `{"num_rows", "followed": {name…, "neither"}, "right": {name…, "fused", "neither"}}`: numbers of rows. "neither"
        is none of the modalities; of three, two may name the same class, and both are followed then.
    """
    alone = _alone(predicted)
    stacked = np.stack(list(alone.values()))
    apart = (stacked != stacked[0]).any(axis=0)
    fused, truth, stacked = predicted[FUSED][apart], label[apart], stacked[:, apart]

    def counts(classes: NDArray) -> tuple[dict[str, int], int]:
        """How often each modality names these classes, and how often none does."""
        same = stacked == classes
        return dict(zip(alone, same.sum(axis=1).tolist(), strict=True)), int(np.sum(~same.any(axis=0)))

    (followed, no_one), (right, none_right) = counts(fused), counts(truth)
    return {
        "num_rows": int(apart.sum()),
        "followed": {**followed, "neither": no_one},
        "right": {**right, FUSED: int(np.sum(fused == truth)), "neither": none_right},
    }


def partners(label: ArrayLike, draw: ArrayLike) -> NDArray[np.int64]:
    """For each row another one of another class, each such row as likely.

    Args:
        label: int (n,), of two classes at least.
        draw: (n,), numbers in [0, 1).

    Returns:
        positions, int64 (n,).

    Raises:
        UserError: the data hold one class only.
    """
    classes, chance = np.asarray(label), np.asarray(draw, np.float64)
    order = np.argsort(classes, kind="stable")
    start = np.searchsorted(classes[order], classes, "left")
    end = np.searchsorted(classes[order], classes, "right")
    others = len(classes) - (end - start)
    if not others.all():
        raise UserError(f"'label' must be of two classes at least. Received: {np.unique(classes).tolist()}")
    place = np.minimum((chance * others).astype(np.int64), others - 1)
    # The rows of one's own class lie side by side: whoever lands behind their start passes over them.
    return order[np.where(place < start, place, place + end - start)]


def conflict(labels: Classes, fused: NDArray, clear: NDArray) -> dict[str, Any]:
    """Rows whose modalities are of different classes: whom the fused answer follows.

    Args:
        labels: the class of each modality, (n,); in no row all equal.
        fused: the answer to all of them.
        clear: bool (n,), rows whose modalities are each named right when alone: only there is the conflict one of the
            fusion, not of a modality that errs.

    Returns:
        `{"num_rows", "won": {name…, "neither"}, "num_clear", "won_clear": {…}}`: shares in [0, 1] of all rows, and of
        the clear ones; None where there are none. Of three modalities, those of one class win together.
    """
    stacked = np.stack(list(labels.values()))
    differ = bool(np.all((stacked != stacked[0]).any(axis=0)))
    require(differ, "labels", "of two classes or more in each row", "equal ones")
    won = {name: fused == classes for name, classes in labels.items()}
    won["neither"] = ~np.any(list(won.values()), axis=0)

    def shares(rows: NDArray) -> dict[str, float] | None:
        return {name: float(np.mean(each[rows])) for name, each in won.items()} if rows.any() else None

    everyone = np.ones(len(fused), bool)
    return {"num_rows": len(fused), "won": shares(everyone), "num_clear": int(clear.sum()), "won_clear": shares(clear)}


def negative_fusion(
    label: NDArray,
    predicted: Classes,
    class_names: Sequence[str],
    speaker: NDArray | None,
    speaker_names: Sequence[str],
) -> dict[str, Any]:
    """Rows that the fused answer loses though one modality alone had them; and those that it wins, though none had.

    Args:
        label: (n,).
        predicted: (n,) for each view.
        class_names: one name per class.
        speaker: int (n,), index into `speaker_names`; None where it is not known.
        speaker_names: one name per speaker.

    Returns:
        `{"num_lost", "share", "rows", "num_rescued", "by_class": […], "by_speaker": […] or None}`; each entry of the
        two lists is `{"name", "num_rows", "num_lost", "share"}`, and an entry without rows has the share 0.
    """
    one_right = np.any([classes == label for classes in _alone(predicted).values()], axis=0)
    lost = one_right & (predicted[FUSED] != label)

    def by(groups: NDArray, names: Sequence[str]) -> list[dict[str, Any]]:
        total, gone = np.bincount(groups, minlength=len(names)), np.bincount(groups[lost], minlength=len(names))
        return [
            {
                "name": name,
                "num_rows": int(total[at]),
                "num_lost": int(gone[at]),
                "share": float(gone[at] / max(total[at], 1)),
            }
            for at, name in enumerate(names)
        ]

    return {
        "num_lost": int(lost.sum()),
        "share": float(lost.mean()),
        "rows": np.flatnonzero(lost).tolist(),
        "num_rescued": int(np.sum(~one_right & (predicted[FUSED] == label))),
        "by_class": by(label, class_names),
        "by_speaker": None if speaker is None else by(speaker, speaker_names),
    }
