"""The robustness grid: how accuracy and calibration fall as one modality, or two, are corrupted."""

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kfusion.evaluation.inference import EvaluationSet, draw
from kfusion.metrics.classification import bin_sums, confidence_of, temper
from kfusion.metrics.robustness import CLEAN, Cell, Variant, cell_of, grid_summary
from kfusion.modalities import each_of, kinds, modality
from kfusion.modalities.base import SEVERITIES, Corruption, corrupt
from kfusion.model.build import Halves
from kfusion.random_streams import Stream
from kfusion.spec import FUSED, Spec

CHUNK_ROWS = 512
NUM_OTHERS = 64
"""Samples whose rows a corruption may mix in, such as the voices of babble."""
Variants = dict[Variant, np.ndarray]
"""Embeddings by corruption and severity; (CLEAN, 0) is the sample as it is."""


def purposes() -> dict[tuple[str, str], int]:
    """The random numbers' purpose of each corruption, by kind and name: in the order of the registry."""
    every = [(kind, name) for kind in kinds() for name in modality(kind).all_corruptions()]
    return {each: Stream.CORRUPTIONS.number + at for at, each in enumerate(every)}


def corruptions_of(samples: EvaluationSet) -> dict[str, dict[str, Corruption]]:
    """For each modality the corruptions that make sense for it."""
    return {name: kind.corruptions(shape, samples.front_end) for name, kind, shape in each_of(samples.pairs.spec)}


def robustness(
    samples: EvaluationSet,
    halves: Halves,
    temperature: dict[str, float],
    std: Mapping[str, NDArray],
    positions: np.ndarray,
    seed: int,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Asks the network about every corruption alone, and about every two of two modalities at the same severity.

    Each corrupted sample is encoded once, then the head is asked about the combinations.

    Args:
        samples: the evaluation set.
        halves: of the network.
        temperature: {view: T}, with which the confidence is read.
        std: of each value over the training part, (num_values,), for each standardised modality.
        positions: int (n,), the rows to use.
        seed: with a sample's place, decides all that is random.
        advance: is given the number of samples that have been encoded, see `num_encodings`.

    Returns:
        the content of robustness.json, see `metrics.robustness.grid_summary`.
    """
    spec, chosen = samples.pairs.spec, corruptions_of(samples)
    places = np.linspace(0, len(samples.others) - 1, min(NUM_OTHERS, len(samples.others))).astype(np.int64)
    others, sums = samples.read(samples.others, places), dict[Cell, np.ndarray]()
    more = {name: kind.surroundings(std.get(name), others[name], shape) for name, kind, shape in each_of(spec)}
    for start in range(0, len(positions), CHUNK_ROWS):
        rows = positions[start : start + CHUNK_ROWS]
        values, variants = samples.read(samples.pairs, rows), dict[str, Variants]()
        for name in spec.names:
            corrupted = _corrupted(values[name], name, samples, rows, seed, chosen[name], more[name])
            variants[name] = {}
            for key, changed in corrupted:
                variants[name][key] = halves.encode(name, changed)
                advance(len(rows))
        for cell, probabilities in _predictions(halves, variants, spec):
            tempered = temper(probabilities, temperature[cell[0]])
            sums[cell] = sums.get(cell, 0) + bin_sums(*confidence_of(tempered, samples.pairs.label[rows]))
    return grid_summary(sums, chosen, len(positions))


def num_encodings(samples: EvaluationSet, num_rows: int) -> int:
    """Samples of single modalities that the grid encodes.

    Args:
        samples: the evaluation set.
        num_rows: rows of the grid.
    """
    return num_rows * sum(1 + len(SEVERITIES) * len(some) for some in corruptions_of(samples).values())


def _corrupted(
    values: NDArray,
    name: str,
    samples: EvaluationSet,
    rows: np.ndarray,
    seed: int,
    corruptions: Mapping[str, Corruption],
    more: tuple[Any, ...],
) -> Iterator[tuple[Variant, np.ndarray]]:
    """Some samples, as they are and after each corruption at each severity, on the network's scale."""
    shape, scale, purpose = samples.pairs.spec[name], np.float32(samples.trained[name].scale), purposes()
    grids = (values / scale).reshape(-1, *shape.grid)
    yield (CLEAN, 0), (grids * scale).reshape(-1, *shape.shape)
    for title, corruption in corruptions.items():
        draws = draw(seed, rows, purpose[shape.kind, title], corruption.num_draws(shape.grid))
        for severity in SEVERITIES:
            changed = corrupt(corruption, grids, severity, draws, more)
            yield (title, severity), (changed * scale).reshape(-1, *shape.shape)


def _predictions(halves: Halves, variants: dict[str, Variants], spec: Spec) -> Iterator[tuple[Cell, np.ndarray]]:
    """Each cell of the grid, once, with its class probabilities, (n, num_classes)."""
    clean, done = {name: some[CLEAN, 0] for name, some in variants.items()}, set[Cell]()
    for name, some in variants.items():
        # The fused answer to a single modality is that to it alone.
        for view in (name,) if len(variants) > 1 else (name, FUSED):
            for key, embedding in some.items():
                answer = halves.answer({**clean, name: embedding}, spec.views[view])
                yield cell_of(view, variants, {name: key}), answer
    for first, second in combinations(variants, 2):
        for one, embedding in variants[first].items():
            meets = [key for key in variants[second] if CLEAN in (key[0], one[0]) or key[1] == one[1]]
            cells = [cell_of(FUSED, variants, {first: one, second: key}) for key in meets]
            # One call for all variants that this one meets: the head works best on many rows.
            tiled = {name: np.tile(each, (len(meets), 1)) for name, each in {**clean, first: embedding}.items()}
            tiled[second] = np.concatenate([variants[second][key] for key in meets])
            answers = np.split(halves.answer(tiled, spec.views[FUSED]), len(meets))
            yield from ((cell, each) for cell, each in zip(cells, answers, strict=True) if cell not in done)
            done.update(cells)
