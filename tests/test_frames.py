"""Stretching sounds to a fixed number of frames."""

import numpy as np
import pytest

from kfusion.modalities.audio.recipe import ragged_to_frames, to_frames


def test_stretching_keeps_the_first_and_the_last_frame():
    sequence = np.array([[3.0, -1.0], [5.0, 0.0], [9.0, 7.0]])
    stretched = to_frames(sequence, 5)
    np.testing.assert_array_equal(stretched, [[3, -1], [4, -0.5], [5, 0], [7, 3.5], [9, 7]])
    assert stretched.dtype == np.float32


def test_shrinking_picks_frames_at_equal_distances():
    np.testing.assert_array_equal(to_frames(np.arange(9.0)[:, None], 3)[:, 0], [0, 4, 8])


def test_sequence_of_the_right_length_stays_as_it_is():
    sequence = np.random.default_rng(0).normal(size=(39, 13)).astype(np.float32)
    np.testing.assert_array_equal(to_frames(sequence), sequence)


def test_single_frame_is_repeated():
    np.testing.assert_array_equal(to_frames(np.array([[2.0, 4.0]]), 3), [[2, 4]] * 3)


def test_one_frame_of_many_is_the_first():
    np.testing.assert_array_equal(to_frames(np.array([[2.0], [4.0]]), 1), [[2]])


@pytest.mark.parametrize("length", [2, 6, 17, 38, 40, 92])
def test_frames_are_those_of_linear_interpolation(length):
    sequence = np.random.default_rng(length).normal(size=(length, 4))
    position = np.linspace(0, length - 1, 39)
    expected = np.stack([np.interp(position, np.arange(length), column) for column in sequence.T], axis=1)
    np.testing.assert_allclose(to_frames(sequence), expected, atol=1e-6)


def test_many_sequences_at_once_equal_each_on_its_own():
    rng = np.random.default_rng(0)
    sequences = [rng.normal(size=(length, 3)).astype(np.float32) for length in (1, 5, 39, 80)]
    together = ragged_to_frames(np.concatenate(sequences), np.array([1, 5, 39, 80]))
    np.testing.assert_array_equal(together, np.stack([to_frames(sequence) for sequence in sequences]))


@pytest.mark.parametrize(
    ("sequence", "num_frames", "message"),
    [
        (np.zeros((0, 13)), 39, "'lengths' must be ≥ 1 frame. Received: 0 in row 0"),
        (np.zeros(13), 39, r"'sequence' must be \(frames, coefficients\). Received: shape \(13,\)"),
        (np.zeros((2, 13)), 0, "'num_frames' must be ≥ 1. Received: 0"),
    ],
)
def test_impossible_sequences_are_refused(sequence, num_frames, message):
    with pytest.raises(ValueError, match=message):
        to_frames(sequence, num_frames)


def test_lengths_must_add_up():
    with pytest.raises(ValueError, match=r"'lengths' must add up to the 5 frames. Received: 4"):
        ragged_to_frames(np.zeros((5, 2)), np.array([2, 2]))
