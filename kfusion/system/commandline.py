"""The command line of every verb: flags from dataclasses (tyro), one line for a wrong one."""

import argparse
import contextlib
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import tyro

from kfusion.config import Config
from kfusion.config_file import load_config
from kfusion.recipes import recipe
from kfusion.rules import UserError
from kfusion.system.terminal import fail

T = TypeVar("T")


@dataclass(frozen=True)
class Starting:
    """The flags with which every command begins that trains; `starting_settings` reads them first."""

    recipe: str = "paper"
    """Named settings to start from: paper or robust; every flag below changes one of them."""
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
    prog, said = called_as(prog), io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            given = {} if default is None else {"default": default}
            return tyro.cli(kind, prog=prog, args=args, **given)  # type: ignore[call-overload]
    except SystemExit as end:
        if end.code in (0, None):
            raise
        fail(f"{_first_message(said.getvalue())} (see {prog} --help)")
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
    """The values of a few flags that decide the defaults of all others; those not given are None."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in names:
        parser.add_argument(f"--{name}")
    try:
        return vars(parser.parse_known_args(args)[0])
    except argparse.ArgumentError:
        return dict.fromkeys(names)  # The real parser will say what is wrong.


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
