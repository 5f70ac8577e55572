"""embeddings.json to a table for the terminal, within 80 columns, and to a verdict in words."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from kfusion.analysis.tables import new_table

TITLES = {"image": "image", "audio": "audio", "fused": "fused"}
HEADS = {"ari": "ARI", "nmi": "NMI", "purity": "purity", "silhouette": "silh."}
"""Of the clusters, mean over the seeds of KMeans."""


def separation_table(facts: Mapping[str, Any]) -> Table:
    """A row per embedding: how its clusters agree with the classes, and what probes read off it."""
    table = new_table("embedding", (*HEADS.values(), "by class", "linear", "k-NN"))
    table.title = f"how well {facts['num_rows']:,} test pairs separate"
    for name, title in TITLES.items():
        numbers = facts["embeddings"][name]
        scores = [numbers["kmeans"][score]["mean"] for score in HEADS]
        probes = numbers["probes"]
        cells = [*scores, numbers["class_silhouette"], probes["linear"], probes["knn"]]
        table.add_row(title, *(f"{value:.4f}" for value in cells))
    spread = max(facts["embeddings"][name]["kmeans"]["ari"]["std"] for name in TITLES)
    table.caption = f"ARI of other KMeans seeds: ± {spread:.4f} at most. silh.: silhouette of clusters, and by class"
    table.caption_justify = "left"
    return table


def verdict(facts: Mapping[str, Any]) -> str:
    """Whether the paper's claim holds for this run, in a sentence with its figures."""
    test, spread = facts["image_against_audio"], facts["embeddings"]
    low, high = test["interval"]
    image, audio = (spread[name]["kmeans"]["ari"] for name in ("image", "audio"))
    if low > 0:
        said = "Images separate better than sounds, as the paper says"
    elif high < 0:
        said = "Sounds separate better than images, against what the paper says"
    else:
        said = "Images and sounds cannot be told apart in how well they separate"
    return (
        f"{said}: adjusted Rand index {image['mean']:.3f} ± {image['std']:.3f} against {audio['mean']:.3f} ± "
        f"{audio['std']:.3f} over ten seeds of KMeans; difference {test['difference']:+.3f}, 95 % interval {low:+.3f} "
        f"to {high:+.3f} (resampled by sound)."
    )
