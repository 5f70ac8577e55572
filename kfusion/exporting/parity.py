"""The proof of a file for another runtime: it answers as the network does, or classifies as well."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import keras
import numpy as np

from kfusion.data.pairs import Pairs
from kfusion.exporting.portable import OUTPUTS, open_portable
from kfusion.exporting.requests import Arrays, Expected
from kfusion.exporting.verify import BATCHES, TOLERANCE, Check, distance
from kfusion.spec import FUSED, VIEWS
from kfusion.system.terminal import quiet

PARTS = {"probabilities": tuple(name for name in OUTPUTS if name != "embedding"), "embedding": ("embedding",)}
EMBEDDING_TOLERANCE = 1e-4
"""Of an embedding, in which the runtimes' roundings have not gone through a softmax yet, as a share of its scale."""
MAX_DROP, MAX_ROWS = 0.005, 2
"""An 8-bit file may lose this share of its accuracy, or this many rows where that is more, in each view."""
BATCH_SIZE = 250


def same_answers(path: Path, network: keras.Model, pairs: Pairs, temperature: Mapping[str, float]) -> list[Check]:
    """Whether a file gives the network's answers to real pairs, one check for each of the `VIEWS`.

    An absent modality is given as NaN, which must have no influence.

    Args:
        path: the file.
        network: what it was made from, asked through Keras.
        pairs: as many as the largest of the `BATCHES` are used.
        temperature: as for `frozen.freeze`.
    """
    with quiet():
        model = open_portable(path)
    rows = np.arange(max(BATCHES)) % len(pairs)
    pixels, audio = pairs.read(rows)
    expected = Expected(network, pairs.spec.class_names, temperature)
    image = pixels / np.float32(pairs.spec.pixel_max)
    checks = []
    for view, there in VIEWS.items():
        present = np.tile([there], (len(rows), 1))
        known = expected.answer(pixels, audio, present)
        # Embeddings of another scale than a probability's, as late fusion's, are compared by their scale.
        scale = max(1.0, float(np.abs(known["embedding"]).max()))
        given = [
            values if is_there else np.full_like(values, np.nan)
            for values, is_there in zip((image, audio), there, strict=True)
        ]
        off = dict.fromkeys(PARTS, 0.0)
        for size in BATCHES:
            answer = model.ask(given[0][:size], given[1][:size], present[:size])
            for part, names in PARTS.items():
                off[part] = max(off[part], distance(_only(answer, names), _only(known, names, size)))
        found = ", ".join(f"{part} ± {value:.1e}" for part, value in off.items())
        passed = off["probabilities"] <= TOLERANCE and off["embedding"] <= EMBEDDING_TOLERANCE * scale
        checks.append(Check(_title(view), passed, found))
    return checks


def _only(answer: Arrays, names: tuple[str, ...], size: int | None = None) -> Arrays:
    return {name: answer[name][:size] for name in names}


def same_accuracy(path: Path, exact: Path, pairs: Pairs) -> list[Check]:
    """Whether a file classifies as well as an exact one, in each of the `VIEWS`.

    Args:
        path: the file, of 8-bit integers.
        exact: of the same network, in float32.
        pairs: labelled; all are used.
    """
    right, wanted = _num_right(path, pairs), _num_right(exact, pairs)
    allowed = max(MAX_ROWS, int(MAX_DROP * len(pairs)))
    checks = []
    for view in VIEWS:
        share = {"int8": right[view] / len(pairs), "float32": wanted[view] / len(pairs)}
        drop = 100 * (share["float32"] - share["int8"])
        found = f"accuracy {share['int8']:.4f}, drop {drop:.2f} points, {len(pairs)} rows"
        checks.append(Check(f"int8, {_title(view)}", wanted[view] - right[view] <= allowed, found))
    return checks


def _title(view: str) -> str:
    return "both" if view == FUSED else f"{view} alone"


def _num_right(path: Path, pairs: Pairs) -> dict[str, int]:
    """How many pairs a file gets right, for each of the `VIEWS`."""
    right = dict.fromkeys(VIEWS, 0)
    for label, answer in _answers(path, pairs):
        said = {FUSED: answer["label"]}
        said |= {view: answer[f"{view}_probabilities"].argmax(axis=1) for view in VIEWS if view != FUSED}
        for view, classes in said.items():
            right[view] += int((classes == label).sum())
    return right


def _answers(path: Path, pairs: Pairs) -> Iterator[tuple[np.ndarray, Arrays]]:
    with quiet():
        model = open_portable(path)
    for start in range(0, len(pairs), BATCH_SIZE):
        rows = np.arange(start, min(start + BATCH_SIZE, len(pairs)))
        pixels, audio = pairs.read(rows)
        image = pixels / np.float32(pairs.spec.pixel_max)
        yield pairs.label[rows], model.ask(image, audio, np.ones((len(rows), 2), bool))
