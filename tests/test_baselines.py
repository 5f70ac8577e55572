"""The baselines: that they are right where a linear model can be, are measured alike, and lose and win in words."""

import numpy as np
import pytest

from kfusion.data.dataset import Pairs
from kfusion.modalities import modality
from kfusion.modalities.base import means_of_parts
from kfusion.modalities.image.summary import summarize
from kfusion.plots.tables import results_table
from kfusion.spec import ModalitySpec, Spec, audio_spec, image_spec
from kfusion.training.baselines import MOST_ROWS, ask, balanced_rows, fitted, measure_baselines, remark, score
from tests.test_tables import shown

SPEC = Spec({"image": image_spec((8, 8, 1)), "audio": audio_spec((20, 3))}, ("across", "down", "plain"))


def pairs(num: int, seed: int) -> Pairs:
    """Stripes across, stripes down or none; and sounds whose second coefficient says which, one in five wrongly."""
    rng = np.random.default_rng(seed)
    label = np.arange(num) % 3
    image = rng.uniform(0, 60, (num, 8, 8, 1))
    image[label == 0, ::4] += 150
    image[label == 1, :, ::4] += 150
    heard = np.where(rng.random(num) < 0.2, rng.integers(0, 3, num), label)
    audio = rng.normal(0, 1, (num, 20, 3))
    audio[..., 1] += 3 * heard[:, None]
    rows = {"image": np.arange(num), "audio": np.arange(num)}
    return Pairs(
        {"image": image.astype(np.uint8), "audio": audio.reshape(num, 60).astype(np.float32)}, rows, label, SPEC
    )


@pytest.fixture(scope="module")
def measured():
    return measure_baselines(pairs(90, 0), pairs(60, 1), pairs(60, 2), seed=0)


def test_each_modality_and_their_fusion_are_measured_on_both_parts(measured):
    views = {view: facts["accuracy"] for view, facts in measured["views"].items()}
    assert set(views) == set(measured["val"]) == {"image", "audio", "late_fusion"}
    assert views["image"] > 0.95 and views["late_fusion"] > 0.9
    # A fifth of the sounds names a class at random, a third of these the right one.
    assert 0.7 < views["audio"] < 0.97
    assert all(facts["num_rows"] == 60 for facts in measured["views"].values())
    assert set(measured["strength"].values()) <= {0.01, 1.0} and measured["num_train"] == 90


def test_the_same_data_give_the_same_figures(measured):
    assert measure_baselines(pairs(90, 0), pairs(60, 1), pairs(60, 2), seed=0) == measured


def test_large_parts_are_cut_evenly_over_the_classes():
    label = np.repeat([0, 1, 2], [3, 40, 400])
    rows = balanced_rows(label, 33, seed=0)
    np.testing.assert_array_equal(np.bincount(label[rows]), [3, 15, 15])
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(balanced_rows(label, MOST_ROWS, 0), np.arange(443))


def test_a_class_that_was_never_seen_is_never_answered():
    model = fitted(np.array([[0.0], [1.0], [0.1], [0.9]]), np.array([0, 2, 0, 2]), 1.0)
    answers = ask(model, np.array([[0.0], [1.0]]), 4)
    np.testing.assert_array_equal(answers.argmax(axis=1), [0, 2])
    np.testing.assert_array_equal(answers[:, [1, 3]], 0)


def test_who_loses_on_validation_is_told_so():
    answers = np.eye(3)[[0, 1, 2, 0]]
    facts = score(answers, np.array([0, 1, 2, 1]))
    assert facts == {"accuracy": 0.75, "macro_f1": pytest.approx(7 / 9), "num_errors": 1, "num_rows": 4}
    worse = {"accuracy": 0.5, "num_errors": 2, "num_rows": 4}
    assert remark({"val": {"image": facts, "audio": worse}}, {"fused": facts}) == ""
    told = remark({"val": {"image": worse, "late_fusion": facts}}, {"fused": worse})
    assert told.startswith("on validation late fusion of logistic regressions is right more often than the network")
    assert "0.7500 against 0.5000 of 4" in told
    assert "logistic regression on audio alone" in remark({"val": {"audio": facts}}, {"fused": worse})


def test_the_final_table_has_a_row_for_each_baseline(measured):
    rows = shown(results_table({"fused": measured["views"]["image"]}, measured["views"]))
    assert [row.rsplit(maxsplit=4)[0].strip() for row in rows[2:]] == [
        "fused",
        "logistic regression, image",
        "logistic regression, audio",
        "logistic regression, late fusion",
    ]


def test_means_of_parts_are_those_of_the_parts():
    values = np.arange(14, dtype=np.float32).reshape(1, 7, 2)
    np.testing.assert_allclose(means_of_parts(values, 1, 3)[0, :, 0], [1, 5, 10])
    np.testing.assert_array_equal(means_of_parts(values, 2, 9), values)


def test_edges_are_told_by_their_direction_and_not_by_contrast():
    across = np.tile(np.linspace(0, 1, 16, dtype=np.float32)[:, None, None], (1, 16, 1))
    edges = summarize(np.stack([across, 0.5 * across, across.swapaxes(0, 1)]))[:, :144].reshape(3, 16, 9)
    # Brighter downwards: a quarter turn, between directions 4 and 5; to the right: direction 0.
    np.testing.assert_allclose(edges[0, :, [4, 5]], edges[1, :, [4, 5]], atol=0.2)
    assert (edges[0, :, [4, 5]] > 0.4).all() and (edges[2, :, 0] > 0.6).all()
    assert np.abs(edges[2, :, 1:]).max() < 1e-5


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 20, 3), (28, 28, 1)])
def test_pictures_of_any_shape_are_summed_up(shape):
    values = np.random.default_rng(0).uniform(0, 255, (4, *shape))
    (found,) = modality("image").summaries(values, image_spec(shape))
    assert len(found) == 4 and np.isfinite(found).all()
    if shape == (28, 28, 1):
        assert found.shape == (4, 144 + 71)


def test_sounds_are_summed_up_by_what_lasts_and_when():
    values = np.random.default_rng(0).normal(size=(4, 120)).astype(np.float32)
    lasting, course = modality("audio").summaries(values, audio_spec((20, 6)))
    np.testing.assert_allclose(lasting[:, 6:12], np.median(values.reshape(4, 20, 6), axis=1), atol=1e-6)
    np.testing.assert_allclose(course[:, 18:24], values.reshape(4, 20, 6)[:, :2].mean(axis=1), atol=1e-6)
    (flat,) = modality("audio").summaries(values, ModalitySpec("audio", (120,), (1, 120)))
    np.testing.assert_array_equal(flat, values)
