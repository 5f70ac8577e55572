"""The loss of all three answers, recomputed from its formula."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kfusion.config import TrainingConfig
from kfusion.training.optimizers import PresentViewsLoss, ViewsLoss, WeightedCrossEntropy, compile_model

RNG = np.random.default_rng(3)
ANSWERS = RNG.dirichlet(np.ones(4), size=(5, 3)).astype("float32")
LABELS = RNG.integers(4, size=(5, 3))
TEMPERATURE = (1.3, 1.6)
FUSED = 0
"""The first view; those of each modality alone follow."""
PRIOR = np.array([0.1, 0.2, 0.3, 0.4])


def by_hand(weight, prior):
    losses = []
    for answer, label in zip(ANSWERS.astype("float64"), LABELS, strict=True):
        right = [-np.log(answer[view, label[view]]) for view in range(3)]
        joined = 1 / np.asarray(prior)
        for view, temperature in enumerate(TEMPERATURE, 1):
            joined = joined * answer[view] ** (1 / temperature)
        teacher = joined / joined.sum()
        losses.append(sum(right) / 3 - weight * (teacher * np.log(answer[FUSED])).sum())
    return np.mean(losses)


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_the_loss_is_its_formula(weight):
    loss = ViewsLoss(weight, TEMPERATURE, PRIOR)(LABELS, ANSWERS)
    assert float(loss) == pytest.approx(by_hand(weight, PRIOR), rel=1e-5)
    equal = ViewsLoss(weight, TEMPERATURE)(LABELS, ANSWERS)
    assert float(equal) == pytest.approx(by_hand(weight, np.full(4, 0.25)), rel=1e-5)


def test_smoothed_labels_are_those_of_keras():
    label, answer = LABELS[:, FUSED], ANSWERS[:, FUSED]
    own = WeightedCrossEntropy(None, 0.2)(label, answer)
    keras_own = keras.losses.CategoricalCrossentropy(label_smoothing=0.2)(np.eye(4)[label], answer)
    assert float(own) == pytest.approx(float(keras_own), rel=1e-5)
    views = [float(WeightedCrossEntropy(None, 0.2)(LABELS[:, view], ANSWERS[:, view])) for view in range(3)]
    for kind in (ViewsLoss, PresentViewsLoss):
        assert float(kind(0.0, TEMPERATURE, PRIOR, None, 0.2)(LABELS, ANSWERS)) == pytest.approx(
            np.mean(views), rel=1e-5
        )


CLASS_WEIGHT = np.array([0.5, 1.0, 2.0, 4.0])


def test_class_weights_count_in_each_view_and_for_the_teacher():
    losses = []
    for answer, label in zip(ANSWERS.astype("float64"), LABELS, strict=True):
        right = [-CLASS_WEIGHT[label[view]] * np.log(answer[view, label[view]]) for view in range(3)]
        joined = np.prod([answer[view] ** (1 / TEMPERATURE[view - 1]) for view in (1, 2)], axis=0) / PRIOR
        taught = -(joined / joined.sum() * np.log(answer[FUSED])).sum()
        losses.append(sum(right) / 3 + 0.5 * CLASS_WEIGHT[label[FUSED]] * taught)
    loss = ViewsLoss(0.5, TEMPERATURE, PRIOR, CLASS_WEIGHT)(LABELS, ANSWERS)
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-5)
    ones = ViewsLoss(0.5, TEMPERATURE, PRIOR, np.ones(4))(LABELS, ANSWERS)
    assert float(ones) == pytest.approx(by_hand(0.5, PRIOR), rel=1e-5)


@pytest.mark.parametrize("view", [slice(None), FUSED])
def test_the_weighted_cross_entropy_is_its_formula(view):
    label, answer = LABELS[:, view], ANSWERS[:, view]
    right = np.take_along_axis(answer.astype("float64"), label[..., None], axis=-1)[..., 0]
    model = keras.Sequential([keras.Input(answer.shape[1:]), keras.layers.Activation("linear")])
    compile_model(model, TrainingConfig(), 1, class_weight=CLASS_WEIGHT)
    by_formula = -(CLASS_WEIGHT[label] * np.log(right)).mean()
    assert float(model.loss(label, answer)) == pytest.approx(by_formula, rel=1e-5)
    assert model.evaluate(answer, label, verbose="silent")[0] == pytest.approx(by_formula, rel=1e-5)


def test_the_teacher_draws_the_fused_answer_only():
    """With the labels' part taken away, the single answers get no gradient, and the fused one gets the teacher's."""
    answers: Any = tf.constant(ANSWERS)
    with tf.GradientTape() as tape:
        tape.watch(answers)
        taught = ViewsLoss(1.0, TEMPERATURE, PRIOR)(LABELS, answers) - ViewsLoss(0.0, TEMPERATURE, PRIOR)(
            LABELS, answers
        )
    gradient = np.asarray(tape.gradient(taught, answers))
    assert np.abs(gradient[:, FUSED]).min() > 1e-3
    assert np.abs(np.delete(gradient, FUSED, axis=1)).max() < 1e-6


def test_a_single_modality_has_no_late_fusion_to_learn_from():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4, activation="softmax")])
    config = TrainingConfig(views="all", late_teacher=2.0)
    assert isinstance(compile_model(model, config, 1, PRIOR, TEMPERATURE).loss, ViewsLoss)
    assert not isinstance(compile_model(model, config, 1, PRIOR, ()).loss, ViewsLoss)


def test_an_answer_of_zero_is_no_infinite_loss():
    sure = np.zeros((1, 3, 4), "float32")
    sure[..., 0] = 1.0
    assert np.isfinite(float(ViewsLoss(2.0, TEMPERATURE)(np.ones((1, 3), int), sure)))


def test_the_teacher_needs_all_views():
    assert TrainingConfig(views="all", late_teacher=2.0).late_teacher == 2.0
    with pytest.raises(ValueError, match="'late_teacher' must be 0 unless 'views' is 'all'"):
        TrainingConfig(late_teacher=2.0)
    with pytest.raises(ValueError, match="'late_teacher' must be ≥ 0"):
        TrainingConfig(views="all", late_teacher=-1.0)
