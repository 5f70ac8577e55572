"""The figures: drawn without a display, showing what they were given, and readable."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from kfusion.modalities import modality
from kfusion.modalities.base import Pictures
from kfusion.plots import training as figures
from kfusion.spec import audio_spec, image_spec

DIGITS = [str(digit) for digit in range(10)]
LETTERS = [f"the letter {chr(code)} as it is written" for code in range(ord("a"), ord("z") + 1)]


def history(num_epochs: int) -> pd.DataFrame:
    epoch = np.arange(1, num_epochs + 1)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "loss": 2 * np.exp(-epoch / 8),
            "accuracy": 1 - 0.5 * np.exp(-epoch / 5),
            "val_loss": 0.05 + 2 * np.exp(-epoch / 6),
            "val_accuracy": 1 - 0.4 * np.exp(-epoch / 4),
            "learning_rate": 1e-3 * np.sin(np.pi * epoch / (num_epochs + 1)),
            "samples_per_second": 700.0,
        }
    )


def undrawn(axis: Axis) -> set[int]:
    """The labels that an axis keeps but does not draw: those of ticks beyond its limits."""
    low, high = sorted(axis.get_view_interval())
    slack = 1e-9 * (high - low)
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    gone = [tick for tick in ticks if not low - slack <= tick.get_loc() <= high + slack]
    return {id(label) for tick in gone for label in (tick.label1, tick.label2)}


def texts(figure: Figure) -> list[Text]:
    """The texts that are drawn, after the figure has laid itself out."""
    FigureCanvasAgg(figure).draw()
    gone = set().union(*(undrawn(axis) for axis in figure.findobj(Axis)))
    found = [text for text in figure.findobj(Text) if id(text) not in gone]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    found = texts(figure)
    left, low, right, high = np.array([text.get_window_extent().padded(-0.5).extents for text in found]).T
    crossed = (left[:, None] < right) & (left < right[:, None]) & (low[:, None] < high) & (low < high[:, None])
    return [(found[a].get_text(), found[b].get_text()) for a, b in np.argwhere(np.triu(crossed, 1))]


def picture(axes: Axes) -> np.ndarray:
    return np.asarray(axes.images[0].get_array())


def images(*columns: np.ndarray, scale: int = 1) -> list[Pictures]:
    """Columns of a sample grid, of images of one shape."""
    return [modality("image").pictures(each, image_spec(each.shape[1:], scale)) for each in columns]


def grey(num_versions: int) -> Figure:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1))
    return figures.sample_grid(images(*[pixels] * (1 + num_versions), scale=255), ["4", "7", "1"])


def colour(num_versions: int) -> Figure:
    pixels = np.random.default_rng(0).random((2, 12, 20, 3))
    changed = [np.zeros((2, 12, 20, 3))] * num_versions
    return figures.sample_grid(images(pixels, *changed), ["cat", "a long name of a class"])


def sounds() -> Figure:
    features = modality("audio").pictures(np.random.default_rng(0).normal(size=(3, 507)), audio_spec())
    return figures.sample_grid([features] * 4, ["4", "7", "1"])


DRAWN = {
    "one epoch": lambda: figures.learning_curves(history(1)),
    "fifty epochs": lambda: figures.learning_curves(history(50), best_epoch=48),
    "two classes": lambda: figures.confusion_matrix([[20, 1], [0, 9]], ["cat", "dog"]),
    "ten classes": lambda: figures.confusion_matrix(np.full((10, 10), 6000), DIGITS),
    "long names": lambda: figures.confusion_matrix(np.full((26, 26), 12345), LETTERS),
    "a hundred classes": lambda: figures.confusion_matrix(np.eye(100, dtype=int), [f"class {at}" for at in range(100)]),
    "grey images": lambda: grey(6),
    "colour images": lambda: colour(2),
    "only originals": lambda: colour(0),
    "sounds": sounds,
}


def sweep(drawn: dict[str, Any], *short: str) -> list[Any]:
    """Ways to draw, as parameters of a test; all but those named run with -m slow only."""
    marks = {name: () if name in short else (pytest.mark.slow,) for name in drawn}
    assert set(short) <= set(drawn)
    return [pytest.param(draw, id=name, marks=marks[name]) for name, draw in drawn.items()]


@pytest.mark.parametrize("draw", sweep(DRAWN, "fifty epochs", "ten classes", "grey images", "sounds"))
def test_no_texts_overlap_and_none_is_tiny(draw):
    figure = draw()
    assert overlaps(figure) == []
    assert min(float(text.get_fontsize()) for text in texts(figure)) >= 7


def test_the_check_for_overlaps_finds_one():
    figure = Figure()
    figure.text(0.5, 0.5, "one")
    figure.text(0.5, 0.51, "two")
    assert overlaps(figure) == [("one", "two")]


@pytest.mark.parametrize("num_epochs", [1, 3, 50])
def test_learning_curves_name_whole_epochs_only(num_epochs):
    figure = figures.learning_curves(history(num_epochs))
    FigureCanvasAgg(figure).draw()
    axis = figure.axes[-1].xaxis
    labels = [label.get_text() for label in axis.get_ticklabels() if id(label) not in undrawn(axis)]
    assert labels
    assert all(1 <= int(label) <= num_epochs for label in labels)


def test_learning_curves_show_both_parts_and_the_learning_rate():
    curves = history(4)
    loss, accuracy, rate = figures.learning_curves(curves).axes
    assert [np.asarray(line.get_ydata()).tolist() for line in loss.lines] == [
        curves["loss"].tolist(),
        curves["val_loss"].tolist(),
    ]
    assert [line.get_label() for line in accuracy.lines] == ["training", "validation"]
    assert np.asarray(rate.lines[0].get_ydata()).tolist() == curves["learning_rate"].tolist()


def test_learning_curves_mark_the_epoch_that_was_kept():
    written = [text.get_text() for text in texts(figures.learning_curves(history(4), best_epoch=3))]
    assert "kept: epoch 3" in written


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_learning_curves_of_a_lost_run_can_still_be_drawn(value, tmp_path):
    lost = history(3).assign(loss=value, val_loss=value)
    figures.save(figures.learning_curves(lost), tmp_path, "curves")


def test_learning_curves_without_a_column_name_the_rule():
    with pytest.raises(
        ValueError, match=r"^'history' must be a table with the columns epoch, loss.*Received: \['epoch"
    ):
        figures.learning_curves(history(2).drop(columns="val_loss"))


def test_confusion_matrix_names_the_users_classes_and_writes_the_counts():
    written = [text.get_text() for text in texts(figures.confusion_matrix([[20, 1], [0, 9]], ["cat", "dog"]))]
    assert written.count("cat") == written.count("dog") == 2
    assert {"20", "1", "9", "29 of 30 right"} <= set(written)
    assert len(figures.confusion_matrix([[20, 1], [0, 9]], ["cat", "dog"]).axes[0].texts) == 3  # no zeros


def test_confusion_matrix_of_a_class_without_rows_can_be_drawn(tmp_path):
    figures.save(figures.confusion_matrix(np.diag([3, 0]), ["cat", "dog"]), tmp_path, "matrix")


def test_confusion_matrix_of_another_size_than_the_names_is_refused():
    with pytest.raises(ValueError, match=r"^'matrix' must be 3 × 3\. Received: \(2, 2\)$"):
        figures.confusion_matrix(np.eye(2), ["a", "b", "c"])


def test_sample_grid_shows_pixels_of_both_ranges_alike():
    image = np.array([0, 51, 255], np.uint8).reshape(1, 1, 3, 1)
    for scale in (1, 255):
        figure = figures.sample_grid(images(*[image / 255 * scale] * 2, scale=scale), ["cat"])
        assert [picture(axes).ravel().tolist() for axes in figure.axes] == [[0, 0.2, 1]] * 2


def test_sample_grid_keeps_the_colours_of_three_channels():
    rgb = np.random.default_rng(0).random((1, 4, 5, 3))
    figure = figures.sample_grid(images(rgb, rgb[:, ::-1]), ["cat"])
    assert np.allclose(picture(figure.axes[0]), rgb[0])
    assert np.allclose(picture(figure.axes[1]), rgb[0, ::-1])


def test_sample_grid_of_versions_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"^'columns' must be pictures .*\(1, 4, 4\)\. Received: \(1, 4, 5\)$"):
        figures.sample_grid(images(np.zeros((1, 4, 4, 1)), np.zeros((1, 4, 5, 1))), ["cat"])


def test_audio_grid_runs_time_to_the_right_and_coefficients_upwards():
    sound = np.zeros((1, 4, 3))
    sound[0, 3, 0] = 1  # the last frame's first coefficient: bottom right
    columns = [modality("audio").pictures(sound.reshape(1, 12), audio_spec((4, 3)))]
    shown = picture(figures.sample_grid(columns, ["7"]).axes[0])
    assert shown.shape == (3, 4)
    assert np.unravel_index(shown.argmax(), shown.shape) == (2, 3)
