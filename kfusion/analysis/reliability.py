"""Can the confidence be trusted? Calibration error, Brier score, log likelihood, and what the diagram shows.

`probabilities` are floats (n, num_classes) in [0, 1] whose rows sum to 1; `label` is int (n,). The confidence of an
answer is the probability of the class that it names.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kfusion.analysis.checks import as_classes, as_logs, require

NUM_BINS = 15
"""Bins of equal width over the confidence, as in the reference of `calibration_error`."""


def bin_sums(confidence: ArrayLike, right: ArrayLike, num_bins: int = NUM_BINS) -> NDArray[np.float64]:
    """Rows, right answers and confidence, summed in each bin; sums of two parts of the data may be added.

    Bin b of B holds confidences in (b / B, (b + 1) / B].

    Args:
        confidence: (n,), in [0, 1].
        right: bool (n,).

    Returns:
        float64 (3, num_bins): count, number right, sum of the confidence.
    """
    sure, hit = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    require(sure.shape == hit.shape and sure.ndim == 1, "right", f"of shape {sure.shape}", hit.shape)
    place = np.clip(np.ceil(sure * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    weights = (np.ones_like(sure), hit, sure)
    return np.stack([np.bincount(place, weight, num_bins) for weight in weights]).astype(np.float64)


def calibration_error(sums: NDArray[np.float64]) -> float:
    """The expected calibration error of some bins, in [0, 1].

    ECE = Σ_b (n_b / n) |accuracy_b − mean confidence_b|

    Args:
        sums: from `bin_sums`.

    Reference:
        Naeini, Cooper, Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015.
    """
    count, hits, sure = sums
    return float(np.abs(hits - sure).sum() / max(count.sum(), 1))


def confidence_of(probabilities: ArrayLike, label: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Each row's confidence, float64 (n,), and whether its answer is right, bool (n,)."""
    values = np.asarray(probabilities, np.float64)
    return values.max(axis=1), values.argmax(axis=1) == np.asarray(label)


def reliability(probabilities: ArrayLike, label: ArrayLike) -> dict[str, Any]:
    """How far probabilities agree with what happened.

    brier = (1/n) Σᵢ Σₖ (pᵢₖ − [k = yᵢ])², in [0, 2]; nll = −(1/n) Σᵢ log pᵢ,yᵢ, in nats.

    Returns:
        `{"ece", "brier", "nll", "bins": {"count", "accuracy", "confidence"}}`, ready for JSON; the bins are lists of
        `NUM_BINS`, with None where a bin is empty.

    Reference:
        Brier, "Verification of Forecasts Expressed in Terms of Probability", Monthly Weather Review 78(1), 1950.
    """
    logs = as_logs(probabilities)
    num_rows, num_classes = logs.shape
    true = as_classes("label", label, num_classes)
    require(len(true) == num_rows, "label", f"as long as 'probabilities', {num_rows}", len(true))
    truth = np.eye(num_classes)[true]
    count, hits, sure = sums = bin_sums(*confidence_of(probabilities, true))
    filled = np.maximum(count, 1)
    return {
        "ece": calibration_error(sums),
        "brier": float(np.mean(np.sum((np.asarray(probabilities, np.float64) - truth) ** 2, axis=1))),
        "nll": float(-np.mean(logs[np.arange(num_rows), true])),
        "bins": {
            "count": count.astype(int).tolist(),
            "accuracy": [float(value) if num else None for value, num in zip(hits / filled, count, strict=True)],
            "confidence": [float(value) if num else None for value, num in zip(sure / filled, count, strict=True)],
        },
    }
