"""The learning rate, recomputed by hand away from the defaults."""

import math

import keras
import pytest

from kfusion.training.optimizers import WarmupCosine


def test_rate_equals_the_equation_at_every_update():
    schedule = WarmupCosine(0.4, warmup_steps=4, total_steps=12, start_learning_rate=0.1, final_learning_rate=0.05)
    for step in range(12):
        update = step + 1
        if update <= 4:
            expected = [0.1, 0.2, 0.3, 0.4][step]
        else:
            expected = 0.05 + 0.35 * math.cos(math.pi / 2 * (update - 4) / 8) ** 2
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-5)


def test_both_ends_are_included():
    schedule = WarmupCosine(1.0, warmup_steps=5, total_steps=20, final_learning_rate=0.01)
    assert float(schedule(4)) == pytest.approx(1.0)
    assert float(schedule(19)) == pytest.approx(0.01)
    assert float(schedule(500)) == pytest.approx(0.01)


def test_first_update_is_not_wasted_unless_asked():
    assert float(WarmupCosine(1.0, 10, 20)(0)) == pytest.approx(0.1)
    assert float(WarmupCosine(1.0, 10, 20, start_learning_rate=0.0)(0)) == 0.0


def test_without_warmup_the_cosine_begins_below_the_peak():
    assert float(WarmupCosine(1.0, 0, 4)(0)) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)), rel=1e-5)
    assert float(WarmupCosine(1.0, 1, 4)(0)) == pytest.approx(1.0)


def test_schedule_survives_serialisation_within_its_optimizer():
    schedule = WarmupCosine(0.4, 4, 12, start_learning_rate=0.1, final_learning_rate=0.05)
    optimizer = keras.optimizers.AdamW(schedule)
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert copy._learning_rate.get_config() == schedule.get_config()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ((0.0, 1, 2), "'peak_learning_rate' must be > 0. Received: 0.0"),
        ((1.0, 3, 2), r"'warmup_steps' must be in \[0, 2\]. Received: 3"),
        ((1.0, 0, 0), "'total_steps' must be ≥ 1. Received: 0"),
        ((1.0, 1, 2, -1.0), "'start_learning_rate' must be ≥ 0 or None. Received: -1.0"),
    ],
)
def test_values_out_of_range_are_named(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        WarmupCosine(*values)
