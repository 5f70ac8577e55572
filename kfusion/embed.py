"""Show what a run's embeddings look like: each modality's and the fused ones, of the test part.

Run: python -m kfusion.embed RUN [--samples N] [--umap]

Writes into the run folder:

    embeddings/NAME.npy          the embeddings of each modality and "fused", float32 (n, num_features)
    embeddings/rows.npy          int64 (n, 1 + modalities): place in the test part, and the row of each modality
    embeddings/labels.npy        int64 (n,)
    embeddings/projections.npz   points (n, 2) of each projection, and the clusters
    embeddings/embeddings.json   every number
    embeddings/figures/          clusters beside classes, PNG and SVG
    embeddings/projector/        tensorboard --logdir RUN/embeddings/projector
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from kfusion.cli import console, parse, quiet, run_main

PROG = "python -m kfusion.embed"


@dataclass(frozen=True)
class Command:
    """Embeddings of the test part: projections, clusters, and how well they separate the classes."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder, of a training that is finished."""
    samples: int = 6000
    """Test pairs at most, drawn evenly over the classes; 0: all."""
    seed: int = 0
    """Decides the samples, the projections, the clusters and the resamples."""
    umap: bool = False
    """Draw UMAP's projection too; needs the extra 'umap'."""


def main() -> None:
    """Embeds the run that the command line names."""
    command = parse(Command, PROG)
    with quiet():
        from kfusion.evaluation.embeddings import embed
    place = embed(command.run, command.samples, command.seed, command.umap, console)
    console.print(f"\nembeddings: {place}", soft_wrap=True)


if __name__ == "__main__":
    run_main(main, "run the same command again")
