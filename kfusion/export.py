"""Export a run as a version for TensorFlow Serving: run folder in, saved_models/NAME/VERSION out.

Run: python -m kfusion.export RUN [--name kfusion] [--version N|next] [--to saved_models] [--no-verify]
     [--format savedmodel|litert|litert-int8|onnx]
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from kfusion.cli import console, fail, parse, quiet, run_main
from kfusion.exporting.model_store import store_of
from kfusion.exporting.runtimes import FORMATS, check_extra
from kfusion.spec import Caution
from kfusion.validation import UserError

PROG = "python -m kfusion.export"
if TYPE_CHECKING:
    FormatName = str
else:
    FormatName = Literal[tuple(FORMATS)]


@dataclass(frozen=True)
class Command:
    """Export a run's best network as a SavedModel, prove it through TensorFlow's C API, then publish it."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder made by kfusion.train."""
    name: str = "kfusion"
    """The model's name, as clients of the server know it."""
    version: str = "next"
    """The version's number, or next: one above the highest."""
    to: Path = Path("saved_models")
    """Where models are kept; this one goes to TO/NAME/VERSION."""
    verify: bool = True
    """Prove it before it is published."""
    calibrate: bool = True
    """Temper the probabilities, where kfusion.evaluate has fitted temperatures."""
    turn_away: float = Caution.turn_away
    """Share of known inputs that may be turned away as unfamiliar; what is turned away is treated as absent where
    something else is known; 0: off."""
    coverage: float = Caution.coverage
    """Probability with which prediction_set is to hold the right class."""
    format: FormatName = "savedmodel"
    """savedmodel, for TensorFlow Serving; or one file for another runtime, in TO/NAME-FORMAT/VERSION."""


def version_number(text: str) -> int | None:
    """The number that `--version` means; None: the next."""
    if text == "next":
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**63):
        raise UserError(f"'version' must be 'next' or a number ≥ 1. Received: {text!r}")
    return int(text)


def main() -> None:
    """Exports a run as the command line says."""
    command = parse(Command, PROG)
    version, caution = version_number(command.version), Caution(command.turn_away, command.coverage)
    store = store_of(command.to, command.name, command.format)
    check_extra(FORMATS[command.format].extra)
    if version is not None:
        store.check_free(version)
    with quiet():
        from kfusion.exporting.exporter import Options, export
        from kfusion.exporting.verify import VerificationError
        from kfusion.inference import load_fitting
        from kfusion.run_dir import open_finished

    run = open_finished(command.run)
    with quiet():
        network = load_fitting(run)
    options = Options(version, command.verify, command.calibrate, command.format, caution)
    try:
        made = export(run, network, store, options, console)
    except VerificationError as error:
        fail(str(error), 1)
    except KeyboardInterrupt:
        fail("stopped; nothing is published", 130)
    else:
        console.print(f"\nexported: {made}", soft_wrap=True)


if __name__ == "__main__":
    run_main(main)
