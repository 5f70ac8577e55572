"""Who decides: what the fused answer makes of two modalities that agree, disagree, or are set against each other.

Classes are int (n,): `label` the truth, `fused`, `image` and `audio` the answers to both modalities and to each alone.
Whatever comes back as a dict can be written as JSON.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kfusion.metrics.classification import require
from kfusion.spec import FUSED, MODALITIES
from kfusion.validation import UserError

Classes = Mapping[str, NDArray]


def agreement(label: NDArray, answers: Classes) -> list[dict[str, Any]]:
    """The four cases of image right or wrong × sound right or wrong, and how the fused answer does in each.

    Args:
        label: (n,).
        answers: {"fused", "image", "audio"}, (n,) each.

    Returns:
        four `{"image": bool, "audio": bool, "num_rows", "num_fused_right"}`.
    """
    right = {view: answers[view] == label for view in (FUSED, *MODALITIES)}
    cases = [(image, audio) for image in (True, False) for audio in (True, False)]
    chosen = [(right["image"] == image) & (right["audio"] == audio) for image, audio in cases]
    return [
        {
            "image": image,
            "audio": audio,
            "num_rows": int(rows.sum()),
            "num_fused_right": int(right[FUSED][rows].sum()),
        }
        for (image, audio), rows in zip(cases, chosen, strict=True)
    ]


def disagreement(label: NDArray, answers: Classes) -> dict[str, Any]:
    """Rows whose two modalities name different classes: whom the fused answer follows, and who was right.

    Returns:
        `{"num_rows", "followed": {"image", "audio", "neither"}, "right": {"image", "audio", "neither", "fused"}}`.
    """
    apart = answers["image"] != answers["audio"]
    named = {name: answers[name][apart] for name in (FUSED, *MODALITIES)}
    followed = {name: int(np.sum(named[FUSED] == named[name])) for name in MODALITIES}
    right = {name: int(np.sum(named[name] == label[apart])) for name in (*MODALITIES, FUSED)}
    num_rows = int(apart.sum())
    return {
        "num_rows": num_rows,
        "followed": {**followed, "neither": num_rows - sum(followed.values())},
        "right": {**right, "neither": num_rows - right["image"] - right["audio"]},
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


def conflict(image_label: NDArray, audio_label: NDArray, fused: NDArray, sure: NDArray) -> dict[str, Any]:
    """Images with sounds of other classes: whom the fused answer follows.

    Args:
        image_label, audio_label: the two classes of each row, nowhere equal.
        fused: the answer to both.
        sure: bool (n,), rows whose image and sound are each named right when alone: only there is the conflict one of
            the fusion, not of a modality that errs.

    Returns:
        `{"num_rows", "won": {"image", "audio", "neither"}, "num_clear", "won_clear": {…}}`: shares in [0, 1] of all
        rows, and of the clear ones; None where there are none.
    """
    require(bool(np.all(image_label != audio_label)), "audio_label", "another than 'image_label' in each row", "equal")
    won = {"image": fused == image_label, "audio": fused == audio_label}
    won["neither"] = ~(won["image"] | won["audio"])

    def shares(rows: NDArray) -> dict[str, float] | None:
        return {name: float(np.mean(each[rows])) for name, each in won.items()} if rows.any() else None

    everyone = np.ones(len(fused), bool)
    return {"num_rows": len(fused), "won": shares(everyone), "num_clear": int(sure.sum()), "won_clear": shares(sure)}


def negative_fusion(
    label: NDArray, answers: Classes, class_names: Sequence[str], speaker: NDArray | None, speaker_names: Sequence[str]
) -> dict[str, Any]:
    """Rows that the fused answer loses though one modality alone had them; and those that it wins, though none had.

    Args:
        label: (n,).
        answers: {"fused", "image", "audio"}, (n,) each.
        class_names: one name per class.
        speaker: int (n,), index into `speaker_names`; None where it is not known.

    Returns:
        `{"num_lost", "share", "rows", "num_rescued", "by_class": […], "by_speaker": […] or None}`; each entry of the
        two lists is `{"name", "num_rows", "num_lost", "share"}`, and an entry without rows has the share 0.
    """
    had = (answers["image"] == label) | (answers["audio"] == label)
    lost = had & (answers[FUSED] != label)

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
        "num_rescued": int(np.sum(~had & (answers[FUSED] == label))),
        "by_class": by(label, class_names),
        "by_speaker": None if speaker is None else by(speaker, speaker_names),
    }
