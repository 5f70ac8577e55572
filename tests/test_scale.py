"""Ranges that are and are not on one scale."""

from pathlib import Path

import pytest

from kfusion.data.statistics import as_range, largest, require_scale, require_within, same_scale


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


@pytest.mark.parametrize(
    ("trained", "limit"),
    [((-718, 207), 720_000), ((0, 1), 1000), ((0, 0), 1000), ((-3e-9, 1e-9), 1000), ((0, 3e38), 1e18)],
)
def test_values_may_be_a_thousand_times_as_large_as_in_training(trained, limit):
    assert largest(trained) == limit
    require_within("d", "sounds", (-limit, limit), trained)
    with pytest.raises(ValueError, match=r"^d: sounds must be within -.*, 1000 times .*\. Found: 0 to "):
        require_within("d", "sounds", (0.0, limit * 1.01), trained)


@pytest.mark.parametrize("found", [None, [1], [1, 0], ["a", 1], [float("nan"), 1], [0, 10**400], [True, 2], {}])
def test_a_range_is_two_numbers_the_lower_one_first(found):
    assert as_range([-1, 2.5], Path("data.json"), "audio") == (-1.0, 2.5)
    with pytest.raises(ValueError, match=r"^data.json: 'audio_range' must be two numbers, the lower"):
        as_range(found, Path("data.json"), "audio")
