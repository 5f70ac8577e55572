"""The paper's figure of an embedding: the clusters found in it beside the classes, in the same plane.

The rows that a model does worst on, and their picture.

Figures of trust: who decides, and whether the confidence can be believed.

Figures of the robustness grid: heat maps over both corruptions, curves over the severity of one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import PercentFormatter, StrMethodFormatter
from numpy.typing import ArrayLike, NDArray

from kfusion.metrics.classification import require
from kfusion.plots.style import BLUE, DPI, GREY, ORANGE, bare, look, new_figure, plain
from kfusion.spec import FUSED

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


CORRUPTION_TITLES = {"image": "image", "audio": "sound"}
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
            row[0].set_ylabel(f"{CORRUPTION_TITLES[modality]} corrupted\naccuracy, %")
        places[0, 0].set(ylim=(0, 1.03), xticks=severities)
        places[0, 0].yaxis.set_major_formatter(PercentFormatter(1, symbol=None))
        figure.legend(*places[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return figure


VIEW_TITLES = {FUSED: "fused", "image": "image only", "audio": "audio only"}
SIDES = {"image": (BLUE, "the image"), "audio": (ORANGE, "the sound"), "neither": ("#BDC1C6", "neither")}


def reliability_diagram(calibration: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Accuracy over confidence for each view, before and after the temperature, and how many rows are how sure.

    Args:
        calibration: `{view: {"temperature", "before", "after"}}` for fused, image and audio; both from
            `classification.reliability`.
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


NUM_COLUMNS = 5
CELL_IN, SOUND_IN, GAP_IN, TEXT_IN, FOOT_IN = 1.0, 1.35, 0.2, 0.21, 0.32
"""Height of a sample, width of a sound, and the room around them, in inches."""
NAME_IN = 0.075
"""Width of a letter of a class name."""
EXPLANATION = (
    "left the image, right the sound: frames to the right, coefficients upwards, each standardised; orange: a wrong "
    "vote; in brackets its confidence"
)
VOTE_TITLES = {FUSED: "fused", "image": "image", "audio": "sound"}


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
        text = f"{VOTE_TITLES[view]}: {_short(vote['class'])} ({vote['confidence']:.2f})"
        color = BLUE if vote["class"] == row["label"] else ORANGE
        if view == FUSED:
            axes.set_title(text, fontsize=9, loc="left", color=color, pad=3)
        else:
            axes.set_xlabel(text, fontsize=8.5, color=color, labelpad=2)


def _short(name: str) -> str:
    """A class name that fits over a sample."""
    line = " ".join(name.split())
    return plain(line if len(line) <= 7 else f"{line[:6]}…")
