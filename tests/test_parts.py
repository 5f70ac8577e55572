"""Dealing groups of rows to parts."""

import numpy as np

from kfusion.data.splits import deal, joined


def test_rows_that_share_an_image_or_a_clip_hang_together_through_others():
    group = joined(np.array([0, 0, 1, 2, 3]), np.array([5, 6, 6, 7, 8]))
    assert group[0] == group[1] == group[2]
    assert len(np.unique(group)) == 3


def test_groups_of_several_classes_are_dealt_whole_and_to_each_part():
    people = np.repeat(np.arange(5), 40)
    part = deal(np.arange(200) % 2, people, 0.1, 0.1, np.random.default_rng(0))
    assert all(len(set(part[people == person])) == 1 for person in range(5))
    assert set(part) == {0, 1, 2}


def test_one_heavy_group_goes_to_training():
    group = np.concatenate([np.zeros(80, int), np.arange(1, 21)])
    for seed in range(5):
        part = deal(np.zeros(100, int), group, 0.1, 0.1, np.random.default_rng(seed))
        assert part[0] == 0
        assert set(part) == {0, 1, 2}
