"""What turns files into what a run's network takes, where that is known."""

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf

from kfusion.data.pictures import read_images
from kfusion.data.sounds import can_read_sounds, read_sounds
from kfusion.run import Run

Reader = Callable[[Any], tuple[tf.Tensor, tf.Tensor]]
"""Contents of files, string (batch,) -> what the network takes, and why each could not be read, "" where it could."""


def front_end_of(run: Run) -> tuple[dict[str, Reader], str]:
    """What reads files for a run's network, for each modality; or nothing, and why.

    Returns:
        readers, and a reason that is empty where there are some.
    """
    spec, front_end = run.spec(), run.data()["source"]["front_end"]
    channels = spec.image_shape[2]
    if front_end is None:
        return {}, "how sounds became this data's features is not known"
    if not can_read_sounds(front_end, spec):
        return {}, f"sound files cannot be turned into features of the front end {front_end!r}"
    if channels not in (1, 3):
        return {}, f"picture files have 1 or 3 channels, this data's images {channels}"
    readers = {"image": read_images, "audio": read_sounds}
    return {name: _traced_once(partial(read, spec=spec)) for name, read in readers.items()}, ""


def _traced_once(read: Reader) -> Reader:
    """A reader as one function of the graph, which every endpoint calls: tracing it takes most of an export's time."""
    return tf.function(read, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
