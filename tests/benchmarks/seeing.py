"""Accuracy of a run's image-only answers to MNIST test digits as people scan, draw and photograph them.

python -m tests.benchmarks.seeing --run runs/robust-1 --mnist ../shared/data/mnist.npz
"""

import argparse
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.table import Table

from kfusion.inference import load_network
from kfusion.modalities.image.decoding import read_images
from kfusion.run_dir import open_run
from tests.benchmarks.photographs import RENDERINGS
from tests.benchmarks.tables import wide_console

BATCH = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--digits", type=int, default=1000)
    parser.add_argument("--only", default="", help="renderings whose names hold this")
    parser.add_argument("--sheet", type=Path, help="a picture of what the front end makes of them")
    args = parser.parse_args()
    run = open_run(args.run)
    network, spec = load_network(run), run.spec()
    with np.load(args.mnist) as arrays:
        digits, label = arrays["x_test"][: args.digits], arrays["y_test"][: args.digits]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def answer(contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image, reason = read_images(contents, spec["image"])
        num = tf.shape(image)[0]
        present = tf.repeat([[True, False]], num, axis=0)
        batch = {"image": image, "audio": tf.zeros((num, spec["audio"].num_values)), "present": present}
        return tf.argmax(network(batch, training=False), axis=-1), reason, image

    table = Table("rendering", "accuracy", "unreadable", "files/s", title=f"{len(digits)} digits of MNIST's test files")
    sheet = []
    for name, render in RENDERINGS.items():
        if args.only not in name:
            continue
        files = [render(digit, np.random.default_rng(row)) for row, digit in enumerate(digits)]
        answer(tf.constant(files[:1]))
        began = time.perf_counter()
        answers = [answer(tf.constant(files[first : first + BATCH])) for first in range(0, len(files), BATCH)]
        rate = len(files) / (time.perf_counter() - began)
        guess, reason, image = (np.concatenate([part[which].numpy() for part in answers]) for which in range(3))
        table.add_row(name, f"{np.mean(guess == label):.4f}", str(np.count_nonzero(reason != b"")), f"{rate:.0f}")
        sheet.append((name, files, image[..., 0], np.flatnonzero((guess != label) | (reason != b""))))
    wide_console().print(table)
    if args.sheet:
        draw(sheet, args.sheet)


def draw(sheet: list, path: Path) -> None:
    """Errors first: each file beside what was made of it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 1.4 * len(sheet)))
    axes = figure.subplots(len(sheet), 16, squeeze=False)
    for row, (name, files, image, wrong) in enumerate(sheet):
        shown = np.concatenate([wrong, np.setdiff1d(np.arange(len(files)), wrong)])[:8]
        for column, index in enumerate(shown):
            picture = tf.io.decode_image(files[index], channels=3).numpy()
            axes[row, 2 * column].imshow(picture)
            axes[row, 2 * column + 1].imshow(image[index], cmap="gray")
        axes[row, 0].set_title(name, loc="left", fontsize=8)
        for axis in axes[row]:
            axis.set_axis_off()
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
