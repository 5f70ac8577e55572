"""The figures of a search: readable for few and many parameters, and showing what they were given."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.searches import completed, failed, plan, running
from tests.test_figures import overlaps, sweep, texts
from tuning import plots
from tuning.plots import Scale, scale_of, scores_of
from tuning.space import SPACE, as_text
from tuning.trials import Trial


def random_trials(num: int, names, seed: int = 0, epochs=(20,)) -> list[Trial]:
    draw = np.random.default_rng(seed)
    trials = []
    for number in range(num):
        values = {name: as_text(SPACE[name][1][draw.integers(len(SPACE[name][1]))]) for name in names}
        scores = draw.normal(0.985, 0.002, 2).tolist()
        trials.append(replace(completed(number, *scores, epochs=epochs[number % len(epochs)]), values=values))
    return [*trials, failed(num, "no"), running(num + 1, 3)]


def drawn(draw, names, num: int, **settings) -> Figure:
    found = draw(random_trials(num, names, epochs=settings.pop("epochs", (20,))), plan(*names, **settings))
    assert isinstance(found, Figure)
    return found


TWO, ALL = ("hidden_dim", "embed_dim"), tuple(SPACE)
DRAWN = {
    "one parameter": lambda: drawn(plots.score_by_parameter, TWO[:1], 20),
    "one trial": lambda: drawn(plots.score_by_parameter, TWO, 1, objective="val_loss"),
    "eleven parameters": lambda: drawn(plots.score_by_parameter, ALL, 60),
    "claim": lambda: drawn(plots.paper_claim, TWO, 20, repeats=2),
    "progress of hyperband": lambda: drawn(plots.progress, TWO, 60, tuner="hyperband", epochs=(3, 20)),
}


@pytest.mark.parametrize("draw", sweep(DRAWN, "one trial", "claim", "progress of hyperband"))
def test_no_texts_overlap_and_none_is_tiny(draw):
    figure = draw()
    assert overlaps(figure) == []
    assert min(float(text.get_fontsize()) for text in texts(figure)) >= 9


@pytest.mark.parametrize("draw", [plots.score_by_parameter, plots.paper_claim, plots.progress])
@pytest.mark.parametrize("objective", ["val_accuracy", "val_loss"])
def test_equal_scores_can_be_drawn(draw, objective):
    trials = [completed(at, 0.5, hidden_dim=size, embed_dim=32) for at, size in enumerate((64, 128))]
    FigureCanvasAgg(draw(trials, plan(objective=objective))).draw()


@pytest.mark.parametrize("draw", [plots.score_by_parameter, plots.paper_claim, plots.progress])
def test_figures_of_no_completed_trial_name_the_rule(draw):
    with pytest.raises(ValueError, match=r"^'trials' must be completed, one or more\. Received: none$"):
        draw([failed(0, "no"), running(1, 2)], plan())


def marks(axes: Axes, label: str) -> list[tuple[float, float]]:
    lines = [line for line in axes.lines if line.get_label() == label]
    return [point for line in lines for point in zip(*np.asarray(line.get_data(), float), strict=True)]


def bars(axes: Axes) -> dict[str, list[tuple[float, float, float]]]:
    """By label: place, mean and half the length of each error bar."""
    found = {}
    for each in axes.containers:
        x, y = np.asarray(each.lines[0].get_data(), float)  # type: ignore[attr-defined]
        halves = [(part[1, 1] - part[0, 1]) / 2 if len(part) else np.nan for part in each.lines[2][0].get_segments()]  # type: ignore[attr-defined]
        found[str(each.get_label())] = list(zip(x.tolist(), y.tolist(), halves, strict=True))
    return found


def test_a_panel_shows_every_trial_and_repeat_and_the_means():
    trials = [
        completed(0, 0.90, 0.92, hidden_dim=64),
        completed(1, 0.94, 0.96, hidden_dim=128),
        completed(2, 0.98, 1.00, hidden_dim=128),
    ]
    axes = plots.score_by_parameter(trials, plan("hidden_dim")).axes[0]
    assert sorted(score for _, score in marks(axes, "trial")) == pytest.approx([0.91, 0.95, 0.99])
    assert sorted(score for _, score in marks(axes, "repeat")) == pytest.approx([0.9, 0.92, 0.94, 0.96, 0.98, 1.0])
    (means,) = bars(axes).values()
    assert [mean for _, mean, _ in means] == pytest.approx([0.91, 0.97])
    # Of 0.95 and 0.99: the sample standard deviation is 0.04 / √2, the standard error that / √2.
    assert means[1][2] == pytest.approx(0.02)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["64", "128"]


def test_a_trial_far_below_the_others_stands_at_the_edge_and_out_of_the_means():
    trials = [completed(at, 0.98 + 0.001 * at, hidden_dim=64 << at % 2) for at in range(9)]
    figure = plots.score_by_parameter([*trials, completed(9, 0.1, hidden_dim=64)], plan("hidden_dim"))
    axes = figure.axes[0]
    assert axes.get_ylim()[0] > 0.97
    assert min(mean for means in bars(axes).values() for _, mean, _ in means) > 0.98
    assert [height for _, height in marks(axes, "_far")] == pytest.approx([0.98])
    assert any("1 trial below 98 %: drawn at the edge" in text.get_text() for text in texts(figure))


def test_far_losses_are_those_above():
    losses = [0.02 + 0.001 * at for at in range(9)]
    scores = scores_of([completed(at, loss) for at, loss in enumerate([*losses, 2.3])], "val_loss")
    assert scores.worst == pytest.approx(0.028)
    assert [scores.beyond(loss) for loss in (0.01, 0.028, 2.3)] == [False, False, True]
    assert scores.num_beyond == 1


def test_numbers_over_a_wide_span_lie_on_a_logarithmic_axis():
    trials = [completed(at, 0.9, hidden_dim=size, dropout=0.1 + 0.1 * at) for at, size in enumerate((64, 512, 128))]
    scale = scale_of("hidden_dim", trials, plan())
    # Of the three doublings from 64 to 512, 128 is the first.
    assert [scale.position(size) for size in (64, 128, 512)] == pytest.approx([0, 1 / 3, 1])
    assert scale_of("dropout", trials, plan()).position(0.15) == pytest.approx(0.25)


def test_words_lie_on_an_axis_in_the_order_of_the_plan():
    trials = [completed(at, 0.9, fusion=word) for at, word in enumerate(("late", "lstm", "late"))]
    scale = scale_of("fusion", trials, plan("fusion=lstm,attention,late"))
    assert scale.ticks(3.0, 9) == [(0.0, "lstm"), (1.0, "late")]


def test_ticks_are_the_tried_values_and_labels_without_room_are_left_out():
    few = Scale("linear", (0.1, 0.11, 0.5))
    assert [label for _, label in few.ticks(2.0, 9)] == ["0.1", "", "0.5"]
    assert [label for _, label in few.ticks(30.0, 9)] == ["0.1", "0.11", "0.5"]
    many = Scale("log", tuple(range(10, 300, 10)))
    assert [label for _, label in many.ticks(9.0, 9)] == ["16", "32", "64", "128", "256"]


def test_the_claim_has_a_line_per_embed_size_and_bars_over_repeats():
    grid = itertools.product((128, 256), (64, 128))
    trials = [completed(at, 0.9, 0.92 + 0.02 * at, hidden_dim=h, embed_dim=e) for at, (h, e) in enumerate(grid)]
    figure = plots.paper_claim(trials, plan(repeats=2))
    assert figure is not None
    found = bars(figure.axes[0])
    assert set(found) == {"embed_dim 64", "embed_dim 128"}
    assert [point[1:] for point in found["embed_dim 128"]] == [pytest.approx((0.92, 0.02)), pytest.approx((0.94, 0.04))]
    assert "4 trials; ± standard error over the repeats of a trial" in [text.get_text() for text in texts(figure)]
    assert figure.axes[0].get_xscale() == "log"


def test_the_claim_pools_trials_that_differ_in_other_parameters():
    trials = [completed(at, score, hidden_dim=128) for at, score in enumerate((0.90, 0.94))]
    figure = plots.paper_claim([*trials, completed(2, 0.95, hidden_dim=256)], plan("hidden_dim", "dropout"))
    assert figure is not None
    (line,) = bars(figure.axes[0]).values()
    assert line[0] == pytest.approx((128, 0.92, 0.02))
    assert "3 trials; embed_dim 128; ± standard error over the trials of a point" in [
        t.get_text() for t in texts(figure)
    ]


def test_the_claim_marks_the_papers_sizes_even_where_they_were_not_tried():
    figure = plots.paper_claim([completed(0, 0.9, hidden_dim=64)], plan("hidden_dim"))
    assert figure is not None
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["64", "128", "256"]
    written = [text.get_text() for text in texts(figure)]
    assert "paper: 256, embed_dim 128" in written
    assert "paper: 128 “worked equally nicely”" in written


def test_there_is_no_claim_where_the_hidden_size_is_not_tuned():
    assert plots.paper_claim([completed(0, 0.9, dropout=0.3)], plan("dropout")) is None


@pytest.mark.parametrize(("objective", "best"), [("val_accuracy", [0.9, 0.95, 0.95]), ("val_loss", [0.9, 0.9, 0.8])])
def test_progress_has_the_best_so_far_and_the_failed_trials(objective, best):
    trials = [completed(0, 0.9), completed(1, 0.95), failed(2, "no"), completed(3, 0.8), running(4, 1)]
    axes = plots.progress(trials, plan(objective=objective)).axes[0]
    assert marks(axes, "trial") == [(0, 0.9), (1, 0.95), (3, 0.8)]
    assert marks(axes, "best so far")[:3] == list(zip((0, 1, 3), best, strict=True))
    assert [place for place, _ in marks(axes, "failed")] == [2]


def test_figures_of_hyperband_leave_out_shorter_trainings_and_say_so():
    trials = [completed(at, 0.9, epochs=3 if at else 20, hidden_dim=64 << at) for at in range(3)]
    figure = plots.score_by_parameter(trials, plan("hidden_dim", tuner="hyperband"))
    assert len(marks(figure.axes[0], "trial")) == 1
    assert "1 trial of 20 epochs (2 shorter left out)" in [text.get_text() for text in texts(figure)]
    assert len(marks(plots.progress(trials, plan(tuner="hyperband")).axes[0], "shorter trial")) == 2
