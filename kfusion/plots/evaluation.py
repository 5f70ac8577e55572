"""Figures of an evaluation and of embeddings, from numbers alone.

cluster_figure                 an embedding: its clusters beside the classes, in the same plane
heat_map, severity_curves      the robustness grid: two corruptions at once, and one over its severity
who_decides                    whom the fused answer follows where the modalities are apart
reliability_diagram            whether the confidence can be believed
worst_errors                   the samples that a model does worst on
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
from numpy.typing import NDArray

from kfusion.metrics.classification import require
from kfusion.modalities.base import Pictures
from kfusion.plots.style import BLUE, DPI, GREY, ORANGE, PALETTE, bare, look, new_figure, plain
from kfusion.plots.tables import Words, view_titles
from kfusion.spec import FUSED, together

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
        cluster: int (n,), numbered by the class that each fits best (`clustering.matched`).
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


_KEYS = {
    "accuracy": ("accuracy, %", "viridis", "mean accuracy"),
    "ece": ("expected calibration error, %", "viridis_r", "mean expected calibration error"),
}


def heat_map(grid: Mapping[str, Any], crossed: Mapping[str, Any], score: str, words: Words) -> Figure:
    """Accuracy or calibration error for every corruption of one modality with every corruption of another.

    Args:
        grid: robustness.json.
        crossed: the map of the two modalities, from `metrics.modalities.crossed_maps`.
        score: "accuracy" or "ece".
        words: of the run.
    """
    label, colours, title = _KEYS[score]
    rows, columns = [name for name in crossed if name in grid["corruptions"]]
    names = {
        modality: [_corruption_title(grid, modality, name) for name in crossed[modality]]
        for modality in (rows, columns)
    }
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
                text = f"{values[row, column]:.1f}"
                axes.text(column, row, text, ha="center", va="center", fontsize=9, color="black" if light else "white")
        axes.set_xticks(range(num_columns), [name.replace(" ", "\n") for name in names[columns]])
        axes.set_yticks(range(num_rows), names[rows])
        axes.tick_params(length=0)
        axes.set(xlabel=f"corruption of the {words.nouns[columns]}", ylabel=f"corruption of the {words.nouns[rows]}")
        axes.set_title(f"{title} {values.mean():.1f} %, {grid['num_rows']:,} {words.unit}s")
        axes.spines[:].set_visible(False)
        key = figure.colorbar(image, ax=axes, shrink=0.9, pad=0.02)
        key.set_label(f"{label}, mean over 5 severities", fontsize=9)
        key.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return figure


def _corruption_title(grid: Mapping[str, Any], modality: str, name: str) -> str:
    """What a corruption is called; a modality that is clean is called so."""
    return grid["corruptions"][modality].get(name, {"title": name})["title"]


def severity_curves(grid: Mapping[str, Any], words: Words) -> Figure:
    """Accuracy over the severity of each corruption: all modalities, the corrupted one alone, and the other alone.

    Args:
        grid: robustness.json.
        words: of the run.
    """
    alone = grid["alone"]
    num_columns = max(len(names) for names in alone.values())
    severities = [0, *grid["severities"]]
    clean = {view: scores["accuracy"] for view, scores in grid["clean"].items()}
    with look():
        figure = new_figure(max(1.9 * num_columns + 0.6, 4.4), 2.5 * len(alone) + 0.6 * (len(alone) == 1))
        places = figure.subplots(len(alone), num_columns, sharex=True, sharey=True, squeeze=False)
        for row, (modality, names) in zip(places, alone.items(), strict=True):
            for axes in row[len(names) :]:
                axes.set_visible(False)
            for axes, (name, lines) in zip(row, names.items(), strict=False):
                if len(alone) == 2:
                    (other,) = alone.keys() - {modality}
                    axes.axhline(
                        clean[other], color=GREY, linestyle=":", linewidth=1.4, label="the other modality alone"
                    )
                if len(alone) > 1:
                    single = [clean[modality], *lines["single"]["accuracy"]]
                    style: Any = {"marker": "s", "linestyle": "--", "label": "the corrupted one alone"}
                    axes.plot(severities, single, color=ORANGE, **style)
                everything = [clean[FUSED], *lines[FUSED]["accuracy"]]
                axes.plot(severities, everything, color=BLUE, marker="o", label="fused", clip_on=False)
                axes.set_title(_corruption_title(grid, modality, name), fontsize=10)
                axes.set_xlabel("severity")
                axes.tick_params(labelbottom=True)
                axes.grid(axis="y", visible=True)
            row[0].set_ylabel(f"{words.nouns[modality]} corrupted\naccuracy, %")
        places[0, 0].set(ylim=(0, 1.03), xticks=severities)
        places[0, 0].yaxis.set_major_formatter(PercentFormatter(1, symbol=None))
        if len(alone) > 1:
            figure.legend(*places[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return figure


def reliability_diagram(calibration: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Accuracy over confidence for each view, before and after the temperature, and how many rows are how sure.

    Args:
        calibration: `{view: {"temperature", "before", "after"}}`; both from `classification.reliability`. A view that
            has no temperature of its own is left out.
    """
    titles = view_titles([view for view, facts in calibration.items() if facts["before"]])
    with look():
        figure = new_figure(9.6 * max(len(titles), 2) / 3, 4.6)
        grid = figure.subplots(2, len(titles), sharex=True, sharey="row", height_ratios=(3, 1), squeeze=False)
        for column, (view, title) in enumerate(titles.items()):
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


def who_decides(decides: Mapping[str, Any], words: Words) -> Figure:
    """Whom the fused answer follows where the modalities are of several classes, or name several.

    Of two modalities the shares of a row are one bar; of more they are bars beside each other, since modalities that
    agree are followed together.

    Args:
        decides: evaluation.json's "decides".
        words: of the run.
    """
    bars: list[tuple[str, Mapping[str, float]]] = []
    for shuffled, facts in decides["conflict"].items():
        name = f"{words.nouns[shuffled]}s of other classes"
        bars.append((f"{name}\n{facts['num_rows']:,} {words.unit}s", facts["won"]))
        if facts["won_clear"]:
            bars.append((f"the same, each alone right\n{facts['num_clear']:,} {words.unit}s", facts["won_clear"]))
    apart = decides["disagreement"]
    if apart["num_rows"]:
        followed = {name: count / apart["num_rows"] for name, count in apart["followed"].items()}
        bars.append((f"true {words.unit}s, votes differ\n{apart['num_rows']:,} {words.unit}s", followed))
    sides = {name: (PALETTE[at % len(PALETTE)], f"the {noun}") for at, (name, noun) in enumerate(words.nouns.items())}
    sides["neither"] = ("#BDC1C6", words.none)
    stacked = len(words.nouns) == 2
    height = 0.62 if stacked else 0.84 / len(sides)
    with look():
        figure = new_figure(8.2, (0.62 if stacked else 0.26 * len(sides)) * len(bars) + 1.3)
        axes = figure.subplots()
        for place, (_, shares) in enumerate(bars):
            left = 0.0
            for at, (side, (color, _)) in enumerate(sides.items()):
                line = place if stacked else place + (at - (len(sides) - 1) / 2) * height
                axes.barh(line, shares[side], left=left, color=color, height=height)
                if shares[side] >= 0.05:
                    middle, ink = left + shares[side] / 2, "black" if side == "neither" else "white"
                    axes.text(middle, line, f"{shares[side]:.0%}", ha="center", va="center", color=ink, fontsize=9)
                left += shares[side] if stacked else 0.0
        axes.set_yticks(range(len(bars)), [name for name, _ in bars])
        axes.invert_yaxis()
        axes.set(xlim=(0, 1), xlabel=f"share of the {words.unit}s, %")
        axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=None))
        axes.tick_params(axis="y", length=0)
        handles = [axes.barh([0], [0], color=color, label=title) for color, title in sides.values()]
        figure.legend(handles=handles, title="the fused answer follows", loc="outside upper right", ncols=len(sides))
    return figure


NUM_PICTURES = 10
"""Pictures beside each other at most: of two modalities, five samples."""
CELL_IN, GAP_IN, TEXT_IN, FOOT_IN = 1.0, 0.2, 0.21, 0.32
"""Height of a sample, and the room around it, in inches."""
NAME_IN = 0.075
"""Width of a letter of a class name."""


def worst_rows(label: NDArray, probabilities: Mapping[str, NDArray], num: int) -> NDArray[np.int64]:
    """The rows that some view gets wrong: those of the fused answer first, each kind by how little it gave the truth.

    Args:
        label: int (n,).
        probabilities: of each view, (n, num_classes).
        num: rows at most.
    """
    wrong = {view: each.argmax(axis=1) != label for view, each in probabilities.items()}
    any_wrong = np.any(list(wrong.values()), axis=0)
    of_truth = probabilities[FUSED][np.arange(len(label)), label]
    order = np.lexsort((of_truth, ~wrong[FUSED]))
    return order[any_wrong[order]][:num]


def accuracy_over_coverage(trust: Mapping[str, Any]) -> Figure:
    """Accuracy of the surest answers, over the share of samples that they are.

    Args:
        trust: of evaluation.json.
    """
    with look():
        figure = new_figure(4.6, 3.2)
        axes = figure.subplots()
        share, accuracy = zip(*trust["curve"], strict=True)
        axes.plot(share, accuracy, color=BLUE)
        axes.plot(1, trust["accuracy"]["untouched"], "o", color=GREY, label="with nothing turned away")
        axes.set(xlabel="share of the samples that is answered, the surest first", ylabel="accuracy", xlim=(0, 1.03))
        axes.grid(visible=True)
        axes.legend(loc="lower left")
    return figure


def worst_errors(
    pictures: Mapping[str, Pictures], rows: Sequence[Mapping[str, Any]], words: Words, heading: str = ""
) -> Figure:
    """A sheet of samples: a picture of each modality, the truth, and each view's vote.

    Args:
        pictures: of each modality, of n ≥ 1 samples.
        rows: for each sample `{"label", "votes": {view: {"class", "confidence"}}}`.
        words: of the run.
        heading: above them; "": that they are the worst errors.
    """
    num_columns = NUM_PICTURES // len(pictures)
    num_lines = -(-len(rows) // num_columns)
    # Long names need more room beneath a picture than it has itself.
    longest = max(len(_short(vote["class"])) for row in rows for vote in row["votes"].values())
    room = NAME_IN * (longest - 1)
    widths = [_width_in(each) for each in pictures.values()]
    step = sum(widths) + len(widths) * GAP_IN + (len(widths) + 1) / 2 * room
    width, height = num_columns * step, num_lines * (CELL_IN + 2 * TEXT_IN) + 2 * FOOT_IN
    with look():
        figure = Figure(figsize=(width, height), dpi=DPI)
        for at, row in enumerate(rows):
            x = at % num_columns * step + room / 2
            y = height - FOOT_IN - (at // num_columns + 1) * (CELL_IN + 2 * TEXT_IN) + TEXT_IN
            places = {}
            for (name, each), wide in zip(pictures.items(), widths, strict=True):
                places[name] = figure.add_axes((x / width, y / height, wide / width, CELL_IN / height))
                places[name].imshow(each.pixels[at], **{**each.show, "aspect": "auto"})
                bare(places[name])
                x += wide + room / 2 + GAP_IN / 2
            _write_votes(places, row, words)
        figure.text(0, 1, heading or _heading(rows, words), fontsize=11, va="top")
        figure.text(0, 0, _explanation(pictures, words), fontsize=9, va="bottom", color=GREY)
    return figure


def _width_in(pictures: Pictures) -> float:
    """Of one picture on the sheet, in inches: by its shape, where the pixels are square."""
    if pictures.show.get("aspect") == "auto":
        return 0.9 * pictures.cell_in[0]
    high, wide = pictures.pixels.shape[1:3]
    return CELL_IN * max(0.3, min(wide / high, 3))


def _explanation(pictures: Mapping[str, Pictures], words: Words) -> str:
    sides = ("left ", "right ") if len(pictures) == 2 else ("from left to right ", *[""] * (len(pictures) - 1))
    shown = [
        f"{side if len(pictures) > 1 else ''}the {words.nouns[name]}{f': {each.caption}' if each.caption else ''}"
        for side, (name, each) in zip(sides, pictures.items(), strict=True)
    ]
    return f"{', '.join(shown)}; orange: a wrong vote; in brackets its confidence"


def _heading(rows: Sequence[Mapping[str, Any]], words: Words) -> str:
    num_fused = sum(row["votes"][FUSED]["class"] != row["label"] for row in rows)
    others = len(rows) - num_fused
    lost = f"{num_fused} wrong {words.answer}{'' if num_fused == 1 else 's'}"
    alone = together([f"the {noun}" for noun in words.nouns.values()], "or")
    return lost + (f", then {others} that {alone} alone gets wrong" if others else "")


def _write_votes(places: Mapping[str, Axes], row: Mapping[str, Any], words: Words) -> None:
    """The truth over the first picture, the fused vote over the second, and each modality's own vote beneath it."""
    first, *others = places.values()
    first.set_title(f"is {_short(row['label'])}", fontsize=9, loc="left", color="#202124", pad=3)
    for view, axes in [*((FUSED, second) for second in others[:1]), *places.items()]:
        vote = row["votes"][view]
        text = f"{words.nouns.get(view, view)}: {_short(vote['class'])} ({vote['confidence']:.2f})"
        color = BLUE if vote["class"] == row["label"] else ORANGE
        if view == FUSED:
            axes.set_title(text, fontsize=9, loc="left", color=color, pad=3)
        else:
            axes.set_xlabel(text, fontsize=8.5, color=color, labelpad=2)


def _short(name: str) -> str:
    """A class name that fits over a sample."""
    line = " ".join(name.split())
    return plain(line if len(line) <= 7 else f"{line[:6]}…")
