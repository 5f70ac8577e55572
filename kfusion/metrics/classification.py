"""Probabilities to numbers: the report, how each view of a model does, and whether its confidence can be trusted.

    temper, fit_temperature, late_fusion     better probabilities: of one view, and joined by Bayes' rule
    report, report_text, confusion, view_summary      right and wrong answers
    bin_sums, calibration_error, reliability          confidence: the probability of the class that is named

Throughout, `label` and `predicted` are integers (n,) in [0, num_classes); `probabilities` are floats
(n, num_classes) in [0, 1] whose rows sum to 1. Whatever comes back as a dict can be written as JSON. Lengths, shapes
and types are for kfusion to get right (ValueError); only what comes from data is a user's error.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, softmax

from kfusion.spec import AVERAGES as REPORT_ROWS
from kfusion.spec import FUSED
from kfusion.validation import UserError

LATE_FUSION = "late_fusion"
AVERAGES = REPORT_ROWS[1:]
TEMPERATURE_RANGE = (0.05, 50.0)
NUM_BINS = 15
"""Bins of equal width over the confidence, as in the reference of `calibration_error`."""
# The smallest float32: a softmax that has run out of digits then counts as very sure, not as infinitely sure.
SMALLEST = float(np.finfo(np.float32).tiny)


def require(rule: bool, name: str, text: str, received: object) -> None:
    """Raises the ValueError that names the argument, unless the rule holds: the caller's fault, not the user's."""
    if not rule:
        raise ValueError(f"'{name}' must be {text}. Received: {received}")


def as_logs(probabilities: ArrayLike) -> NDArray[np.float64]:
    """The logarithms of probabilities (n ≥ 1, num_classes ≥ 2); those of zeros are finite."""
    values = np.asarray(probabilities, np.float64)
    require(values.ndim == 2 and values.shape[1] >= 2, "probabilities", "of shape (n, num_classes ≥ 2)", values.shape)
    require(len(values) > 0, "probabilities", "of one or more rows", values.shape)
    # NaN compares false with everything, so it is caught here too; it comes of values that no network can add up.
    if not ((values >= 0).all() and (values <= 1.01).all()):
        span = f"{np.isnan(values).sum()} NaN, the rest in [{np.nanmin(values):g}, {np.nanmax(values):g}]"
        raise UserError(f"'probabilities' must be in [0, 1]. Received: {span}")
    return np.log(np.maximum(values, SMALLEST))


def as_classes(name: str, values: ArrayLike, num_classes: int) -> NDArray[np.int64]:
    """Integers (n ≥ 1,) in [0, num_classes), as int64."""
    classes = np.asarray(values)
    require(classes.ndim == 1 and classes.size > 0, name, "of shape (n ≥ 1,)", classes.shape)
    require(np.issubdtype(classes.dtype, np.integer), name, "integers", classes.dtype)
    lowest, highest = int(classes.min()), int(classes.max())
    require(lowest >= 0 and highest < num_classes, name, f"in [0, {num_classes})", (lowest, highest))
    return classes.astype(np.int64)


def temper(probabilities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Probabilities made softer (temperature > 1) or sharper (< 1); the order of the classes stays.

    p'ₖ = pₖ^(1/T) / Σⱼ pⱼ^(1/T), which is softmax(logits / T).
    """
    require(temperature > 0, "temperature", "> 0", temperature)
    return softmax(as_logs(probabilities) / temperature, axis=1)


def fit_temperature(probabilities: ArrayLike, label: ArrayLike, present: ArrayLike | None = None) -> float:
    """The temperature that makes probabilities agree best with held-out labels.

    T minimises −(1/n) Σᵢ Σₖ yᵢₖ log temper(p, T)ᵢₖ. The target yᵢₖ is (n + 1)/(n + 2) for the true class, and the
    rest is shared by the others: Laplace's rule of succession. Without it, a part without any error would ask for
    T = 0, and its modality would overrule the other however unsure it is. With growing n the correction vanishes.

    Args:
        probabilities: (n, num_classes), from rows that the model was not trained on.
        label: true classes, int (n,).
        present: bool (n,), the rows that count; None: all.

    Returns:
        T within `TEMPERATURE_RANGE`; 1 means calibrated, above 1 that the model was too sure.

    Reference:
        Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 4.2; the targets:
        Platt, "Probabilistic Outputs for Support Vector Machines", 1999, section 2.2.
    """
    if present is not None and not np.all(present):
        counted = np.flatnonzero(present)
        if not len(counted):
            return 1.0
        probabilities, label = np.asarray(probabilities)[counted], np.asarray(label)[counted]
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
    from scipy.optimize import minimize_scalar

    return float(np.exp(minimize_scalar(cross_entropy, bounds=bounds, method="bounded").x))  # pyright: ignore


def late_fusion(
    probabilities: Sequence[ArrayLike], prior: ArrayLike, present: Sequence[ArrayLike] | None = None
) -> NDArray[np.float64]:
    """Joins modalities that are independent given the class, by Bayes' rule.

    p(c | x₁ … x_M) ∝ Π_m p(c | x_m) / p(c)^(M - 1): the sum of the log posteriors minus M - 1 times the log prior. With
    calibrated posteriors of independent modalities, no other rule that reads only these does better.

    Args:
        probabilities: (n, num_classes) of each modality.
        prior: share of each class in the part that all were trained on, (num_classes,), each > 0.
        present: bool (n,) for each modality, which rows have it; None: all have. What is absent says no more than the
            prior, and so drops out of the product.

    Returns:
        probabilities (n, num_classes), float64.

    Reference:
        Kittler, Hatef, Duin, Matas, "On Combining Classifiers", IEEE TPAMI 20(3), 1998, equation 7.
    """
    logs = [as_logs(each) for each in probabilities]
    shares = np.asarray(prior, np.float64)
    for each in logs:
        require(each.shape == logs[0].shape, "probabilities", f"of shape {logs[0].shape}", each.shape)
    require(shares.shape == logs[0].shape[1:], "prior", f"of shape {logs[0].shape[1:]}", shares.shape)
    require(bool((shares > 0).all()), "prior", "> 0 for each class", shares.min())
    if present is not None:
        of_prior = np.log(shares / shares.sum())
        logs = [np.where(np.asarray(here)[:, None], each, of_prior) for each, here in zip(logs, present, strict=True)]
    return softmax(sum(logs) - (len(logs) - 1) * np.log(shares / shares.sum()), axis=1)


def report(label: ArrayLike, predicted: ArrayLike, class_names: Sequence[str]) -> dict[str, Any]:
    """Precision, recall, f1 and support of each class, and their averages.

    Args:
        label: true classes, int (n,).
        predicted: the model's classes, int (n,).
        class_names: one name per class.

    Returns:
        scikit-learn's `output_dict`: `{name: {"precision", "recall", "f1-score", "support"}, …, "accuracy": float,
        "macro avg": {…}, "weighted avg": {…}}`. A class without rows, or never predicted, has zeros.

    Raises:
        ValueError: no rows, unequal lengths, or a class outside `class_names`.
    """
    label, predicted = _pair(label, predicted, len(class_names))
    from sklearn.metrics import classification_report

    result = classification_report(
        label,
        predicted,
        labels=np.arange(len(class_names)),
        target_names=list(class_names),
        output_dict=True,
        zero_division=0,  # pyright: ignore[reportArgumentType]  # 0 and 1 are documented values
    )
    return _plain(result)


def report_text(report: Mapping[str, Any]) -> str:
    """The report in the paper's form: the overall accuracy, then a line per class, then the averages.

    Args:
        report: what `report` returned.
    """
    classes = class_rows(report)
    width = max(len(name) for name in [*classes, *AVERAGES])
    heads = ("precision", "recall", "f1-score", "support")
    num_rows = int(report[AVERAGES[1]]["support"])

    def line(name: str) -> str:
        row = report[name]
        numbers = "".join(f" {row[head]:>9.4f}" for head in heads[:3])
        return f"{name:>{width}} {numbers} {int(row['support']):>9}"

    lines = [f"overall accuracy: {report['accuracy']:.4f}", ""]
    lines += [" " * (width + 1) + "".join(f" {head:>9}" for head in heads), ""]
    lines += [line(name) for name in classes]
    lines += ["", f"{'accuracy':>{width}} {'':20} {report['accuracy']:>9.4f} {num_rows:>9}"]
    lines += [line(name) for name in AVERAGES]
    return "\n".join(lines) + "\n"


def class_rows(report: Mapping[str, Any]) -> list[str]:
    """The class names of a report, in the order of the labels."""
    return [name for name in report if name not in REPORT_ROWS]


def confusion(label: ArrayLike, predicted: ArrayLike, num_classes: int) -> NDArray[np.int64]:
    """Counts of true (row) against predicted (column) classes, int64 (num_classes, num_classes)."""
    label, predicted = _pair(label, predicted, num_classes)
    from sklearn.metrics import confusion_matrix  # Here and below: a second, of which a prediction needs nothing.

    return confusion_matrix(label, predicted, labels=np.arange(num_classes))


def macro_f1(label: ArrayLike, predicted: ArrayLike, num_classes: int) -> float:
    """The mean of the classes' F1 = 2 TP / (predicted + true), in [0, 1]; 0 for a class that is neither.

    A rare class counts as much as a frequent one.

    Args:
        label: true classes, int (n,).
        predicted: the model's classes, int (n,).
        num_classes: all of them are averaged, also those without rows.
    """
    label, predicted = _pair(label, predicted, num_classes)
    from sklearn.metrics import f1_score

    score = f1_score(label, predicted, labels=np.arange(num_classes), average="macro", zero_division=0)  # pyright: ignore[reportArgumentType]
    return float(score)


def view_summary(
    label: ArrayLike,
    probabilities: Mapping[str, ArrayLike],
    temperature: Mapping[str, float],
    prior: ArrayLike,
    present: Mapping[str, NDArray[np.bool_]] | None = None,
) -> dict[str, Any]:
    """How one model does with all modalities, with each alone, and how joining them by hand would do.

    Args:
        label: true classes of the part that is judged, int (n,).
        probabilities: the model's answers to each view, (n, num_classes) each, the fused one first.
        temperature: for each modality, from `fit_temperature` on the validation part.
        prior: share of each class in the training part, (num_classes,).
        present: for each modality bool (n,), the rows that have it: its view counts these alone; None: all have all.

    Returns:
        `{"views": {view: {"accuracy", "macro_f1", "num_errors", "num_rows"}}, "temperature": {…}, "confusion": [[…]]}`:
        the views are those given and, of several modalities, "late_fusion"; the confusion, true by predicted class, is
        that of the fused view.
    """
    modalities = [view for view in probabilities if view != FUSED]
    tempered = [temper(probabilities[name], temperature[name]) for name in modalities]
    here = None if present is None else [present[name] for name in modalities]
    late = {LATE_FUSION: late_fusion(tempered, prior, here)} if len(modalities) > 1 else {}
    predicted = {view: np.argmax(each, axis=1) for view, each in {**probabilities, **late}.items()}
    num_classes = tempered[0].shape[1]
    label = as_classes("label", label, num_classes)
    views = {}
    for view, classes in predicted.items():
        require(len(classes) == len(label), view, f"as long as 'label', {len(label)}", len(classes))
        counted = np.ones(len(label), bool) if present is None else present.get(view, np.ones(len(label), bool))
        num_errors, num_rows = int(np.sum((classes != label) & counted)), int(counted.sum())
        views[view] = {
            "accuracy": 1 - num_errors / num_rows if num_rows else 0.0,
            "macro_f1": macro_f1(label[counted], classes[counted], num_classes) if num_rows else 0.0,
            "num_errors": num_errors,
            "num_rows": num_rows,
        }
    return {
        "views": views,
        "temperature": {name: float(temperature[name]) for name in modalities},
        "confusion": confusion(label, predicted[FUSED], num_classes).tolist(),
    }


def by_origin(
    views: Mapping[str, ArrayLike], label: ArrayLike, origin: Mapping[str, NDArray[np.int64]], names: Sequence[str]
) -> list[dict[str, Any]]:
    """How a model does on the rows of each of several sources.

    Where all modalities of each row are of one source, it counts in all views. Where they meet by class, a source's
    pictures are judged by the fused answer and that to the picture alone, and so are its sounds.

    Args:
        views: probabilities (n, num_classes) of each view.
        label: true classes, int (n,).
        origin: for each modality, of which source each row is, int (n,); -1 where it lacks the modality.
        names: of the sources.

    Returns:
        Dicts {"source", "modality", "views": {view: {"accuracy", "num_errors", "num_rows"}}}, ready for JSON; the
        modality is "" where rows are of one source.
    """
    right = {view: np.argmax(answers, axis=1) == label for view, answers in views.items()}
    of_row = np.max(list(origin.values()), axis=0, initial=-1)
    whole = all(((each == of_row) | (each < 0)).all() for each in origin.values())
    blocks = {"": of_row} if whole else origin
    rows = []
    for modality, origins in blocks.items():
        for number in np.unique(origins[origins >= 0]):
            found = {}
            for view, is_right in right.items():
                counted = (origins == number) & (origin[view] >= 0 if view in origin else True)
                if (not modality or view in (FUSED, modality)) and counted.any():
                    errors, num_rows = int((counted & ~is_right).sum()), int(counted.sum())
                    found[view] = {"accuracy": 1 - errors / num_rows, "num_errors": errors, "num_rows": num_rows}
            rows.append({"source": names[number], "modality": modality, "views": found})
    return rows


def _pair(label: ArrayLike, predicted: ArrayLike, num_classes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    true, answer = as_classes("label", label, num_classes), as_classes("predicted", predicted, num_classes)
    require(len(true) == len(answer), "predicted", f"as long as 'label', {len(true)}", len(answer))
    return true, answer


def _plain(value: Any) -> Any:
    """NumPy scalars become Python's, which JSON can write."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return int(value) if isinstance(value, (int, np.integer)) else float(value)


def bin_sums(confidence: ArrayLike, right: ArrayLike, num_bins: int = NUM_BINS) -> NDArray[np.float64]:
    """Rows, right answers and confidence, summed in each bin; sums of two parts of the data may be added.

    Bin b of B holds confidences in (b / B, (b + 1) / B].

    Args:
        confidence: (n,), in [0, 1].
        right: bool (n,).
        num_bins: of equal width.

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
