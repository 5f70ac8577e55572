"""All that is said of one embedding, and of the image's against the sound's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kfusion.analysis import projections, separation

NUM_SEEDS = 10
"""KMeans of this many seeds: their scatter is what the choice of the seed is worth."""


@dataclass(frozen=True, eq=False)
class Embedded:
    """The forward pass's embeddings.

    Args:
        test: {name: float32 (n, num_features)}, of the test part.
        label: int64 (n,).
        content: {name: int64 (n,)}, which rows are embeddings of the same.
        fit: {name: float32 (m, num_features)}, of the training part.
        fit_label: int64 (m,).
        fit_content: {name: int64 (m,)}, as `content`.
    """

    test: dict[str, np.ndarray]
    label: np.ndarray
    content: dict[str, np.ndarray]
    fit: dict[str, np.ndarray]
    fit_label: np.ndarray
    fit_content: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Found:
    """What was found in one embedding.

    Args:
        numbers: for embeddings.json.
        points: {projection: float32 (n, 2)}.
        cluster: int64 (n,), of the first seed, numbered by the classes that they fit best.
        clusters: int64 (NUM_SEEDS, n), of all seeds.
    """

    numbers: dict[str, Any]
    points: dict[str, np.ndarray]
    cluster: np.ndarray
    clusters: np.ndarray


def describe(
    embedded: Embedded, name: str, *, num_classes: int, seed: int, umap: bool, advance: Callable[[int], None]
) -> Found:
    """Projects, clusters and probes one embedding.

    Args:
        embedded: all of them.
        name: which.
        num_classes: clusters to look for.
        seed: of the projections and the first clustering; the others' follow it.
        umap: whether UMAP is drawn too.
        advance: told of each of three steps (four with UMAP).
    """
    values, label = embedded.test[name], embedded.label
    pca, shares = projections.pca(values, seed)
    points = {"pca": pca, "tsne": projections.tsne(values, seed)}
    advance(1)
    if umap:
        points["umap"] = projections.umap(values, seed)
        advance(1)
    found = [separation.clusters(values, num_classes, seed + at) for at in range(NUM_SEEDS)]
    scores = [separation.cluster_scores(values, label, cluster) for cluster in found]
    advance(1)
    numbers = {
        "num_features": values.shape[1],
        "num_different": len(np.unique(embedded.content[name])),
        "pca_variance": shares,
        "kmeans": {score: _spread([each[score] for each in scores]) for score in separation.SCORES},
        "class_silhouette": separation.silhouette(values, label),
        "probes": separation.probes(embedded.fit[name], embedded.fit_label, embedded.fit_content[name], values, label),
    }
    advance(1)
    return Found(numbers, points, separation.matched(found[0], label, num_classes), np.stack(found))


def image_against_audio(label: np.ndarray, sound: np.ndarray, about: Mapping[str, Found], seed: int) -> dict[str, Any]:
    """The paper's claim that images separate better, put to the test on the same rows.

    Args:
        label: int64 (n,).
        sound: int64 (n,), which rows share a sound.
        about: what was found in each embedding.
        seed: decides the resamples.
    """
    found = separation.ari_difference(label, about["image"].clusters, about["audio"].clusters, sound, seed)
    return {"score": "ari", **found}


def _spread(values: list[float]) -> dict[str, float]:
    """Mean and standard deviation over the seeds."""
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1))}
