"""Sums of the robustness grid's cells -> its curves, its heat maps, and the area under them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kfusion.metrics.classification import calibration_error
from kfusion.modalities.image.corruption import SEVERITIES, Corruption
from kfusion.spec import FUSED, MODALITIES

CLEAN = "clean"
"""The name of a modality that is not corrupted; its severity is 0."""
Cell = tuple[str, str, int, str, int]
"""View, image corruption and severity, sound corruption and severity."""
Sums = Mapping[Cell, NDArray]
SCORES = ("accuracy", "ece")


def grid_summary(
    sums: Sums,
    images: Mapping[str, Corruption],
    sounds: Mapping[str, Corruption],
    num_rows: int,
) -> dict[str, Any]:
    """All that is said of a model's robustness, ready for JSON.

    Args:
        sums: from `classification.bin_sums`, for each cell.
        images, sounds: the corruptions of the grid.
        num_rows: pairs that it was computed on.

    Returns:
        `{"num_rows", "severities", "corruptions", "clean", "alone", "crossed", "area"}` with
        corruptions: {modality: {name: {"title", "unit", "amounts"}}};
        clean: {view: {"accuracy", "ece"}};
        alone: {modality: {name: {"fused": {"accuracy": [5], "ece": [5]}, "single": {…}}}}: only this modality is
            corrupted; "fused" is the answer to both, "single" that to the corrupted one alone;
        crossed: {"image": names, "audio": names, "accuracy": matrix, "ece": matrix}, rows are the image's corruptions,
            each with "clean" first; a cell is the mean over the severities, the same for both modalities;
        area: {"accuracy", "ece", "image", "audio", "both"}: the mean of the heat maps, the volume under them as a
            share; and the accuracies' mean where only the image is corrupted, only the sound, and both.
    """
    kinds = dict(zip(MODALITIES, (images, sounds), strict=True))
    crossed = _crossed(sums, images, sounds)
    accuracy = np.array(crossed["accuracy"])
    return {
        "num_rows": num_rows,
        "severities": list(SEVERITIES),
        "corruptions": {name: {kind: _facts(each) for kind, each in some.items()} for name, some in kinds.items()},
        "clean": {
            view: dict(zip(SCORES, _score(sums, (view, CLEAN, 0, CLEAN, 0)), strict=True))
            for view in (FUSED, *MODALITIES)
        },
        "alone": {
            modality: {
                name: {FUSED: _curve(sums, FUSED, modality, name), "single": _curve(sums, modality, modality, name)}
                for name in names
            }
            for modality, names in kinds.items()
        },
        "crossed": crossed,
        "area": {
            "accuracy": float(accuracy.mean()),
            "ece": float(np.mean(crossed["ece"])),
            "image": float(accuracy[1:, 0].mean()),
            "audio": float(accuracy[0, 1:].mean()),
            "both": float(accuracy[1:, 1:].mean()),
        },
    }


def _score(sums: Sums, cell: Cell) -> tuple[float, float]:
    """Accuracy and calibration error of one cell."""
    count, hits, _ = sums[cell]
    return float(hits.sum() / count.sum()), calibration_error(sums[cell])


def _curve(sums: Sums, view: str, modality: str, name: str) -> dict[str, list[float]]:
    """Both scores over the severities of one corruption, the other modality clean."""
    cells: list[Cell] = [
        (view, name, at, CLEAN, 0) if modality == "image" else (view, CLEAN, 0, name, at) for at in SEVERITIES
    ]
    scores = [_score(sums, cell) for cell in cells]
    return {name: [each[at] for each in scores] for at, name in enumerate(SCORES)}


def _crossed(sums: Sums, images: Mapping[str, Corruption], sounds: Mapping[str, Corruption]) -> dict[str, Any]:
    rows, columns = [CLEAN, *images], [CLEAN, *sounds]

    def cell(image: str, audio: str) -> tuple[float, float]:
        at = [(0 if image == CLEAN else severity, 0 if audio == CLEAN else severity) for severity in SEVERITIES]
        scores = np.array([_score(sums, (FUSED, image, one, audio, other)) for one, other in at])
        return tuple(scores.mean(axis=0).tolist())

    cells = [[cell(image, audio) for audio in columns] for image in rows]
    matrices = {name: [[each[at] for each in row] for row in cells] for at, name in enumerate(SCORES)}
    return {"image": rows, "audio": columns, **matrices}


def _facts(corruption: Corruption) -> dict[str, Any]:
    return {"title": corruption.title, "unit": corruption.unit, "amounts": list(corruption.amounts)}
