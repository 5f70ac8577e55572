"""The loss of all three answers, recomputed from its formula."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kfusion.config import TrainingConfig
from kfusion.training.optimizers import ViewsLoss, compile_model

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
