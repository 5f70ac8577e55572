"""What a model knows of its own limits: how familiar each input is, and which classes an answer may be.

The familiarity of an input is the share of the run's validation inputs of its modality that are stranger than it, a
number in (0, 1] like a p-value: of inputs like those of validation, a share t is below t. How strange an input is, a
small network says that reads what the input's encoder computes on the way, x, and was taught to tell the classes of
training inputs, as they are and as training changes them, and "none of these", of inputs that `Modality.unknowns` made
of them:

    s(x) = log p(none | x) - log Σ_k p(k | x),   p(· | x) = softmax(V relu(W x + b) + c)

Reference: Hendrycks, Mazeika, Dietterich 2019, "Deep anomaly detection with outlier exposure", whose outliers are real;
Zhang, Shen 2020, "Open set recognition through deep neural networks with synthetic outliers", for the class of none.
tests/benchmarks/README.md compares it with distances, which the first runs with a trust still have: the larger of the
Mahalanobis distances of the embedding's roots and of their direction to the nearest class.

A prediction set holds the most probable class, and each class k of which 1 - p_k is at most the ⌈(n + 1) c⌉-th smallest
of the values 1 - p_y of the n validation samples with the label y. Of samples like those of validation, it holds the
right class with a probability of at least the coverage c. Reference: Sadinle, Lei, Wasserman 2019.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import tensorflow as tf

from kfusion.io import read_arrays
from kfusion.run_dir import TRUST, Run
from kfusion.validation import broken

MOST_MODALITIES = 6
"""Of which every combination is predicted from; with more, there is neither trust nor a share of each modality."""
NUM_KNOTS = 256
"""Validation inputs, evenly over their order, between which the familiarity is interpolated."""
DECIMALS = 3
"""Of how strange an input is: what differs by less is nothing; how a graph rounds must not tell it apart."""
HIDDEN, DROPPED, BATCH = 256, 0.3, 128
"""Of the network that says how strange an input is: its width, the share that dropout hides, and rows of one step."""
MOST_STEPS, PASSES, RATE, DECAY = 500, 12, 2e-3, 1e-2
"""Of its training: most steps, as often as it sees each row if these suffice, learning rate, and weight decay."""
MOST_LOST = 0.1
"""A modality is treated as absent only where the others are right on validation at most this much less often."""
EASY, LEAST = 0.2, 1.3
"""The familiarity below which an input is harder than those by which temperatures are fitted, and what tempers the
answer to the least familiar at least; chosen on half of the people of tests/benchmarks/README.md and on validation."""
SMALL = 1e-6
"""In place of a length or a width of 0."""
Arrays = dict[str, np.ndarray]


def codes(num: int) -> np.ndarray:
    """The combinations of some modalities by their codes, in which bit m stands for modality m: bool (2^num, num)."""
    return (np.arange(2**num)[:, None] >> np.arange(num)) % 2 == 1


def code_of(combination: tf.Tensor) -> tf.Tensor:
    """The codes of combinations bool (batch, modalities): int32 (batch,)."""
    bits = 1 << np.arange(int(combination.shape[1] or 0), dtype=np.int32)
    return tf.reduce_sum(tf.cast(combination, tf.int32) * bits, axis=1)


@dataclass(frozen=True, eq=False)
class Trust:
    """What was measured for a network on its training and validation parts.

    Args:
        names: of the modalities.
        arrays: for each modality, `{name}_hidden` float32 (k + 1, h) and `{name}_classes` (h + 1, classes + 1), W and
            V with their biases as the last rows; and `{name}_strangeness` float32 (n,), ascending, of the validation
            inputs. For each combination of modalities, `misfit_{code}` float32 (n,), ascending: 1 - p of the right
            class of the validation samples that have them; and `accuracy` float32 (2^modalities,), by the codes, the
            shares of these that are answered right. In place of the first two, the first runs have
            `{name}_whitening` (2, d, d) and `{name}_means` (2, classes, d), by which the distances' squares are squared
            lengths, and `{name}_scale` (2, 2), the median of each one's logarithm and how far its .95 quantile is.
    """

    names: tuple[str, ...]
    arrays: Arrays

    @property
    def taught(self) -> bool:
        """Whether a network says how strange an input is, which reads more of the encoder than the embedding."""
        return f"{self.names[0]}_hidden" in self.arrays

    def strangeness(self, name: str, inner: tf.Tensor) -> tf.Tensor:
        """s(x) of some inputs, float32 (batch,).

        Args:
            name: of their modality.
            inner: x, from `kfusion.model.build.encoder_of`; where this is not `taught`, the embedding.
        """
        if not self.taught:
            return self._distance(name, inner)
        hidden, classes = self.arrays[f"{name}_hidden"], self.arrays[f"{name}_classes"]
        logits = tf.matmul(tf.nn.relu(tf.matmul(inner, hidden[:-1]) + hidden[-1]), classes[:-1]) + classes[-1]
        return logits[:, -1] - tf.reduce_logsumexp(logits[:, :-1], axis=1)

    def _distance(self, name: str, embedding: tf.Tensor) -> tf.Tensor:
        columns, whitening, means = [], self.arrays[f"{name}_whitening"], self.arrays[f"{name}_means"]
        rooted = tf.sign(embedding) * tf.sqrt(tf.abs(embedding))
        length = tf.sqrt(tf.reduce_sum(tf.square(rooted), axis=1, keepdims=True))
        for at, values in enumerate((rooted, rooted / tf.maximum(length, SMALL))):
            away = tf.expand_dims(tf.matmul(values, whitening[at]), 1) - means[at][None]
            nearest = tf.reduce_min(tf.reduce_sum(tf.square(away), axis=2), axis=1)
            columns.append(tf.math.log(tf.maximum(nearest, SMALL)))
        middle, width = self.arrays[f"{name}_scale"]
        return tf.reduce_max((tf.stack(columns, axis=1) - middle) / width, axis=1)

    def familiarity(self, inner: Mapping[str, tf.Tensor], present: tf.Tensor) -> tf.Tensor:
        """The familiarity of each modality, 0 where it is absent: float32 (batch, modalities).

        Args:
            inner: for each modality that any row has, see `strangeness`; of an absent one anything.
            present: bool (batch, modalities).
        """
        columns = []
        for at, name in enumerate(self.names):
            if name not in inner:
                columns.append(tf.zeros_like(present[:, at], tf.float32))
                continue
            known = self.arrays[f"{name}_strangeness"].round(DECIMALS)
            knots = np.unique(known)
            knots = knots[np.unique(np.linspace(0, len(knots) - 1, NUM_KNOTS).round().astype(int))]
            stranger = len(known) - np.searchsorted(known, knots, side="right")
            levels = ((stranger + 1) / (len(known) + 1)).astype(np.float32)
            strange = tf.expand_dims(self.strangeness(name, inner[name]), 1)
            width = np.diff(knots)
            passed = tf.clip_by_value((strange - knots[:-1]) / width, 0.0, 1.0)
            columns.append(levels[0] - tf.reduce_sum(passed * -np.diff(levels), axis=1))
        return tf.where(present, tf.stack(columns, axis=1), 0.0)

    def thresholds(self, coverage: float) -> np.ndarray:
        """The least probability with which a class belongs to a set, for each combination: float32 (2^modalities,).

        0 where there are too few validation samples for the coverage: each class belongs.

        Args:
            coverage: in (0, 1).
        """
        least = np.zeros(2 ** len(self.names), np.float32)
        for code in range(1, len(least)):
            misfit = self.arrays[f"misfit_{code}"]
            place = math.ceil((len(misfit) + 1) * coverage) - 1
            least[code] = 1 - misfit[place] if place < len(misfit) else 0
        return least

    def careful(self, temperature: Any, familiarity: tf.Tensor) -> Any:
        """What tempers each row: temperatures are fitted where all is easy, and are too low for what is unfamiliar.

        As the familiarity of the row's most familiar input falls from `EASY` to 0, the temperature rises to `LEAST`,
        unless it is above that anyway. A run of the first version has one temperature for all rows.

        Args:
            temperature: fitted on validation; of each row, (batch, 1), or of all.
            familiarity: of the inputs that the row's answer rests on, and 0 of others: (batch, k).
        """
        if not self.taught:
            return temperature
        strange = tf.nn.relu(1.0 - tf.reduce_max(familiarity, axis=1, keepdims=True) / EASY)
        return temperature + tf.nn.relu(LEAST - temperature) * strange

    def rests_on(self, familiarity: tf.Tensor, present: tf.Tensor, turn_away: float) -> tuple[tf.Tensor, tf.Tensor]:
        """What each answer rests on, and whether it is accepted: bool (batch, modalities), bool (batch,).

        An unfamiliar modality is treated as absent where another one is familiar, and that is enough by itself: see
        `MOST_LOST`. An answer is accepted where any modality is familiar.

        Args:
            familiarity: (batch, modalities).
            present: bool (batch, modalities).
            turn_away: see `kfusion.spec.Caution`.
        """
        familiar = tf.logical_and(present, familiarity >= turn_away)
        accuracy = [tf.gather(self.arrays["accuracy"], code_of(each)) for each in (familiar, present)]
        accepted = tf.reduce_any(familiar, axis=1)
        enough = tf.expand_dims(tf.logical_and(accepted, accuracy[0] >= accuracy[1] - MOST_LOST), 1)
        # Not a selection, which ONNX Runtime lacks for booleans; what is familiar is present.
        return tf.logical_or(familiar, tf.logical_and(present, tf.logical_not(enough))), accepted


def fit_trust(
    train: Mapping[str, tuple[np.ndarray, np.ndarray]],
    val: Mapping[str, np.ndarray],
    probabilities: Mapping[int, np.ndarray],
    label: Mapping[int, np.ndarray],
    num_classes: int,
    effort: float = 1.0,
) -> Trust:
    """Measures what a network's trust rests on.

    Args:
        train: for each modality, x of known and unknown inputs, (n, k), and their classes, int (n,); an unknown one's
            is `num_classes`.
        val: for each modality, x of validation inputs, (v, k); each input once.
        probabilities: for each combination of modalities, by its code, (r, classes) of the validation samples that
            have them.
        label: their classes, int (r,).
        num_classes: that the network knows.
        effort: in (0, 1]: the share of the steps that is worth its time.
    """
    arrays: Arrays = {}
    for name, (inner, classes) in train.items():
        arrays[f"{name}_hidden"], arrays[f"{name}_classes"] = _taught(inner, classes, num_classes, effort)
        known = tf.constant(val[name], tf.float32)
        arrays[f"{name}_strangeness"] = np.sort(Trust((name,), arrays).strangeness(name, known).numpy())
    for code, each in probabilities.items():
        arrays[f"misfit_{code}"] = np.sort(1 - each[np.arange(len(each)), label[code]]).astype(np.float32)
    right = {code: (each.argmax(axis=1) == label[code]).mean() for code, each in probabilities.items() if len(each)}
    arrays["accuracy"] = np.array([right.get(code, 0) for code in range(2 ** len(train))], np.float32)
    return Trust(tuple(train), arrays)


def _taught(inner: np.ndarray, classes: np.ndarray, num_classes: int, effort: float) -> tuple[np.ndarray, np.ndarray]:
    """W and V with their biases as the last rows; each half of a batch is known or unknown, where there is either."""
    rng, middle, deviation = np.random.default_rng(0), inner.mean(axis=0), inner.std(axis=0) + 1e-3
    x, y = tf.constant((inner - middle) / deviation, tf.float32), tf.constant(classes, tf.int32)
    steps = math.ceil(effort * min(MOST_STEPS, PASSES * len(inner) / BATCH))
    halves = [
        rows for rows in (np.flatnonzero(classes < num_classes), np.flatnonzero(classes == num_classes)) if len(rows)
    ]
    chosen = np.concatenate([rng.choice(rows, (steps, BATCH // len(halves))) for rows in halves], axis=1)
    sizes = (inner.shape[1], HIDDEN, num_classes + 1)
    limits = [math.sqrt(6 / (rows + columns)) for rows, columns in pairwise(sizes)]
    first = [rng.uniform(-limit, limit, size) for limit, size in zip(limits, pairwise(sizes), strict=True)]
    weights = [
        tf.Variable(tf.cast(each, tf.float32)) for each in (first[0], np.zeros(HIDDEN), first[1], np.zeros(sizes[2]))
    ]
    moments = [[tf.Variable(tf.zeros_like(each)) for each in weights] for _ in range(2)]

    def step(rows: tf.Tensor, number: tf.Tensor) -> None:
        seed = tf.stack([tf.cast(number, tf.int32), 0])
        with tf.GradientTape() as tape:
            seen = tf.nn.experimental.stateless_dropout(tf.gather(x, rows), DROPPED, seed)
            hidden = tf.nn.relu(tf.matmul(seen, weights[0]) + weights[1])
            hidden = tf.nn.experimental.stateless_dropout(hidden, DROPPED, seed + 1)
            logits = tf.matmul(hidden, weights[2]) + weights[3]
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(tf.gather(y, rows), logits))
        # Adam with weight decay, whose rate falls like a cosine; Keras' takes ten times as long to trace.
        rate = RATE * (1 + tf.cos(math.pi * number / steps)) / 2
        for weight, mean, square, gradient in zip(weights, *moments, tape.gradient(loss, weights), strict=True):
            mean.assign(0.9 * mean + 0.1 * gradient)
            square.assign(0.999 * square + 0.001 * gradient**2)
            size = tf.sqrt(square / (1 - tf.pow(0.999, number + 1))) + 1e-7
            weight.assign_sub(rate * (mean / (1 - tf.pow(0.9, number + 1)) / size + DECAY * weight))

    signature = [tf.TensorSpec([chosen.shape[1]], tf.int32), tf.TensorSpec([], tf.float32)]
    # Concrete: to TensorFlow, those of several modalities look like one that is traced again.
    train = tf.function(step, input_signature=signature, autograph=False).get_concrete_function()
    for number, rows in enumerate(chosen.astype(np.int32)):
        train(tf.constant(rows), tf.constant(float(number)))
    kernel, bias, out, out_bias = (each.numpy() for each in weights)
    kernel = kernel / deviation[:, None]
    return _with_bias(kernel, bias - middle @ kernel), _with_bias(out, out_bias)


def _with_bias(kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return np.concatenate([kernel, bias[None]]).astype(np.float32)


def write_trust(run: Run, trust: Trust) -> None:
    """Writes trust.npz, which is of the run's best weights.

    Args:
        run: the run.
        trust: of its network.
    """
    run.write_arrays(TRUST, {**trust.arrays, "weights": np.array(_weights(run))})


def read_trust(run: Run) -> Trust | None:
    """The trust of a run's best weights; None where the run has none of these, as an older one.

    Raises:
        UserError: the file is damaged.
    """
    path, names = run.folder / TRUST, run.spec().names
    if not path.exists():
        return None
    rule = "must hold the arrays that training wrote"
    arrays = read_arrays(path, rule)
    known = ("hidden", "classes") if f"{names[0]}_hidden" in arrays else ("whitening", "means", "scale")
    wanted = {f"{name}_{what}" for name in names for what in (*known, "strangeness")}
    wanted |= {"weights", "accuracy", *(f"misfit_{code}" for code in range(1, 2 ** len(names)))}
    if not wanted <= arrays.keys():
        raise broken(path, rule, f"no {min(wanted - arrays.keys())}")
    return Trust(names, arrays) if str(arrays.pop("weights")) == _weights(run) else None


def _weights(run: Run) -> str:
    return hashlib.sha256(run.best.read_bytes()).hexdigest()
