"""The files of an embedding: arrays, pictures, TensorBoard's projector, and, last, the numbers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from kfusion.analysis.cluster_figures import cluster_figure
from kfusion.analysis.embedding_tables import TITLES
from kfusion.analysis.figures import save
from kfusion.data.pairs import Pairs
from kfusion.evaluation.projector import write_projector
from kfusion.evaluation.separate import Found
from kfusion.system.files import write_atomically, write_json
from kfusion.system.progress import progress

NUMBERS = "embeddings.json"
AXES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}


def write(
    folder: Path,
    facts: dict[str, Any],
    embedded: Mapping[str, np.ndarray],
    test: Pairs,
    positions: np.ndarray,
    about: Mapping[str, Found],
    console: Console | None,
) -> None:
    """Writes everything; the numbers are taken away first and written last, so that they never belong to other arrays.

    Args:
        folder: is made where it is missing.
        facts: the content of embeddings.json, which gets the figures' names.
        embedded: {name: (n, num_features)}.
        test: the n pairs.
        positions: int64 (n,), their places in the test part.
        about: what was found in each embedding.
        console: where progress is shown.
    """
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    (folder / NUMBERS).unlink(missing_ok=True)
    rows = np.stack([positions, test.image_row, test.audio_row], axis=1).astype(np.int64)
    for name, values in {**embedded, "rows": rows, "labels": test.label}.items():
        write_atomically(folder / f"{name}.npy", lambda path, values=values: np.save(path, values, allow_pickle=False))
    drawn = {f"{name}_{kind}": points for name, found in about.items() for kind, points in found.points.items()}
    drawn |= {f"{name}_cluster": found.cluster for name, found in about.items()}
    write_atomically(folder / "projections.npz", lambda path: np.savez(path, allow_pickle=False, **drawn))
    with progress(console, "figures, projector", 1 + sum(len(found.points) for found in about.values())) as advance:
        facts["figures"] = []
        for name, found in about.items():
            for kind, points in found.points.items():
                title = f"{TITLES[name]} embedding, {len(points):,} test pairs"
                figure = cluster_figure(points, found.cluster, test.label, test.spec.class_names, title, AXES[kind])
                save(figure, folder / "figures", f"{name}_{kind}")
                facts["figures"].append(f"{name}_{kind}")
                advance(1)
        names = [test.spec.class_names[label] for label in test.label]
        columns = {"class": names, "row": rows[:, 0], "image_row": rows[:, 1], "audio_row": rows[:, 2]}
        for name, found in about.items():
            columns[f"{name}_cluster"] = [test.spec.class_names[cluster] for cluster in found.cluster]
        images = test.read(np.arange(len(test)))[0] / test.spec.pixel_max
        write_projector(folder / "projector", embedded, columns, images)
        advance(1)
    write_json(folder / NUMBERS, facts)
