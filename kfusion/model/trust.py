"""What a model knows of its own limits: how familiar each input is, and which classes an answer may be.

The familiarity of an input is the share of the run's validation inputs of its modality that are stranger than it, a
number in (0, 1] like a p-value: of inputs like those of validation, a share t is below t. How strange an input with the
embedding e is:

    s(e) = max((log d²(r) - a₁) / b₁, (log d²(r / |r|) - a₂) / b₂),   d²(x) = min_k (x - μ_k)ᵀ Σ⁻¹ (x - μ_k)

where r is e with the root of each number's size; μ_k is the mean of class k and Σ the covariance within the classes, of
the training part; and a and a + b are the median and the .95 quantile of the validation part. References: Lee et al.
2018, "A simple unified framework for detecting out-of-distribution samples and adversarial attacks", for d². The
direction r / |r| finds what an encoder answers faintly, as noise, which lies near all classes;
tests/benchmarks/README.md compares it with others.

A prediction set holds the most probable class, and each class k of which 1 - p_k is at most the ⌈(n + 1) c⌉-th smallest
of the values 1 - p_y of the n validation samples with the label y. Of samples like those of validation, it holds the
right class with a probability of at least the coverage c. Reference: Sadinle, Lei, Wasserman 2019.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kfusion.io import read_arrays
from kfusion.run_dir import TRUST, Run
from kfusion.validation import broken

MOST_MODALITIES = 6
"""Of which every combination is predicted from; with more, there is neither trust nor a share of each modality."""
NUM_KNOTS = 256
"""Validation inputs, evenly over their order, between which the familiarity is interpolated."""
DECIMALS = 4
"""Of how strange an input is: what differs by less is a matter of rounding."""
RIDGE = 0.1
"""Added to the covariance's diagonal, as a share of its mean."""
MOST_LOST = 0.1
"""A modality is treated as absent only where the others are right on validation at most this much less often."""
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
        arrays: for each modality, `{name}_whitening` float32 (2, d, d) and `{name}_means` float32 (2, classes, d), by
            which d² is a squared length; `{name}_scale` float32 (2, 2), a and b of r and of its direction; and
            `{name}_strangeness` float32 (n,), ascending, of the validation inputs. For each combination of modalities,
            `misfit_{code}` float32 (n,), ascending: 1 - p of the right class of the validation samples that have them;
            and `accuracy` float32 (2^modalities,), by the codes, the shares of these that are answered right.
    """

    names: tuple[str, ...]
    arrays: Arrays

    def distances(self, name: str, embedding: tf.Tensor) -> tf.Tensor:
        """log d² of r and of its direction, float32 (batch, 2).

        Args:
            name: of their modality.
            embedding: float32 (batch, d).
        """
        columns, whitening, means = [], self.arrays[f"{name}_whitening"], self.arrays[f"{name}_means"]
        for at, values in enumerate(_spaces(embedding)):
            away = tf.expand_dims(tf.matmul(values, whitening[at]), 1) - means[at][None]
            nearest = tf.reduce_min(tf.reduce_sum(tf.square(away), axis=2), axis=1)
            columns.append(tf.math.log(tf.maximum(nearest, SMALL)))
        return tf.stack(columns, axis=1)

    def strangeness(self, name: str, embedding: tf.Tensor) -> tf.Tensor:
        """s(e) of some inputs, float32 (batch,).

        Args:
            name: of their modality.
            embedding: float32 (batch, d).
        """
        middle, width = self.arrays[f"{name}_scale"]
        return tf.reduce_max((self.distances(name, embedding) - middle) / width, axis=1)

    def familiarity(self, steps: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
        """The familiarity of each modality, 0 where it is absent: float32 (batch, modalities).

        Args:
            steps: embeddings, float32 (batch, modalities, d); of an absent one anything.
            present: bool (batch, modalities).
        """
        columns = []
        for at, name in enumerate(self.names):
            known = self.arrays[f"{name}_strangeness"].round(DECIMALS)
            knots = np.unique(known)
            knots = knots[np.unique(np.linspace(0, len(knots) - 1, NUM_KNOTS).round().astype(int))]
            stranger = len(known) - np.searchsorted(known, knots, side="right")
            levels = ((stranger + 1) / (len(known) + 1)).astype(np.float32)
            strange = tf.expand_dims(self.strangeness(name, steps[:, at]), 1)
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
) -> Trust:
    """Measures what a network's trust rests on.

    Args:
        train: for each modality, embeddings (n, d) of training inputs and their classes, int (n,).
        val: for each modality, embeddings of validation inputs, (v, d); each input once.
        probabilities: for each combination of modalities, by its code, (r, classes) of the validation samples that
            have them.
        label: their classes, int (r,).
    """
    arrays: Arrays = {}
    for name, (embedding, classes) in train.items():
        spaces = [_whitened(values.numpy(), classes) for values in _spaces(tf.constant(embedding, tf.float32))]
        arrays[f"{name}_whitening"], arrays[f"{name}_means"] = (np.stack(each) for each in zip(*spaces, strict=True))
        known = tf.constant(val[name], tf.float32)
        middle, high = np.quantile(Trust((name,), arrays).distances(name, known).numpy(), [0.5, 0.95], axis=0)
        arrays[f"{name}_scale"] = np.stack([middle, np.maximum(high - middle, SMALL)]).astype(np.float32)
        arrays[f"{name}_strangeness"] = np.sort(Trust((name,), arrays).strangeness(name, known).numpy())
    for code, each in probabilities.items():
        arrays[f"misfit_{code}"] = np.sort(1 - each[np.arange(len(each)), label[code]]).astype(np.float32)
    right = {code: (each.argmax(axis=1) == label[code]).mean() for code, each in probabilities.items() if len(each)}
    arrays["accuracy"] = np.array([right.get(code, 0) for code in range(2 ** len(train))], np.float32)
    return Trust(tuple(train), arrays)


def _spaces(embedding: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """r, and its direction."""
    rooted = tf.sign(embedding) * tf.sqrt(tf.abs(embedding))
    length = tf.sqrt(tf.reduce_sum(tf.square(rooted), axis=1, keepdims=True))
    return rooted, rooted / tf.maximum(length, SMALL)


def _whitened(values: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """W with W Wᵀ = Σ⁻¹, and the means of the classes that there are times W."""
    values = values.astype(np.float64)
    known, own = np.unique(classes, return_inverse=True)
    means = np.stack([values[classes == each].mean(axis=0) for each in known])
    within = values - means[own]
    covariance = within.T @ within / len(values)
    ridge = RIDGE * np.trace(covariance) / len(covariance) + 1e-9
    size, axes = np.linalg.eigh(covariance + ridge * np.eye(len(covariance)))
    whitening = axes / np.sqrt(size)
    return whitening.astype(np.float32), (means @ whitening).astype(np.float32)


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
    wanted = {f"{name}_{what}" for name in names for what in ("whitening", "means", "scale", "strangeness")}
    wanted |= {"weights", "accuracy", *(f"misfit_{code}" for code in range(1, 2 ** len(names)))}
    if not wanted <= arrays.keys():
        raise broken(path, rule, f"no {min(wanted - arrays.keys())}")
    return Trust(names, arrays) if str(arrays.pop("weights")) == _weights(run) else None


def _weights(run: Run) -> str:
    return hashlib.sha256(run.best.read_bytes()).hexdigest()
