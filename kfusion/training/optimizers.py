"""What a model is compiled with: warmup and cosine, AdamW in one pass over the weights, the loss over all views."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from numpy.typing import ArrayLike

from kfusion.config import TrainingConfig

SMALLEST = 1e-7
"""Probabilities are cut off there before their logarithm is taken."""
STEPS_PER_EXECUTION = 32
"""Steps that run between two returns to Python; an epoch's last ones may be fewer (`fit.one_epoch`)."""


def cross_entropy(label: Any, probabilities: Any, smoothing: float = 0.0) -> Any:
    """(1 - smoothing) · -log p_label + smoothing · mean over classes -log p, of the labels' shape.

    Args:
        label: int (…).
        probabilities: (…, num_classes).
        smoothing: in [0, 1). Reference: Szegedy et al. 2016, section 7.
    """
    right = keras.losses.sparse_categorical_crossentropy(label, probabilities)
    if not smoothing:
        return right
    log = ops.log(ops.clip(ops.cast(probabilities, "float32"), SMALLEST, 1.0))
    return (1.0 - smoothing) * right - smoothing * ops.mean(log, axis=-1)


class ViewsLoss(keras.losses.Loss):
    """Mean cross-entropy of the prediction of each view, and that of the fused one with late fusion as its target.

    loss = mean over views CE(label_view, p_view) + weight · CE(q, p_fused), with the teacher, for M modalities,
    log q(c) = Σ_m log p_m(c) / T_m - (M - 1) log prior(c) + constant, through which no gradient flows. The labels teach
    what is right; the teacher, how far each modality is to be trusted where they disagree, which is rare in the pairs
    of a training part. With class weights w, the cross-entropy of a view counts w[label_view] times, and the teacher's
    part w[label_fused] times.
    Reference: Hinton 2002 for the product of experts; Hinton, Vinyals and Dean 2015 for learning from soft answers.

    Args:
        weight: of the teacher, ≥ 0.
        temperature: T_m of each modality, in the order of the views that follow the fused one.
        prior: (num_classes,), the classes' shares of the training part; None: equal ones.
        class_weight: (num_classes,); None: 1 for each class.
        smoothing: of the labels, see `cross_entropy`.
    """

    def __init__(
        self,
        weight: float,
        temperature: Sequence[float],
        prior: ArrayLike | None = None,
        class_weight: ArrayLike | None = None,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__(name="views")
        if weight < 0:
            raise ValueError(f"'weight' must be ≥ 0. Received: {weight}")
        if prior is not None and np.min(prior) <= 0:
            raise ValueError(f"'prior' must be above 0 for every class. Received: {prior}")
        self.weight, self.temperature, self.smoothing = weight, tuple(temperature), smoothing
        self.log_prior = 0.0 if prior is None else np.log(np.asarray(prior, "float32"))
        self.class_weight = class_weight

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Labels int (batch, views) and probabilities (batch, views, num_classes) -> loss (batch,)."""
        each = cross_entropy(y_true, y_pred, self.smoothing)
        log = ops.log(ops.clip(ops.cast(y_pred, "float32"), SMALLEST, 1.0))
        alone = sum(log[:, view] / temperature for view, temperature in enumerate(self.temperature, 1))
        alone = alone - (len(self.temperature) - 1) * self.log_prior
        teacher = ops.stop_gradient(ops.softmax(alone, axis=-1))
        taught = -ops.sum(teacher * log[:, 0], axis=-1)
        if self.class_weight is not None:
            weights = weights_of(y_true, self.class_weight)
            each, taught = weights * each, weights[:, 0] * taught
        return ops.mean(each, axis=-1) + self.weight * taught


def weights_of(label: Any, class_weight: ArrayLike) -> Any:
    """The weight of each label's class, float32 of the labels' shape.

    Args:
        label: int (batch,) or (batch, views).
        class_weight: (num_classes,).
    """
    return ops.take(np.asarray(class_weight, "float32"), ops.cast(label, "int32"))


class WeightedCrossEntropy(keras.losses.Loss):
    """Mean cross-entropy in which a label of class c counts w_c times.

    Args:
        class_weight: w, (num_classes,); None: 1 for each class.
        smoothing: of the labels, see `cross_entropy`.
    """

    def __init__(self, class_weight: ArrayLike | None, smoothing: float = 0.0) -> None:
        super().__init__(name="weighted_cross_entropy")
        self.class_weight, self.smoothing = class_weight, smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Labels int (batch,) or (batch, views) and probabilities (…, num_classes) -> loss of the labels' shape."""
        each = cross_entropy(y_true, y_pred, self.smoothing)
        return each if self.class_weight is None else weights_of(y_true, self.class_weight) * each


class MacroF1(keras.metrics.Metric):
    """Mean over classes, and over views, of F1 = 2 TP / (predicted + true); 0 for a class that is neither.

    Args:
        num_classes: of the predictions.
        num_views: of the predictions; 1 where they have no such axis.
    """

    def __init__(self, num_classes: int, num_views: int = 1) -> None:
        super().__init__(name="macro_f1")
        self.num_classes = num_classes
        shape = (num_views, num_classes)
        self.counts = [
            self.add_weight(name=name, shape=shape, initializer="zeros") for name in ("hits", "predicted", "true")
        ]

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Counts labels int (batch,) or (batch, views) and probabilities (…, num_classes); weights are ignored."""
        shape = (-1, *self.counts[0].shape)
        predicted = ops.reshape(ops.one_hot(ops.argmax(y_pred, axis=-1), self.num_classes, dtype="float32"), shape)
        label = ops.reshape(ops.one_hot(ops.cast(y_true, "int32"), self.num_classes, dtype="float32"), shape)
        # A label of -1, of a view that a sample lacks, counts nowhere.
        predicted = predicted * ops.reshape(ops.cast(y_true >= 0, "float32"), (*shape[:-1], 1))
        for count, values in zip(self.counts, (predicted * label, predicted, label), strict=True):
            count.assign_add(ops.sum(values, axis=0))

    def result(self) -> Any:
        """The mean."""
        hits, predicted, true = self.counts
        return ops.mean(2 * hits / ops.maximum(predicted + true, 1.0))


class PresentViewsLoss(ViewsLoss):
    """The same, for samples that may lack modalities: the mean is over the views that a sample has.

    A label is -1 where the sample lacks the view's modality. The teacher leaves out what is absent, by giving it the
    prior as its answer; it teaches nothing where fewer than two modalities are left.
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Labels int (batch, views) and probabilities (batch, views, num_classes) -> loss (batch,)."""
        here = ops.cast(y_true >= 0, "float32")
        each = cross_entropy(ops.maximum(y_true, 0), y_pred, self.smoothing)
        if self.class_weight is not None:
            each = weights_of(ops.maximum(y_true, 0), self.class_weight) * each
        loss = ops.sum(each * here, axis=-1) / ops.sum(here, axis=-1)
        if not self.weight:
            return loss
        log = ops.log(ops.clip(ops.cast(y_pred, "float32"), SMALLEST, 1.0))
        alone = -(len(self.temperature) - 1) * self.log_prior
        for view, temperature in enumerate(self.temperature, 1):
            alone = alone + ops.where(here[:, view : view + 1] > 0, log[:, view] / temperature, self.log_prior)
        teacher = ops.stop_gradient(ops.softmax(alone, axis=-1))
        several = ops.cast(ops.sum(here[:, 1:], axis=-1) >= 2, "float32")
        taught = -ops.sum(teacher * log[:, 0], axis=-1)
        if self.class_weight is not None:
            taught = weights_of(ops.maximum(y_true[:, 0], 0), self.class_weight) * taught
        return loss + self.weight * several * taught


class PresentAccuracy(keras.metrics.SparseCategoricalAccuracy):
    """Accuracy over the views that samples have; a label is -1 for any other."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Counts one batch."""
        super().update_state(ops.maximum(y_true, 0), y_pred, ops.cast(y_true >= 0, "float32"))


@keras.saving.register_keras_serializable("kfusion")
class FusedAdamW(keras.optimizers.AdamW):
    """Keras' AdamW with TensorFlow's fused Adam kernel in place of a dozen operations per variable.

    The same equation, so weights differ in rounding only:

        m = β₁ m + (1 - β₁) g,  v = β₂ v + (1 - β₂) g²,  θ = θ - lr √(1 - β₂ᵗ) / (1 - β₁ᵗ) · m / (√v + ε)

    after Keras' own decoupled weight decay, θ = θ - lr · weight_decay · θ. Reference: Kingma and Ba 2015, the last
    lines of section 2; Loshchilov and Hutter 2019.
    """

    _tuned: frozenset[int] = frozenset()

    def tune(self, variables: Sequence[Any], rate: float, first_step: int) -> None:
        """Trains some variables only from a step on, at a lower rate and without weight decay.

        Args:
            variables: those that were trained before.
            rate: their share of the learning rate.
            first_step: the first step that changes them, counted from 0.
        """
        self._tuned, self._rate, self._first_step = frozenset(map(_key, variables)), rate, first_step
        self.exclude_from_weight_decay(var_list=list(variables))

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        """θ = θ - θ · weight_decay · lr, with the rate computed once and not for each variable."""
        if self.weight_decay is None:
            return
        rate, decay = tf.cast(self.learning_rate, tf.float32), tf.constant(self.weight_decay, tf.float32)
        for variable in (each.value if isinstance(each, keras.Variable) else each for each in variables):
            if self._use_weight_decay(variable):
                variable.assign_sub(variable * decay * rate)

    def _backend_update_step(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        """One step of all variables; without what Keras does for several devices, which takes its time to trace."""
        step, rate = tf.cast(self.iterations.value, tf.float32) + 1.0, tf.cast(learning_rate, tf.float32)
        betas = [tf.constant(beta, tf.float32) for beta in (self.beta_1, self.beta_2)]
        powers = [tf.pow(beta, step) for beta in betas]
        low = tf.where(self.iterations.value >= self._first_step, self._rate, 0.0) * rate if self._tuned else rate
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            index = self._get_variable_index(variable)
            tf.raw_ops.ResourceApplyAdam(
                var=_handle(variable),
                m=_handle(self._momentums[index]),
                v=_handle(self._velocities[index]),
                beta1_power=powers[0],
                beta2_power=powers[1],
                lr=low if _key(variable) in self._tuned else rate,
                beta1=betas[0],
                beta2=betas[1],
                epsilon=tf.constant(self.epsilon, tf.float32),
                grad=tf.cast(gradient, tf.float32),
            )


def _key(variable: Any) -> int:
    """What stands for a variable, a Keras or a TensorFlow one."""
    return id(variable.value if isinstance(variable, keras.Variable) else variable)


def _handle(variable: Any) -> Any:
    """TensorFlow's handle of a Keras or a TensorFlow variable."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle


@keras.saving.register_keras_serializable("kfusion")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warmup to a peak, then half a cosine down to the end.

    With n = step + 1 the number of the update (Keras counts steps from 0), W warmup steps and T total steps:

        n ≤ W:      lr(n) = start + (peak - start) · (n - 1) / (W - 1)
        W < n ≤ T:  lr(n) = final + (peak - final) · ½ (1 + cos(π (n - W) / (T - W)))
        n > T:      lr(n) = final

    So update W runs at the peak and update T at the final rate: both ends are included. By default start = peak / W,
    which is the line through the origin, and no update is wasted on a learning rate of zero at the start.
    Reference: Loshchilov and Hutter 2017, equation 5, without restarts; Goyal et al. 2017, section 2.2, the warmup.

    Args:
        peak_learning_rate: the highest rate, > 0.
        warmup_steps: W, in [0, total_steps]; 0: start at the peak's side of the cosine.
        total_steps: T, ≥ 1.
        start_learning_rate: the rate of the first update, ≥ 0; None: peak / W.
        final_learning_rate: the rate of the last update, ≥ 0.

    Raises:
        ValueError: a value outside its range.
    """

    def __init__(
        self,
        peak_learning_rate: float,
        warmup_steps: int,
        total_steps: int,
        start_learning_rate: float | None = None,
        final_learning_rate: float = 0.0,
    ) -> None:
        _check("peak_learning_rate", peak_learning_rate, peak_learning_rate > 0, "> 0")
        _check("total_steps", total_steps, total_steps >= 1, "≥ 1")
        _check("warmup_steps", warmup_steps, 0 <= warmup_steps <= total_steps, f"in [0, {total_steps}]")
        _check("start_learning_rate", start_learning_rate, (start_learning_rate or 0) >= 0, "≥ 0 or None")
        _check("final_learning_rate", final_learning_rate, final_learning_rate >= 0, "≥ 0")
        self.peak_learning_rate = peak_learning_rate
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        self.start_learning_rate = start_learning_rate
        self.final_learning_rate = final_learning_rate

    def __call__(self, step: Any) -> Any:
        """The learning rate at a step, counted from 0."""
        update = ops.cast(step, "float32") + 1.0
        peak, final, warmup = self.peak_learning_rate, self.final_learning_rate, float(self.warmup_steps)
        start = peak / max(warmup, 1.0) if self.start_learning_rate is None else self.start_learning_rate
        rising = start + (peak - start) * (update - 1.0) / max(warmup - 1.0, 1.0)
        # A warmup of one step is its own end: the peak.
        rising = peak if self.warmup_steps == 1 else rising
        share = ops.clip((update - warmup) / max(self.total_steps - warmup, 1.0), 0.0, 1.0)
        falling = final + (peak - final) * 0.5 * (1.0 + ops.cos(math.pi * share))
        return ops.where(update <= warmup, rising, falling)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same object, for saving."""
        return {
            "peak_learning_rate": self.peak_learning_rate,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
            "start_learning_rate": self.start_learning_rate,
            "final_learning_rate": self.final_learning_rate,
        }


def _check(name: str, value: object, rule: bool, text: str) -> None:
    if not rule:
        raise ValueError(f"'{name}' must be {text}. Received: {value}")


def schedule_of(config: TrainingConfig, steps_per_epoch: int) -> WarmupCosine:
    """The learning rate over all epochs of a run.

    Args:
        config: epochs, peak and warmup.
        steps_per_epoch: steps of an epoch.
    """
    total_steps = steps_per_epoch * config.epochs
    # At least one step of a warmup that is wanted: a run of a single step would else run at the cosine's end, zero.
    warmup_steps = min(max(1, round(config.warmup_share * total_steps)), total_steps) if config.warmup_share else 0
    return WarmupCosine(config.peak_learning_rate, warmup_steps, total_steps)


def compile_model(
    model: keras.Model,
    config: TrainingConfig,
    steps_per_epoch: int,
    prior: ArrayLike | None = None,
    temperature: Sequence[float] = (),
    class_weight: ArrayLike | None = None,
    some_lack: bool = False,
) -> keras.Model:
    """AdamW under warmup + cosine, cross-entropy, accuracy. Without XLA.

    Args:
        model: predicts one view, (batch, num_classes), or all, (batch, views, num_classes).
        config: learning rate, weight decay and the loss.
        steps_per_epoch: over which the learning rate is planned.
        prior: the classes' shares; `late_teacher` uses them.
        temperature: of each modality's prediction, for `late_teacher`; none where there is one modality.
        class_weight: the classes' weights in the loss; None: all the same.
        some_lack: whether labels may be -1, for views of which a sample lacks the modality.

    Reference: the paper's section on training; Loshchilov and Hutter 2019 for the decoupled weight decay.
    """
    schedule, smoothing = schedule_of(config, steps_per_epoch), config.label_smoothing
    loss: keras.losses.Loss = keras.losses.SparseCategoricalCrossentropy()
    if config.late_teacher and temperature:
        loss = ViewsLoss(config.late_teacher, temperature, prior, class_weight, smoothing)
    elif class_weight is not None or smoothing:
        loss = WeightedCrossEntropy(class_weight, smoothing)
    accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    if some_lack:
        loss = PresentViewsLoss(config.late_teacher, temperature, prior, class_weight, smoothing)
        accuracy = PresentAccuracy(name="accuracy")
    metrics: list[keras.metrics.Metric] = [accuracy]
    if config.best_by == "macro_f1":
        _, *views, num_classes = model.output_shape
        metrics.append(MacroF1(num_classes, *views))
    model.compile(
        optimizer=FusedAdamW(schedule, weight_decay=config.weight_decay),
        loss=loss,
        metrics=metrics,
        steps_per_execution=min(STEPS_PER_EXECUTION, steps_per_epoch),
        jit_compile=False,
    )
    # A step that makes the optimizer's variables is traced a second time, as one that does not.
    model.optimizer.build(model.trainable_variables)  # pyright: ignore[reportAttributeAccessIssue]
    return model
