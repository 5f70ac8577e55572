"""Arrays to numbers: the report, and how each view of a model does.

Throughout, `label` and `predicted` are integers (n,) in [0, num_classes); `probabilities` are floats
(n, num_classes) in [0, 1] whose rows sum to 1. Whatever comes back as a dict can be written as JSON.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import classification_report, confusion_matrix

from kfusion.analysis.calibration import fit_temperature, late_fusion, temper
from kfusion.analysis.checks import as_classes, require
from kfusion.spec import AVERAGES as REPORT_ROWS
from kfusion.spec import FUSED, MODALITIES

__all__ = [
    "LATE_FUSION",
    "class_rows",
    "confusion",
    "fit_temperature",
    "late_fusion",
    "report",
    "report_text",
    "temper",
    "view_summary",
]

LATE_FUSION = "late_fusion"
AVERAGES = REPORT_ROWS[1:]


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
    return confusion_matrix(label, predicted, labels=np.arange(num_classes))


def view_summary(
    label: ArrayLike,
    probabilities: Mapping[str, ArrayLike],
    temperature: Mapping[str, float],
    prior: ArrayLike,
) -> dict[str, Any]:
    """How one model does with both modalities, with each alone, and how joining the two by hand would do.

    Args:
        label: true classes of the part that is judged, int (n,).
        probabilities: the model's answers to each view of `kfusion.spec.VIEWS`, (n, num_classes) each.
        temperature: for "image" and "audio", from `fit_temperature` on the validation part.
        prior: share of each class in the training part, (num_classes,).

    Returns:
        `{"views": {view: {"accuracy", "num_errors", "num_rows"}}, "temperature": {…}, "confusion": [[…]]}`: the views
        are those given and "late_fusion"; the confusion, true by predicted class, is that of the fused view.
    """
    tempered = [temper(probabilities[name], temperature[name]) for name in MODALITIES]
    answers = {**probabilities, LATE_FUSION: late_fusion(tempered[0], tempered[1], prior)}
    predicted = {view: np.argmax(answer, axis=1) for view, answer in answers.items()}
    num_classes = tempered[0].shape[1]
    label = as_classes("label", label, num_classes)
    views = {}
    for view, classes in predicted.items():
        require(len(classes) == len(label), view, f"as long as 'label', {len(label)}", len(classes))
        num_errors = int(np.sum(classes != label))
        views[view] = {
            "accuracy": 1 - num_errors / len(label),
            "num_errors": num_errors,
            "num_rows": len(label),
        }
    return {
        "views": views,
        "temperature": {name: float(temperature[name]) for name in MODALITIES},
        "confusion": confusion(label, predicted[FUSED], num_classes).tolist(),
    }


def _pair(label: ArrayLike, predicted: ArrayLike, num_classes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    true, answer = as_classes("label", label, num_classes), as_classes("predicted", predicted, num_classes)
    require(len(true) == len(answer), "predicted", f"as long as 'label', {len(true)}", len(answer))
    return true, answer


def _plain(value: Any) -> Any:
    """NumPy scalars become Python's, which JSON can write."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return int(value) if isinstance(value, (int, np.integer)) else float(value)
