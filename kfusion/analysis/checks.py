"""What the numbers of this folder may be made from; each error names the argument, the rule and what arrived.

Lengths, shapes and types are for kfusion to get right; only what comes from data is a user's error.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kfusion.rules import UserError

# The smallest float32: a softmax that has run out of digits then counts as very sure, not as infinitely sure.
SMALLEST = float(np.finfo(np.float32).tiny)


def require(rule: bool, name: str, text: str, received: object) -> None:
    """Raises the ValueError that names the argument, unless the rule holds: the caller's fault, not the user's."""
    if not rule:
        raise ValueError(f"'{name}' must be {text}. Received: {received}")


def _span(values: NDArray) -> str:
    return f"{np.isnan(values).sum()} NaN, the rest in [{np.nanmin(values):g}, {np.nanmax(values):g}]"


def as_logs(probabilities: ArrayLike) -> NDArray[np.float64]:
    """The logarithms of probabilities (n ≥ 1, num_classes ≥ 2); those of zeros are finite."""
    values = np.asarray(probabilities, np.float64)
    require(values.ndim == 2 and values.shape[1] >= 2, "probabilities", "of shape (n, num_classes ≥ 2)", values.shape)
    require(len(values) > 0, "probabilities", "of one or more rows", values.shape)
    # NaN compares false with everything, so it is caught here too; it comes of values that no network can add up.
    if not ((values >= 0).all() and (values <= 1.01).all()):
        raise UserError(f"'probabilities' must be in [0, 1]. Received: {_span(values)}")
    return np.log(np.maximum(values, SMALLEST))


def as_classes(name: str, values: ArrayLike, num_classes: int) -> NDArray[np.int64]:
    """Integers (n ≥ 1,) in [0, num_classes), as int64."""
    classes = np.asarray(values)
    require(classes.ndim == 1 and classes.size > 0, name, "of shape (n ≥ 1,)", classes.shape)
    require(np.issubdtype(classes.dtype, np.integer), name, "integers", classes.dtype)
    lowest, highest = int(classes.min()), int(classes.max())
    require(lowest >= 0 and highest < num_classes, name, f"in [0, {num_classes})", (lowest, highest))
    return classes.astype(np.int64)
