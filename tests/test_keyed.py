"""Random numbers that are a function of (seed, epoch, sample, use)."""

import numpy as np
import pytest
import tensorflow as tf

from kfusion.random_streams import USES_PER_EVALUATION, Stream, epoch_generator, sample_keys, uniform


def draw(seed, epoch, rows, use=1, num=2):
    return uniform(tf.constant(sample_keys(seed, epoch, np.array(rows))), use, num).numpy()


def test_a_samples_numbers_do_not_depend_on_its_batch():
    together = draw(3, 5, np.arange(100))
    for row in (0, 17, 99):
        np.testing.assert_array_equal(draw(3, 5, [row])[0], together[row])
    np.testing.assert_array_equal(draw(3, 5, np.arange(100)[::-1])[::-1], together)


def test_seed_epoch_sample_and_use_each_change_the_numbers():
    base = draw(3, 5, [7])
    for other in (draw(4, 5, [7]), draw(3, 6, [7]), draw(3, 5, [8]), draw(3, 5, [7], use=2)):
        assert (base != other).all()


def test_no_two_epochs_repeat_and_no_key_is_shared():
    keys = np.concatenate([sample_keys(0, epoch, np.arange(2000)) for epoch in range(20)])
    # 40 000 of 2^32 keys: about 0.2 accidental pairs are expected.
    assert len(np.unique(keys)) >= len(keys) - 3


def test_numbers_are_uniform_and_uncorrelated():
    numbers = draw(0, 0, np.arange(50_000), num=4)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert numbers.mean(axis=0) == pytest.approx(0.5, abs=0.006)
    assert numbers.var(axis=0) == pytest.approx(1 / 12, abs=0.003)
    correlation = np.corrcoef(np.column_stack([numbers, np.roll(numbers[:, 0], 1)]).T)
    assert np.abs(correlation - np.eye(5)).max() < 0.02


def test_no_two_streams_share_a_use_of_a_sample():
    used = {stream: stream.first_use for stream in Stream if stream.value[0] == "sample"}
    assert len(set(used.values())) == len(used)
    assert max(used.values()) < USES_PER_EVALUATION
    evaluated = [stream.first_use for stream in Stream if stream.value[0] == "evaluation"]
    assert min(evaluated) >= USES_PER_EVALUATION
    assert all(use % USES_PER_EVALUATION == 0 for use in evaluated)
    assert len(set(evaluated)) == len(evaluated)


def test_no_two_streams_share_a_generator_of_an_epoch():
    streams = [stream for stream in Stream if stream.value[0] == "epoch"]
    numbers = [epoch_generator(3, 5, stream).integers(2**62) for stream in streams]
    assert len(set(numbers)) == len(streams)
    assert numbers[0] != epoch_generator(3, 6, streams[0]).integers(2**62)


def test_a_stream_stands_for_the_number_that_runs_have_always_used():
    """Another number would change every run that is resumed or repeated."""
    numbers = {stream.name: stream.value for stream in Stream}
    assert numbers == {
        "MODALITY_DROPOUT": ("sample", 0),
        "IMAGE_WARP": ("sample", 1),
        "TIME_WARP": ("sample", 2),
        "MASKS": ("sample", 3),
        "BACKGROUND": ("sample", 4),
        "IMAGE_DAMAGE": ("sample", 5),
        "FREQUENCY_WARP": ("sample", 6),
        "LEVEL": ("sample", 8),
        "IMAGE_JITTER": ("sample", 9),
        "CONFLICT": ("evaluation", 1),
        "CORRUPTIONS": ("evaluation", 2),
        "ORDER": ("epoch", 1),
        "PAIRING": ("epoch", 2),
    }
    np.testing.assert_array_equal(draw(3, 5, [7], use=Stream.CONFLICT.first_use), draw(3, 5, [7], use=1024))
