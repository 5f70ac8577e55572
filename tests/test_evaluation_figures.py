"""The evaluation's figures and tables: made from real numbers of made-up answers, readable, and true to them."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from rich.console import Console

from kfusion.data.dataset import Pairs
from kfusion.evaluation.evaluator import figures
from kfusion.evaluation.inference import EvaluationSet, Predictions
from kfusion.evaluation.summary import summarize
from kfusion.metrics.classification import bin_sums
from kfusion.metrics.modalities import CLEAN, crossed_maps, grid_summary
from kfusion.modalities import each_of, registered
from kfusion.modalities.base import SEVERITIES, Modality
from kfusion.plots.evaluation import heat_map, severity_curves, worst_rows
from kfusion.plots.tables import Words, evaluation_tables, p_value, robustness_tables
from kfusion.spec import DIGITS, FUSED, ModalitySpec, Spec
from tests.test_figures import LETTERS, overlaps, picture, sweep, texts

NUM_ROWS = 120
WORDS = Words.of(Spec())
SURE = np.full(100, 0.75)
COSTS = {"image": 4, "audio": 3, "vector": 2}
"""Right answers of 100 that each severity costs."""


class Vector(Modality):
    """A row of numbers, as the base class has it."""

    kind = "vector"
    array_file = "vector.npy"


@pytest.fixture(autouse=True)
def third_kind():
    with registered(Vector()):
        yield


def spec_of(modalities: tuple[str, ...], names: tuple[str, ...] = DIGITS) -> Spec:
    return Spec(
        {name: {**Spec().modalities, "vector": ModalitySpec("vector", (5,))}[name] for name in modalities}, names
    )


def answered(
    names: tuple[str, ...], sharpness: float = 3.0, modalities: tuple[str, ...] = Spec().names
) -> tuple[EvaluationSet, Predictions, dict]:
    """Samples of random values, predictions for them that are mostly right, and evaluation.json."""
    rng, num, spec = np.random.default_rng(4), len(names), spec_of(modalities, names)
    label, rows = np.arange(NUM_ROWS) % num, np.arange(NUM_ROWS)
    values = {
        name: rng.integers(0, 256, (NUM_ROWS, 28, 28), dtype=np.uint8)
        if kind.is_bounded()
        else rng.normal(size=(NUM_ROWS, *shape.shape)).astype(np.float32)
        for name, kind, shape in each_of(spec)
    }
    pairs = Pairs(values, dict.fromkeys(values, rows), label, spec)
    people = rows % 3, ("ann", "bob", "a" * 60)
    samples = EvaluationSet("data", "test part", pairs, spec, rows // 2, *people, "mfcc", pairs)
    num_conflicts = len(modalities) if len(modalities) > 1 else 0
    logits = rng.normal(size=(len(spec.views) + num_conflicts, NUM_ROWS, num)) + sharpness * np.eye(num)[label]
    answers = np.exp(1.5 * logits) / np.exp(1.5 * logits).sum(axis=2, keepdims=True)
    views, conflict = answers[: len(spec.views)].swapaxes(0, 1), answers[len(spec.views) :]
    partner = np.tile((rows + 1) % NUM_ROWS, (num_conflicts, 1))
    predictions = Predictions("k", label, samples.group, views, partner, conflict, label, views)
    facts = summarize(samples, predictions, dict.fromkeys(spec.views, 1.3), np.full(num, 1 / num), seed=0)
    return samples, predictions, facts


def grid_of(modalities: tuple[str, ...]) -> dict:
    """robustness.json of a model whose answers are all sure by .75, and less often right the severer it gets."""
    spec = spec_of(modalities)
    kinds = {name: kind.corruptions(shape, "mfcc") for name, kind, shape in each_of(spec)}
    variants = [[(CLEAN, 0), *((name, at) for name in some for at in SEVERITIES)] for some in kinds.values()]
    sums = {}
    for cell in itertools.product(*variants):
        if sum(name != CLEAN for name, _ in cell) <= 2:
            cost = sum(COSTS[name] * severity for name, (_, severity) in zip(modalities, cell, strict=True))
            sums |= dict.fromkeys([(view, cell) for view in spec.views], bin_sums(SURE, np.arange(100) < 100 - cost))
    return grid_summary(sums, kinds, 100)


GRID = grid_of(Spec().names)


def maps(grid: dict) -> list:
    return list(crossed_maps(grid).values())


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


def test_three_modalities_are_crossed_in_pairs_and_one_is_not():
    grid = grid_of(("image", "audio", "vector"))
    assert list(crossed_maps(grid)) == [("image", "audio"), ("image", "vector"), ("audio", "vector")]
    assert maps(grid)[0] == GRID["crossed"]
    assert maps(grid)[2]["accuracy"][1] == pytest.approx([1 - 3 * 3 / 100, 1 - 5 * 3 / 100])
    assert (grid["area"]["vector"], grid["area"]["image"]) == (pytest.approx(0.94), GRID["area"]["image"])
    assert grid["area"]["accuracy"] == pytest.approx(np.mean([np.mean(each["accuracy"]) for each in maps(grid)]))
    alone = grid_of(("vector",))
    assert (alone["crossed"], set(alone["area"])) == ([], {"accuracy", "ece", "vector"})
    assert alone["area"]["accuracy"] == pytest.approx((1 + 0.94) / 2)


def test_the_heat_map_writes_its_numbers_into_its_cells():
    axes = next(axes for axes in heat_map(GRID, GRID["crossed"], "accuracy", WORDS).axes if axes.images)
    written = [text.get_text() for text in axes.texts]
    assert len(written) == 42
    assert written[:3] == ["100.0", "91.0", "91.0"]
    assert "mean accuracy 82.2 %, 100 pairs" in axes.get_title(loc="left")


def test_the_curves_start_from_the_clean_accuracy():
    figure = severity_curves(GRID, WORDS)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == 11
    fused = next(line for line in shown[1].lines if line.get_label() == "fused")
    np.testing.assert_allclose(np.asarray(fused.get_ydata(), float), [1, 0.96, 0.92, 0.88, 0.84, 0.8])


CLASSES = {"digits": tuple("0123456789"), "long names": tuple(LETTERS[:4]), "two": ("[red]", "$x_1$")}


@pytest.mark.parametrize("names", sweep({name: CLASSES[name] for name in ("digits", "long names")}, "digits"))
def test_no_texts_of_the_figures_overlap_and_none_is_tiny(names):
    samples, _, facts = answered(names, sharpness=2.5)
    drawn = dict(figures(samples, facts, GRID, {}))
    assert len(drawn) == 9
    readable(drawn)


@pytest.mark.slow
@pytest.mark.parametrize("modalities", [("image", "audio", "vector"), ("vector",), ("image",)], ids=str)
def test_no_texts_overlap_in_the_figures_of_one_and_three_modalities(modalities):
    samples, _, facts = answered(CLASSES["digits"], 2.5, modalities)
    drawn = dict(figures(samples, facts, grid_of(modalities), {}))
    assert ("who_decides" in drawn, "robustness_accuracy_image_vector" in drawn) == (len(modalities) > 1,) * 2
    readable(drawn)


def readable(drawn: dict) -> None:
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
    samples, _, facts = answered(CLASSES["digits"], sharpness=1.2)
    drawn = dict(figures(samples, facts, None, {}))
    sheet, first = drawn["worst_errors"], facts["worst"][0]
    left, right = (axes for axes in sheet.axes[:2] if isinstance(axes, Axes))
    assert left.get_title(loc="left") == f"is {first['label']}"
    vote = first["votes"][FUSED]
    assert right.get_title(loc="left") == f"fused: {vote['class']} ({vote['confidence']:.2f})"
    pixels = samples.pairs.values["image"][first["row"]] / 255
    np.testing.assert_allclose(picture(left), pixels)
    assert "robustness_ece" not in drawn


def test_the_worst_errors_are_called_by_their_files_where_they_have_some():
    samples, predictions, _ = answered(CLASSES["digits"], sharpness=1.2)
    files = np.array([f"data/{row}.wav" if row % 2 else "" for row in range(NUM_ROWS)], object)
    facts = summarize(
        replace(samples, files={"audio": files}),
        predictions,
        dict.fromkeys(samples.pairs.spec.views, 1.3),
        np.full(10, 0.1),
        0,
    )
    table = list(evaluation_tables(facts, WORDS))[-1]
    rows = [row["row"] for row in facts["worst"]][: len(table.rows)]
    assert len(rows) > 5 and [line[0] for line in table.rows] == [str(files[row] or row) for row in rows]
    assert [line[1] for line in table.rows] == [row["label"] for row in facts["worst"]][: len(rows)]


def test_a_model_without_errors_has_no_sheet_of_them():
    samples, _, facts = answered(CLASSES["digits"], sharpness=30.0)
    assert facts["worst"] == []
    assert "worst_errors" not in dict(figures(samples, facts, None, {}))


@pytest.mark.parametrize("names", CLASSES.values(), ids=CLASSES)
def test_the_tables_fit_into_80_columns_and_say_what_the_facts_say(names):
    _, _, facts = answered(names, sharpness=2.5)
    console = Console(width=80)
    with console.capture() as capture:
        console.print(*evaluation_tables(facts, WORDS), *robustness_tables(GRID, WORDS), sep="\n")
    said = capture.get()
    assert max(map(len, said.splitlines())) <= 80
    assert "…" not in said.replace("  … each", "").replace("follows …", "")
    low, high = facts["views"]["image"]["interval"]
    assert f"{low:.4f} – {high:.4f}" in said
    assert f"{GRID['area']['accuracy']:.4f}" in said
    assert f"negative fusion: {facts['negative_fusion']['num_lost']} lost" in said


@pytest.mark.parametrize("modalities", [("image", "audio", "vector"), ("vector",)], ids=str)
def test_tables_of_one_and_three_modalities_name_what_there_is(modalities):
    _, _, facts = answered(CLASSES["digits"], 2.5, modalities)
    words, console = Words.of(spec_of(modalities)), Console(width=80)
    with console.capture() as capture:
        tables = [*evaluation_tables(facts, words), *robustness_tables(grid_of(modalities), words)]
        console.print(*tables, sep="\n")
    text = capture.get()
    assert max(map(len, text.splitlines())) <= 80
    several = len(modalities) > 1
    for line in (
        "where image, sound and vector",
        "vector only",
        "conflict: vectors shuffled",
        "calibrated late fusion",
    ):
        assert (line in text) == several, line
    assert "with a corrupted vector (clean 1.000)" in text
    assert "pair" not in text.replace("who is right where", "") and "neither" not in text
    assert len(facts["tests"]) == (7 if several else 0)


def test_a_p_value_is_never_shown_as_zero():
    assert [p_value(p) for p in (1.0, 0.0321, 3e-9)] == ["1.0000", "0.0321", "3e-09"]
