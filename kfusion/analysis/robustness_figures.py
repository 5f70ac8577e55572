"""Figures of the robustness grid: heat maps over both corruptions, curves over the severity of one."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from kfusion.analysis.style import BLUE, GREY, ORANGE, look, new_figure
from kfusion.spec import FUSED

TITLES = {"image": "image", "audio": "sound"}
_KEYS = {
    "accuracy": ("accuracy, %", "viridis", "mean accuracy", "{:.1f}"),
    "ece": ("expected calibration error, %", "viridis_r", "mean expected calibration error", "{:.1f}"),
}


def heat_map(grid: Mapping[str, Any], score: str) -> Figure:
    """Accuracy or calibration error for every corruption of the image with every corruption of the sound.

    Args:
        grid: robustness.json.
        score: "accuracy" or "ece".
    """
    label, colours, title, form = _KEYS[score]
    crossed, titles = grid["crossed"], {"clean": "clean"}
    for names in grid["corruptions"].values():
        titles |= {name: facts["title"] for name, facts in names.items()}
    values = 100 * np.array(crossed[score])
    num_rows, num_columns = values.shape
    with look():
        figure = new_figure(1.0 * num_columns + 2.6, 0.52 * num_rows + 1.7)
        axes = figure.subplots()
        low, high = (0, 100) if score == "accuracy" else (0, max(values.max(), 5))
        image = axes.imshow(values, cmap=colours, vmin=low, vmax=high, aspect="auto")
        for row in range(num_rows):
            for column in range(num_columns):
                # Measured by eye: viridis is light enough for black ink in its upper part.
                share = (values[row, column] - low) / (high - low)
                light = share > 0.6 if score == "accuracy" else share < 0.4
                text = form.format(values[row, column])
                axes.text(column, row, text, ha="center", va="center", fontsize=9, color="black" if light else "white")
        axes.set_xticks(range(num_columns), [titles[name].replace(" ", "\n") for name in crossed["audio"]])
        axes.set_yticks(range(num_rows), [titles[name] for name in crossed["image"]])
        axes.tick_params(length=0)
        axes.set(xlabel="corruption of the sound", ylabel="corruption of the image")
        axes.set_title(f"{title} {100 * grid['area'][score]:.1f} %, {grid['num_rows']:,} pairs")
        axes.spines[:].set_visible(False)
        key = figure.colorbar(image, ax=axes, shrink=0.9, pad=0.02)
        key.set_label(f"{label}, mean over 5 severities", fontsize=9)
        key.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return figure


def severity_curves(grid: Mapping[str, Any]) -> Figure:
    """Accuracy over the severity of each corruption: both modalities, the corrupted one alone, and the other alone.

    Args:
        grid: robustness.json.
    """
    num_columns = max(len(names) for names in grid["alone"].values())
    severities = [0, *grid["severities"]]
    clean = {view: scores["accuracy"] for view, scores in grid["clean"].items()}
    with look():
        figure = new_figure(1.9 * num_columns + 0.6, 5.0)
        places = figure.subplots(2, num_columns, sharex=True, sharey=True, squeeze=False)
        for row, (modality, names) in zip(places, grid["alone"].items(), strict=True):
            other = "audio" if modality == "image" else "image"
            for axes in row[len(names) :]:
                axes.set_visible(False)
            for axes, (name, lines) in zip(row, names.items(), strict=False):
                axes.axhline(clean[other], color=GREY, linestyle=":", linewidth=1.4, label="the other modality alone")
                single = [clean[modality], *lines["single"]["accuracy"]]
                axes.plot(severities, single, color=ORANGE, marker="s", linestyle="--", label="the corrupted one alone")
                both = [clean[FUSED], *lines[FUSED]["accuracy"]]
                axes.plot(severities, both, color=BLUE, marker="o", label="fused", clip_on=False)
                axes.set_title(grid["corruptions"][modality][name]["title"], fontsize=10)
                axes.set_xlabel("severity")
                axes.tick_params(labelbottom=True)
                axes.grid(axis="y", visible=True)
            row[0].set_ylabel(f"{TITLES[modality]} corrupted\naccuracy, %")
        places[0, 0].set(ylim=(0, 1.03), xticks=severities)
        places[0, 0].yaxis.set_major_formatter(PercentFormatter(1, symbol=None))
        figure.legend(*places[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return figure
