"""What stands between a request and the network: rules that answer a bad request with a sentence.

A rule's sentence names the input, what it must be and what arrived; a server hands it on as INVALID_ARGUMENT. It has
no quotation marks, since TensorFlow puts a backslash before each.

TensorFlow's optimizer believes what the ops of a graph need: where an input reaches a convolution, or `EnsureShape`,
it takes the input's rank for proven and computes `Rank` and the axes of full reductions beforehand, so that a check by
them no longer checks. Measured with TensorFlow 2.21: such a graph, fed an image of two axes, aborts the process. Hence
inputs are declared without a rank, rules read `tf.shape` only, and `Reshape`, which proves nothing about its input,
parts the checked from the unchecked.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

Text = Callable[[], tf.Tensor]


def demand(rule: tf.Tensor, text: Text) -> tf.Operation:
    """Fails with a sentence, composed only then, unless the rule holds.

    Args:
        rule: bool ().
        text: gives the sentence, string ().
    """
    return tf.debugging.Assert(rule, [text()], summarize=1)


def listed(values: tf.Tensor) -> tf.Tensor:
    """int32 (n,) -> "(3, 28, 28)"."""
    return tf.strings.join(["(", tf.strings.reduce_join(tf.strings.as_string(values), separator=", "), ")"])


def shaped(name: str, values: tf.Tensor, sizes: Sequence[int]) -> tf.Tensor:
    """The values, if they have the shape (batch, *sizes); else the request fails."""
    shape = tf.shape(values)
    # Padded, so that one comparison tells a wrong rank and a wrong size without looking past the end.
    padded = tf.concat([shape, tf.fill([len(sizes) + 2], -1)], axis=0)
    rule = tf.reduce_all(tf.equal(padded[1 : len(sizes) + 2], tf.constant([*sizes, -1])), axis=0)
    rule = tf.logical_and(rule, padded[0] >= 0)
    right = f"({', '.join(['batch', *map(str, sizes)])})" if sizes else "(batch,)"
    text = f"{name} must have the shape {right}. Received: "
    with tf.control_dependencies([demand(rule, lambda: tf.strings.join([text, listed(shape)]))]):
        return tf.ensure_shape(tf.reshape(values, [-1, *sizes]), [None, *sizes])


def same_batch(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
    """The inputs, if all have the same number of rows, and one at least; else the request fails."""
    sizes = [tf.shape(values)[0] for values in inputs.values()]
    names = " and ".join(inputs)
    received = tf.strings.reduce_join(tf.strings.as_string(tf.stack(sizes)), separator=" and ")
    text = f"{names} must have the same number of rows. Received: "
    rules = [demand(tf.equal(sizes[0], size), lambda: tf.strings.join([text, received])) for size in sizes[1:]]
    rules.append(demand(sizes[0] > 0, lambda: tf.constant(f"{names} must have one row or more. Received: 0")))
    with tf.control_dependencies(rules):
        return {name: tf.identity(values) for name, values in inputs.items()}


def finite(name: str, values: tf.Tensor) -> tf.Tensor:
    """float32 (batch, …), if none is NaN or infinite; else the request fails, naming the first such row."""
    flat = tf.reshape(values, [tf.shape(values)[0], -1])
    return _each_row(name, values, tf.reduce_all(tf.math.is_finite(flat), axis=1), "be finite", "NaN or infinity")


def within(name: str, values: tf.Tensor, limit: float) -> tf.Tensor:
    """float32 (batch, …), if none is farther from zero than the limit; else the request fails, naming the first row."""
    flat = tf.reshape(values, [tf.shape(values)[0], -1])
    good = tf.reduce_max(tf.abs(flat), axis=1) <= limit

    def text() -> tf.Tensor:
        row = tf.gather(flat, tf.argmin(tf.cast(good, tf.int32), axis=0))
        value = tf.strings.as_string(tf.gather(row, tf.argmax(tf.abs(row), axis=0)), shortest=True)
        rule = f"{name} must be within {-limit:g} and {limit:g}. Received: "
        return tf.strings.join([rule, value, ", in row ", first(good)])

    with tf.control_dependencies([demand(tf.reduce_all(good, axis=0), text)]):
        return tf.identity(values)


def within_unit(name: str, values: tf.Tensor) -> tf.Tensor:
    """float32 (batch, …), if all are in [0, 1]; else the request fails, naming the first row that is not."""
    flat = tf.reshape(values, [tf.shape(values)[0], -1])
    inside = tf.reduce_all(tf.logical_and(flat >= 0.0, flat <= 1.0), axis=1)
    return _each_row(name, values, inside, "be in [0, 1]", "values outside; divide 0-255 by 255")


def _each_row(name: str, values: tf.Tensor, good: tf.Tensor, rule: str, found: str) -> tf.Tensor:
    """The values, if `good`, bool (batch,), is true for each row."""
    text = f"{name} must {rule}. Received: {found}, in row "
    with tf.control_dependencies([demand(tf.reduce_all(good, axis=0), lambda: tf.strings.join([text, first(good)]))]):
        return tf.identity(values)


def first(good: tf.Tensor) -> tf.Tensor:
    """The number of the first row that is not good, as a string."""
    return tf.strings.as_string(tf.argmin(tf.cast(good, tf.int32), axis=0))


def one_present(image_bytes: tf.Tensor, audio_bytes: tf.Tensor) -> tf.Tensor:
    """Which modalities a row of files holds, bool (batch, 2); the request fails where one holds none."""
    present = tf.stack([tf.not_equal(image_bytes, ""), tf.not_equal(audio_bytes, "")], axis=1)
    text = "image_bytes or audio_bytes must hold a file. Received: two empty strings, in row "
    good = tf.reduce_any(present, axis=1)
    with tf.control_dependencies([demand(tf.reduce_all(good, axis=0), lambda: tf.strings.join([text, first(good)]))]):
        return tf.identity(present)


def readable(name: str, values: tf.Tensor, reason: tf.Tensor) -> tf.Tensor:
    """What was read from files, if none has a reason, string (batch,), why it could not be read."""
    good = tf.equal(reason, "")
    why = tf.gather(reason, tf.argmin(tf.cast(good, tf.int32), axis=0))
    # Anything but ASCII comes out of TensorFlow as numbers.
    text = [f"{name}, row ", first(good), ": ", tf.strings.regex_replace(why, "×", "x")]
    with tf.control_dependencies([demand(tf.reduce_all(good, axis=0), lambda: tf.strings.join(text))]):
        return tf.identity(values)
