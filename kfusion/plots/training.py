"""Figures of a training: learning curves, the confusion matrix, samples beside what augmentation makes of them.

Each function returns a `matplotlib.figure.Figure` that needs no display; `save` writes it as PNG and SVG.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
    StrMethodFormatter,
)
from numpy.typing import ArrayLike, NDArray
from pandas import DataFrame

from kfusion.metrics.classification import require
from kfusion.modalities.base import Pictures
from kfusion.plots.style import BLUE, GREY, ORANGE, bare, look, new_figure, plain, save


def sample_grid(columns: Sequence[Pictures], titles: Sequence[str]) -> Figure:
    """Each row: one sample as it is in the data, then as training sees it.

    Args:
        columns: the samples as they are, then each changed version of them, as pictures of one size.
        titles: one per row, such as the name of its class.
    """
    first = columns[0]
    for pictures in columns:
        rule = pictures.pixels.shape == first.pixels.shape and len(first.pixels) > 0
        require(rule, "columns", f"pictures of shape (n ≥ 1, …), {first.pixels.shape}", pictures.pixels.shape)
    require(len(titles) == len(first.pixels), "titles", f"{len(first.pixels)} names", len(titles))
    names = [plain(title) for title in titles]
    with look():
        labels_in = 0.085 * max(len(name) for name in names) + 0.2
        width, height = first.cell_in
        figure = new_figure(width * len(columns) + labels_in, height * len(names) + 0.35, layout="compressed")
        grid = figure.subplots(len(names), len(columns), squeeze=False)
        for row, name in enumerate(names):
            for column, pictures in enumerate(columns):
                axes = grid[row, column]
                axes.imshow(pictures.pixels[row], **pictures.show)
                bare(axes)
            grid[row, 0].set_ylabel(name, rotation=0, ha="right", va="center")
        grid[0, 0].set_title("original", fontsize=9, loc="center")
        for column in range(1, len(columns)):
            grid[0, column].set_title(f"augmented {column}", fontsize=9, loc="center")
        if first.caption:
            figure.supxlabel(first.caption, fontsize=9)
    return figure


__all__ = ["confusion_matrix", "learning_curves", "sample_grid", "save"]

HISTORY_COLUMNS = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")
MAX_COUNTED_CLASSES = 40
MAX_NAMED_CLASSES = 60


def learning_curves(history: DataFrame, best_epoch: int | None = None) -> Figure:
    """Loss, accuracy and learning rate over the epochs, training beside validation.

    Args:
        history: one row per epoch, with the columns of `HISTORY_COLUMNS`; accuracy in [0, 1].
        best_epoch: the epoch whose weights were kept, marked where given.

    Raises:
        ValueError: a column is missing, or there is no epoch.
    """
    missing = [column for column in HISTORY_COLUMNS if column not in history]
    require(not missing, "history", f"a table with the columns {', '.join(HISTORY_COLUMNS)}", list(history.columns))
    require(len(history) > 0, "history", "of one or more epochs", "none")
    with look():
        figure = new_figure(7.2, 7.0)
        loss, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.3))
        for axes, column in ((loss, "loss"), (accuracy, "accuracy")):
            _line(axes, history, column, BLUE, "training")
            _line(axes, history, f"val_{column}", ORANGE, "validation")
        _line(rate, history, "learning_rate", GREY, "")
        loss.set_ylabel("loss, nats")
        accuracy.set_ylabel("accuracy, %")
        accuracy.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
        rate.set(ylabel="learning rate", xlabel="epoch")
        rate.set_ylim(bottom=0)
        rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
        _logarithmic_where_wide(loss, history[["loss", "val_loss"]].to_numpy())
        if best_epoch is not None:
            for axes in (loss, accuracy, rate):
                axes.axvline(best_epoch, color=GREY, linestyle=":", zorder=0, label=f"kept: epoch {best_epoch}")
        rate.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        rate.set_xlim(history["epoch"].min() - 0.5, history["epoch"].max() + 0.5)
        figure.legend(*loss.get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return figure


def confusion_matrix(matrix: ArrayLike, class_names: Sequence[str], view: str = "") -> Figure:
    """Counts of true (row) against predicted (column) classes; the colour is the share of the row.

    Args:
        matrix: int (num_classes, num_classes), ≥ 0.
        class_names: one name per class. Over `MAX_COUNTED_CLASSES`, the cells have no numbers; over
            `MAX_NAMED_CLASSES`, not every class is named on the axes.
        view: whose answers, to begin the title with.

    Raises:
        ValueError: the matrix is not square, or of another size than the names.
    """
    counts = np.asarray(matrix)
    num_classes = len(class_names)
    require(counts.shape == (num_classes, num_classes), "matrix", f"{num_classes} × {num_classes}", counts.shape)
    names = [plain(name) for name in class_names]
    digits = len(str(counts.max()))
    cell_in = max(0.34, 0.09 * digits + 0.08) if num_classes <= MAX_COUNTED_CLASSES else 9 / num_classes
    labels_in = 0.085 * max(len(name) for name in names)
    side_in = max(cell_in * num_classes, 2.6)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with look():
        figure = new_figure(side_in + labels_in + 1.8, side_in + labels_in + 1.1, layout="compressed")
        axes = figure.subplots()
        # The square root: the few errors of a good model would be white on a straight scale.
        image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
        step = int(np.ceil(num_classes / MAX_NAMED_CLASSES))
        shown = range(0, num_classes, step)
        upright = max(len(name) for name in names) * 0.085 <= cell_in
        axes.set_xticks(shown, [names[at] for at in shown], rotation=0 if upright else 90)
        axes.set_yticks(shown, [names[at] for at in shown])
        axes.tick_params(length=0, labelsize=9 if step == 1 else 7)
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.set_title(f"{f'{view}: ' if view else ''}{np.trace(counts)} of {counts.sum()} right")
        axes.spines[:].set(visible=True, color="#DADCE0")
        if num_classes <= MAX_COUNTED_CLASSES:
            _write_counts(axes, counts, shares)
        _colour_key(figure, axes, image, side_in)
    return figure


def _line(axes: Axes, history: DataFrame, column: str, color: str, label: str) -> None:
    # Markers where epochs are few: the only point of a single epoch would not be seen as a line.
    marker = "o" if len(history) <= 30 else ""
    axes.plot(history["epoch"], history[column], color=color, label=label, marker=marker, clip_on=False)
    axes.grid(axis="y", visible=True)


def _logarithmic_where_wide(axes: Axes, losses: NDArray) -> None:
    # Within one power of ten a straight axis is easier to read; 0 and NaN have no place on a logarithmic one.
    if (losses > 0).all() and losses.max() > 10 * losses.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _write_counts(axes: Axes, counts: NDArray, shares: NDArray) -> None:
    for row, column in np.argwhere(counts):
        color = "white" if shares[row, column] > 0.3 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=8, color=color)


def _colour_key(figure: Figure, axes: Axes, image: AxesImage, side_in: float) -> None:
    high = min(1.0, 3.5 / side_in)
    place = axes.inset_axes((1 + 0.25 / side_in, 1 - high, 0.16 / side_in, high))
    key = figure.colorbar(image, cax=place, format=PercentFormatter(1, symbol=None))
    key.set_ticks([0, 0.01, 0.1, 0.25, 0.5, 1])
    key.set_label("share of the true class, %")
    place.spines[:].set_visible(False)
    place.tick_params(length=0)
