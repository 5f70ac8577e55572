"""The robustness grid: how accuracy and calibration fall as image, sound, or both are corrupted."""

from collections.abc import Callable
from typing import Any

import numpy as np

from kfusion.evaluation.inference import CONFLICT, Subject, draw
from kfusion.metrics.classification import bin_sums, confidence_of, temper
from kfusion.metrics.robustness import CLEAN, Cell, grid_summary
from kfusion.modalities.audio.corruption import AUDIO_CORRUPTIONS, Surroundings, fitting
from kfusion.modalities.image.corruption import IMAGE_CORRUPTIONS, SEVERITIES, Corruption, corrupt
from kfusion.model.build import Halves
from kfusion.spec import FUSED, VIEWS

CHUNK_ROWS = 512
NUM_OTHERS = 64
"""Sounds that the babble is mixed from."""
_PURPOSE = {name: CONFLICT + 1 + at for at, name in enumerate([*IMAGE_CORRUPTIONS, *AUDIO_CORRUPTIONS])}
Variants = dict[tuple[str, int], np.ndarray]
"""Embeddings by corruption and severity; (CLEAN, 0) is the sample as it is."""


def robustness(
    subject: Subject,
    halves: Halves,
    temperature: dict[str, float],
    audio_std: np.ndarray,
    positions: np.ndarray,
    seed: int,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Asks the network about every corruption alone, and about every two of them at the same severity.

    Each corrupted image and sound is encoded once, then the head is asked about the combinations.

    Args:
        subject: whose pairs.
        halves: of the network.
        temperature: {view: T}, with which the confidence is read.
        audio_std: of each audio feature over the training part, (num_audio,).
        positions: int (n,), the rows to use.
        seed: with a sample's place, decides all that is random.
        advance: told how many images and sounds have been encoded, see `num_encodings`.

    Returns:
        the content of robustness.json, see `metrics.robustness.grid_summary`.
    """
    spec = subject.pairs.spec
    sounds = fitting(spec.audio_grid, subject.decibels)
    others = np.linspace(0, len(subject.others) - 1, min(NUM_OTHERS, len(subject.others))).astype(np.int64)
    babble = subject.read(subject.others, others)[1].reshape(-1, *spec.audio_grid)
    around = Surroundings(audio_std.reshape(spec.audio_grid).astype(np.float32), babble)
    scale = np.float32(subject.pixel_max)
    sums: dict[Cell, np.ndarray] = {}

    def encode_images(images: np.ndarray) -> np.ndarray:
        return halves.encode("image", images * scale)

    def encode_sounds(grids: np.ndarray) -> np.ndarray:
        return halves.encode("audio", grids.reshape(-1, spec.num_audio))

    for start in range(0, len(positions), CHUNK_ROWS):
        rows = positions[start : start + CHUNK_ROWS]
        image, audio = subject.read(subject.pairs, rows)
        grids = audio.reshape(-1, *spec.audio_grid)
        images = _variants(image / scale, IMAGE_CORRUPTIONS, rows, seed, encode_images, advance)
        heard = _variants(grids, sounds, rows, seed, encode_sounds, advance, around)
        for cell, answer in _answers(halves, images, heard):
            tempered = temper(answer, temperature[cell[0]])
            found = bin_sums(*confidence_of(tempered, subject.pairs.label[rows]))
            sums[cell] = sums.get(cell, 0) + found
    return grid_summary(sums, IMAGE_CORRUPTIONS, sounds, len(positions))


def num_encodings(subject: Subject, num_rows: int) -> int:
    """Images and sounds that the grid encodes for so many rows."""
    sounds = fitting(subject.pairs.spec.audio_grid, subject.decibels)
    return num_rows * (2 + len(SEVERITIES) * (len(IMAGE_CORRUPTIONS) + len(sounds)))


def _variants(
    samples: np.ndarray,
    corruptions: dict[str, Corruption],
    rows: np.ndarray,
    seed: int,
    encode: Callable[[np.ndarray], np.ndarray],
    advance: Callable[[int], None],
    *more: Any,
) -> Variants:
    """The embeddings of some samples, as they are and after each corruption at each severity."""
    found: Variants = {(CLEAN, 0): encode(samples)}
    advance(len(rows))
    for name, corruption in corruptions.items():
        draws = draw(seed, rows, _PURPOSE[name], corruption.num_draws(samples.shape[1:]))
        for severity in SEVERITIES:
            found[name, severity] = encode(corrupt(corruption, samples, severity, draws, *more))
            advance(len(rows))
    return found


def _answers(halves: Halves, images: Variants, sounds: Variants) -> Any:
    """Each cell of the grid with its class probabilities, (n, num_classes)."""
    clean_image, clean_sound = images[CLEAN, 0], sounds[CLEAN, 0]
    for key, embedding in images.items():
        yield ("image", *key, CLEAN, 0), halves.answer(embedding, clean_sound, VIEWS["image"])
    for key, embedding in sounds.items():
        yield ("audio", CLEAN, 0, *key), halves.answer(clean_image, embedding, VIEWS["audio"])
    for (image, severity), embedding in images.items():
        partners = [key for key in sounds if key[0] == CLEAN or image == CLEAN or key[1] == severity]
        # One call for all sounds that this image meets: the head works best on many rows.
        heard = np.concatenate([sounds[key] for key in partners])
        answers = halves.answer(np.tile(embedding, (len(partners), 1)), heard, VIEWS[FUSED])
        for key, answer in zip(partners, np.split(answers, len(partners)), strict=True):
            yield (FUSED, image, severity, *key), answer
