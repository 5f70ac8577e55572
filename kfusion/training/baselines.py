"""What a network has to beat: logistic regression on each modality alone, and their calibrated late fusion.

Fitted on the run's own training part in seconds. On small data a linear model may well be the better one, and only who
measures it knows. All of them are one Keras model, with the inputs, the answers and the layers of a trained network
(`kfusion.model.fusion`): a run may keep it as its network.

A modality's embedding is its evidence, in the logarithms of probabilities: e = w · (W x + b - log prior), x the
standardised summary of its values or how similar that is to those of training rows, and the answer is
softmax(log prior + Σ e) over the modalities that are present.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from kfusion.data.dataset import Pairs
from kfusion.data.splits import TEST, deal_fold
from kfusion.inference import predict_views
from kfusion.metrics.classification import LATE_FUSION, as_logs, macro_f1
from kfusion.modalities import each_of
from kfusion.modalities.encoders import FARTHEST, MeanForMissing, Similarity
from kfusion.spec import FUSED

MOST_ROWS = 2000
"""Training rows that are used at most: more would take minutes on large data, where networks win anyway."""
FITS = {"similarity, C=100": (100.0, 4.0), "linear, C=0.01": (0.01, 0.0), "linear, C=1": (1.0, 0.0)}
"""Ways to fit a regression, the one that is taken of equals first: `C` of scikit-learn's LogisticRegression, the
strength of the data against weights of zero; and how fast the similarity of two rows falls off with their mean squared
difference, 0: the values themselves."""
MOST_PROTOTYPES = 400
"""Training rows to which others are compared."""
RIDGE = 0.01
"""What is added to the eigenvalues of the prototypes' similarities, so that float32 is exact enough for the weights."""
NUM_FOLDS, FEW_FOLDS, FEW_ROWS = 5, 2, 500
"""Of the cross-validation, where there are few rows and where there are more."""
NUM_ITERATIONS, BLOCK = 100, 256
NEVER = -20.0
"""The logit of a class that a modality was never seen with."""
MOST_WEIGHT = 5.0
"""Of a modality's evidence."""
UNIT = 10.0
"""In which the network holds evidence: its embeddings are then of the size of any network's, and as exact."""

Facts = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Linear:
    """Logistic regression on standardised values, or on their similarities to prototypes; missing ones are their means.

    Args:
        mean: of each value, (k,).
        variance: likewise, > 0.
        weights: (k or prototypes, num_classes).
        bias: (num_classes,).
        prototypes: standardised rows, (prototypes, k); None: there are none.
        falloff: of the similarity.
    """

    mean: NDArray
    variance: NDArray
    weights: NDArray
    bias: NDArray
    prototypes: NDArray | None = None
    falloff: float = 0.0

    def logits(self, values: NDArray) -> NDArray[np.float64]:
        """Values (n, k) -> (n, num_classes)."""
        filled = np.where(np.isnan(values), self.mean, values)
        x = (filled - self.mean) / np.sqrt(self.variance)
        return (x if self.prototypes is None else similar(x, self.prototypes, self.falloff)) @ self.weights + self.bias


def similar(rows: NDArray, prototypes: NDArray, falloff: float) -> NDArray[np.float64]:
    """As `Similarity`, in float64.

    Args:
        rows: (n, k).
        prototypes: (m, k).
        falloff: see there.
    """
    rows = np.clip(rows, -FARTHEST, FARTHEST)
    return np.exp(cdist(rows, prototypes, "sqeuclidean") * (-falloff / rows.shape[1]))


def fitted(values: NDArray, label: NDArray, how: str, num_classes: int, balanced: bool = False) -> Linear:
    """Fits a logistic regression.

    On similarities it is kernel logistic regression with a Gaussian kernel, of which the prototypes span the space.

    Args:
        values: (n, k); NaN where one is missing.
        label: int (n,).
        how: one of `FITS`.
        num_classes: of the data; the label may lack some.
        balanced: each class weighs the same, however rare.

    Reference: Williams and Seeger, Using the Nyström Method to Speed Up Kernel Machines, NIPS 2000.
    """
    strength, falloff = FITS[how]
    known = np.ma.masked_invalid(values.astype(np.float64))
    mean, variance = known.mean(axis=0).filled(0), known.var(axis=0).filled(0)
    variance = np.where(variance > 1e-12 * (1 + mean**2), variance, 1.0)
    x, prototypes, spread = (known.filled(mean) - mean) / np.sqrt(variance), None, np.eye(values.shape[1])
    if falloff:
        x = np.clip(x, -FARTHEST, FARTHEST)
        prototypes = x[balanced_rows(label, MOST_PROTOTYPES, 0)]
        size, directions = np.linalg.eigh(similar(prototypes, prototypes, falloff))
        spread = directions / np.sqrt(np.maximum(size, 0) + RIDGE)
        x = similar(x, prototypes, falloff) @ spread
    weights, bias = np.zeros((x.shape[1], num_classes)), np.full(num_classes, NEVER)
    classes = np.unique(label)
    bias[classes] = 0
    if len(classes) > 1:
        weighed = "balanced" if balanced else None
        model = LogisticRegression(C=strength, max_iter=NUM_ITERATIONS, class_weight=weighed)
        with warnings.catch_warnings():
            # What has not converged after so many steps is a baseline all the same.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, label)
        # Of two classes scikit-learn keeps the second one's weights alone.
        halves = np.array([[-0.5], [0.5]]) if len(classes) == 2 else np.eye(len(classes))
        weights[:, classes], bias[classes] = (halves @ model.coef_).T, halves @ model.intercept_
    return Linear(mean, variance, spread @ weights, bias, prototypes, falloff)


@dataclass(frozen=True, eq=False)
class Regression:
    """What the late fusion knows of one modality.

    Args:
        summary: the layer that brings samples to the values that are weighed.
        linear: fitted on all rows.
        how: it was fitted, of `FITS`.
        evidence: of each row that it was fitted on, by a fit on other rows, (n, num_classes).
        row: of the pairs, the place among these rows; -1 where a pair lacks the modality.
    """

    summary: layers.Layer
    linear: Linear
    how: str
    evidence: NDArray
    row: NDArray


@dataclass(frozen=True, eq=False)
class Baselines:
    """The baselines of a training part.

    Args:
        network: {name: values, "present"} -> probabilities; a modality's own answer is that of its regression.
        num_train: pairs they were fitted on.
        how: each modality's regression was fitted; those that could not be fitted are missing.
        weight: of each one's evidence.
    """

    network: keras.Model
    num_train: int
    how: dict[str, str]
    weight: dict[str, float]

    def facts(self, test: Pairs, val: Pairs) -> Facts:
        """What a run notes: {"num_train", "views", "val", "fit", "weight"}, ready for JSON.

        Args:
            test: the test part, of which "views" are the scores.
            val: the validation part.
        """

        def named(part: Pairs) -> dict[str, Facts]:
            found = scores(predict_views(self.network, part), part)
            several = {LATE_FUSION: found[FUSED]} if len(self.how) > 1 else {}
            return {**{name: found[name] for name in self.how}, **several}

        chosen: Facts = {"fit": self.how, "weight": self.weight}
        return {"num_train": self.num_train, "views": named(test), "val": named(val), **chosen}

    def history(self, train: Pairs, on_val: Mapping[str, Facts]) -> dict[str, float]:
        """The row of a history.csv: all of the fitting is one epoch.

        Args:
            train: the training part.
            on_val: the scores of each view on validation.
        """
        part = train.take(balanced_rows(train.label, MOST_ROWS, 0))
        parts = {"": scores(predict_views(self.network, part), part), "val_": on_val}
        names = ("loss", "accuracy", "macro_f1")
        means = {
            f"{start}{name}": float(np.mean([each[name] for each in views.values()]))
            for start, views in parts.items()
            for name in names
        }
        return {"epoch": 1.0, **means, "learning_rate": 0.0, "samples_per_second": 0.0}


def fit_baselines(
    train: Pairs, group: Mapping[str, NDArray], prior: NDArray, seed: int, balanced: bool = False
) -> Baselines:
    """Fits the regressions and the weights of their late fusion.

    Features, fit and weights are those whose answers to rows left out of a fit are best (cross-validation within
    the training part, groups kept whole). Each row counts once, however many pairs it is in.

    Args:
        train: the training part.
        group: of each modality's rows in `train`, int (n,): rows that belong together.
        prior: share of each class, (num_classes,).
        seed: decides which rows are used where there are more than `MOST_ROWS`, and the folds.
        balanced: each class weighs the same in the fit.
    """
    pairs = train.take(used := balanced_rows(train.label, MOST_ROWS, seed))
    log_prior = np.log(prior + 1e-9)
    known = {}
    for name, kind, shape in each_of(train.spec):
        here = np.flatnonzero(pairs.is_present(name))
        if len(np.unique(pairs.label[here])) > 1:
            summaries = kind.summaries(name, shape)
            # Several threads get in each other's way: the fit's vectors are short.
            with threadpool_limits(1, "blas"):
                known[name] = _regression(pairs, name, here, group[name][used], summaries, log_prior, seed, balanced)
    weighed = 1 / (len(prior) * prior[pairs.label]) if balanced else np.ones(len(pairs))
    evidence = [np.where(one.row[:, None] < 0, 0, one.evidence[one.row]) for one in known.values()]
    found = fit_weights(evidence, log_prior, pairs.label, weighed) if known else []
    weight = dict(zip(known, map(float, found), strict=True))
    network = build_baselines(train.spec, known, weight, log_prior)
    return Baselines(network, len(pairs), {name: one.how for name, one in known.items()}, weight)


def _regression(
    pairs: Pairs,
    name: str,
    here: NDArray,
    group: NDArray,
    summaries: Sequence[layers.Layer],
    log_prior: NDArray,
    seed: int,
    balanced: bool,
) -> Regression:
    """The best regression of one modality: of each way to sum it up, with each strength."""
    num_classes, row = pairs.spec.num_classes, np.full(len(pairs), -1)
    # A row that is used under several labels is a sample of each of these classes.
    labelled = pairs.rows[name][here] * num_classes + pairs.label[here]
    _, first, row[here] = np.unique(labelled, return_index=True, return_inverse=True)
    places, label = here[first], pairs.label[here[first]]
    values = summarized(pairs, name, places, summaries)
    num_folds = NUM_FOLDS if len(label) <= FEW_ROWS else FEW_FOLDS
    folds = [
        deal_fold(label, group[places], number, num_folds, 0.0, np.random.default_rng(seed)) == TEST
        for number in range(1, num_folds + 1)
    ]
    tried = []
    for way, how in product(range(len(values)), FITS):
        evidence = np.zeros((len(label), num_classes))
        for left_out in filter(np.any, folds):
            model = fitted(values[way][~left_out], label[~left_out], how, num_classes, balanced)
            evidence[left_out] = log_softmax(model.logits(values[way][left_out]), axis=1) - log_prior
        weight = fit_weights([evidence], log_prior, label)
        loss = -log_softmax(log_prior + weight[0] * evidence, axis=1)[np.arange(len(label)), label]
        tried.append((loss, way, how, evidence))
    _, way, how, evidence = first_of_equals(tried)
    linear = fitted(values[way], label, how, num_classes, balanced)
    return Regression(summaries[way], linear, how, evidence, row)


def first_of_equals(tried: Sequence[tuple[NDArray, Any, Any, Any]]) -> tuple[NDArray, Any, Any, Any]:
    """The first of those whose mean loss is within a standard error of the lowest one.

    Of a few dozen rows, which of two equals comes out ahead is chance: then the first is taken.

    Args:
        tried: the loss of each row, (n,), and whatever belongs to it.
    """
    best = min(tried, key=lambda each: each[0].mean())
    apart = ((each, each[0] - best[0]) for each in tried)
    return next(each for each, more in apart if more.mean() <= more.std() / np.sqrt(len(more)))


def summarized(
    pairs: Pairs, name: str, places: NDArray, summaries: Sequence[layers.Layer]
) -> list[NDArray[np.float32]]:
    """What some layers make of a modality's samples, (n, k) each.

    Args:
        pairs: the samples.
        name: of the modality.
        places: int (n,), of the samples.
        summaries: the layers.
    """
    blocks = [pairs.read(places[start : start + BLOCK])[name] for start in range(0, len(places), BLOCK)]
    return [np.concatenate([ops.convert_to_numpy(layer(block)) for block in blocks]) for layer in summaries]


def fit_weights(
    evidence: Sequence[NDArray], log_prior: NDArray, label: NDArray, weighed: NDArray | None = None
) -> NDArray[np.float64]:
    """The weight of each modality's evidence, with which together they are best on rows that they were not fitted on.

    w minimises -Σᵢ log softmax(log prior + Σ_m w_m e_m)ᵢ,yᵢ + Σ_m (w_m - 1)² within [0, `MOST_WEIGHT`]. The second term
    counts as much as a row or two: it keeps a handful of rows, all of them right, from making w infinite.

    Args:
        evidence: (n, num_classes) of each modality, zeros where it is absent.
        log_prior: (num_classes,).
        label: int (n,).
        weighed: the rows' weights, (n,); None: all alike.

    Returns:
        (modalities,).
    """
    stacked, rows = np.stack(evidence), np.arange(len(label))
    of_rows = np.ones(len(label)) if weighed is None else weighed

    def loss(weight: NDArray) -> tuple[float, NDArray]:
        logs = log_softmax(log_prior + np.tensordot(weight, stacked, 1), axis=1)
        off = np.exp(logs)
        off[rows, label] -= 1
        slope = np.einsum("mnk,nk,n->m", stacked, off, of_rows)
        return float(-(of_rows * logs[rows, label]).sum() + ((weight - 1) ** 2).sum()), slope + 2 * (weight - 1)

    bounds = [(0.0, MOST_WEIGHT)] * len(stacked)
    return minimize(loss, np.ones(len(stacked)), jac=True, bounds=bounds, method="L-BFGS-B").x


def build_baselines(
    spec: Any, regressions: Mapping[str, Regression], weight: Mapping[str, float], log_prior: NDArray
) -> keras.Model:
    """The late fusion as a network; see the module.

    Args:
        spec: the modalities and the classes.
        regressions: of the modalities; one that is missing has no say.
        weight: of each one's evidence.
        log_prior: (num_classes,).
    """
    inputs = {name: keras.Input(shape.shape, name=name) for name, _, shape in each_of(spec)}
    present = keras.Input((len(inputs),), dtype="bool", name="present")
    embeddings, set_to, num_classes = [], {}, spec.num_classes
    for name, kind, _ in each_of(spec):
        one = regressions.get(name)
        x = one.summary(inputs[name]) if one else layers.Flatten(name=f"{name}_summary")(inputs[name])
        width = x.shape[1]
        linear = (
            one.linear if one else Linear(np.zeros(width), np.ones(width), np.zeros((width, num_classes)), log_prior)
        )
        if kind.allows_missing:
            x = MeanForMissing(linear.mean, name=f"{name}_filled")(x)
        scaling = {"mean": linear.mean.tolist(), "variance": linear.variance.tolist()}
        x = layers.Normalization(**scaling, name=f"{name}_scaling")(x)
        if linear.prototypes is not None:
            x = Similarity(len(linear.prototypes), linear.falloff, name=f"{name}_similarity")(x)
            set_to[f"{name}_similarity"] = [linear.prototypes.T]
        x = layers.Dense(num_classes, name=f"{name}_embedding")(x)
        share = weight.get(name, 0.0) / UNIT
        set_to[f"{name}_embedding"] = share * linear.weights, share * (linear.bias - log_prior)
        embeddings.append(layers.Identity(name=f"{name}_embedding_dropout")(x))
    steps = layers.Identity(name="steps")(ops.stack(embeddings, axis=1))
    steps = ops.where(ops.expand_dims(present, -1), steps, 0.0)
    joined = layers.Identity(name="fusion")(ops.sum(steps, axis=1))
    probabilities = layers.Dense(num_classes, activation="softmax", name="probabilities")(joined)
    set_to["probabilities"] = UNIT * np.eye(num_classes), log_prior
    network = keras.Model({**inputs, "present": present}, probabilities, name="kfusion_baselines")
    for layer, values in set_to.items():
        network.get_layer(layer).set_weights(values)
    return network


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


def score(answers: NDArray, label: NDArray, counted: NDArray | None = None) -> Facts:
    """How often answers are right, as `metrics.view_summary` has it.

    Args:
        answers: probabilities (n, num_classes).
        label: int (n,).
        counted: bool (n,), the rows that count; None: all.
    """
    rows = np.ones(len(label), bool) if counted is None else counted
    answers, label, num_classes = answers[rows], label[rows], answers.shape[1]
    predicted = answers.argmax(axis=1)
    num_errors = int(np.sum(predicted != label))
    return {
        "accuracy": 1 - num_errors / len(label) if len(label) else 0.0,
        "macro_f1": macro_f1(label, predicted, num_classes) if len(label) else 0.0,
        "loss": -float(as_logs(answers)[np.arange(len(label)), label].mean()) if len(label) else 0.0,
        "num_errors": num_errors,
        "num_rows": len(label),
    }


def scores(views: Mapping[str, NDArray], pairs: Pairs) -> dict[str, Facts]:
    """The score of each view, by the rows that have its modality.

    Args:
        views: probabilities (n, num_classes) of each.
        pairs: the samples.
    """
    return {
        view: score(answers, pairs.label, None if view == FUSED else pairs.is_present(view))
        for view, answers in views.items()
    }


def remark(baselines: Facts, val_views: Mapping[str, Facts]) -> str:
    """What to say where a baseline is right more often than the network on validation; else "".

    Args:
        baselines: from `Baselines.facts`.
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
        f"{network['accuracy']:.4f} of {network['num_rows']}: --recipe auto keeps what is better"
    )
