"""Train a fusion model: pairs in, run folder out.

Run: python -m kfusion.train [--recipe paper|robust] [--data builtin|FOLDER] [--out runs/NAME] [--any-setting VALUE]
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from kfusion import run_dir
from kfusion.cli import Starting, console, parse, quiet, run_main, starting_settings
from kfusion.config import Config
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
    return parse(tyro.conf.OmitArgPrefixes[Command], PROG, args, Command(recipe=name, settings=settings))


def folder_of(command: Command) -> Path:
    """The run folder that the command means."""
    if command.out is not None:
        return command.out
    return run_dir.unfinished_folder(command.name) if command.resume else run_dir.default_folder(command.name)


def main() -> None:
    """Trains as the command line says."""
    command = read_command()
    if command.resume and command.overwrite:
        raise UserError("'--resume' and '--overwrite' must not be given together. Received: both")
    folder = folder_of(command)
    with quiet():
        from kfusion.training.trainer import train
    run = train(
        command.settings,
        folder,
        resume=command.resume,
        overwrite=command.overwrite,
        console=console,
        tensorboard=command.tensorboard,
    )
    console.print(f"\nrun folder: {run.folder}", soft_wrap=True)


if __name__ == "__main__":
    run_main(main)
