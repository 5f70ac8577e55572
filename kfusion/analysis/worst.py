"""The rows that a model does worst on, and their picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from kfusion.analysis.style import BLUE, DPI, GREY, ORANGE, bare, look, plain
from kfusion.spec import FUSED

NUM_COLUMNS = 5
CELL_IN, SOUND_IN, GAP_IN, TEXT_IN, FOOT_IN = 1.0, 1.35, 0.2, 0.21, 0.32
"""Height of a sample, width of a sound, and the room around them, in inches."""
NAME_IN = 0.075
"""Width of a letter of a class name."""
EXPLANATION = (
    "left the image, right the sound: frames to the right, coefficients upwards, each standardised; orange: a wrong "
    "vote; in brackets its confidence"
)
TITLES = {FUSED: "fused", "image": "image", "audio": "sound"}


def worst_rows(label: NDArray, answers: Mapping[str, NDArray], num: int) -> NDArray[np.int64]:
    """The rows that some view gets wrong: those of the fused answer first, each kind by how little it gave the truth.

    Args:
        label: int (n,).
        answers: class probabilities of the views fused, image and audio, (n, num_classes) each.
        num: rows at most.
    """
    wrong = {view: each.argmax(axis=1) != label for view, each in answers.items()}
    any_wrong = np.any(list(wrong.values()), axis=0)
    of_truth = answers[FUSED][np.arange(len(label)), label]
    order = np.lexsort((of_truth, ~wrong[FUSED]))
    return order[any_wrong[order]][:num]


def worst_errors(
    images: ArrayLike, sounds: ArrayLike, rows: Sequence[Mapping[str, Any]], pixel_max: float, spread: NDArray
) -> Figure:
    """A sheet of samples: image, sound as a picture of its coefficients, the truth, and each view's vote.

    Args:
        images: (n ≥ 1, height, width, channels), in [0, pixel_max].
        sounds: (n, frames, coefficients).
        rows: for each sample `{"label", "votes": {view: {"class", "confidence"}}}`.
        pixel_max: the brightest value.
        spread: mean and standard deviation of each feature over the training part, (2, frames, coefficients).
    """
    pictures = np.clip(np.asarray(images, np.float64) / pixel_max, 0, 1)
    pictures = pictures if pictures.shape[-1] == 3 else pictures.mean(axis=-1)
    # Each coefficient on its own scale: the first ones are far larger than the rest.
    grids = (np.asarray(sounds, np.float64) - spread[0]) / np.where(spread[1] > 0, spread[1], 1)
    num_lines = -(-len(rows) // NUM_COLUMNS)
    # Long names need more room beneath an image than it has itself.
    longest = max(len(_short(vote["class"])) for row in rows for vote in row["votes"].values())
    room = NAME_IN * (longest - 1)
    wide = CELL_IN * max(0.3, min(pictures.shape[2] / pictures.shape[1], 3))
    step = wide + SOUND_IN + 2 * GAP_IN + 1.5 * room
    width, height = NUM_COLUMNS * step, num_lines * (CELL_IN + 2 * TEXT_IN) + 2 * FOOT_IN
    with look():
        figure = Figure(figsize=(width, height), dpi=DPI)
        for at, row in enumerate(rows):
            x = at % NUM_COLUMNS * step + room / 2
            y = height - FOOT_IN - (at // NUM_COLUMNS + 1) * (CELL_IN + 2 * TEXT_IN) + TEXT_IN
            left = figure.add_axes((x / width, y / height, wide / width, CELL_IN / height))
            place = (x + wide + room / 2 + GAP_IN / 2) / width
            right = figure.add_axes((place, y / height, SOUND_IN / width, CELL_IN / height))
            left.imshow(pictures[at], cmap="gray", vmin=0, vmax=1, aspect="auto")
            right.imshow(grids[at].T[::-1], cmap="viridis", vmin=-3, vmax=3, aspect="auto")
            for axes in (left, right):
                bare(axes)
            _write_votes(left, right, row)
        figure.text(0, 1, _heading(rows), fontsize=11, va="top")
        figure.text(0, 0, EXPLANATION, fontsize=9, va="bottom", color=GREY)
    return figure


def _heading(rows: Sequence[Mapping[str, Any]]) -> str:
    num_fused = sum(row["votes"][FUSED]["class"] != row["label"] for row in rows)
    others = len(rows) - num_fused
    lost = f"{num_fused} wrong fused answer{'' if num_fused == 1 else 's'}"
    return lost + (f", then {others} that the image or the sound alone gets wrong" if others else "")


def _write_votes(left: Axes, right: Axes, row: Mapping[str, Any]) -> None:
    """The truth over the image, the fused vote over the sound, and each modality's own vote beneath it."""
    left.set_title(f"is {_short(row['label'])}", fontsize=9, loc="left", color="#202124", pad=3)
    for axes, view in ((right, FUSED), (left, "image"), (right, "audio")):
        vote = row["votes"][view]
        text = f"{TITLES[view]}: {_short(vote['class'])} ({vote['confidence']:.2f})"
        color = BLUE if vote["class"] == row["label"] else ORANGE
        if view == FUSED:
            axes.set_title(text, fontsize=9, loc="left", color=color, pad=3)
        else:
            axes.set_xlabel(text, fontsize=8.5, color=color, labelpad=2)


def _short(name: str) -> str:
    """A class name that fits over a sample."""
    line = " ".join(name.split())
    return plain(line if len(line) <= 7 else f"{line[:6]}…")
