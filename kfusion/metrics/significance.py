"""What is chance and what is not: intervals of accuracies, and paired tests of two ways to answer.

`right` is bool (n,): whether each row was answered right. `group` is int (n,): rows of one group, such as all pairs
with the same recording, stand or fall together.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from kfusion.metrics.classification import require

LEVEL = 0.95
NUM_RESAMPLES = 2000
CHUNK = 100
"""Resamples that are held in memory at once."""


def method(groups: str, units: str) -> str:
    """How the intervals are made, in words.

    Args:
        groups: what is drawn with all its rows, such as "sounds".
        units: what the rows are, such as "pairs".
    """
    return (
        f"95 % intervals: percentiles of {NUM_RESAMPLES} bootstrap resamples of the {groups}, each with all its "
        f"{units}; where every row or none is right, which no resample can vary: Clopper and Pearson's exact interval "
        f"over the {groups}"
    )


def intervals(right: Mapping[str, ArrayLike], group: ArrayLike, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Bootstrap 95 % intervals of means, all from the same resamples, so that differences are paired.

    Whole groups are drawn with replacement, as many as there are; a resample's mean is Σ w_g s_g / Σ w_g n_g with w_g
    times group g drawn, s_g its sum and n_g its rows.

    Args:
        right: {name: (n,)}, bool, or numbers such as the difference of two.
        group: int (n,).
        seed: decides the resamples.

    Returns:
        {name: (low, high)}. Where all values are the same, the resamples cannot differ: for all 0 or all 1, the
        interval is then Clopper and Pearson's for as many trials as there are groups.

    Reference:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3; Davison and Hinkley, "Bootstrap
        Methods and their Application", 1997, section 3.8, for whole groups; Clopper and Pearson 1934.
    """
    values = {name: np.asarray(each, np.float64) for name, each in right.items()}
    _, member = np.unique(np.asarray(group), return_inverse=True)
    require(len(member) > 0, "group", "of one or more rows", len(member))
    for name, each in values.items():
        require(each.shape == member.shape, name, f"of shape {member.shape}", each.shape)
    sizes = np.bincount(member)
    sums = np.stack([np.bincount(member, each) for each in values.values()], axis=1)
    num_groups, rng = len(sizes), np.random.default_rng(seed)
    means = []
    for _ in range(0, NUM_RESAMPLES, CHUNK):
        drawn = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), CHUNK)
        means.append((drawn @ sums) / (drawn @ sizes)[:, None])
    tail = (1 - LEVEL) / 2
    bounds = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    return {
        name: _exact(each[0], num_groups)
        if np.all(each == each[0]) and each[0] in (0, 1)
        else (float(low), float(high))
        for (name, each), low, high in zip(values.items(), *bounds, strict=True)
    }


def _exact(value: float, num_trials: int) -> tuple[float, float]:
    interval = binomtest(num_trials if value else 0, num_trials).proportion_ci(LEVEL, "exact")
    return float(interval.low), float(interval.high)


def mcnemar(first: ArrayLike, second: ArrayLike) -> dict[str, Any]:
    """McNemar's exact test: do two ways to answer the same rows err equally often?

    Of the rows that only one of the two has right, the first has as many as a fair coin would give it, if they err
    equally often: p = P(|X − m/2| ≥ |b − m/2|) with X ~ Binomial(m, ½), m the number of such rows and b the first's.

    Args:
        first: bool (n,), whether each row was answered right.
        second: the same of the other way.

    Returns:
        `{"first_only", "second_only", "p"}`; p is 1 where no row tells them apart.

    Reference:
        McNemar 1947; Dietterich, "Approximate Statistical Tests for Comparing Supervised Classification Learning
        Algorithms", Neural Computation 10(7), 1998. Rows that share a recording are not independent, as the test
        takes them to be, so that p may be too small; the interval of the difference (`intervals`) allows for them.
    """
    one, other = np.asarray(first, bool), np.asarray(second, bool)
    require(one.shape == other.shape and one.ndim == 1, "second", f"of shape {one.shape}", other.shape)
    first_only, second_only = int(np.sum(one & ~other)), int(np.sum(other & ~one))
    differing = first_only + second_only
    p = float(binomtest(first_only, differing).pvalue) if differing else 1.0
    return {"first_only": first_only, "second_only": second_only, "p": p}


def compare(
    right: Mapping[str, NDArray], pairs: list[tuple[str, str]], group: ArrayLike, seed: int
) -> list[dict[str, Any]]:
    """McNemar's test and the interval of the difference in accuracy, for some pairs of ways to answer.

    Args:
        right: {name: bool (n,)}.
        pairs: the names of those that are compared.
        group: int (n,), see `intervals`.
        seed: decides the resamples.

    Returns:
        one `{"first", "second", "first_only", "second_only", "p", "difference", "interval"}` per pair; the difference
        is the first's accuracy minus the second's.
    """
    difference = {f"{a}-{b}": np.asarray(right[a], np.float64) - np.asarray(right[b], np.float64) for a, b in pairs}
    bounds = intervals(difference, group, seed) if pairs else {}
    for name, each in difference.items():
        if not each.any():  # The exact interval of a share starts at 0; a difference may be to either side.
            bounds[name] = (-bounds[name][1], bounds[name][1])
    return [
        {
            "first": a,
            "second": b,
            **mcnemar(right[a], right[b]),
            "difference": float(np.mean(difference[f"{a}-{b}"])),
            "interval": list(bounds[f"{a}-{b}"]),
        }
        for a, b in pairs
    ]
