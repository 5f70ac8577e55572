"""A network's answer to whatever is present, with all that is said of it; the graph of prediction and of each export.

    embeddings -> the familiarity of each modality -> which of them the answer rests on
    embeddings, every combination of modalities -> probabilities -> the answer, tempered; its prediction set; shares

The share of a modality is its Shapley value in the log-odds of the answer's class k, over the modalities N on which the
answer rests:

    φ_m = Σ_{S ⊆ N \\ m} |S|! (|N| - |S| - 1)! / |N|! · (v(S ∪ m) - v(S)),   v(S) = log p_k(S) - log Σ_{j ≠ k} p_j(S)

p(S) are the probabilities from S alone, before tempering; absence is exact, so nothing is estimated. The shares sum up
to v(N) - v(∅), where v(∅) is what the head says to nothing at all. Reference: Shapley 1953; Lundberg, Lee 2017.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kfusion.model.build import encoder_of
from kfusion.model.trust import MOST_MODALITIES, Trust, code_of, codes
from kfusion.spec import FUSED, SHARES, Caution, Spec

Tensors = dict[str, tf.Tensor]
Counts = Mapping[str, tf.Tensor]
TINY = float(np.finfo(np.float32).tiny)


class Answers:
    """A network's answers.

    Args:
        network: {name: values, "present"} -> probabilities, of `kfusion.model.build`.
        spec: the modalities and class names.
        temperature: for each of `spec.views`, by which its probabilities are tempered; empty: they stay as they are.
        trust: of the network; None: not known.
        caution: how much it is to be trusted.
    """

    def __init__(
        self,
        network: keras.Model,
        spec: Spec,
        temperature: Mapping[str, float],
        trust: Trust | None = None,
        caution: Caution | None = None,
    ) -> None:
        self.spec, self.temperature, self.trust, self.caution = spec, temperature, trust, caution or Caution()
        self.encoders = {name: encoder_of(network, name) for name in spec.names}
        inputs = [network.get_layer("steps").output, network.input["present"]]
        self.head = keras.Model(inputs, [network.output, network.get_layer("fusion").output])

    def __call__(self, values: Mapping[str, tf.Tensor], present: tf.Tensor, counts: Counts | None = None) -> Tensors:
        """All that is said of some rows; each modality is encoded once.

        Each window of a row is answered, with the row's other modalities, and the answers are pooled; see `_Windows`.

        Args:
            values: float32 (batch, *shape) in the network's unit, of the modalities that any row has.
            present: bool (batch, modalities); a row has one at least.
            counts: int32 (batch,), for each modality that has windows how many of each row, ≥ 1: its values are those
                of all windows, (their number, *shape). None: no row has several.

        Returns:
            "probabilities" and "{name}_probabilities" (batch, classes), zeros where the modality is absent; "label"
            (batch,); "embedding" (batch, k); "shares" (batch, modalities) unless there are too many modalities; and
            `TRUSTED` where the trust is known: "familiarity" and "used" (batch, modalities), "accepted" (batch,) and
            "prediction_set" (batch, classes).
        """
        names = self.spec.names
        encoded = {name: self.encoders[name](each, training=False) for name, each in values.items()}
        windows = _windows(counts or {}, present)
        embedded = windows.spread({name: each[0] for name, each in encoded.items()})
        present = windows.of_rows(present)
        zeros = tf.zeros_like(next(iter(embedded.values())))
        steps = tf.stack([embedded.get(name, zeros) for name in names], axis=1)
        used, judged, familiarity = present, Tensors(), tf.zeros_like(present, tf.float32)
        if self.trust:
            inner = embedded
            if self.trust.taught:
                inner = windows.spread({name: each[1] for name, each in encoded.items()})
            familiarity = self.trust.familiarity(inner, present)
            used, accepted = self.trust.rests_on(familiarity, present, self.caution.turn_away)
            judged = {"familiarity": familiarity, "used": used, "accepted": accepted}
        seen = _combinations([name in values for name in names])
        batch, num = tf.shape(steps)[0], len(seen)
        # One call of the head for all: at a batch of one, the number of ops is what takes the time.
        there = tf.concat([tf.logical_and(present, each[None]) for each in seen], axis=0)
        probabilities, state = self.head([tf.tile(steps, [num, 1, 1]), there], training=False)
        # Combinations on axis 1, (batch, combinations, ...).
        every, states = (tf.stack(tf.split(each, num), axis=1) for each in (probabilities, state))
        rests_on = _chosen(seen, used)
        raw = _of(every, rests_on)
        pooled = windows.pooled(raw)
        label = tf.argmax(pooled, axis=1, output_type=tf.int64)
        outputs = {
            "probabilities": windows.pooled(
                self._tempered(raw, self._temperatures(used), tf.where(used, familiarity, 0.0))
            ),
            "label": label,
            "embedding": windows.mean(tf.reshape(_of(states, rests_on), [batch, state.shape[-1]])),
        }
        for at, name in enumerate(names):
            mask = np.arange(len(names)) == at
            alone = [place for place, each in enumerate(seen) if np.array_equal(each, mask)]
            own = every[:, alone[0]] if alone else tf.zeros_like(raw)
            tempered = windows.pooled(self._tempered(own, self._temperature(name), familiarity[:, at : at + 1]))
            here = windows.any(present)[:, at : at + 1]
            outputs[f"{name}_probabilities"] = tf.where(here, tempered, tf.zeros_like(tempered))
        if len(names) <= MOST_MODALITIES:
            outputs[SHARES] = windows.mean(_shares(seen, every, used, windows.of_rows(label)))
        if self.trust:
            judged = {name: (windows.mean if name == "familiarity" else windows.any)(judged[name]) for name in judged}
            least = tf.gather(self.trust.thresholds(self.caution.coverage), code_of(judged["used"]))
            top = tf.equal(tf.range(self.spec.num_classes, dtype=tf.int64)[None], label[:, None])
            judged["prediction_set"] = tf.logical_or(pooled >= least[:, None], top)
        return outputs | judged

    def _temperature(self, view: str) -> float:
        return float(self.temperature.get(view, 1.0))

    def _temperatures(self, used: tf.Tensor) -> Any:
        """Of each row's answer, (batch, 1), or of all; one modality of several is tempered as it is alone."""
        alone, fused = [self._temperature(name) for name in self.spec.names], self._temperature(FUSED)
        if len(alone) == 1 or set(alone) == {fused}:
            return fused
        flags = tf.cast(used, tf.float32)
        several = tf.reduce_sum(flags, axis=1, keepdims=True) >= 2
        return tf.where(several, fused, tf.reduce_sum(flags * np.array(alone, np.float32), axis=1, keepdims=True))

    def _tempered(self, probabilities: tf.Tensor, temperature: Any, familiarity: tf.Tensor) -> tf.Tensor:
        """p'ₖ = pₖ^(1/T) / Σⱼ pⱼ^(1/T), as `metrics.classification.temper`."""
        if not self.temperature:
            return probabilities
        if self.trust:
            temperature = self.trust.careful(temperature, familiarity)
        return tf.nn.softmax(tf.math.log(tf.maximum(probabilities, TINY)) / temperature, axis=1)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows without windows, of which everything is what it is."""

    def spread(self, values: Tensors) -> Tensors:
        """For each modality, values of its own windows -> those of all windows, in which others are repeated."""
        return values

    def of_rows(self, values: tf.Tensor) -> tf.Tensor:
        """What each row has, for each of its windows."""
        return values

    def mean(self, values: tf.Tensor) -> tf.Tensor:
        """(windows, k) -> (batch, k), over the windows of each row."""
        return values

    def any(self, values: tf.Tensor) -> tf.Tensor:
        """Whether any window of a row has it."""
        return values

    def pooled(self, probabilities: tf.Tensor) -> tf.Tensor:
        """p'ₖ = exp(meanᵥ log pᵥₖ) / Σⱼ exp(meanᵥ log pᵥⱼ) over the windows v of each row."""
        return probabilities


@dataclass(frozen=True, eq=False)
class _Windows(_Rows):
    """Rows of which some have several windows: what is said of a row is pooled over them.

    Args:
        num: int32 (batch,), windows of each row.
        row: int32 (windows,), the row of each.
        places: for each modality with windows int32 (windows,), which of its own each window has.
    """

    num: tf.Tensor
    row: tf.Tensor
    places: Tensors

    def spread(self, values: Tensors) -> Tensors:
        return {name: tf.gather(each, self.places.get(name, self.row)) for name, each in values.items()}

    def of_rows(self, values: tf.Tensor) -> tf.Tensor:
        return tf.gather(values, self.row)

    def mean(self, values: tf.Tensor) -> tf.Tensor:
        total = tf.math.unsorted_segment_sum(values, self.row, tf.size(self.num))
        return total / tf.reshape(tf.cast(self.num, values.dtype), [-1] + [1] * (len(values.shape) - 1))

    def any(self, values: tf.Tensor) -> tf.Tensor:
        return tf.math.unsorted_segment_sum(tf.cast(values, tf.int32), self.row, tf.size(self.num)) > 0

    def pooled(self, probabilities: tf.Tensor) -> tf.Tensor:
        joined = tf.nn.softmax(self.mean(tf.math.log(tf.maximum(probabilities, TINY))), axis=1)
        return tf.where(self.num[:, None] > 1, joined, self.mean(probabilities))


def _windows(counts: Counts, present: tf.Tensor) -> _Rows:
    """The windows of some rows; where several modalities have some, the fewer ones are spread evenly over the more."""
    if not counts:
        return _Rows()
    num = tf.reduce_max(tf.stack(list(counts.values())), axis=0)
    row = tf.repeat(tf.range(tf.shape(present)[0]), num)
    within = tf.range(tf.size(row)) - tf.gather(tf.cumsum(num, exclusive=True), row)
    places = {
        name: tf.gather(tf.cumsum(own, exclusive=True), row) + within * tf.gather(own, row) // tf.gather(num, row)
        for name, own in counts.items()
    }
    return _Windows(num, row, places)


def _combinations(given: list[bool]) -> np.ndarray:
    """What the head is asked about, bool (combinations, modalities), the whole last.

    All combinations of the given modalities; of too many, each alone and all.
    """
    num = len(given)
    every = codes(num) if num <= MOST_MODALITIES else np.concatenate([np.eye(num, dtype=bool), np.ones((1, num), bool)])
    return np.array([each for each in every if not (each & ~np.array(given)).any()])


def _chosen(seen: np.ndarray, used: tf.Tensor) -> tf.Tensor:
    """Which combination each row's answer is from: float32 (batch, combinations), one 1 in each row.

    Where it is not among them, as of too many modalities, the head is asked about all, of which the absent are masked.
    """
    same = tf.reduce_all(tf.equal(tf.expand_dims(used, 1), seen[None]), axis=2)
    none = tf.logical_not(tf.reduce_any(same[:, :-1], axis=1, keepdims=True))
    return tf.cast(tf.concat([same[:, :-1], none], axis=1), tf.float32)


def _of(every: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """Of values (batch, combinations, k) those of each row's combination, (batch, k)."""
    return tf.reduce_sum(every * tf.expand_dims(chosen, 2), axis=1)


def _shares(seen: np.ndarray, every: tf.Tensor, used: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
    """φ of each modality, 0 where the answer does not rest on it: float32 (batch, modalities)."""
    top = tf.cast(tf.equal(tf.range(every.shape[2], dtype=tf.int64)[None], label[:, None]), tf.float32)[:, None]
    own, others = tf.reduce_sum(every * top, axis=2), tf.reduce_sum(every * (1 - top), axis=2)
    odds = tf.math.log(tf.maximum(own, TINY)) - tf.math.log(tf.maximum(others, TINY))
    # v(S) of the row is that of the part of S on which the answer rests.
    values = [tf.reduce_sum(odds * _chosen(seen, tf.logical_and(used, each[None])), axis=1) for each in seen]
    return tf.where(used, tf.matmul(tf.stack(values, axis=1), shapley_weights(seen)), 0.0)


def shapley_weights(seen: np.ndarray) -> np.ndarray:
    """By which the values v(S) of all combinations become shares: φ = v · weights, float32 (combinations, modalities).

    Args:
        seen: all combinations of the modalities that there are, bool (combinations, modalities).
    """
    num, weights = int(seen.any(axis=0).sum()), np.zeros(seen.shape)
    for place, each in enumerate(seen):
        for at in np.flatnonzero(seen.any(axis=0)):
            size = int(each.sum()) - int(each[at])
            share = math.factorial(size) * math.factorial(num - size - 1) / math.factorial(num)
            weights[place, at] = share if each[at] else -share
    return weights.astype(np.float32)
