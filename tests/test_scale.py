"""Ranges that are and are not on one scale."""

import pytest

from kfusion.data.scale import require_scale, same_scale


@pytest.mark.parametrize(
    ("found", "same"),
    [
        ((-718, 207), True),
        ((-900, 250), True),  # another microphone
        ((0, 1), False),  # min-max scaled
        ((-5, 5), False),  # standardised
        ((300, 1200), False),  # as wide, but elsewhere
    ],
)
def test_decibels_are_told_from_other_units(found, same):
    assert same_scale(found, (-718, 207)) is same
    assert same_scale((-718, 207), found) is same


def test_the_error_names_both_ranges():
    with pytest.raises(
        ValueError, match=r"^d: sounds must be on .* \(-718 to 207\), or --force given\. Found: 0 to 1$"
    ):
        require_scale("d", "sounds", (0.0, 1.0), (-718.0, 207.0))
