"""The baselines: that they are right where a linear model can be, are measured alike, and lose and win in words."""

import numpy as np
import pytest

from kfusion.data.dataset import Pairs
from kfusion.inference import predict_views
from kfusion.modalities import modality
from kfusion.modalities.encoders import FARTHEST, averaging, interpolating
from kfusion.plots.tables import results_table
from kfusion.spec import ModalitySpec, Spec, audio_spec, image_spec
from kfusion.training.baselines import (
    FITS,
    MOST_ROWS,
    balanced_rows,
    first_of_equals,
    fit_baselines,
    fit_weights,
    fitted,
    remark,
    score,
)
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


PARTS = (pairs(60, 2), pairs(60, 1))
"""Test and validation."""


@pytest.fixture(scope="module")
def baselines():
    group = dict.fromkeys(SPEC.names, np.arange(90))
    return fit_baselines(pairs(90, 0), group, np.full(3, 1 / 3), seed=0)


@pytest.fixture(scope="module")
def measured(baselines):
    return baselines.facts(*PARTS)


def test_each_modality_and_their_fusion_are_measured_on_both_parts(measured):
    views = {view: facts["accuracy"] for view, facts in measured["views"].items()}
    assert set(views) == set(measured["val"]) == {"image", "audio", "late_fusion"}
    assert views["image"] > 0.95 and views["late_fusion"] > 0.9
    # A fifth of the sounds names a class at random, a third of these the right one.
    assert 0.7 < views["audio"] < 0.97
    assert all(facts["num_rows"] == 60 for facts in measured["views"].values())
    assert set(measured["fit"].values()) <= set(FITS) and measured["num_train"] == 90
    # Of the two, the picture is to be believed.
    assert views["late_fusion"] >= views["audio"] and measured["weight"]["image"] > 0.3


@pytest.mark.parametrize("how", FITS)
@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_network_answers_as_scikit_learn_does(how, num_classes):
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics.pairwise import rbf_kernel
    from sklearn.preprocessing import StandardScaler

    from kfusion.training.baselines import RIDGE, Regression, build_baselines

    spec = Spec({"image": image_spec((8, 8, 1))}, SPEC.class_names[:num_classes])
    part = pairs(90, 0).take(np.flatnonzero(np.arange(90) % 3 < num_classes))
    values = part.read(np.arange(len(part)))["image"]
    (layer,) = modality("image").summaries("image", spec["image"])
    table = np.asarray(layer(values))
    regression = Regression(layer, fitted(table, part.label, how, num_classes), how, np.zeros(0), np.zeros(0))
    prior = np.arange(1, 1 + num_classes) / np.arange(1, 1 + num_classes).sum()
    network = build_baselines(spec, {"image": regression}, {"image": 1.0}, np.log(prior))
    # The prior is taken away from the evidence and given back.
    found = network.predict_on_batch({"image": values, "present": np.ones((len(values), 1), bool)})
    strength, falloff = FITS[how]
    x = StandardScaler().fit_transform(table.astype(np.float64))
    if falloff:
        kernel = rbf_kernel(np.clip(x, -FARTHEST, FARTHEST), gamma=falloff / x.shape[1])
        size, directions = np.linalg.eigh(kernel)
        x = kernel @ directions / np.sqrt(size + RIDGE)
    model = LogisticRegression(C=strength, max_iter=100).fit(x, part.label)
    np.testing.assert_allclose(found, model.predict_proba(x), atol=1e-4)


def test_an_absent_modality_has_no_influence_and_the_other_answers_alone(baselines):
    part = pairs(12, 3)
    views = predict_views(baselines.network, part)
    spoilt = {**part.read(np.arange(12)), "present": np.tile([True, False], (12, 1))}
    spoilt["audio"] = np.full_like(spoilt["audio"], np.nan)
    np.testing.assert_array_equal(baselines.network.predict_on_batch(spoilt), views["image"])


def test_evidence_that_misleads_is_not_heard():
    label = np.arange(60) % 3
    good, wrong = 2.0 * np.eye(3)[label], 2.0 * np.eye(3)[(label + 1) % 3]
    first, second = fit_weights([good, wrong], np.log(np.full(3, 1 / 3)), label)
    assert second < 0.3 and first > 1


def test_large_parts_are_cut_evenly_over_the_classes():
    label = np.repeat([0, 1, 2], [3, 40, 400])
    rows = balanced_rows(label, 33, seed=0)
    np.testing.assert_array_equal(np.bincount(label[rows]), [3, 15, 15])
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(balanced_rows(label, MOST_ROWS, 0), np.arange(443))


def test_a_class_that_was_never_seen_is_never_answered():
    model = fitted(np.array([[0.0], [1.0], [0.1], [np.nan]]), np.array([0, 2, 0, 2]), "linear, C=1", 4)
    answers = model.logits(np.array([[0.0], [1.0]]))
    np.testing.assert_array_equal(answers.argmax(axis=1), [0, 2])
    np.testing.assert_array_equal(answers[:, [1, 3]], -20)
    np.testing.assert_allclose(answers[:, 0] + answers[:, 2], 0, atol=1e-9)


def test_who_loses_on_validation_is_told_so():
    answers = np.eye(3)[[0, 1, 2, 0]]
    facts = score(answers, np.array([0, 1, 2, 1]))
    loss = facts.pop("loss")
    assert facts == {"accuracy": 0.75, "macro_f1": pytest.approx(7 / 9), "num_errors": 1, "num_rows": 4}
    assert loss == pytest.approx(-np.log(np.finfo(np.float32).tiny) / 4)
    worse = {"accuracy": 0.5, "num_errors": 2, "num_rows": 4}
    assert remark({"val": {"image": facts, "audio": worse}}, {"fused": facts}) == ""
    told = remark({"val": {"image": worse, "late_fusion": facts}}, {"fused": worse})
    assert told.startswith("on validation late fusion of logistic regressions is right more often than the network")
    assert "0.7500 against 0.5000 of 4: --recipe auto keeps" in told
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
    values = np.arange(0, 14, 2, dtype=np.float32)
    np.testing.assert_allclose(values @ averaging(7, 3), [1, 5, 10])
    np.testing.assert_array_equal(values @ averaging(7, 9), values)


def test_quantiles_are_numpys():
    values = np.sort(np.random.default_rng(0).normal(size=11)).astype(np.float32)
    shares = (0.0, 0.1, 0.33, 0.5, 1.0)
    np.testing.assert_allclose(values @ interpolating(11, shares), np.quantile(values, shares), atol=1e-6)


def test_edges_are_told_by_their_direction_and_not_by_contrast():
    across = np.tile(np.linspace(0, 1, 16, dtype=np.float32)[:, None, None], (1, 16, 1))
    (layer,) = modality("image").summaries("image", image_spec((16, 16, 1), 1))
    pictures = np.stack([across, 0.5 * across, across.swapaxes(0, 1)])
    edges = np.asarray(layer(pictures))[:, :144].reshape(3, 9, 16).swapaxes(1, 2)
    # Brighter downwards: a quarter turn, between directions 4 and 5; to the right: direction 0.
    np.testing.assert_allclose(edges[0, :, [4, 5]], edges[1, :, [4, 5]], atol=0.2)
    assert (edges[0, :, [4, 5]] > 0.4).all() and (edges[2, :, 0] > 0.6).all()
    assert np.abs(edges[2, :, 1:]).max() < 1e-5


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 20, 3), (28, 28, 1)])
def test_pictures_of_any_shape_are_summed_up(shape):
    values = np.random.default_rng(0).uniform(0, 255, (4, *shape))
    (layer,) = modality("image").summaries("image", image_spec(shape))
    found = np.asarray(layer(values))
    assert len(found) == 4 and np.isfinite(found).all()
    if shape == (28, 28, 1):
        assert found.shape == (4, 144 + 71)


def test_sounds_are_summed_up_by_what_lasts_and_when():
    values = np.random.default_rng(0).normal(size=(4, 120)).astype(np.float32)
    both = modality("audio").summaries("audio", audio_spec((20, 6)))
    lasting, course = (np.asarray(layer(values)).reshape(4, 6, -1) for layer in both)
    np.testing.assert_allclose(lasting[..., 1], np.median(values.reshape(4, 20, 6), axis=1), atol=1e-6)
    np.testing.assert_allclose(course[..., 3], values.reshape(4, 20, 6)[:, :2].mean(axis=1), atol=1e-6)
    (flat,) = modality("audio").summaries("audio", ModalitySpec("audio", (120,), (1, 120)))
    np.testing.assert_array_equal(flat(values), values)


def test_of_equals_the_first_is_taken():
    rng = np.random.default_rng(0)
    loss = rng.uniform(0, 1, 40)
    noise = rng.normal(0, 0.1, 40)
    tried = [(loss + 0.5, 0, "worse", None), (loss + noise - noise.mean() + 0.001, 0, "first", None), (loss, 0, "x", 0)]
    assert first_of_equals(tried)[2] == "first"
    assert first_of_equals(tried[:1])[2] == "worse"
