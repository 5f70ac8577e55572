"""Answers -> the content of evaluation.json."""

from typing import Any

import numpy as np

from kfusion.evaluation.inference import Answers, Subject
from kfusion.metrics import classification as metrics
from kfusion.metrics.classification import fit_temperature, late_fusion, reliability, temper
from kfusion.metrics.modality_conflicts import agreement, conflict, disagreement, negative_fusion
from kfusion.metrics.significance import METHOD, compare, intervals
from kfusion.plots.evaluation import worst_rows
from kfusion.spec import FUSED, VIEWS

FORMAT = 1
"""Of evaluation.json and robustness.json."""
NUM_WORST = 40
PAIRS = [(FUSED, "image"), (FUSED, "audio"), (FUSED, metrics.LATE_FUSION), ("image", "audio")]
"""Who is compared with whom."""


def fit_temperatures(answers: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """The temperature of each view, fitted on the validation part.

    Args:
        answers: class probabilities, (n, views, num_classes), in the order of `VIEWS`.
        label: (n,).
    """
    return {view: fit_temperature(answers[:, at], label) for at, view in enumerate(VIEWS)}


def summarize(
    subject: Subject, answers: Answers, temperature: dict[str, float], prior: np.ndarray, seed: int
) -> dict[str, Any]:
    """Every number that is said of a network's answers but the robustness grid.

    Args:
        subject: whose answers.
        answers: of the network.
        temperature: {view: T}.
        prior: share of each class in the training part, (num_classes,).
        seed: decides the bootstrap.

    Returns:
        the content of evaluation.json: who it is about ("data"), "views", "report", "confusion", "decides",
        "negative_fusion", "tests", "calibration" and "worst", each as the function of `kfusion.metrics` gives it that
        makes it.
    """
    label, spec = answers.label, subject.pairs.spec
    said = {view: answers.view(view) for view in VIEWS}
    tempered = {view: temper(said[view], temperature[view]) for view in VIEWS}
    late = late_fusion(tempered["image"], tempered["audio"], prior)
    named = {view: each.argmax(axis=1) for view, each in {**said, metrics.LATE_FUSION: late}.items()}
    right = {view: classes == label for view, classes in named.items()}
    bounds = intervals(right, subject.group, seed)
    return {
        "format": FORMAT,
        "key": answers.key,
        "data": _data(subject),
        "interval_method": METHOD,
        "views": {view: _view(right[view], bounds[view]) for view in right},
        "report": metrics.report(label, named[FUSED], spec.class_names),
        "confusion": {view: metrics.confusion(label, named[view], spec.num_classes).tolist() for view in VIEWS},
        "decides": {
            "agreement": agreement(label, named),
            "disagreement": disagreement(label, named),
            "conflict": conflicts(subject, answers, right, seed),
        },
        "negative_fusion": negative_fusion(label, named, spec.class_names, subject.speaker, subject.speaker_names),
        "tests": compare(right, PAIRS, subject.group, seed),
        "calibration": _calibration(label, said, tempered, late, temperature),
        "worst": _worst(subject, label, said, named),
    }


def _data(subject: Subject) -> dict[str, Any]:
    return {
        "name": subject.name,
        "part": subject.part,
        "num_rows": len(subject.pairs),
        "num_sounds": len(np.unique(subject.group)),
        "class_names": list(subject.pairs.spec.class_names),
    }


def _calibration(
    label: np.ndarray,
    said: dict[str, np.ndarray],
    tempered: dict[str, np.ndarray],
    late: np.ndarray,
    temperature: dict[str, float],
) -> dict[str, Any]:
    """Each view before and after its temperature; late fusion is made of tempered answers and has but one state."""
    found: dict[str, Any] = {
        view: {
            "temperature": temperature[view],
            "before": reliability(said[view], label),
            "after": reliability(tempered[view], label),
        }
        for view in VIEWS
    }
    return {**found, metrics.LATE_FUSION: {"temperature": None, "before": None, "after": reliability(late, label)}}


def _view(right: np.ndarray, interval: tuple[float, float]) -> dict[str, Any]:
    return {
        "accuracy": float(right.mean()),
        "num_errors": int(np.sum(~right)),
        "num_rows": len(right),
        "interval": list(interval),
    }


def conflicts(subject: Subject, answers: Answers, right: dict[str, np.ndarray], seed: int) -> dict[str, Any]:
    """Each modality shuffled among the samples of other labels.

    Returns:
        {shuffled modality: what `modality_conflicts.conflict` returns, with "accuracy" and "interval" of the fused
        answer by the label of the modality that stayed}.
    """
    label, found = answers.label, {}
    fused = answers.conflict.argmax(axis=2)
    # Shuffled sounds meet the images in their order, and the reverse.
    sources = {
        "audio": (np.arange(len(label)), answers.partner[0]),
        "image": (answers.partner[1], np.arange(len(label))),
    }
    for at, (shuffled, (images, sounds)) in enumerate(sources.items()):
        clear = right["image"][images] & right["audio"][sounds]
        stayed = "image" if shuffled == "audio" else "audio"
        kept = fused[at] == label
        found[shuffled] = {
            **conflict(label[images], label[sounds], fused[at], clear),
            "stayed": stayed,
            "accuracy": float(kept.mean()),
            "interval": list(intervals({"kept": kept}, subject.group, seed)["kept"]),
        }
    return found


def _worst(
    subject: Subject, label: np.ndarray, said: dict[str, np.ndarray], named: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    """The rows of the picture of the worst errors, with each modality's vote."""
    names = subject.pairs.spec.class_names
    return [
        {
            "row": int(row),
            "image_row": int(subject.pairs.image_row[row]),
            "audio_row": int(subject.pairs.audio_row[row]),
            "label": names[label[row]],
            "votes": {
                view: {"class": names[named[view][row]], "confidence": float(said[view][row].max())} for view in VIEWS
            },
        }
        for row in worst_rows(label, said, NUM_WORST)
    ]
