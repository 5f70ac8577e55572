"""The command line of every command: flags from dataclasses (tyro), one line for an error, a quiet terminal."""

import argparse
import contextlib
import io
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import tyro
from rich.console import Console

from kfusion.config import Config
from kfusion.recipes import recipe
from kfusion.run_dir import load_config
from kfusion.validation import UserError, reason

BEFORE_TENSORFLOW = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # A GPU is shared: an export's proof runs beside it, and TensorFlow would take all memory at once.
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    # float32 is float32 on a GPU too, in whatever process: TensorFloat-32 has 10 bits where float32 has 23.
    "NVIDIA_TF32_OVERRIDE": "0",
}
"""Environment variables of every process that loads TensorFlow; what the user has set already stays."""

console = Console(highlight=False, markup=False, emoji=False)


class _Chatter:
    """Standard error's file descriptor, turned away as long as some thread wants that."""

    def __init__(self) -> None:
        self._lock, self._wanted = threading.Lock(), 0

    def begin(self) -> None:
        with self._lock:
            if not self._wanted:
                sys.stderr.flush()
                # Not in a block: for as long as some thread wants.
                self._terminal, self._file = os.dup(2), tempfile.TemporaryFile()  # noqa: SIM115
                os.dup2(self._file.fileno(), 2)
            self._wanted += 1

    def end(self, shown: bool) -> None:
        """`shown`: what was written meanwhile is written after all."""
        with self._lock:
            if shown:
                self._file.seek(0)
                os.write(self._terminal, self._file.read())
            self._wanted -= 1
            if not self._wanted:
                os.dup2(self._terminal, 2)
                os.close(self._terminal)
                self._file.close()


_chatter = _Chatter()


@contextmanager
def quiet(even_if_failing: bool = False) -> Iterator[None]:
    """Holds back what C++ libraries write to standard error; shown after all if the block fails.

    TensorFlow logs its start-up before any of its own settings for logging can act, and libjpeg writes warnings on a
    file, so the file descriptor itself is turned away meanwhile. The variables that TensorFlow reads at its start are
    set here too. Several threads may do so at once.

    Args:
        even_if_failing: also hold it back if the block fails: the caller reports the failure.
    """
    for name, value in BEFORE_TENSORFLOW.items():
        os.environ.setdefault(name, value)
    _chatter.begin()
    shown = not even_if_failing
    try:
        yield
        shown = False
    finally:
        _chatter.end(shown)


def import_keras() -> None:
    """Imports Keras as an answering command needs it, without scikit-learn and matplotlib, which take longer than it.

    They are for Keras' wrappers and galleries alone, which do without them. Not for a program that has its own use of
    the wrappers.
    """
    hidden = [name for name in ("sklearn", "matplotlib") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: their import fails.
    try:
        import keras  # noqa: F401
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def without_tracing_advice() -> Iterator[None]:
    """Holds back TensorFlow's advice on functions that are traced anew: each model of a process has its own."""

    def is_other(record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()

    logger = logging.getLogger("tensorflow")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def fail(message: str, status: int = 2) -> None:
    """Prints one line to standard error and ends the program.

    Args:
        message: the line.
        status: of the process.
    """
    sys.stderr.write(f"kfusion: {' '.join(message.split())}\n")
    raise SystemExit(status)


def run_main(main: Callable[[], None], go_on: str = "run the same command with --resume to go on") -> None:
    """Runs a command: bad input, a full disk and full memory become one line and status 2, Ctrl-C status 130.

    Any other error is a fault of kfusion: it keeps its traceback, and the status is 1. The environment variable
    KFUSION_TRACEBACK shows the traceback of the former too.

    Args:
        main: the command.
        go_on: what to do after Ctrl-C.
    """
    try:
        main()
    except UserError as error:
        if os.environ.get("KFUSION_TRACEBACK"):
            raise
        fail(str(error))
    except OSError as error:
        if os.environ.get("KFUSION_TRACEBACK"):
            raise
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}reading or writing failed. Found: {error.strerror or error}")
    except MemoryError as error:
        if os.environ.get("KFUSION_TRACEBACK"):
            raise
        fail(f"the data must fit into memory. Found: {reason(error)}")
    except KeyboardInterrupt:
        fail(f"stopped; {go_on}", 130)


T = TypeVar("T")


@dataclass(frozen=True)
class Starting:
    """The flags with which every command begins that trains; `starting_settings` reads them first."""

    recipe: str = "paper"
    """Named settings to start from: paper, robust or auto; every flag below changes one of them."""
    config: Path | None = None
    """A JSON file of settings to start from instead, such as a run folder's config.json."""

    @property
    def name(self) -> str:
        """What a folder is called that nobody named."""
        return self.config.stem if self.config else self.recipe


def parse(kind: Callable[..., T], prog: str, args: Sequence[str] | None = None, default: T | None = None) -> T:
    """Reads the command line into a dataclass; a wrong flag ends the program with one line and status 2.

    Args:
        kind: a dataclass; each field is a flag, its docstring the help.
        prog: the command, for the help.
        args: the words; None: those of the process.
        default: where the fields' defaults come from, if not from the dataclass.
    """
    prog, box = called_as(prog), io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            defaults = {} if default is None else {"default": default}
            return tyro.cli(kind, prog=prog, args=args, **defaults)  # type: ignore[call-overload]
    except SystemExit as end:
        if end.code in (0, None):
            raise
        fail(f"{_first_message(box.getvalue())} (see {prog} --help)")
        raise


def called_as(prog: str) -> str:
    """How the user called a command: `kfusion train`, where it was not `python -m kfusion.train`."""
    return sys.argv[0] if sys.argv[0].startswith("kfusion ") else prog


def _first_message(box: str) -> str:
    """The sentence in tyro's box, up to its first rule."""
    inside = [line.strip("│ ").strip() for line in box.splitlines()[1:]]
    words: list[str] = []
    for line in inside:
        if not line or line.startswith(("─", "╰")):
            break
        words.append(line)
    return " ".join(words) or "the command line could not be read"


def early_flags(names: Sequence[str], args: Sequence[str] | None = None) -> dict[str, str | None]:
    """The values of a few flags that decide the defaults of all others; those left out are None.

    Args:
        names: of the flags.
        args: the words; None: those of the process.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in names:
        parser.add_argument(f"--{name}")
    try:
        return vars(parser.parse_known_args(args)[0])
    except argparse.ArgumentError:
        return dict.fromkeys(names)  # The real parser will say what is wrong.


def named_flags(args: Sequence[str] | None = None) -> set[str]:
    """The flags that a command line holds, as the settings are called.

    Args:
        args: the words; None: those of the process.
    """
    words = sys.argv[1:] if args is None else args
    return {word[2:].split("=")[0].replace("-", "_") for word in words if word.startswith("--")}


def starting_settings(args: Sequence[str] | None = None) -> tuple[str, Config]:
    """What `--recipe` or `--config` name: the recipe's name, and the settings that all other flags change.

    Raises:
        UserError: both are given, one is empty or unknown, or the file is no config.
    """
    early = early_flags(("recipe", "config", "out"), args)
    for flag, value in early.items():
        if value == "":
            raise UserError(f"'{flag}' must not be empty. Received: ''")
    if early["recipe"] is not None and early["config"] is not None:
        raise UserError("'recipe' and 'config' must not be given together. Received: both")
    name = "paper" if early["recipe"] is None else early["recipe"]
    return name, recipe(name) if early["config"] is None else load_config(Path(early["config"]))
