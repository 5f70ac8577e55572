"""Sums of the robustness grid's cells -> its curves, its heat maps, and the area under them."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kfusion.metrics.classification import calibration_error
from kfusion.modalities.base import SEVERITIES, Corruption
from kfusion.spec import FUSED

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
