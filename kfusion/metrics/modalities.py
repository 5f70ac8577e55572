"""What each modality does to the fused answer: who decides where they disagree, what is left where some are corrupted.

Classes are int (n,): `label` the truth, `predicted` the class that each view names: "fused", and each modality alone by
its name, in the spec's order. The robustness grid's cells are sums, of which its curves, its heat maps and the area
under them are made. Whatever comes back as a dict can be written as JSON.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kfusion.metrics.classification import LATE_FUSION, calibration_error, require
from kfusion.modalities.base import SEVERITIES, Corruption
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


CLEAN = "clean"
"""The name of a modality that is not corrupted; its severity is 0."""
Variant = tuple[str, int]
"""A corruption of one modality, and its severity."""
Cell = tuple[str, tuple[Variant, ...]]
"""A view, and the variant of each modality, in the spec's order."""
Sums = Mapping[Cell, NDArray]
Kinds = Mapping[str, Mapping[str, Corruption]]
SCORES = ("accuracy", "ece")


def cell_of(view: str, names: Iterable[str], corrupted: Mapping[str, Variant]) -> Cell:
    """A cell of the grid.

    Args:
        view: which answer.
        names: of all modalities.
        corrupted: the variant of each modality that is not as it is.
    """
    return view, tuple(corrupted.get(name, (CLEAN, 0)) for name in names)


def grid_summary(sums: Sums, kinds: Kinds, num_rows: int) -> dict[str, Any]:
    """All that is said of a model's robustness, ready for JSON.

    Args:
        sums: from `classification.bin_sums`, for each cell.
        kinds: the corruptions of each modality.
        num_rows: samples that it was computed on.

    Returns:
        `{"num_rows", "severities", "corruptions", "clean", "alone", "crossed", "area"}` with
        corruptions: {modality: {name: {"title", "unit", "amounts"}}};
        clean: {view: {"accuracy", "ece"}};
        alone: {modality: {name: {"fused": {"accuracy": [5], "ece": [5]}, "single": {…}}}}: only this modality is
            corrupted; "fused" is the answer to all, "single" that to the corrupted one alone;
        crossed: for two modalities {name: names, name: names, "accuracy": matrix, "ece": matrix}, rows are the first
            one's corruptions, each with "clean" first; a cell is the mean over the severities, the same for both. A
            list of these for the pairs of more modalities, and empty for a single one: `crossed_maps` reads all;
        area: {"accuracy", "ece", name…, "both"}: the means of the heat maps (of a single modality's curves), the volume
            under them as a share; and the accuracies' means where only one is corrupted, and where two are.
    """
    maps = [_crossed(sums, kinds, pair) for pair in combinations(kinds, 2)]
    return {
        "num_rows": num_rows,
        "severities": list(SEVERITIES),
        "corruptions": {name: {kind: _facts(each) for kind, each in some.items()} for name, some in kinds.items()},
        "clean": {
            view: dict(zip(SCORES, _score(sums, cell_of(view, kinds, {})), strict=True)) for view in (FUSED, *kinds)
        },
        "alone": {
            modality: {
                name: {
                    FUSED: _curve(sums, kinds, FUSED, modality, name),
                    "single": _curve(sums, kinds, modality, modality, name),
                }
                for name in names
            }
            for modality, names in kinds.items()
        },
        "crossed": maps[0] if len(maps) == 1 else maps,
        "area": _area(sums, kinds, maps),
    }


def crossed_maps(grid: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """The heat maps of robustness.json, by the names of the two modalities: rows, columns."""
    crossed = grid["crossed"]
    maps = [crossed] if isinstance(crossed, Mapping) else crossed
    return {tuple(name for name in each if name not in SCORES): each for each in maps}  # pyright: ignore


def _score(sums: Sums, cell: Cell) -> tuple[float, float]:
    """Accuracy and calibration error of one cell."""
    count, hits, _ = sums[cell]
    return float(hits.sum() / count.sum()), calibration_error(sums[cell])


def _curve(sums: Sums, kinds: Kinds, view: str, modality: str, name: str) -> dict[str, list[float]]:
    """Both scores over the severities of one corruption, all other modalities clean."""
    scores = [_score(sums, cell_of(view, kinds, {modality: (name, severity)})) for severity in SEVERITIES]
    return {score: [each[at] for each in scores] for at, score in enumerate(SCORES)}


def _mean(sums: Sums, kinds: Kinds, corrupted: Mapping[str, str]) -> tuple[float, float]:
    """Both scores of the fused answer, mean over the severities of some modalities' corruptions."""
    variants = [
        {modality: (name, 0 if name == CLEAN else severity) for modality, name in corrupted.items()}
        for severity in SEVERITIES
    ]
    scores = np.array([_score(sums, cell_of(FUSED, kinds, each)) for each in variants])
    return tuple(scores.mean(axis=0).tolist())


def _crossed(sums: Sums, kinds: Kinds, pair: tuple[str, str]) -> dict[str, Any]:
    """The heat maps of two modalities."""
    first, second = pair
    rows, columns = ([CLEAN, *kinds[name]] for name in pair)
    cells = [[_mean(sums, kinds, {first: row, second: column}) for column in columns] for row in rows]
    matrices = {score: [[each[at] for each in row] for row in cells] for at, score in enumerate(SCORES)}
    return {first: rows, second: columns, **matrices}


def _area(sums: Sums, kinds: Kinds, maps: list[dict[str, Any]]) -> dict[str, float]:
    alone = {
        modality: np.array([_mean(sums, kinds, {modality: name}) for name in (CLEAN, *names)])
        for modality, names in kinds.items()
    }
    whole = maps or [dict(zip(SCORES, scores.T, strict=True)) for scores in alone.values()]
    area = {score: float(np.mean([np.mean(each[score]) for each in whole])) for score in SCORES}
    area |= {modality: float(scores[1:, 0].mean()) for modality, scores in alone.items()}
    if maps:
        area["both"] = float(np.mean([np.array(each["accuracy"])[1:, 1:].mean() for each in maps]))
    return area


def _facts(corruption: Corruption) -> dict[str, Any]:
    return {"title": corruption.title, "unit": corruption.unit, "amounts": list(corruption.amounts)}
