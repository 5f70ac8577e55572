"""Whether values are on the scale that a network was trained on, told by their ranges alone."""

import sys
from pathlib import Path
from typing import Any

from kfusion.rules import UserError

Range = tuple[float, float]

FACTOR = 4.0
"""How many times wider or narrower the values may spread: far more than other voices differ, far less than units do."""

ABSURD = 1000.0
"""How many times larger than any training value a sound's may be: far more than a change of units would make it."""
MAX_MAGNITUDE = 1e18
"""Of any value: a network computes with squares, which must be within float32."""


def as_range(found: Any, path: Path) -> Range:
    """The range of the training sounds, as a file notes it.

    Args:
        found: what JSON gave.
        path: the file.

    Raises:
        UserError: it is no range.
    """
    if isinstance(found, list) and len(found) == 2 and all(type(value) in (int, float) for value in found):
        low, high = found
        if -sys.float_info.max <= low <= high <= sys.float_info.max:
            return float(low), float(high)
    raise UserError(f"{path}: 'audio_range' must be two numbers, the lower one first. Found: {found!r}")


def largest(trained: Range) -> float:
    """How far from zero a value may be, given those of training, in two digits; values below 1 count as 1."""
    return min(float(f"{ABSURD * max(1.0, *map(abs, trained)):.2g}"), MAX_MAGNITUDE)


def require_within(path: str | Path, what: str, found: Range, trained: Range) -> None:
    """Refuses values that no change of units explains.

    Args:
        path, what, found, trained: as `require_scale`.

    Raises:
        UserError: one is too far from zero.
    """
    limit = largest(trained)
    if max(map(abs, found)) > limit:
        rule = f"{what} must be within {-limit:g} and {limit:g}, {ABSURD:g} times the training data's"
        raise UserError(f"{path}: {rule}. Found: {found[0]:g} to {found[1]:g}")


def same_scale(found: Range, trained: Range) -> bool:
    """Whether two ranges are about as wide and lie over each other for half the narrower one at least.

    Args:
        found, trained: lowest and highest value.
    """
    spans = found[1] - found[0], trained[1] - trained[0]
    narrow, wide = min(spans), max(spans)
    common = min(found[1], trained[1]) - max(found[0], trained[0])
    return wide <= FACTOR * narrow and common >= narrow / 2


def require_scale(path: str | Path, what: str, found: Range, trained: Range) -> None:
    """Refuses values on another scale.

    Args:
        path: where they come from.
        what: such as "audio features".

    Raises:
        UserError: the ranges disagree; one line with both.
    """
    if not same_scale(found, trained):
        rule = f"{what} must be on the scale of the training data ({trained[0]:g} to {trained[1]:g}), or --force given"
        raise UserError(f"{path}: {rule}. Found: {found[0]:g} to {found[1]:g}")
