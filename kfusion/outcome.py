"""The end of a training run: test figures, the report, the pictures."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from kfusion.analysis import figures, metrics, tables
from kfusion.data.keyed import sample_keys
from kfusion.data.pairs import Pairs
from kfusion.material import Material
from kfusion.predictor import load_network, predict_views
from kfusion.run import Run
from kfusion.spec import FUSED, MODALITIES
from kfusion.system.files import write_text
from kfusion.training.callbacks import best_epoch, read_history

NUM_SHOWN, NUM_CHANGED = 6, 6
"""Samples in the picture of the augmentation, and changed versions of each."""


def write_outcome(run: Run, material: Material, console: Console | None) -> None:
    """Tests the best network, and writes figures, report.txt and, last, metrics.json."""
    parts = material.parts
    results = evaluate(load_network(run), parts.val, parts.test, material.statistics.prior)
    names = parts.test.spec.class_names
    history = read_history(run.history)
    results["best_epoch"] = best_epoch(history)
    results["epochs"] = len(history)
    run.figures.mkdir(exist_ok=True)
    figures.save(figures.learning_curves(history.reset_index(), results["best_epoch"]), run.figures, "learning_curves")
    figures.save(figures.confusion_matrix(np.array(results["confusion"]), names), run.figures, "confusion")
    image, audio = augmented_samples(material)
    figures.save(image, run.figures, "augmented_images")
    if audio is not None:
        figures.save(audio, run.figures, "augmented_audio")
    write_text(run.folder / "report.txt", metrics.report_text(results["report"]) + "\n" + views_text(results["views"]))
    run.write_json("metrics.json", results)
    if console:
        console.print(tables.report_table(results["report"]))
        console.print(tables.results_table(results["views"]))


def views_text(views: dict[str, Any]) -> str:
    """A line for each view of the model, and for late fusion."""
    lines = [f"{tables.TITLES[name]:>22} {row['accuracy']:.4f} of {row['num_rows']}" for name, row in views.items()]
    return "\n".join(lines) + "\n"


def evaluate(network: keras.Model, val: Pairs, test: Pairs, prior: np.ndarray) -> dict[str, Any]:
    """Everything that is said of a network's test part; temperatures are fitted on validation.

    Returns:
        {"views", "temperature", "confusion", "report"}, ready for JSON.
    """
    on_val, on_test = predict_views(network, val), predict_views(network, test)
    temperature = {name: metrics.fit_temperature(on_val[name], val.label) for name in MODALITIES}
    summary = metrics.view_summary(test.label, on_test, temperature, prior)
    summary["report"] = metrics.report(test.label, on_test[FUSED].argmax(axis=1), test.spec.class_names)
    return summary


def augmented_samples(material: Material) -> tuple[Any, Any]:
    """A few training images and sounds beside what the first epochs make of them; no sounds where they stay as are."""
    pairs, augment = material.parts.train, material.augmentation()
    rows = np.unique(pairs.label, return_index=True)[1][:NUM_SHOWN]
    image, audio = pairs.read(rows)
    batch = {"image": tf.constant(image), "audio": tf.constant(audio)}
    seed = material.config.training.seed
    changed = [augment(batch, tf.constant(sample_keys(seed, epoch, rows))) for epoch in range(NUM_CHANGED)]
    titles = [pairs.spec.class_names[label] for label in pairs.label[rows]]
    images = np.stack([each["image"].numpy() for each in changed], axis=1)
    picture = figures.sample_grid(image, images, titles, pairs.spec.pixel_max)
    if augment.sound is None:
        return picture, None
    grid = pairs.spec.audio_grid
    sounds = np.stack([each["audio"].numpy().reshape(-1, *grid) for each in changed], axis=1)
    return picture, figures.audio_grid(audio.reshape(-1, *grid), sounds, titles)
