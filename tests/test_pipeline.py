"""Which rows a step reads, and what it does not depend on."""

import numpy as np
import pytest
import tensorflow as tf

from kfusion.config import AugmentConfig
from kfusion.data.dataset import Pairs
from kfusion.data.pipeline import TrainingReader, evaluation_batches, present_modalities, training_batches
from kfusion.prepared_data import Augmentation
from kfusion.random_streams import sample_keys
from kfusion.spec import Spec

SPEC = Spec.pair(image_shape=(2, 2, 1), audio_grid=(1, 3), class_names=("a", "b", "c"))


def pairs(num=23):
    """Row i holds the number i everywhere."""
    rows = np.arange(num)
    images = np.repeat(rows[:, None], 4, axis=1).astype(np.uint8)
    audio = np.repeat(rows[:, None], 3, axis=1).astype(np.float32)
    return Pairs({"image": images, "audio": audio}, {"image": rows, "audio": rows}, rows % 3, SPEC)


def epochs(reader, first, last, **kwargs):
    data = training_batches(reader, None, 0.0, first, last, **kwargs)
    return [(batch["image"].numpy()[:, 0, 0, 0].astype(int), batch, label.numpy()) for batch, label in data]


def test_an_epoch_reads_every_row_once_in_a_new_order():
    batches = epochs(TrainingReader(pairs(), 5, 0, AugmentConfig()), 0, 2)
    assert [len(rows) for rows, _, _ in batches] == [5, 5, 5, 5, 3] * 2
    first, second = (np.concatenate([rows for rows, _, _ in batches[n : n + 5]]) for n in (0, 5))
    assert sorted(first) == sorted(second) == list(range(23))
    assert list(first) != list(second)


def test_image_sound_and_label_stay_together():
    for rows, batch, label in epochs(TrainingReader(pairs(), 5, 0, AugmentConfig()), 0, 1):
        np.testing.assert_array_equal(batch["audio"][:, 0], rows)
        np.testing.assert_array_equal(label, rows % 3)


def test_a_run_resumed_at_an_epoch_reads_what_the_whole_run_reads_there():
    whole = epochs(TrainingReader(pairs(), 5, 4, AugmentConfig()), 0, 3)
    resumed = epochs(TrainingReader(pairs(), 5, 4, AugmentConfig()), 2, 3)
    for (rows, _, _), (again, _, _) in zip(whole[10:], resumed, strict=True):
        np.testing.assert_array_equal(rows, again)


def test_fresh_pairings_keep_the_class_and_change_the_sound():
    reader = TrainingReader(pairs(60), 10, seed=0, config=AugmentConfig(repair=True))
    partners = []
    for epoch in range(2):
        read = epochs(reader, epoch, epoch + 1)
        image = np.concatenate([rows for rows, _, _ in read])
        audio = np.concatenate([batch["audio"][:, 0] for _, batch, _ in read]).astype(int)
        np.testing.assert_array_equal(image % 3, audio % 3)
        partners.append(dict(zip(image, audio, strict=True)))
    assert sum(partners[0][row] != partners[1][row] for row in range(60)) > 40


def test_wrong_partners_come_at_their_rates_with_the_right_answer_for_each_view():
    config = AugmentConfig(repair=True, wrong_sound=0.2, wrong_image=0.1)
    read = epochs(TrainingReader(pairs(255), 51, 0, config, all_views=True), 0, 10)
    image = np.concatenate([rows for rows, _, _ in read]) % 3
    audio = np.concatenate([batch["audio"][:, 0] for _, batch, _ in read]).astype(int) % 3
    fused, of_image, of_audio = np.concatenate([label for _, _, label in read]).T
    np.testing.assert_array_equal(of_image, image)
    np.testing.assert_array_equal(of_audio, audio)
    assert np.mean((image != audio) & (fused == image)) == pytest.approx(0.2, abs=0.03)
    assert np.mean((image != audio) & (fused == audio)) == pytest.approx(0.1, abs=0.03)
    assert (fused == image)[image == audio].all()


def test_modality_dropout_takes_either_at_its_rate_and_never_both():
    keys = tf.constant(sample_keys(0, 0, np.arange(20_000)))
    present = present_modalities(keys, 0.3, 2).numpy()
    assert present.any(axis=1).all()
    assert (~present).mean(axis=0) == pytest.approx(0.15, abs=0.01)
    assert present_modalities(keys, 0.0, 2).numpy().all()
    assert present_modalities(keys, 1.0, 2).numpy().sum() == len(keys)


def test_augmentation_of_a_sample_does_not_depend_on_batch_size():
    augment = Augmentation(AugmentConfig(), SPEC, {"audio": np.zeros(3)})

    def changed(batch_size):
        reader = TrainingReader(pairs(), batch_size, 1, AugmentConfig())
        plain = np.concatenate([rows for rows, _, _ in epochs(reader, 0, 1)])
        data = training_batches(reader, augment, 0.5, 0, 1)
        images = np.concatenate([batch["image"] for batch, _ in data])
        present = np.concatenate([batch["present"] for batch, _ in data])
        return {row: (*image.ravel(), *kept) for row, image, kept in zip(plain, images, present, strict=True)}

    small, large = changed(5), changed(16)
    # The last bit of a cosine depends on its place in the processor's vector; nothing else may.
    assert all(small[row] == pytest.approx(large[row], abs=1e-4) for row in range(23))


@pytest.mark.parametrize(("view", "expected"), [("fused", [1, 1]), ("image", [1, 0]), ("audio", [0, 1])])
def test_evaluation_reads_all_rows_in_order_through_a_view(view, expected):
    batches = list(evaluation_batches(pairs(), 10, view))
    assert [len(label) for _, label in batches] == [10, 10, 3]
    np.testing.assert_array_equal(np.concatenate([batch["audio"][:, 0] for batch, _ in batches]), np.arange(23))
    assert all((batch["present"].numpy() == expected).all() for batch, _ in batches)
