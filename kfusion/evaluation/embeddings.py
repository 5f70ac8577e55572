"""Embed a finished run's test part: the steps of `python -m kfusion.embed`, for the command and for programs.

One forward pass gives each modality's embedding and the fused one. Each is projected, clustered and probed, and written
as arrays, figures, the files of TensorBoard's projector (`tensorboard --logdir RUN/embeddings/projector`) and, last,
numbers.
"""

import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from numpy.typing import NDArray
from rich.console import Console
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from kfusion import run_dir
from kfusion.data.array_files import first_of_each_class
from kfusion.data.dataset import Pairs, Source
from kfusion.data.pipeline import evaluation_batches, readers_errors
from kfusion.data.splits import Split
from kfusion.evaluation.inference import whole_rows
from kfusion.inference import load_fitting
from kfusion.io import file_hash, progress, write_atomically, write_json, write_text
from kfusion.metrics import clustering
from kfusion.modalities import modality
from kfusion.modalities.front_ends import note_on
from kfusion.model.build import embedding_layers, with_embeddings
from kfusion.plots.evaluation import cluster_figure
from kfusion.plots.tables import Words, separation_table, verdict
from kfusion.plots.training import save
from kfusion.prepared_data import load_own
from kfusion.run_dir import Run, open_finished
from kfusion.spec import FUSED
from kfusion.validation import UserError, require

CONFIG = "projector_config.pbtxt"
METADATA = "metadata.tsv"
SPRITE = "sprite.png"
MAX_SPRITE_PIXELS = 8192
"""Side of the largest picture that the projector takes."""
NUM_SEEDS = 10
"""KMeans of this many seeds: their scatter is what the choice of the seed is worth."""
NUMBERS = "embeddings.json"
AXES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
BATCH_ROWS = 256
MAX_FIT_ROWS = 10_000
"""Training samples at most that the probes are fitted on."""
FORMAT = 1
"""Of embeddings.json."""


def write_projector(
    folder: Path, embeddings: Mapping[str, NDArray], columns: Mapping[str, Sequence[object]], images: NDArray
) -> None:
    """Writes a table of numbers per embedding, one of names, one picture of all samples, and the config, last.

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


@dataclass(frozen=True, eq=False)
class Embeddings:
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
class Description:
    """One embedding, described.

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


def _describe(
    embedded: Embeddings, name: str, *, num_classes: int, seed: int, umap: bool, advance: Callable[[int], None]
) -> Description:
    """Projects, clusters and probes one embedding."""
    values, label = embedded.test[name], embedded.label
    pca, shares = clustering.pca(values, seed)
    points = {"pca": pca, "tsne": clustering.tsne(values, seed)}
    advance(1)
    if umap:
        points["umap"] = clustering.umap(values, seed)
        advance(1)
    clusters = [clustering.clusters(values, num_classes, seed + at) for at in range(NUM_SEEDS)]
    scores = [clustering.cluster_scores(values, label, cluster) for cluster in clusters]
    advance(1)
    numbers = {
        "num_features": values.shape[1],
        "num_different": len(np.unique(embedded.content[name])),
        "pca_variance": shares,
        "kmeans": {score: _spread([each[score] for each in scores]) for score in clustering.SCORES},
        "class_silhouette": clustering.silhouette(values, label),
        "probes": clustering.probes(embedded.fit[name], embedded.fit_label, embedded.fit_content[name], values, label),
    }
    advance(1)
    return Description(numbers, points, clustering.matched(clusters[0], label, num_classes), np.stack(clusters))


def _against_each_other(
    label: np.ndarray, group: np.ndarray, described: Mapping[str, Description], seed: int
) -> dict[str, dict[str, Any]]:
    """The paper's claim that images separate better, put to the test for every two modalities on the same rows.

    Returns:
        {"<first>_against_<second>": `{"score", "difference", "interval"}`}.
    """
    names = [name for name in described if name != FUSED]
    return {
        f"{one}_against_{other}": {
            "score": "ari",
            **clustering.ari_difference(label, described[one].clusters, described[other].clusters, group, seed),
        }
        for one, other in combinations(names, 2)
    }


def _spread(values: list[float]) -> dict[str, float]:
    """Mean and standard deviation over the seeds."""
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1))}


def _write(
    folder: Path,
    facts: dict[str, Any],
    embedded: Mapping[str, np.ndarray],
    test: Pairs,
    positions: np.ndarray,
    described: Mapping[str, Description],
    console: Console | None,
) -> None:
    """Writes everything; the numbers are removed first and written last: they never belong to other arrays."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    (folder / NUMBERS).unlink(missing_ok=True)
    class_names, unit = test.spec.class_names, Words.of(test.spec).unit
    rows = np.stack([positions, *test.rows.values()], axis=1).astype(np.int64)
    for name, values in {**embedded, "rows": rows, "labels": test.label}.items():
        write_atomically(folder / f"{name}.npy", lambda path, values=values: np.save(path, values, allow_pickle=False))
    arrays = {f"{name}_{kind}": points for name, each in described.items() for kind, points in each.points.items()}
    clusters = {f"{name}_cluster": each.cluster for name, each in described.items()}
    write_atomically(folder / "projections.npz", lambda path: np.savez(path, allow_pickle=False, **arrays, **clusters))
    with progress(console, "figures, projector", 1 + len(arrays)) as advance:
        facts["figures"] = list(arrays)
        for name, each in described.items():
            for kind, points in each.points.items():
                title = f"{name} embedding, {len(points):,} test {unit}s"
                figure = cluster_figure(points, each.cluster, test.label, class_names, title, AXES[kind])
                save(figure, folder / "figures", f"{name}_{kind}")
                advance(1)
        columns: dict[str, Sequence[object]] = {"class": [class_names[label] for label in test.label]}
        heads = ("row", *(f"{name}_row" for name in test.rows))
        columns |= {head: rows[:, at].tolist() for at, head in enumerate(heads)}
        columns |= {name: [class_names[cluster] for cluster in each] for name, each in clusters.items()}
        write_projector(folder / "projector", embedded, columns, _images(test))
        advance(1)
    write_json(folder / NUMBERS, facts)


def _images(pairs: Pairs) -> np.ndarray:
    """The first modality of some samples as images, (n, height, width, channels) in [0, 1]."""
    name, shape = next(iter(pairs.spec.modalities.items()))
    pictures = modality(shape).pictures(pairs.read(np.arange(len(pairs)))[name], shape)
    low, high = pictures.show.get("vmin", 0), pictures.show.get("vmax", 1)
    images = np.clip((pictures.pixels - low) / (high - low), 0, 1)
    return images if images.ndim == 4 else images[..., None]


def embed(folder: Path, samples: int = 6000, seed: int = 0, umap: bool = False, console: Console | None = None) -> Path:
    """Embeds the test part of a run, says how well each embedding separates the classes, and writes both.

    Args:
        folder: a finished run.
        samples: test pairs at most, evenly over the classes; 0: all.
        seed: decides everything that is random.
        umap: draw UMAP's projection too.
        console: where progress and the table are shown; None: nowhere.

    Returns:
        the folder `embeddings/` in the run folder.

    Raises:
        UserError: the run is unfinished or damaged, its data are not those of the training, or UMAP is not installed;
            nothing is written then.
    """
    for name, value in (("samples", samples), ("seed", seed)):
        require(0 <= value < 2**31, name, "in [0, 2^31)", value)
    if umap:
        clustering.require_umap()
    run = open_finished(folder)
    run_dir.check_unlocked(folder)
    names = run.spec().names
    num_rows = len(run.split().get(f"test_{names[0]}", ()))
    _require_enough(run, min(samples or num_rows, num_rows))
    # The network before the data, which may take minutes to decode.
    model = with_embeddings(load_fitting(run))
    source, parts = load_own(run)
    if console and (note := note_on(run.data()["source"])):
        console.print(note, soft_wrap=True)
    # Embeddings are compared on samples that lack no modality.
    whole, fitted_on = whole_rows(parts.test), whole_rows(parts.train)
    positions = whole[_drawn(parts.test.label[whole], samples, seed)]
    test = parts.test.take(positions)
    fit = parts.train.take(fitted_on[_drawn(parts.train.label[fitted_on], MAX_FIT_ROWS, seed)])
    content = contents(source.official_test or source, test)
    with run_dir.lock(folder):
        (run.folder / "embeddings").mkdir(exist_ok=True)  # Fails now, not after minutes.
        run_dir.remove_partial(run.folder / "embeddings")
        with progress(console, "forward pass", len(test) + len(fit)) as advance:
            embedded, fitted = _embed(model, test, advance), _embed(model, fit, advance)
        everything = Embeddings(embedded, test.label, content, fitted, fit.label, contents(source, fit))
        described = _describe_all(everything, test.spec.num_classes, seed, umap, console)
        facts = {
            **{"format": FORMAT, "samples": samples, "umap": umap, "seed": seed},
            **_facts(run, parts, test, fit),
            "embeddings": {name: each.numbers for name, each in described.items()},
            **_against_each_other(test.label, content[names[-1]], described, seed),
        }
        words = Words.of(test.spec)
        facts["verdict"] = verdict(facts, words)
        _write(run.folder / "embeddings", facts, embedded, test, positions, described, console)
    if console:
        console.print(separation_table({run.folder.name: facts}, words), facts["verdict"], sep="\n")
    return run.folder / "embeddings"


def _facts(run: Run, parts: Split, test: Pairs, fit: Pairs) -> dict[str, Any]:
    """What was embedded, for embeddings.json."""
    return {
        "weights": file_hash(run.best),
        "num_rows": len(test),
        "num_test_rows": len(parts.test),
        "num_fit_rows": len(fit),
        "leaked_share": parts.audit.leaked_share_here,
        "class_names": list(test.spec.class_names),
        "layers": embedding_layers(test.spec.names),
    }


def _describe_all(
    embedded: Embeddings, num_classes: int, seed: int, umap: bool, console: Console | None
) -> dict[str, Description]:
    """Each embedding, described; several at a time, since each takes one core."""
    names = list(embedded.test)
    steps = 3 + umap
    with (
        progress(console, "PCA, t-SNE, clusters, probes", steps * len(names)) as advance,
        ThreadPoolExecutor(min(len(names), os.cpu_count() or 1)) as threads,
    ):
        work = partial(_describe, embedded, num_classes=num_classes, seed=seed, umap=umap, advance=advance)
        return dict(zip(names, threads.map(work, names), strict=True))


def _embed(model: keras.Model, pairs: Pairs, advance: Callable[[int], None]) -> dict[str, np.ndarray]:
    """float32 (n, num_features) for each modality and "fused", rows in the pairs' order."""
    ask = tf.function(lambda batch: model(batch, training=False), reduce_retracing=True, autograph=False)
    batches = []
    with readers_errors():
        for batch, label in evaluation_batches(replace(pairs, copies={}), BATCH_ROWS):
            batches.append({name: values.numpy() for name, values in ask(batch).items()})
            advance(len(label))
    return {name: np.concatenate([batch[name] for batch in batches]) for name in embedding_layers(pairs.spec.names)}


def contents(source: Source, pairs: Pairs) -> dict[str, np.ndarray]:
    """Which samples are embeddings of the same: int64 (n,) for each modality, and "fused" for all of them together.

    Args:
        source: the data.
        pairs: samples made of its rows.
    """
    content = {name: rows.group[pairs.positions[name]] for name, rows in source.data.items()}
    _, fused = np.unique(np.stack(list(content.values())), axis=1, return_inverse=True)
    return {**content, FUSED: fused.reshape(-1)}


def _drawn(label: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Positions of at most `limit` rows, evenly over the classes, at random among a class, ascending."""
    order = np.random.default_rng(seed).permutation(len(label))
    return np.sort(order[first_of_each_class(label[order], limit)])


def _require_enough(run: Run, num_rows: int) -> None:
    spec = run.spec()
    needed = max(clustering.MIN_ROWS, spec.num_classes + 1)
    if num_rows < needed:
        unit = Words.of(spec).unit
        raise UserError(f"{run.folder}: embeddings need {needed} test {unit}s or more. Found: {num_rows}")
