"""Where data come from: `load(config)` gives a `Source`, whatever the layout.

A new kind of data is a function here that returns a `Source`.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from kfusion.config import DataConfig
from kfusion.data.builtin import load_builtin
from kfusion.data.checks import list_folder
from kfusion.data.folder import load_folder
from kfusion.data.layouts import has_layout
from kfusion.data.limit import first_of_each_class
from kfusion.data.media_files import is_media_folder
from kfusion.data.pairs import Source
from kfusion.rules import UserError


def load(config: DataConfig, console: Console | None = None) -> Source:
    """Reads and checks the data that the config names.

    Args:
        config: `data`, `test_labels`, `image_shape` and `limit` are used.
        console: where progress is shown where files must be decoded; None: nowhere.

    Returns:
        All labelled images and sounds, checked; files of a folder stay on disk.

    Raises:
        UserError: one line that names the file, the rule, and what was found.
    """
    if is_media(config.data):
        if config.test_labels:
            raise UserError(f"'test_labels' must be empty with picture files. Received: {config.test_labels!r}")
        # TensorFlow's graph for reading files is of no use to any other data.
        from kfusion.data.media import load_media

        return load_media(config, console)
    if config.image_shape != DataConfig.image_shape:
        raise UserError(
            f"'image_shape' must be left out unless the data are picture files. Received: {config.image_shape}"
        )
    if config.data != "builtin":
        return load_folder(config.data, config.test_labels, config.limit)
    if config.test_labels:
        raise UserError(f"'test_labels' must be empty with the built-in data. Received: {config.test_labels!r}")
    return _limited(load_builtin(), config.limit)


def is_media(data: str) -> bool:
    """Whether these are picture and sound files, or a manifest of them."""
    where = Path(data)
    if data == "builtin" or not where.is_dir():
        return data != "builtin" and where.is_file()
    names = list_folder(where)
    return not has_layout(names) and is_media_folder(names, where)


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
