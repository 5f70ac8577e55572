"""Dealing rows to the training, validation and test part: stratified by class, groups kept whole."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

PARTS = ("training", "validation", "test")
TRAIN, VAL, TEST = range(3)


def deal(
    label: np.ndarray, group: np.ndarray, val_share: float, test_share: float, rng: np.random.Generator
) -> np.ndarray:
    """A part for each row: all rows of a group in one part, each class in nearly the wanted shares.

    The groups of each class are shuffled and laid end to end; the first `test_share` of that length is the test part,
    the next `val_share` the validation part. Groups with rows of several classes are dealt together, apart from the
    others. Where there are enough groups, each part gets one at least.

    Args:
        label: int (n,).
        group: int (n,).
        val_share: share of the rows, in (0, 1).
        test_share: share of the rows, in [0, 1); 0: no test part.
        rng: decides which groups go where.

    Returns:
        int8 (n,): TRAIN, VAL or TEST.
    """
    _, member = np.unique(group, return_inverse=True)
    size = np.bincount(member)
    low, high = np.full(len(size), np.iinfo(np.int64).max), np.full(len(size), -1)
    np.minimum.at(low, member, label)
    np.maximum.at(high, member, label)
    stratum = np.where(low == high, low, -1)
    shuffled = rng.permutation(len(size))
    shuffled = shuffled[np.argsort(stratum[shuffled], kind="stable")]
    _, starts = np.unique(stratum[shuffled], return_index=True)
    part = np.empty(len(size), np.int8)
    for groups in np.split(shuffled, starts[1:]):
        part[groups] = _deal_stratum(size[groups], val_share, test_share)
    return part[member]


def _deal_stratum(size: np.ndarray, val_share: float, test_share: float) -> np.ndarray:
    """A part for each of some shuffled groups."""
    # A group that outweighs its part twice would distort it: such ones come last, where training begins.
    heavy = size > 2 * min(share for share in (val_share, test_share) if share > 0) * size.sum()
    order = np.argsort(np.where(heavy, size, 0), kind="stable")
    middle = (np.cumsum(size[order]) - size[order] / 2) / size.sum()
    num_test = num_left = 0
    if test_share > 0:
        num_left = len(size) - 2
        num_test = max(0, min(max(1, np.count_nonzero(middle < test_share)), num_left))
    num_left = len(size) - num_test - 1
    num_val = max(0, min(max(1, np.count_nonzero(middle < test_share + val_share) - num_test), num_left))
    part = np.full(len(size), TRAIN, np.int8)
    part[order[:num_test]] = TEST
    part[order[num_test : num_test + num_val]] = VAL
    return part


def joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Groups of pairs that hang together: two pairs with the same image, or the same sound, or joined by a third.

    Args:
        first: int64 (n,), ids of one kind, each ≥ 0.
        second: int64 (n,), ids of another kind, each ≥ 0.

    Returns:
        int64 (n,), the connected component of each row.
    """
    num_first = int(first.max()) + 1
    num_nodes = num_first + int(second.max()) + 1
    edges = coo_array((np.ones(len(first), np.int8), (first, num_first + second)), shape=(num_nodes, num_nodes))
    return connected_components(edges, directed=False)[1][first].astype(np.int64)
