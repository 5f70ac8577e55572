"""The paper's figure of an embedding: the clusters found in it beside the classes, in the same plane."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from numpy.typing import NDArray

from kfusion.analysis.checks import require
from kfusion.analysis.style import bare, look, new_figure, plain

# Tol's "muted" palette and a dark grey: ten colours that are told apart with every common kind of colour vision.
COLOURS = (
    *("#332288", "#CC6677", "#117733", "#88CCEE", "#882255"),
    *("#DDCC77", "#44AA99", "#AA4499", "#999933", "#5F6368"),
)
MARKERS = "osD^vP"
MAX_KEY = 30
"""Classes in the key at most; beyond, colour alone would not name them."""


def cluster_figure(
    points: NDArray, cluster: NDArray, label: NDArray, class_names: Sequence[str], title: str, axis: str
) -> Figure:
    """Two panels of the same points: coloured by cluster, and by class.

    Args:
        points: float (n, 2).
        cluster: int (n,), numbered by the class that each fits best (`separation.matched`).
        label: int (n,).
        class_names: one name per class.
        title: what is shown.
        axis: how the points came to be, such as "t-SNE".
    """
    require(points.shape == (len(label), 2), "points", f"of shape ({len(label)}, 2)", points.shape)
    with look():
        figure = new_figure(9.6, 5.9, layout="compressed")
        panels = figure.subplots(1, 2)
        middle = (points.min(axis=0) + points.max(axis=0)) / 2
        half = 0.54 * max(float(np.ptp(points, axis=0).max()), 1e-6)
        for axes, group, name in ((panels[0], cluster, "clusters (KMeans)"), (panels[1], label, "classes")):
            _scatter(axes, points, group, len(class_names))
            axes.set_title(name)
            axes.set_aspect("equal")
            bare(axes)
            axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
            axes.set(xlabel=f"{axis} 1", ylabel=f"{axis} 2" if axes is panels[0] else "")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        _key(figure, panels[1], class_names)
        FigureCanvasAgg(figure).draw()  # Lays the figure out: only then is known which names have room.
        for axes, group in ((panels[0], cluster), (panels[1], label)):
            _name_groups(figure, axes, points, group, class_names)
    return figure


def _scatter(axes: Axes, points: NDArray, group: NDArray, num_classes: int) -> None:
    size = float(np.clip(9000 / len(points), 3, 18))
    for at in range(num_classes):
        rows = points[group == at]
        marker = MARKERS[at // len(COLOURS) % len(MARKERS)]
        color = COLOURS[at % len(COLOURS)]
        axes.scatter(*rows.T, s=size, color=color, marker=marker, linewidths=0, alpha=0.8, label=f"_{at}")


def _key(figure: Figure, axes: Axes, class_names: Sequence[str]) -> None:
    if len(class_names) > MAX_KEY:
        return
    handles = [
        axes.scatter([], [], s=36, color=COLOURS[at % len(COLOURS)], marker=MARKERS[at // len(COLOURS) % len(MARKERS)])
        for at in range(len(class_names))
    ]
    names = [plain(name) for name in class_names]
    columns = max(1, min(len(names), int(110 / (max(map(len, names)) + 7))))
    figure.legend(
        handles,
        names,
        loc="outside lower center",
        ncols=columns,
        columnspacing=1.4,
        handletextpad=0.2,
        title="class; clusters: the class each fits",
    )


def _name_groups(figure: Figure, axes: Axes, points: NDArray, group: NDArray, class_names: Sequence[str]) -> None:
    """Writes each group's name amid its points, unless it would touch a name that is there already."""
    taken: list = []
    for at in np.argsort(-np.bincount(group, minlength=len(class_names)), kind="stable"):
        rows = points[group == at]
        if not len(rows):
            continue
        middle = np.median(rows, axis=0)
        # A point of the group, not a place between two halves of it.
        x, y = rows[np.argmin(np.sum((rows - middle) ** 2, axis=1))]
        text: Text = axes.text(
            x, y, plain(class_names[int(at)]), fontsize=11, fontweight="bold", ha="center", va="center"
        )
        text.set_path_effects([withStroke(linewidth=3, foreground="white")])
        place = text.get_window_extent(figure.canvas.get_renderer()).padded(1)  # pyright: ignore
        inside = axes.get_window_extent().containsx(place.x0) and axes.get_window_extent().containsx(place.x1)
        if not inside or any(place.overlaps(other) for other in taken):
            text.remove()
        else:
            taken.append(place)
