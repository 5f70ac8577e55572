"""Probabilities to better probabilities: the temperature of one modality, and Bayes' rule over two.

`probabilities` are floats (n, num_classes) in [0, 1] whose rows sum to 1.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from kfusion.analysis.checks import as_classes, as_logs, require

TEMPERATURE_RANGE = (0.05, 50.0)


def temper(probabilities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Probabilities made softer (temperature > 1) or sharper (< 1); the order of the classes stays.

    p'ₖ = pₖ^(1/T) / Σⱼ pⱼ^(1/T), which is softmax(logits / T).
    """
    require(temperature > 0, "temperature", "> 0", temperature)
    return softmax(as_logs(probabilities) / temperature, axis=1)


def fit_temperature(probabilities: ArrayLike, label: ArrayLike) -> float:
    """The temperature that makes probabilities agree best with held-out labels.

    T minimises −(1/n) Σᵢ Σₖ yᵢₖ log temper(p, T)ᵢₖ. The target yᵢₖ is (n + 1)/(n + 2) for the true class, and the
    rest is shared by the others: Laplace's rule of succession. Without it, a part without any error would ask for
    T = 0, and its modality would overrule the other however unsure it is. With growing n the correction vanishes.

    Args:
        probabilities: (n, num_classes), from rows that the model was not trained on.
        label: true classes, int (n,).

    Returns:
        T within `TEMPERATURE_RANGE`; 1 means calibrated, above 1 that the model was too sure.

    Reference:
        Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 4.2; the targets:
        Platt, "Probabilistic Outputs for Support Vector Machines", 1999, section 2.2.
    """
    logs = as_logs(probabilities)
    num_rows, num_classes = logs.shape
    label = as_classes("label", label, num_classes)
    require(len(label) == num_rows, "label", f"as long as 'probabilities', {num_rows}", len(label))
    other = 1 / (num_rows + 2) / (num_classes - 1)
    true = (num_rows + 1) / (num_rows + 2)

    def cross_entropy(log_temperature: float) -> float:
        tempered = log_softmax(logs / np.exp(log_temperature), axis=1)
        of_true = tempered[np.arange(num_rows), label]
        return -float(np.mean((true - other) * of_true + other * tempered.sum(axis=1)))

    # Convex in 1/T, so there is one valley; on the logarithmic scale both ends of the range are searched alike.
    bounds = tuple(np.log(TEMPERATURE_RANGE))
    return float(np.exp(minimize_scalar(cross_entropy, bounds=bounds, method="bounded").x))  # pyright: ignore


def late_fusion(
    image_probabilities: ArrayLike, audio_probabilities: ArrayLike, prior: ArrayLike
) -> NDArray[np.float64]:
    """Join two modalities that are independent given the class, by Bayes' rule.

    p(c | image, audio) ∝ p(c | image) p(c | audio) / p(c): the sum of the log posteriors minus the log prior. With
    calibrated posteriors of independent modalities, no other rule that reads only these does better.

    Args:
        image_probabilities: (n, num_classes).
        audio_probabilities: (n, num_classes).
        prior: share of each class in the part that both were trained on, (num_classes,), each > 0.

    Returns:
        probabilities (n, num_classes), float64.

    Reference:
        Kittler, Hatef, Duin, Matas, "On Combining Classifiers", IEEE TPAMI 20(3), 1998, equation 7.
    """
    image, audio = as_logs(image_probabilities), as_logs(audio_probabilities)
    shares = np.asarray(prior, np.float64)
    require(image.shape == audio.shape, "audio_probabilities", f"of shape {image.shape}", audio.shape)
    require(shares.shape == image.shape[1:], "prior", f"of shape {image.shape[1:]}", shares.shape)
    require(bool((shares > 0).all()), "prior", "> 0 for each class", shares.min())
    return softmax(image + audio - np.log(shares / shares.sum()), axis=1)
