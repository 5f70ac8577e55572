"""What a network has to beat: logistic regression on each modality alone, and their calibrated late fusion.

Fitted on the run's own training part in seconds. On small data a linear model may well be the better one, and only who
measures it knows.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from kfusion.data.dataset import Pairs
from kfusion.metrics.classification import (
    LATE_FUSION,
    fit_temperature,
    late_fusion,
    macro_f1,
    reliability,
    temper,
)
from kfusion.modalities import each_of
from kfusion.modalities.base import Modality
from kfusion.spec import FUSED, ModalitySpec

MOST_ROWS = 2000
"""Training rows that are used at most: more would take minutes on large data, where networks win anyway."""
STRENGTHS = (0.01, 1.0)
"""Of the fit against weights of zero: `C` of scikit-learn's LogisticRegression."""
NUM_ITERATIONS, BLOCK = 100, 4096

Answers = dict[str, NDArray]
Facts = dict[str, Any]


def measure_baselines(train: Pairs, val: Pairs, test: Pairs, seed: int) -> Facts:
    """Fits the baselines, and asks them about validation and test.

    Args:
        train: the training part.
        val: the validation part; it chooses features and strength of each modality, and fits its temperature.
        test: the test part.
        seed: decides which rows are used where there are more than `MOST_ROWS`.

    Returns:
        `{"num_train", "views", "val", "strength", "temperature"}`, ready for JSON: "views" holds for each modality, and
        for "late_fusion" where there are several, "accuracy", "num_errors" and "num_rows" on the test part; "val" the
        same on validation.
    """
    rows = balanced_rows(train.label, MOST_ROWS, seed)
    label, num_classes = train.label[rows], train.spec.num_classes
    on_val, on_test, strength, temperature = Answers(), Answers(), {}, {}
    prior = (np.bincount(label, minlength=num_classes) + 1e-9) / len(label)
    for name, kind, shape in each_of(train.spec):
        used, judged = rows[train.is_present(name)[rows]], np.flatnonzero(val.is_present(name))
        if len(np.unique(train.label[used])) < 2 or not len(judged):
            continue
        known, own_label = _summaries(train, name, kind, shape, used), train.label[used]
        val_values = _summaries(val, name, kind, shape, judged)
        candidates = [(way, C, fitted(known[way], own_label, C)) for way in range(len(known)) for C in STRENGTHS]
        answers = [ask(model, val_values[way], num_classes) for way, _, model in candidates]
        temperatures = [fit_temperature(each, val.label[judged]) for each in answers]
        on_val_by = [temper(each, found) for each, found in zip(answers, temperatures, strict=True)]
        best = int(np.argmin([reliability(each, val.label[judged])["nll"] for each in on_val_by]))
        way, strength[name], model = candidates[best]
        temperature[name] = temperatures[best]
        on_val[name] = _for_all(on_val_by[best], judged, len(val), prior)
        here = np.flatnonzero(test.is_present(name))
        on_test[name] = np.tile(prior, (len(test), 1))
        if len(here):
            test_values = _summaries(test, name, kind, shape, here)[way]
            asked = temper(ask(model, test_values, num_classes), temperature[name])
            on_test[name] = _for_all(asked, here, len(test), prior)
    for found in (on_val, on_test):
        if len(found) > 1:
            found[LATE_FUSION] = late_fusion(list(found.values()), prior)
    return {
        "num_train": len(rows),
        "views": {view: score(each, test.label, _counted(test, view)) for view, each in on_test.items()},
        "val": {view: score(each, val.label, _counted(val, view)) for view, each in on_val.items()},
        "strength": strength,
        "temperature": temperature,
    }


def _for_all(answers: NDArray, places: NDArray, num: int, prior: NDArray) -> NDArray:
    """The answers to the rows at some places, (num, num_classes); the prior to all others."""
    found = np.tile(prior, (num, 1))
    found[places] = answers
    return found


def _counted(pairs: Pairs, view: str) -> NDArray:
    """The rows that a view is judged by: those that have its modality, or all of them."""
    return pairs.is_present(view) if view in pairs.spec.names else np.ones(len(pairs), bool)


def _summaries(
    pairs: Pairs, name: str, kind: Modality, spec: ModalitySpec, places: NDArray | None = None
) -> list[NDArray[np.float32]]:
    """A modality's summaries of all samples, or of those at some places, read in blocks."""
    places = np.arange(len(pairs)) if places is None else places
    blocks = [places[start : start + BLOCK] for start in range(0, len(places), BLOCK)]
    parts = [kind.summaries(pairs.read(block)[name], spec) for block in blocks]
    return [np.concatenate(each) for each in zip(*parts, strict=True)]


def balanced_rows(label: NDArray, most: int, seed: int) -> NDArray[np.int64]:
    """Some rows, as many of each class as possible, in their order; all of them where there are no more than `most`.

    Args:
        label: int (n,).
        most: rows.
        seed: decides which.
    """
    if len(label) <= most:
        return np.arange(len(label))
    order = np.random.default_rng(seed).permutation(len(label))
    order = order[np.argsort(label[order], kind="stable")]
    classes = label[order]
    rank = np.arange(len(label)) - np.searchsorted(classes, classes)
    return np.sort(order[np.argsort(rank, kind="stable")[:most]])


def fitted(values: NDArray, label: NDArray, strength: float) -> Any:
    """Logistic regression on standardised values.

    Args:
        values: (n, k).
        label: int (n,).
        strength: `C` of the regression.
    """
    # Missing numbers of a vector are its mean, as in the network.
    filled = SimpleImputer(keep_empty_features=True)
    model = make_pipeline(filled, StandardScaler(), LogisticRegression(C=strength, max_iter=NUM_ITERATIONS))
    # Threads that wait for each other over such small matrices take ten times the processor's time.
    with threadpool_limits(1), warnings.catch_warnings():
        # What has not converged after so many steps is a baseline all the same.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(values, label)


def ask(model: Any, values: NDArray, num_classes: int) -> NDArray[np.float64]:
    """The probability of each class, (n, num_classes); 0 for classes that the model never saw.

    Args:
        model: from `fitted`.
        values: (n, k).
        num_classes: of the data.
    """
    answers = np.zeros((len(values), num_classes))
    answers[:, model.classes_] = model.predict_proba(values)
    return answers


def score(answers: NDArray, label: NDArray, counted: NDArray | None = None) -> Facts:
    """How often answers are right, as `metrics.view_summary` has it.

    Args:
        answers: probabilities (n, num_classes).
        label: int (n,).
        counted: bool (n,), the rows that count; None: all.
    """
    rows = np.ones(len(label), bool) if counted is None else counted
    predicted, label, num_classes = answers.argmax(axis=1)[rows], label[rows], answers.shape[1]
    num_errors = int(np.sum(predicted != label))
    return {
        "accuracy": 1 - num_errors / len(label) if len(label) else 0.0,
        "macro_f1": macro_f1(label, predicted, num_classes) if len(label) else 0.0,
        "num_errors": num_errors,
        "num_rows": len(label),
    }


def remark(baselines: Facts, val_views: Mapping[str, Facts]) -> str:
    """What to say where a baseline is right more often than the network on validation; else "".

    Args:
        baselines: from `measure_baselines`.
        val_views: the network's scores on validation, with that of everything together as "fused".
    """
    if not baselines["val"]:
        return ""
    view, best = max(baselines["val"].items(), key=lambda found: found[1]["accuracy"])
    network = val_views[FUSED]
    if best["num_errors"] >= network["num_errors"]:
        return ""
    what = "late fusion of logistic regressions" if view == LATE_FUSION else f"logistic regression on {view} alone"
    return (
        f"on validation {what} is right more often than the network, {best['accuracy']:.4f} against "
        f"{network['accuracy']:.4f} of {network['num_rows']}: more epochs, a smaller batch or more data may help"
    )
