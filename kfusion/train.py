"""Train a fusion model: pairs in, run folder out.

Run: python -m kfusion.train [--recipe paper|robust|auto] [--data builtin|FOLDER] [--out runs/NAME] [--SETTING VALUE]
     python -m kfusion.train --folds 5: a run for each of five folds, and their mean and spread
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from kfusion import run_dir
from kfusion.cli import Starting, console, named_flags, parse, quiet, run_main, starting_settings
from kfusion.config import Config
from kfusion.recipes import as_named
from kfusion.validation import UserError

PROG = "python -m kfusion.train"


@dataclass(frozen=True)
class Command(Starting):
    """Train a fusion model on pairs of a picture and a sound, test it, and leave a run folder."""

    out: Path | None = None
    """The run folder; default: runs/RECIPE-NUMBER."""
    resume: bool = False
    """Go on where the same command was broken off."""
    overwrite: bool = False
    """Replace the run that is in the folder."""
    tensorboard: bool = False
    """Write loss, accuracy and learning rate for TensorBoard, into tensorboard/ in the run folder."""
    settings: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def read_command(args: list[str] | None = None) -> Command:
    """The command line; `--recipe` or `--config` first decides what the other flags change."""
    name, settings = starting_settings(args)
    command = parse(tyro.conf.OmitArgPrefixes[Command], PROG, args, Command(recipe=name, settings=settings))
    return replace(command, settings=as_named(command.settings, named_flags(args)))


def folder_of(command: Command) -> Path:
    """The run folder that the command means."""
    if command.out is not None:
        return command.out
    folds = trains_folds(command)
    return (
        run_dir.unfinished_folder(command.name, folds=folds) if command.resume else run_dir.default_folder(command.name)
    )


def trains_folds(command: Command) -> bool:
    """Whether the command trains a run for each of several folds."""
    return bool(command.settings.data.folds) and not command.settings.data.fold


def main() -> None:
    """Trains as the command line says."""
    command = read_command()
    if command.resume and command.overwrite:
        raise UserError("'--resume' and '--overwrite' must not be given together. Received: both")
    folder = folder_of(command)
    with quiet():
        from kfusion.training.folds import train_folds
        from kfusion.training.trainer import train
    flags: Any = {name: getattr(command, name) for name in ("resume", "overwrite", "tensorboard")}
    if trains_folds(command):
        place = train_folds(command.settings, folder, console=console, **flags)
        console.print(f"\nrun folders: {place / 'fold-*'}", soft_wrap=True)
    else:
        run = train(command.settings, folder, console=console, **flags)
        console.print(f"\nrun folder: {run.folder}", soft_wrap=True)


if __name__ == "__main__":
    run_main(main)
