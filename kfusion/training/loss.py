"""The loss of a network that answers each sample three times: from both modalities, and from each alone."""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from kfusion.spec import FUSED, MODALITIES, VIEWS

TEMPERATURE = {"image": 1.3, "audio": 1.6}
"""What tempers the teacher's halves, which answer for rows that they were trained on; from a prototype, not tuned."""
SMALLEST = 1e-7


class ViewsLoss(keras.losses.Loss):
    """Mean cross-entropy of the three answers, and that of the fused answer to what late fusion would say.

    loss = 1/3 Σ_view CE(label_view, p_view) + weight · CE(q, p_fused), with the teacher
    log q(c) = log p_image(c) / T_image + log p_audio(c) / T_audio - log prior(c) + constant, through which no gradient
    flows. The labels teach what is right; the teacher, how far each half is to be trusted where the halves disagree,
    which pairs of a training part hardly ever do.
    Reference: Hinton 2002 for the product of experts; Hinton, Vinyals and Dean 2015 for learning from soft answers.

    Args:
        weight: of the teacher, ≥ 0.
        prior: (num_classes,), the classes' shares of the training part; None: equal ones.
    """

    def __init__(self, weight: float, prior: ArrayLike | None = None) -> None:
        super().__init__(name="views")
        if weight < 0:
            raise ValueError(f"'weight' must be ≥ 0. Received: {weight}")
        if prior is not None and np.min(prior) <= 0:
            raise ValueError(f"'prior' must be above 0 for every class. Received: {prior}")
        self.weight = weight
        self.log_prior = 0.0 if prior is None else np.log(np.asarray(prior, "float32"))

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Labels int (batch, 3) and probabilities (batch, 3, num_classes) -> loss (batch,)."""
        each = keras.losses.sparse_categorical_crossentropy(y_true, y_pred)
        log = ops.log(ops.clip(ops.cast(y_pred, "float32"), SMALLEST, 1.0))
        views = list(VIEWS)
        halves = sum(log[:, views.index(name)] / TEMPERATURE[name] for name in MODALITIES)
        teacher = ops.stop_gradient(ops.softmax(halves - self.log_prior, axis=-1))
        taught = -ops.sum(teacher * log[:, views.index(FUSED)], axis=-1)
        return ops.mean(each, axis=-1) + self.weight * taught
