"""The figures of an evaluation, as PNG and SVG."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kfusion.analysis.figures import confusion_matrix, save
from kfusion.analysis.robustness_figures import heat_map, severity_curves
from kfusion.analysis.tables import TITLES
from kfusion.analysis.trust import reliability_diagram, who_decides
from kfusion.analysis.worst import worst_errors
from kfusion.evaluation.subject import Subject

ONCE = ("worst_errors", "robustness_accuracy", "robustness_ece", "robustness_curves")
"""Figures that not every evaluation makes."""


def figures(
    subject: Subject, facts: dict[str, Any], grid: dict[str, Any] | None, spread: np.ndarray
) -> Iterator[tuple[str, Figure]]:
    """Each figure with its name.

    Args:
        subject: whose rows.
        facts: evaluation.json.
        grid: robustness.json, if it was made.
        spread: mean and standard deviation of each audio feature over the training part, (2, num_audio).
    """
    names = facts["data"]["class_names"]
    for view, matrix in facts["confusion"].items():
        yield f"confusion_{view}", confusion_matrix(np.array(matrix), names, TITLES[view])
    yield "who_decides", who_decides(facts["decides"])
    yield "reliability", reliability_diagram(facts["calibration"])
    if facts["worst"]:
        rows = np.array([row["row"] for row in facts["worst"]])
        image, audio = subject.read(subject.pairs, rows)
        shape = subject.pairs.spec.audio_grid
        sounds = audio.reshape(-1, *shape)
        yield "worst_errors", worst_errors(image, sounds, facts["worst"], subject.pixel_max, spread.reshape(2, *shape))
    if grid:
        yield "robustness_accuracy", heat_map(grid, "accuracy")
        yield "robustness_ece", heat_map(grid, "ece")
        yield "robustness_curves", severity_curves(grid)


def draw_figures(folder: Path, named: Iterator[tuple[str, Figure]], advance: Callable[[int], None]) -> list[str]:
    """Writes the figures, each whole or not at all, and returns their names; an earlier evaluation's others go."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, figure in named:
        save(figure, folder, name)
        made.append(name)
        advance(1)
    for path in folder.iterdir():
        if path.stem in ONCE and path.stem not in made:
            path.unlink()
    return made
