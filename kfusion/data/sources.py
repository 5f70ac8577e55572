"""Where data come from: `load(config)` gives a `Source`, whatever the layout.

A new kind of data is a function here that returns a `Source`.
"""

from dataclasses import replace

import numpy as np

from kfusion.config import DataConfig
from kfusion.data.builtin import load_builtin
from kfusion.data.folder import load_folder
from kfusion.data.limit import first_of_each_class
from kfusion.data.pairs import Source


def load(config: DataConfig) -> Source:
    """Reads and checks the data that the config names.

    Args:
        config: `data`, `test_labels` and `limit` are used.

    Returns:
        All labelled images and sounds, checked; files of a folder stay on disk.

    Raises:
        ValueError: one line that names the file, the rule, and what was found.
    """
    if config.data != "builtin":
        return load_folder(config.data, config.test_labels, config.limit)
    if config.test_labels:
        raise ValueError(f"'test_labels' must be empty with the built-in data. Received: {config.test_labels!r}")
    return _limited(load_builtin(), config.limit)


def _limited(source: Source, limit: int) -> Source:
    """A source that is not aligned, with at most `limit` images and `limit` sounds."""
    images = first_of_each_class(source.image_label, limit)
    sounds = first_of_each_class(source.audio_label, limit)
    speaker: np.ndarray | None = None if source.audio_speaker is None else source.audio_speaker[sounds]
    return replace(
        source,
        image_row=source.image_row[images],
        image_label=source.image_label[images],
        image_group=source.image_group[images],
        audio_row=source.audio_row[sounds],
        audio_label=source.audio_label[sounds],
        audio_group=source.audio_group[sounds],
        audio_speaker=speaker,
    )
