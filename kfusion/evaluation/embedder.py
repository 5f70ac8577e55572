"""Embed a finished run's test part: the steps of `python -m kfusion.embed`, for the command and for programs."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from kfusion import run as runs
from kfusion.analysis import projections
from kfusion.analysis.embedding_tables import separation_table, verdict
from kfusion.data.front_ends import note_on
from kfusion.data.limit import first_of_each_class
from kfusion.data.pairs import Pairs, Source
from kfusion.data.pipeline import evaluation_batches, readers_errors
from kfusion.data.splits import Split
from kfusion.evaluation.embedding_files import write
from kfusion.evaluation.separate import Embedded, describe, image_against_audio
from kfusion.evaluation.subject import sound_groups
from kfusion.finished import load_fitting, open_finished
from kfusion.material import load_own
from kfusion.model.embeddings import LAYERS, with_embeddings
from kfusion.rules import UserError
from kfusion.spec import FUSED
from kfusion.system.progress import progress

BATCH_ROWS = 256
MAX_FIT_ROWS = 10_000
"""Training pairs at most that the probes are fitted on."""
FORMAT = 1
"""Of embeddings.json."""


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
        if not 0 <= value < 2**31:
            raise UserError(f"'{name}' must be in [0, 2^31). Received: {value}")
    if umap:
        projections.require_umap()
    run = open_finished(folder)
    runs.check_unlocked(folder)
    num_rows = len(run.split().get("test_image", ()))
    _require_enough(run, min(samples or num_rows, num_rows))
    # The network before the data, which may take minutes to decode.
    model = with_embeddings(load_fitting(run))
    source, parts = load_own(run)
    if console and (note := note_on(run.data()["source"])):
        console.print(note, soft_wrap=True)
    positions = _drawn(parts.test.label, samples, seed)
    test, fit = parts.test.take(positions), parts.train.take(_drawn(parts.train.label, MAX_FIT_ROWS, seed))
    content = contents(source.official_test or source, test)
    with runs.lock(folder):
        (run.folder / "embeddings").mkdir(exist_ok=True)  # Fails now, not after minutes.
        runs.remove_partial(run.folder / "embeddings")
        with progress(console, "forward pass", len(test) + len(fit)) as advance:
            embedded, fitted = _embed(model, test, advance), _embed(model, fit, advance)
        everything = Embedded(embedded, test.label, content, fitted, fit.label, contents(source, fit))
        about = _describe_all(everything, test.spec.num_classes, seed, umap, console)
        facts = {
            **{"format": FORMAT, "samples": samples, "umap": umap, "seed": seed},
            **_facts(run, parts, test, fit),
            "embeddings": {name: found.numbers for name, found in about.items()},
            "image_against_audio": image_against_audio(test.label, content["audio"], about, seed),
        }
        facts["verdict"] = verdict(facts)
        write(run.folder / "embeddings", facts, embedded, test, positions, about, console)
    if console:
        console.print(separation_table(facts), facts["verdict"], sep="\n")
    return run.folder / "embeddings"


def _facts(run: runs.Run, parts: Split, test: Pairs, fit: Pairs) -> dict[str, Any]:
    """What was embedded, for embeddings.json."""
    return {
        "weights": hashlib.sha256(run.best.read_bytes()).hexdigest(),
        "num_rows": len(test),
        "num_test_rows": len(parts.test),
        "num_fit_rows": len(fit),
        "leaked_share": parts.audit.leaked_share_here,
        "class_names": list(test.spec.class_names),
        "layers": LAYERS,
    }


def _describe_all(
    embedded: Embedded, num_classes: int, seed: int, umap: bool, console: Console | None
) -> dict[str, Any]:
    """Everything about each embedding, several at a time: each takes one core."""
    steps = 3 + umap
    with (
        progress(console, "PCA, t-SNE, clusters, probes", steps * len(LAYERS)) as advance,
        ThreadPoolExecutor(min(len(LAYERS), os.cpu_count() or 1)) as threads,
    ):
        work = partial(describe, embedded, num_classes=num_classes, seed=seed, umap=umap, advance=advance)
        return dict(zip(LAYERS, threads.map(work, LAYERS), strict=True))


def _embed(model: keras.Model, pairs: Pairs, advance: Callable[[int], None]) -> dict[str, np.ndarray]:
    """{"image", "audio", "fused"}: float32 (n, num_features), rows in the pairs' order."""
    ask = tf.function(lambda batch: model(batch, training=False), reduce_retracing=True, autograph=False)
    batches = []
    with readers_errors():
        for batch, label in evaluation_batches(pairs, BATCH_ROWS):
            batches.append({name: values.numpy() for name, values in ask(batch).items()})
            advance(len(label))
    return {name: np.concatenate([batch[name] for batch in batches]) for name in LAYERS}


def contents(source: Source, pairs: Pairs) -> dict[str, np.ndarray]:
    """{"image", "audio", "fused"}: int64 (n,), which pairs show the same image, hold the same sound, or both."""
    image = source.image_group[pairs.image_position]
    audio = sound_groups(source, pairs)
    _, both = np.unique(np.stack([image, audio]), axis=1, return_inverse=True)
    return {"image": image, "audio": audio, FUSED: both.reshape(-1)}


def _drawn(label: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Positions of at most `limit` rows, evenly over the classes, at random among a class, ascending."""
    order = np.random.default_rng(seed).permutation(len(label))
    return np.sort(order[first_of_each_class(label[order], limit)])


def _require_enough(run: runs.Run, num_rows: int) -> None:
    needed = max(projections.MIN_ROWS, run.spec().num_classes + 1)
    if num_rows < needed:
        raise UserError(f"{run.folder}: embeddings need {needed} test pairs or more. Found: {num_rows}")
