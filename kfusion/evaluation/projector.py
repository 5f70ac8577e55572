"""The files from which TensorBoard's projector shows embeddings: `tensorboard --logdir RUN/embeddings/projector`."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from numpy.typing import NDArray
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from kfusion.system.files import write_atomically, write_text

CONFIG = "projector_config.pbtxt"
METADATA = "metadata.tsv"
SPRITE = "sprite.png"
MAX_SPRITE_PIXELS = 8192
"""Side of the largest picture that the projector takes."""


def write_projector(
    folder: Path, embeddings: Mapping[str, NDArray], columns: Mapping[str, Sequence[object]], images: NDArray
) -> None:
    """Writes a table of numbers per embedding, one of names, one picture with all images, and the config, last.

    Args:
        folder: is made where it is missing.
        embeddings: {name: (n, num_features)}.
        columns: {head: n values}, two columns at least; the first names a point.
        images: (n, height, width, channels), in [0, 1].
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = zip(*columns.values(), strict=True)
    lines = ["\t".join(columns), *("\t".join(_cell(value) for value in row) for row in rows)]
    write_text(folder / METADATA, "\n".join(lines) + "\n")
    picture, size = sprite(images)
    encoded = tf.io.encode_png(picture).numpy()
    write_atomically(folder / SPRITE, lambda path: path.write_bytes(encoded))
    config = ProjectorConfig()
    for name, values in embeddings.items():
        text = io.StringIO()
        np.savetxt(text, values, fmt="%.6g", delimiter="\t")
        write_text(folder / f"{name}_tensors.tsv", text.getvalue())
        entry = config.embeddings.add(
            tensor_name=name,
            tensor_shape=values.shape,
            tensor_path=f"{name}_tensors.tsv",
            metadata_path=METADATA,
        )
        entry.sprite.image_path = SPRITE
        entry.sprite.single_image_dim.extend(size)
    write_text(folder / CONFIG, text_format.MessageToString(config))


def sprite(images: NDArray) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """All images in one square, row by row, made smaller where the projector could not take it.

    Returns:
        the picture, uint8 (side, side, 3), and the width and height of one image in it, in pixels.
    """
    per_side = math.ceil(math.sqrt(len(images)))
    height, width, channels = images.shape[1:]
    shrink = min(1.0, MAX_SPRITE_PIXELS // per_side / max(height, width))
    if shrink < 1:
        height, width = max(1, int(height * shrink)), max(1, int(width * shrink))
        images = tf.image.resize(images, (height, width), antialias=True).numpy()
    grey = images if channels == 3 else images.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    cells = np.zeros((per_side**2, height, width, 3), np.uint8)
    cells[: len(images)] = np.clip(np.round(grey * 255), 0, 255)
    grid = cells.reshape(per_side, per_side, height, width, 3).swapaxes(1, 2)
    return grid.reshape(per_side * height, per_side * width, 3), (width, height)


def _cell(value: object) -> str:
    """A value on one line in one cell."""
    return " ".join(str(value).split())
