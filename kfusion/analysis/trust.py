"""Figures of trust: who decides, and whether the confidence can be believed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from kfusion.analysis.style import BLUE, GREY, ORANGE, look, new_figure
from kfusion.spec import FUSED

VIEW_TITLES = {FUSED: "fused", "image": "image only", "audio": "audio only"}
SIDES = {"image": (BLUE, "the image"), "audio": (ORANGE, "the sound"), "neither": ("#BDC1C6", "neither")}


def reliability_diagram(calibration: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Accuracy over confidence for each view, before and after the temperature, and how many rows are how sure.

    Args:
        calibration: `{view: {"temperature", "before", "after"}}` for fused, image and audio; both from
            `reliability.reliability`.
    """
    with look():
        figure = new_figure(9.6, 4.6)
        grid = figure.subplots(2, 3, sharex=True, sharey="row", height_ratios=(3, 1))
        for column, (view, title) in enumerate(VIEW_TITLES.items()):
            facts = calibration[view]
            upper, lower = grid[0, column], grid[1, column]
            upper.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2, label="as it should be")
            for name, color, marker in (("before", ORANGE, "o"), ("after", BLUE, "s")):
                _points(upper, facts[name]["bins"], color, marker, f"{name} temperature")
                _counts(lower, facts[name]["bins"], color)
            errors = f"calibration error {facts['before']['ece']:.4f} → {facts['after']['ece']:.4f}"
            upper.set_title(f"{title}, temperature {facts['temperature']:.2f}\n{errors}", fontsize=10)
            upper.set(xlim=(0, 1.03), ylim=(-0.03, 1.03))
            upper.grid(visible=True)
            lower.grid(axis="y", visible=True)
            lower.set_xlabel("confidence, %")
            lower.xaxis.set_major_formatter(PercentFormatter(1, symbol=None))
        grid[0, 0].set_ylabel("accuracy, %")
        grid[0, 0].yaxis.set_major_formatter(PercentFormatter(1, symbol=None))
        grid[1, 0].set_ylabel("rows")
        grid[1, 0].set_yscale("symlog", linthresh=1)
        grid[1, 0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        grid[1, 0].set_ylim(bottom=0)
        legend = figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
        for handle in legend.legend_handles[1:]:
            handle.set_sizes([40])  # pyright: ignore  # The points' own sizes tell of the first bin only.
    return figure


def _points(axes: Axes, bins: Mapping[str, Any], color: str, marker: str, label: str) -> None:
    """A point per bin, the larger the more rows it holds: a bin of one row says little."""
    filled = [at for at, count in enumerate(bins["count"]) if count]
    sure, right, count = (np.array([bins[name][at] for at in filled]) for name in ("confidence", "accuracy", "count"))
    size = 8 + 72 * np.sqrt(count / max(bins["count"]))
    axes.scatter(sure, right, size, color=color, marker=marker, label=label, clip_on=False, linewidths=0, alpha=0.85)


def _counts(axes: Axes, bins: Mapping[str, Any], color: str) -> None:
    edges = np.linspace(0, 1, len(bins["count"]) + 1)
    axes.stairs(bins["count"], edges, color=color, linewidth=1.4)


def who_decides(decides: Mapping[str, Any]) -> Figure:
    """Whom the fused answer follows where image and sound are of two classes, or name two.

    Args:
        decides: evaluation.json's "decides".
    """
    bars: list[tuple[str, Mapping[str, float]]] = []
    for shuffled, other in (("audio", "sounds"), ("image", "images")):
        facts = decides["conflict"][shuffled]
        bars.append((f"{other} of other classes\n{facts['num_rows']:,} pairs", facts["won"]))
        if facts["won_clear"]:
            bars.append((f"the same, each alone right\n{facts['num_clear']:,} pairs", facts["won_clear"]))
    apart = decides["disagreement"]
    if apart["num_rows"]:
        followed = {name: count / apart["num_rows"] for name, count in apart["followed"].items()}
        bars.append((f"true pairs, votes differ\n{apart['num_rows']:,} pairs", followed))
    with look():
        figure = new_figure(8.2, 0.62 * len(bars) + 1.3)
        axes = figure.subplots()
        for place, (_, shares) in enumerate(bars):
            left = 0.0
            for side, (color, _) in SIDES.items():
                axes.barh(place, shares[side], left=left, color=color, height=0.62)
                if shares[side] >= 0.05:
                    middle, ink = left + shares[side] / 2, "black" if side == "neither" else "white"
                    axes.text(middle, place, f"{shares[side]:.0%}", ha="center", va="center", color=ink, fontsize=9)
                left += shares[side]
        axes.set_yticks(range(len(bars)), [name for name, _ in bars])
        axes.invert_yaxis()
        axes.set(xlim=(0, 1), xlabel="share of the pairs, %")
        axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=None))
        axes.tick_params(axis="y", length=0)
        handles = [axes.barh([0], [0], color=color, label=title) for color, title in SIDES.values()]
        figure.legend(handles=handles, title="the fused answer follows", loc="outside upper right", ncols=3)
    return figure
