"""Optimizer, loss and metrics, attached to a model."""

import keras
from numpy.typing import ArrayLike

from kfusion.config import TrainingConfig
from kfusion.training.loss import ViewsLoss
from kfusion.training.optimizer import FusedAdamW
from kfusion.training.schedule import WarmupCosine

STEPS_PER_EXECUTION = 32
"""Steps that run between two returns to Python; an epoch's last ones may be fewer (`fit.one_epoch`)."""


def schedule_of(config: TrainingConfig, steps_per_epoch: int) -> WarmupCosine:
    """The learning rate over all epochs of a run."""
    total_steps = steps_per_epoch * config.epochs
    # At least one step of a warmup that is asked for: a run of a single step would else run at the cosine's end, zero.
    warmup_steps = min(max(1, round(config.warmup_share * total_steps)), total_steps) if config.warmup_share else 0
    return WarmupCosine(config.peak_learning_rate, warmup_steps, total_steps)


def compile_model(
    model: keras.Model, config: TrainingConfig, steps_per_epoch: int, prior: ArrayLike | None = None
) -> keras.Model:
    """AdamW under warmup + cosine, cross-entropy, accuracy. Without XLA.

    Args:
        model: answers one view, (batch, num_classes), or all, (batch, 3, num_classes).
        config: learning rate, weight decay and the loss.
        steps_per_epoch: over which the learning rate is planned.
        prior: the classes' shares; `late_teacher` uses them.

    Reference: the paper's section on training; Loshchilov and Hutter 2019 for the decoupled weight decay.
    """
    schedule = schedule_of(config, steps_per_epoch)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy()
    model.compile(
        optimizer=FusedAdamW(schedule, weight_decay=config.weight_decay),
        loss=ViewsLoss(config.late_teacher, prior) if config.late_teacher else cross_entropy,
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        steps_per_execution=min(STEPS_PER_EXECUTION, steps_per_epoch),
        jit_compile=False,
    )
    return model
