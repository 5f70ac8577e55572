"""Predictions -> the content of evaluation.json; corrupted samples -> that of robustness.json.

The robustness grid says how accuracy and calibration fall as one modality, or two, are corrupted.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kfusion.data.dataset import Pairs
from kfusion.evaluation.inference import BATCH_ROWS, EvaluationSet, Predictions, draw, whole_rows
from kfusion.metrics import classification as metrics
from kfusion.metrics.classification import (
    LATE_FUSION,
    bin_sums,
    confidence_of,
    fit_temperature,
    late_fusion,
    reliability,
    temper,
)
from kfusion.metrics.modalities import (
    CLEAN,
    Cell,
    Variant,
    agreement,
    cell_of,
    conflict,
    disagreement,
    grid_summary,
    negative_fusion,
)
from kfusion.metrics.significance import compare, intervals, method
from kfusion.modalities import each_of, kinds, modality
from kfusion.modalities.base import SEVERITIES, Corruption, corrupt
from kfusion.model.answers import Answers
from kfusion.model.build import Halves
from kfusion.model.trust import Trust
from kfusion.plots.evaluation import worst_rows
from kfusion.plots.tables import Words
from kfusion.random_streams import Stream
from kfusion.spec import FUSED, SHARES, Caution, Spec

FORMAT = 1
"""Of evaluation.json and robustness.json."""
NUM_WORST = NUM_STRANGEST = 40
CURVE = 50
"""Places of the curve of accuracy over the share that is answered."""


def fit_temperatures(probabilities: np.ndarray, val: Pairs) -> dict[str, float]:
    """The temperature of each view, fitted on the samples of the validation part that have the view's modality.

    Args:
        probabilities: (n, views, num_classes), in the order of `spec.views`.
        val: the validation part.
    """
    here = counted(val)
    return {view: fit_temperature(probabilities[:, at], val.label, here[view]) for at, view in enumerate(here)}


def counted(pairs: Pairs) -> dict[str, np.ndarray]:
    """For each view the samples that count, since they have its modality: bool (n,)."""
    return {FUSED: np.ones(len(pairs), bool), **{name: pairs.is_present(name) for name in pairs.spec.names}}


def summarize(
    samples: EvaluationSet, predictions: Predictions, temperature: dict[str, float], prior: np.ndarray, seed: int
) -> dict[str, Any]:
    """Every number that is said of a network's predictions but the robustness grid.

    Args:
        samples: the evaluation set.
        predictions: for it.
        temperature: {view: T}.
        prior: share of each class in the training part, (num_classes,).
        seed: decides the bootstrap.

    Returns:
        the content of evaluation.json: who it is about ("data"), "views", "report", "confusion", "decides",
        "negative_fusion", "tests", "calibration" and "worst", each as the function of `kfusion.metrics` gives it that
        makes it. Late fusion is left out where there is but one modality.
    """
    label, spec, words = predictions.label, samples.pairs.spec, Words.of(samples.pairs.spec)
    probabilities = {view: predictions.test[:, at] for at, view in enumerate(spec.views)}
    tempered = {view: temper(each, temperature[view]) for view, each in probabilities.items()}
    here, whole = counted(samples.pairs), whole_rows(samples.pairs)
    present = None if samples.pairs.present is None else [here[name] for name in spec.names]
    alone = [tempered[name] for name in spec.names]
    late = {LATE_FUSION: late_fusion(alone, prior, present)} if len(spec.names) > 1 else {}
    predicted = {view: each.argmax(axis=1) for view, each in {**probabilities, **late}.items()}
    views = {**probabilities, **late}
    right = {view: classes == label for view, classes in predicted.items()}
    bounds = _intervals(right, here, samples.group, seed)
    # Modalities are compared on samples that have all of them.
    compared, both = {view: classes[whole] for view, classes in predicted.items()}, label[whole]
    speaker = None if samples.speaker is None else samples.speaker[whole]
    rivals = [(FUSED, name) for name in right if name != FUSED] + list(combinations(spec.names, 2)) if late else []
    return {
        "format": FORMAT,
        "key": predictions.key,
        "data": _data(samples),
        "interval_method": method(f"{words.last}s", f"{words.unit}s"),
        "views": {
            view: _view(
                right[view][rows], bounds[view], metrics.macro_f1(label[rows], predicted[view][rows], spec.num_classes)
            )
            for view in right
            for rows in [here.get(view, here[FUSED])]
        },
        "report": metrics.report(label, predicted[FUSED], spec.class_names),
        "confusion": {
            view: metrics.confusion(label[here[view]], predicted[view][here[view]], spec.num_classes).tolist()
            for view in spec.views
        },
        "decides": {
            "agreement": agreement(both, compared),
            "disagreement": disagreement(both, compared),
            "conflict": conflicts(samples, predictions, right, seed),
        },
        "negative_fusion": negative_fusion(both, compared, spec.class_names, speaker, samples.speaker_names),
        "tests": compare({view: each[whole] for view, each in right.items()}, rivals, samples.group[whole], seed),
        "calibration": _calibration(label, probabilities, tempered, temperature, late, here),
        **({"sources": metrics.by_origin(views, label, samples.origin, samples.origins)} if samples.origin else {}),
        "worst": _worst(samples, label, probabilities, predicted, whole),
    }


def trust_summary(
    samples: EvaluationSet, predictions: Predictions, answers: Answers, trust: Trust, caution: Caution
) -> dict[str, Any]:
    """What a run's trust comes to on an evaluation set: the content of evaluation.json's "trust".

    Args:
        samples: the evaluation set.
        predictions: for it.
        answers: of the network, with this trust and caution.
        trust: of the run.
        caution: how much the network is trusted.

    Returns:
        The caution; the share of each modality that is turned away, and of samples that are accepted; the fused
        accuracy with nothing turned away, as it is answered, and of what is accepted; for each view the coverage and
        the mean size of its prediction sets, and how many sets have 1, 2, … classes; the mean share of each modality in
        the log-odds; the "curve" of accuracy over the share that is answered, the surest first, at `CURVE` places; and
        the samples with the least familiar input, as "worst" has its own.
    """
    said = _answered(samples, answers)
    label, spec, pairs, num = predictions.label, samples.pairs.spec, samples.pairs, len(predictions.label)
    right, seen = said["label"] == label, pairs.seen(np.arange(num))
    thresholds, sets = trust.thresholds(caution.coverage), {}
    for at, (view, combination) in enumerate(spec.views.items()):
        rows = np.flatnonzero((seen | ~np.array(combination)).all(axis=1))
        raw = predictions.test[rows, at]
        held = raw >= thresholds[sum(1 << place for place, here in enumerate(combination) if here)]
        held[np.arange(len(rows)), raw.argmax(axis=1)] = True
        sizes = held.sum(axis=1)
        sets[view] = {
            "coverage": float(held[np.arange(len(rows)), label[rows]].mean()) if len(rows) else None,
            "mean_size": float(sizes.mean()) if len(rows) else None,
            "sizes": np.bincount(sizes, minlength=spec.num_classes + 1)[1:].tolist(),
        }
    order = np.argsort(-said["probabilities"].max(axis=1), kind="stable")
    places = np.unique((np.linspace(0, 1, CURVE + 1)[1:] * num).round().astype(int).clip(1))
    strange = np.where(seen, said["familiarity"], 1).min(axis=1)
    return {
        "turn_away": caution.turn_away,
        "coverage": caution.coverage,
        "turned_away": {
            name: float((said["familiarity"][seen[:, at], at] < caution.turn_away).mean()) if seen[:, at].any() else 0.0
            for at, name in enumerate(spec.names)
        },
        "accepted": float(said["accepted"].mean()),
        "accuracy": {
            "untouched": float((predictions.test[:, 0].argmax(axis=1) == label).mean()),
            "answered": float(right.mean()),
            "accepted": float(right[said["accepted"]].mean()) if said["accepted"].any() else None,
        },
        "sets": sets,
        "shares": dict(zip(spec.names, said[SHARES].mean(axis=0).astype(float).tolist(), strict=True)),
        "curve": [[float(place / num), float(right[order[:place]].mean())] for place in places],
        "strangest": _shown(samples, np.argsort(strange, kind="stable")[:NUM_STRANGEST], label, predictions),
    }


def _answered(samples: EvaluationSet, answers: Answers) -> dict[str, np.ndarray]:
    """All that is said of the samples but their embeddings, by the outputs' names."""
    ask = tf.function(answers, autograph=False, reduce_retracing=True)
    batches = []
    for start in range(0, len(samples.pairs), BATCH_ROWS):
        rows = np.arange(start, min(start + BATCH_ROWS, len(samples.pairs)))
        values = {name: tf.constant(each) for name, each in samples.read(samples.pairs, rows).items()}
        batches.append(ask(values, tf.constant(samples.pairs.seen(rows))))
    names = ("probabilities", "label", "familiarity", "accepted", SHARES)
    return {name: np.concatenate([batch[name].numpy() for batch in batches]) for name in names}


def _shown(
    samples: EvaluationSet, rows: np.ndarray, label: np.ndarray, predictions: Predictions
) -> list[dict[str, Any]]:
    """Rows of a picture of samples, with each modality's vote."""
    names = samples.pairs.spec.class_names
    return [
        {
            "row": int(row),
            **_names_of(samples, row),
            "label": names[label[row]],
            "votes": {
                view: {"class": names[each[row].argmax()], "confidence": float(each[row].max())}
                for view, each in zip(samples.pairs.spec.views, predictions.test.swapaxes(0, 1), strict=True)
            },
        }
        for row in rows
    ]


def _intervals(
    right: dict[str, np.ndarray], here: dict[str, np.ndarray], group: np.ndarray, seed: int
) -> dict[str, tuple[float, float]]:
    """The interval of each view, over the samples that count."""
    if all(rows.all() for rows in here.values()):
        return intervals(right, group, seed)
    rows = {view: here.get(view, here[FUSED]) for view in right}
    return {view: intervals({view: each[rows[view]]}, group[rows[view]], seed)[view] for view, each in right.items()}


def _data(samples: EvaluationSet) -> dict[str, Any]:
    mixed = {} if samples.pairs.present is None else {"num_whole": len(whole_rows(samples.pairs))}
    return {
        **mixed,
        "name": samples.name,
        "part": samples.part,
        "num_rows": len(samples.pairs),
        f"num_{Words.of(samples.pairs.spec).last}s": len(np.unique(samples.group)),
        "class_names": list(samples.pairs.spec.class_names),
    }


def _calibration(
    label: np.ndarray,
    probabilities: dict[str, np.ndarray],
    tempered: dict[str, np.ndarray],
    temperature: dict[str, float],
    late: dict[str, np.ndarray],
    here: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Each view before and after its temperature; late fusion is made of tempered answers and has but one state."""
    views: dict[str, Any] = {
        view: {
            "temperature": temperature[view],
            "before": reliability(each[here[view]], label[here[view]]),
            "after": reliability(tempered[view][here[view]], label[here[view]]),
        }
        for view, each in probabilities.items()
    }
    joined = {view: {"temperature": None, "before": None, "after": reliability(p, label)} for view, p in late.items()}
    return {**views, **joined}


def _view(right: np.ndarray, interval: tuple[float, float], macro_f1: float) -> dict[str, Any]:
    return {
        "accuracy": float(right.mean()),
        "macro_f1": macro_f1,
        "num_errors": int(np.sum(~right)),
        "num_rows": len(right),
        "interval": list(interval),
    }


def conflicts(
    samples: EvaluationSet, predictions: Predictions, right: dict[str, np.ndarray], seed: int
) -> dict[str, Any]:
    """Each modality shuffled among the samples of other labels, while all others stay.

    Args:
        samples: the evaluation set.
        predictions: for it.
        right: for each view, bool (n,).
        seed: decides the bootstrap.

    Returns:
        {shuffled modality: what `modalities.conflict` returns, with "stayed", "accuracy" and "interval" of the
        fused answer by the label of the modalities that stayed}; nothing for a single modality.
    """
    label, names, facts, whole = predictions.label, samples.pairs.spec.names, {}, whole_rows(samples.pairs)
    for shuffled, partner, answer in zip(names[::-1], predictions.partner, predictions.conflict, strict=False):
        # From which row each modality comes.
        rows = {name: partner if name == shuffled else np.arange(len(label)) for name in names}
        clear = np.all([right[name][rows[name]] for name in names], axis=0)[whole]
        fused = answer.argmax(axis=1)[whole]
        kept = fused == label[whole]
        facts[shuffled] = {
            **conflict({name: label[rows[name]][whole] for name in names}, fused, clear),
            "stayed": " and ".join(name for name in names if name != shuffled),
            "accuracy": float(kept.mean()),
            "interval": list(intervals({"kept": kept}, samples.group[whole], seed)["kept"]),
        }
    return facts


def _names_of(samples: EvaluationSet, row: int) -> dict[str, Any]:
    """What finds a sample in the data: each modality's row, and its files where it comes from such."""
    rows = {f"{name}_row": int(rows[row]) for name, rows in samples.pairs.rows.items()}
    files = {name: str(each[row]) for name, each in samples.files.items() if each[row]}
    return {**rows, **({"files": files} if files else {})}


def _worst(
    samples: EvaluationSet,
    label: np.ndarray,
    probabilities: dict[str, np.ndarray],
    predicted: dict[str, np.ndarray],
    whole: np.ndarray,
) -> list[dict[str, Any]]:
    """The rows of the picture of the worst errors, with each modality's vote."""
    pairs = samples.pairs
    names = pairs.spec.class_names
    worst = whole[worst_rows(label[whole], {view: each[whole] for view, each in probabilities.items()}, NUM_WORST)]
    return [
        {
            "row": int(row),
            **_names_of(samples, row),
            "label": names[label[row]],
            "votes": {
                view: {"class": names[predicted[view][row]], "confidence": float(each[row].max())}
                for view, each in probabilities.items()
            },
        }
        for row in worst
    ]


CHUNK_ROWS = 512
NUM_OTHERS = 64
"""Samples whose rows a corruption may mix in, such as the voices of babble."""
Variants = dict[Variant, np.ndarray]
"""Embeddings by corruption and severity; (CLEAN, 0) is the sample as it is."""


def purposes() -> dict[tuple[str, str], int]:
    """The random numbers' purpose of each corruption, by kind and name: in the order of the registry."""
    every = [(kind, name) for kind in kinds() for name in modality(kind).all_corruptions()]
    return {each: Stream.CORRUPTIONS.number + at for at, each in enumerate(every)}


def corruptions_of(samples: EvaluationSet) -> dict[str, dict[str, Corruption]]:
    """For each modality the corruptions that make sense for it."""
    return {name: kind.corruptions(shape, samples.front_end) for name, kind, shape in each_of(samples.pairs.spec)}


def robustness(
    samples: EvaluationSet,
    halves: Halves,
    temperature: dict[str, float],
    std: Mapping[str, NDArray],
    positions: np.ndarray,
    seed: int,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Asks the network about every corruption alone, and about every two of two modalities at the same severity.

    Each corrupted sample is encoded once, then the head is asked about the combinations.

    Args:
        samples: the evaluation set.
        halves: of the network.
        temperature: {view: T}, with which the confidence is read.
        std: of each value over the training part, (num_values,), for each standardised modality.
        positions: int (n,), the rows to use.
        seed: with a sample's place, decides all that is random.
        advance: is given the number of samples that have been encoded, see `num_encodings`.

    Returns:
        the content of robustness.json, see `metrics.modalities.grid_summary`.
    """
    spec, chosen = samples.pairs.spec, corruptions_of(samples)
    places = np.linspace(0, len(samples.others) - 1, min(NUM_OTHERS, len(samples.others))).astype(np.int64)
    others, sums = samples.read(samples.others, places), dict[Cell, np.ndarray]()
    more = {name: kind.surroundings(std.get(name), others[name], shape) for name, kind, shape in each_of(spec)}
    for start in range(0, len(positions), CHUNK_ROWS):
        rows = positions[start : start + CHUNK_ROWS]
        values, variants = samples.read(samples.pairs, rows), dict[str, Variants]()
        for name in spec.names:
            corrupted = _corrupted(values[name], name, samples, rows, seed, chosen[name], more[name])
            variants[name] = {}
            for key, changed in corrupted:
                variants[name][key] = halves.encode(name, changed)
                advance(len(rows))
        for cell, probabilities in _predictions(halves, variants, spec):
            tempered = temper(probabilities, temperature[cell[0]])
            sums[cell] = sums.get(cell, 0) + bin_sums(*confidence_of(tempered, samples.pairs.label[rows]))
    return grid_summary(sums, chosen, len(positions))


def num_encodings(samples: EvaluationSet, num_rows: int) -> int:
    """Samples of single modalities that the grid encodes.

    Args:
        samples: the evaluation set.
        num_rows: rows of the grid.
    """
    return num_rows * sum(1 + len(SEVERITIES) * len(some) for some in corruptions_of(samples).values())


def _corrupted(
    values: NDArray,
    name: str,
    samples: EvaluationSet,
    rows: np.ndarray,
    seed: int,
    corruptions: Mapping[str, Corruption],
    more: tuple[Any, ...],
) -> Iterator[tuple[Variant, np.ndarray]]:
    """Some samples, as they are and after each corruption at each severity, on the network's scale."""
    shape, scale, purpose = samples.pairs.spec[name], np.float32(samples.trained[name].scale), purposes()
    grids = (values / scale).reshape(-1, *shape.grid)
    yield (CLEAN, 0), (grids * scale).reshape(-1, *shape.shape)
    for title, corruption in corruptions.items():
        draws = draw(seed, rows, purpose[shape.kind, title], corruption.num_draws(shape.grid))
        for severity in SEVERITIES:
            changed = corrupt(corruption, grids, severity, draws, more)
            yield (title, severity), (changed * scale).reshape(-1, *shape.shape)


def _predictions(halves: Halves, variants: dict[str, Variants], spec: Spec) -> Iterator[tuple[Cell, np.ndarray]]:
    """Each cell of the grid, once, with its class probabilities, (n, num_classes)."""
    clean, done = {name: some[CLEAN, 0] for name, some in variants.items()}, set[Cell]()
    for name, some in variants.items():
        # The fused answer to a single modality is that to it alone.
        for view in (name,) if len(variants) > 1 else (name, FUSED):
            for key, embedding in some.items():
                answer = halves.answer({**clean, name: embedding}, spec.views[view])
                yield cell_of(view, variants, {name: key}), answer
    for first, second in combinations(variants, 2):
        for one, embedding in variants[first].items():
            meets = [key for key in variants[second] if CLEAN in (key[0], one[0]) or key[1] == one[1]]
            cells = [cell_of(FUSED, variants, {first: one, second: key}) for key in meets]
            # One call for all variants that this one meets: the head works best on many rows.
            tiled = {name: np.tile(each, (len(meets), 1)) for name, each in {**clean, first: embedding}.items()}
            tiled[second] = np.concatenate([variants[second][key] for key in meets])
            answers = np.split(halves.answer(tiled, spec.views[FUSED]), len(meets))
            yield from ((cell, each) for cell, each in zip(cells, answers, strict=True) if cell not in done)
            done.update(cells)
