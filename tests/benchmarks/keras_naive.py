"""Contender (c): Keras as its guides show it.

`RandomFlip`, `RandomRotation` and `RandomCrop` mapped over one sample at a time in `tf.data`, float32, and `fit` as it
comes.
Run by the benchmark: `python -m tests.benchmarks.keras_naive`.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tests.benchmarks.answering import answer
from tests.benchmarks.arrays import Arrays, read


def built(audio: np.ndarray) -> keras.Model:
    """The paper's model with blocks 32,32|64,64; image (batch, 28, 28, 1) in [0, 255], audio (batch, 507)."""
    image_input = keras.Input((28, 28, 1), name="image")
    audio_input = keras.Input((audio.shape[1],), name="audio")
    x = layers.Rescaling(1 / 255)(image_input)
    for filters, kernel in ((32, 5), (64, 3)):
        x = layers.Conv2D(filters, kernel, padding="same", activation="relu")(x)
        x = layers.Conv2D(filters, kernel, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    image = layers.Dense(128, activation="relu")(layers.Flatten()(x))
    standardise = layers.Normalization()
    standardise.adapt(audio)
    x = standardise(audio_input)
    for units in (512, 256):
        x = layers.Dropout(0.3)(layers.Dense(units, activation="relu")(x))
    sound = layers.Dense(128, activation="relu")(x)
    steps = layers.Concatenate(axis=1)([layers.Reshape((1, 128))(image), layers.Reshape((1, 128))(sound)])
    answer_of = layers.Dense(10, activation="softmax")(layers.LSTM(256)(steps))
    return keras.Model({"image": image_input, "audio": audio_input}, answer_of)


def augmented(arrays: Arrays, batch_size: int, seed: int) -> tf.data.Dataset:
    """Endless shuffled batches; each image goes through the three layers by itself."""
    augmentation = keras.Sequential(
        [
            layers.RandomFlip("horizontal_and_vertical", seed=seed),
            layers.RandomRotation(0.05, fill_mode="constant", seed=seed + 1),
            layers.ZeroPadding2D(2),
            layers.RandomCrop(28, 28, seed=seed + 2),
        ]
    )

    def prepare(image: Any, audio: Any, label: Any):
        image = augmentation(tf.cast(image, tf.float32)[None], training=True)[0]
        return {"image": image, "audio": audio}, label

    rows = tf.data.Dataset.from_tensor_slices((arrays.images[..., None], arrays.audio, arrays.labels))
    rows = rows.shuffle(len(arrays.labels), seed=seed).repeat().map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    return rows.batch(batch_size).prefetch(tf.data.AUTOTUNE)


class Naive:
    """Args: folder and its number of training rows; batch_size; total_steps of the schedule; seed."""

    def __init__(self, folder: str, num_rows: int | None, batch_size: int, total_steps: int, seed: int = 0) -> None:
        keras.utils.set_random_seed(seed)
        arrays = read(folder, num_rows)
        self.arrays, self.batch_size = arrays, batch_size
        self.model = built(arrays.audio)
        warmup = total_steps // 10
        schedule = keras.optimizers.schedules.CosineDecay(0.0, total_steps - warmup, 0.0, "warmup", 1e-3, warmup)
        self.model.compile(
            optimizer=keras.optimizers.AdamW(schedule, weight_decay=1e-2),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        self.batches = augmented(arrays, batch_size, seed)

    def train(self, steps: int) -> float:
        """Train for `steps` batches; the mean loss."""
        return self.model.fit(self.batches, steps_per_epoch=steps, epochs=1, verbose=0).history["loss"][-1]

    def evaluate(self) -> dict[str, float]:
        """Accuracy on the training rows as they are."""
        arrays = self.arrays
        inputs = {"image": arrays.images[..., None], "audio": arrays.audio}
        _, accuracy = self.model.evaluate(inputs, arrays.labels, batch_size=self.batch_size, verbose=0)
        return {"rows": len(arrays.labels), "accuracy": accuracy}

    def versions(self) -> dict[str, Any]:
        return {"tensorflow": tf.__version__, "keras": keras.__version__}


if __name__ == "__main__":
    answer(Naive)
