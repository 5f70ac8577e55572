"""The evaluation's figures and tables: made from real numbers of made-up answers, readable, and true to them."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from rich.console import Console

from kfusion.data.dataset import Pairs
from kfusion.evaluation.evaluator import figures
from kfusion.evaluation.inference import Answers, Subject
from kfusion.evaluation.summary import summarize
from kfusion.metrics.classification import bin_sums
from kfusion.metrics.robustness import CLEAN, grid_summary
from kfusion.modalities.audio.corruption import fitting
from kfusion.modalities.image.corruption import IMAGE_CORRUPTIONS, SEVERITIES
from kfusion.plots.evaluation import heat_map, severity_curves, worst_rows
from kfusion.plots.tables import evaluation_tables, p_value, robustness_tables
from kfusion.spec import FUSED, VIEWS, Spec
from tests.test_figures import LETTERS, overlaps, picture, sweep, texts

NUM_ROWS = 120
SOUNDS = fitting((39, 13), True)


def answered(names: tuple[str, ...], sharpness: float = 3.0) -> tuple[Subject, Answers, dict]:
    """A subject with random pixels and sounds, answers to it that are mostly right, and evaluation.json."""
    rng, num = np.random.default_rng(4), len(names)
    label = np.arange(NUM_ROWS) % num
    rows = np.arange(NUM_ROWS)
    images, audio = rng.integers(0, 256, (NUM_ROWS, 28, 28), dtype=np.uint8), rng.normal(size=(NUM_ROWS, 507))
    pairs = Pairs(images, audio.astype(np.float32), rows, rows, label, Spec(class_names=names))
    speaker = rows % 3
    subject = Subject("data", "test part", pairs, 255, rows // 2, speaker, ("ann", "bob", "a" * 60), True, pairs)
    logits = rng.normal(size=(4, NUM_ROWS, num)) + sharpness * np.eye(num)[label]
    answers = np.exp(1.5 * logits) / np.exp(1.5 * logits).sum(axis=2, keepdims=True)
    partner = np.stack([(rows + 1) % NUM_ROWS] * 2)
    views = answers[:3].swapaxes(0, 1)
    found = Answers("k", label, subject.group, views, partner, answers[2:], label, views)
    facts = summarize(subject, found, dict.fromkeys(VIEWS, 1.3), np.full(num, 1 / num), seed=0)
    return subject, found, facts


def cells(accuracy) -> dict:
    """Sums of a grid whose answers are all sure by .75, and right as `accuracy(image, s, audio, t)` says, of 100."""
    found = {}
    images = [(CLEAN, 0), *((name, at) for name in IMAGE_CORRUPTIONS for at in SEVERITIES)]
    sounds = [(CLEAN, 0), *((name, at) for name in SOUNDS for at in SEVERITIES)]
    for view in VIEWS:
        for image in images:
            for sound in sounds:
                right = np.arange(100) < accuracy(*image, *sound)
                found[view, *image, *sound] = bin_sums(np.full(100, 0.75), right)
    return found


def falling(image, s, audio, t) -> int:
    return 100 - 4 * s - 3 * t


GRID = grid_summary(cells(falling), IMAGE_CORRUPTIONS, SOUNDS, 100)


def test_the_grid_holds_means_over_the_severities_and_the_mean_of_these_is_the_area():
    crossed = np.array(GRID["crossed"]["accuracy"])
    assert crossed.shape == (7, 6)
    assert crossed[0, 0] == 1.0
    assert crossed[2, 0] == pytest.approx(1 - 4 * 3 / 100)  # the mean of 1 to 5 is 3
    assert crossed[0, 2] == pytest.approx(1 - 3 * 3 / 100)
    assert crossed[1, 1] == pytest.approx(1 - 7 * 3 / 100)
    assert GRID["alone"]["image"]["blur"]["fused"]["accuracy"] == pytest.approx([0.96, 0.92, 0.88, 0.84, 0.8])
    assert GRID["clean"]["audio"]["ece"] == pytest.approx(0.25)
    by_hand = (1 + 6 * 0.88 + 5 * 0.91 + 30 * 0.79) / 42
    assert GRID["area"]["accuracy"] == pytest.approx(by_hand)
    assert (GRID["area"]["image"], GRID["area"]["both"]) == (pytest.approx(0.88), pytest.approx(0.79))


def test_the_heat_map_writes_its_numbers_into_its_cells():
    axes = next(axes for axes in heat_map(GRID, "accuracy").axes if axes.images)
    written = [text.get_text() for text in axes.texts]
    assert len(written) == 42
    assert written[:3] == ["100.0", "91.0", "91.0"]
    assert "mean accuracy 82.2 %, 100 pairs" in axes.get_title(loc="left")


def test_the_curves_start_from_the_clean_accuracy():
    figure = severity_curves(GRID)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == 11
    fused = next(line for line in shown[1].lines if line.get_label() == "fused")
    np.testing.assert_allclose(np.asarray(fused.get_ydata(), float), [1, 0.96, 0.92, 0.88, 0.84, 0.8])


CLASSES = {"digits": tuple("0123456789"), "long names": tuple(LETTERS[:4]), "two": ("[red]", "$x_1$")}


@pytest.mark.parametrize("names", sweep({name: CLASSES[name] for name in ("digits", "long names")}, "digits"))
def test_no_texts_of_the_figures_overlap_and_none_is_tiny(names):
    subject, _, facts = answered(names, sharpness=2.5)
    drawn = dict(figures(subject, facts, GRID, np.stack([np.zeros(507), np.ones(507)])))
    assert len(drawn) == 9
    for name, figure in drawn.items():
        assert overlaps(figure) == [], name
        assert min(float(text.get_fontsize()) for text in texts(figure)) >= 7, name


def test_the_worst_errors_are_those_of_the_fused_answer_first():
    label = np.zeros(5, int)
    answers = {
        FUSED: np.array([[0.9, 0.1], [0.4, 0.6], [0.1, 0.9], [0.8, 0.2], [0.99, 0.01]]),
        "image": np.array([[0.4, 0.6], [0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.9, 0.1]]),
        "audio": np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.9, 0.1]]),
    }
    assert worst_rows(label, answers, 40).tolist() == [2, 1, 3, 0]
    assert worst_rows(label, answers, 1).tolist() == [2]


def test_a_sheet_names_the_truth_and_each_vote():
    subject, _, facts = answered(CLASSES["digits"], sharpness=1.2)
    drawn = dict(figures(subject, facts, None, np.stack([np.zeros(507), np.ones(507)])))
    sheet, first = drawn["worst_errors"], facts["worst"][0]
    left, right = (axes for axes in sheet.axes[:2] if isinstance(axes, Axes))
    assert left.get_title(loc="left") == f"is {first['label']}"
    vote = first["votes"][FUSED]
    assert right.get_title(loc="left") == f"fused: {vote['class']} ({vote['confidence']:.2f})"
    pixels = subject.pairs.images[first["row"]] / 255
    np.testing.assert_allclose(picture(left), pixels)
    assert "robustness_ece" not in drawn


def test_a_model_without_errors_has_no_sheet_of_them():
    subject, _, facts = answered(CLASSES["digits"], sharpness=30.0)
    assert facts["worst"] == []
    assert "worst_errors" not in dict(figures(subject, facts, None, np.zeros((2, 507))))


@pytest.mark.parametrize("names", CLASSES.values(), ids=CLASSES)
def test_the_tables_fit_into_80_columns_and_say_what_the_facts_say(names):
    _, _, facts = answered(names, sharpness=2.5)
    console = Console(width=80)
    with console.capture() as capture:
        console.print(*evaluation_tables(facts), *robustness_tables(GRID), sep="\n")
    said = capture.get()
    assert max(map(len, said.splitlines())) <= 80
    assert "…" not in said.replace("  … each", "").replace("follows …", "")
    low, high = facts["views"]["image"]["interval"]
    assert f"{low:.4f} – {high:.4f}" in said
    assert f"{GRID['area']['accuracy']:.4f}" in said
    assert f"negative fusion: {facts['negative_fusion']['num_lost']} lost" in said


def test_a_p_value_is_never_shown_as_zero():
    assert [p_value(p) for p in (1.0, 0.0321, 3e-9)] == ["1.0000", "0.0321", "3e-09"]
