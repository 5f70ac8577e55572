"""A part of the data for a quick try: the first rows of each class."""

import numpy as np


def first_of_each_class(label: np.ndarray, limit: int) -> np.ndarray:
    """Positions of at most `limit` rows, evenly over the classes.

    The classes take turns, each with its first row not yet taken; a class that has run out is passed over.

    Args:
        label: int (n,).
        limit: rows at most; 0: all.

    Returns:
        int64 (min(n, limit),), ascending.
    """
    if limit == 0 or limit >= len(label):
        return np.arange(len(label))
    order = np.argsort(label, kind="stable")
    _, starts, counts = np.unique(label[order], return_index=True, return_counts=True)
    turn = np.arange(len(label)) - np.repeat(starts, counts)
    return np.sort(order[np.argsort(turn, kind="stable")[:limit]])
