"""Numbers as people read them."""

from collections.abc import Sequence


def count(number: float) -> str:
    return f"{round(number):,}"


def digits_for(num_rows: int) -> int:
    """Digits after the point of a percentage, so that one row more or less is seen."""
    return 1 if num_rows <= 2000 else 2


def percent(share: float, digits: int = 1) -> str:
    """0.998 -> "99.8 %"; never rounded up to all or down to nothing."""
    text = f"{100 * share:.{digits}f}"
    if share < 1 and float(text) >= 100:
        text = f"> {100 - 10.0**-digits:.{digits}f}"
    elif share > 0 and float(text) <= 0:
        text = f"< {10.0**-digits:.{digits}f}"
    return f"{text} %"


def between(bounds: Sequence[float] | None, digits: int = 1) -> str:
    """(0.99, 1.0) -> "99.0 – 100.0 %"."""
    return "–" if bounds is None else f"{100 * bounds[0]:.{digits}f} – {100 * bounds[1]:.{digits}f} %"


def points(difference: float, digits: int = 1) -> str:
    """A difference of two shares, in percentage points: 0.004 -> "+0.4"."""
    text = f"{100 * difference:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def points_between(bounds: Sequence[float], digits: int = 1) -> str:
    return f"{points(bounds[0], digits)} to {points(bounds[1], digits)}"


def p_value(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.1 else f"{p:.2f}"


def score(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def change(before: float | None, after: float, digits: int = 4) -> str:
    """A number before and after."""
    return score(after, digits) if before is None else f"{score(before, digits)} → {score(after, digits)}"


def many(number: int, what: str) -> str:
    """1 -> "1 error", 2 -> "2 errors"."""
    return f"{count(number)} {what}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], most: int = 12) -> str:
    """All names, or the first few and how many more."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
