"""How figures are written: whole or not at all, the same each time, whatever the classes are called."""

import matplotlib
import pandas as pd
import pytest
from matplotlib.figure import Figure

from kfusion.plots.style import plain
from kfusion.plots.training import confusion_matrix, learning_curves, save


def curves() -> Figure:
    row = {"loss": 1.0, "accuracy": 0.5, "val_loss": 0.9, "val_accuracy": 0.6, "learning_rate": 1e-3}
    return learning_curves(pd.DataFrame([{"epoch": 1, **row}, {"epoch": 2, **row}]))


def test_save_writes_both_files_whole_and_leaves_nothing_else(tmp_path):
    paths = save(curves(), tmp_path, "curves")
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert [path.name for path in paths] == ["curves.png", "curves.svg"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert paths[1].read_text().rstrip().endswith("</svg>")


def test_save_that_fails_keeps_the_old_file_and_leaves_no_part(tmp_path):
    (tmp_path / "curves.png").write_text("old")
    figure = Figure()
    figure.text(0.5, 0.5, "$\\nonsense$")
    with pytest.raises(ValueError, match="nonsense"):
        save(figure, tmp_path, "curves")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("curves.png", "old")]


def test_save_gives_the_same_bytes_twice(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        save(confusion_matrix([[3, 1], [0, 2]], ["cat", "dog"]), folder, "matrix")
    for name in ("matrix.png", "matrix.svg"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert "dc:date" not in (first / "matrix.svg").read_text()


def test_figures_leave_matplotlibs_settings_as_they_were(tmp_path):
    before = dict(matplotlib.rcParams)
    save(curves(), tmp_path, "curves")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("names", [["$a$", "$$"], ["猫", "cat\nfish"], [r"\frac{", "x" * 500]])
def test_any_class_name_can_be_drawn(names, tmp_path):
    save(confusion_matrix([[1, 0], [0, 1]], names), tmp_path, "matrix")


def test_long_names_keep_both_ends():
    short = plain("the quick brown fox jumps over the lazy dog, number 7")
    assert len(short) == 28
    assert short.startswith("the quick")
    assert short.endswith("number 7")
