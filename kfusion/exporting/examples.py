"""Test pairs that travel with a model, one of each class: `assets.extra/examples.json`, which the page shows.

They come from data whose licence is known only: other people's pictures and voices are not passed on unasked.
"""

import base64
import json
from pathlib import Path

import numpy as np

from kfusion.data.pairs import Pairs
from kfusion.exporting.files import picture_file
from kfusion.run import Run
from kfusion.system.files import write_text

FILE = "assets.extra/examples.json"
MAX_CLASSES = 20


def write_examples(folder: Path, run: Run, pairs: Pairs) -> None:
    """Writes the first test pair of each class into a SavedModel's folder, where the data's licence is known.

        {"licence": "…", "examples": [{"class_name": "0", "image": base64 of a PNG file, "audio": [features]}, …]}

    Args:
        folder: a SavedModel.
        run: what it was made from.
        pairs: its test part.
    """
    spec, licence = pairs.spec, run.data()["source"].get("licence")
    if not licence or spec.image_shape[2] not in (1, 3):
        return
    labels, rows = np.unique(pairs.label, return_index=True)
    labels, rows = labels[:MAX_CLASSES], rows[:MAX_CLASSES]
    examples = [
        {
            "class_name": spec.class_names[label],
            "image": base64.b64encode(picture_file(pixels, spec)).decode("ascii"),
            "audio": [round(value, 3) for value in audio.tolist()],
        }
        for label, pixels, audio in zip(labels, *pairs.read(rows), strict=True)
    ]
    text = json.dumps({"licence": licence, "examples": examples}, ensure_ascii=False)
    write_text(folder / FILE, f"{text}\n")
