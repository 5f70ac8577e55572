"""Predict a whole input: a trained model and pairs in, one file of labels out.

Run: python -m kfusion.predict MODEL INPUT [--out predictions.csv] [--format full] [--resume]

MODEL is a run folder or an exported version. INPUT is a folder in the competition's, Zenodo's or kfusion's own layout,
a manifest (CSV, Excel or Parquet) with a column for each modality, such as `image` and `audio`, or a folder of picture
and sound files, in it or in its subfolders.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kfusion.cli import console, fail, import_keras, parse, quiet, run_main
from kfusion.run_dir import begun
from kfusion.spec import Caution
from kfusion.validation import UserError

PROG = "python -m kfusion.predict"


@dataclass(frozen=True)
class Command:
    """Predict the label of every row of an input; memory does not grow with it, and a killed job can go on."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A run folder, or an exported version such as saved_models/kfusion/1."""
    input: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")]
    """A folder with the .npy files of a known layout; a manifest (.csv, .tsv, .xlsx, .parquet) with a column for
    each modality, any of which may be empty, and row_id, id or index if rows have names; or a folder of picture and
    sound files, in it or in its subfolders, where those of one stem are a pair."""
    out: Path = Path("predictions.csv")
    """The file to write, .csv or .parquet; rows without an answer are listed in NAME.errors.csv beside it."""
    format: Literal["submission", "full"] = "submission"
    """submission: row_id,label, and the files of rows without ids; full: also the confidence, each modality's vote, and
    whether they agree, how familiar each modality is, and its share in the answer."""
    turn_away: float | None = None
    """Share of known inputs that may be turned away as unfamiliar; what is turned away is treated as absent where
    something else is known. Default: 0.05, or what the version was exported with; 0: off."""
    coverage: float | None = None
    """Probability with which prediction_set is to hold the right class; default: 0.95, or as the version has it."""
    abstain: bool = False
    """Leave the label empty where nothing of a row is familiar."""
    windows: Path | None = None
    """A CSV to write besides: the answers to each window of recordings that are longer than those of the training."""
    part: Literal["test", "train"] | None = None
    """Which files of a published layout to read; default: the test files where there are any."""
    strict: bool = False
    """Stop at the first row that cannot be answered, with status 2."""
    force: bool = False
    """Predict even where the audio features are on another scale than the training data's."""
    resume: bool = False
    """Go on after the last complete shard of the same command."""
    overwrite: bool = False
    """Replace what is there."""
    engine: Literal["local", "ray"] = "local"
    """ray: shards are answered by several processes, on one machine or a cluster; the extra ray."""
    ray_address: str | None = None
    """engine=ray: an existing cluster, such as 10.0.0.5:6379; default: one is started here."""
    workers: int = 2
    """engine=ray: processes that answer, a core each."""


def _caution(command: Command) -> Caution | None:
    """What the command says of caution; None: nothing."""
    named = {name: getattr(command, name) for name in ("turn_away", "coverage") if getattr(command, name) is not None}
    return Caution(**named) if named else None


def main() -> None:
    """Predicts as the command line says; the status is 1 where a row has no prediction."""
    command = parse(Command, PROG)
    if command.resume and command.overwrite:
        raise UserError("'--resume' and '--overwrite' must not be given together. Received: both")
    if command.ray_address is not None and command.engine != "ray":
        raise UserError(f"'ray_address' needs '--engine ray'. Received: {command.ray_address!r}")
    if command.workers < 1:
        raise UserError(f"'workers' must be ≥ 1. Received: {command.workers}")
    with quiet():
        if begun(command.model):
            import_keras()
        from kfusion.prediction.engine import answer_shards
        from kfusion.prediction.job import Job, predict
    engine = answer_shards
    if command.engine == "ray":
        from kfusion.prediction.engine import RayEngine

        engine = RayEngine(command.workers, command.ray_address)
    flags = {
        name: getattr(command, name)
        for name in ("part", "force", "strict", "resume", "overwrite", "abstain", "windows")
    }
    job = Job(command.model, command.input, command.out, command.format == "full", **flags, caution=_caution(command))
    done = predict(job, console, engine)
    if done.seconds is None:
        console.print(
            f"predictions: {command.out} (finished already, not compared with INPUT; --overwrite predicts anew)",
            soft_wrap=True,
        )
    else:
        speed = f"{done.num_rows:,} rows in {done.seconds:.1f} s"
        console.print(f"predictions: {command.out} ({speed})", soft_wrap=True)
    if done.num_bad:
        rows = "1 row has" if done.num_bad == 1 else f"{done.num_bad:,} rows have"
        fail(f"{rows} no prediction; the reasons are in {done.errors}", 1)


if __name__ == "__main__":
    run_main(main)
