"""The commands of kfusion: lists them, or runs one.

Run: kfusion COMMAND …, or python -m kfusion COMMAND …, as python -m kfusion.COMMAND …
"""

import ast
import difflib
import runpy
import sys
from pathlib import Path

from kfusion import __version__

COMMANDS = {
    **{
        name: f"kfusion.{name}"
        for name in ("train", "evaluate", "embed", "report", "predict", "explain", "export", "serve")
    },
    "client": "kfusion.client",
    "tune": "tuning.search",
}
"""The module of each command, in the order in which one needs them."""


def first_line(module: str) -> str:
    """What a command does: the first line of its module's docstring, read without importing it."""
    path = Path(__file__).resolve().parents[1].joinpath(*module.split(".")).with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def overview() -> str:
    """All commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {first_line(module)}" for name, module in COMMANDS.items()]
    usage = "usage: kfusion COMMAND [FLAGS]      (kfusion COMMAND --help lists the flags of one)"
    python = f"kfusion {__version__}; in Python: from kfusion import FusionClassifier, load"
    return "\n".join([usage, "", *lines, "", python])


def main() -> None:
    """Runs the command that the first word names, with the other words as its flags."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return
    if words[0] == "--version":
        print(f"kfusion {__version__}")
        return
    module = COMMANDS.get(words[0])
    if module is None:
        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        sys.stderr.write(f"kfusion: 'COMMAND' must be one of {', '.join(COMMANDS)}{hint}. Received: {words[0]!r}\n")
        raise SystemExit(2)
    sys.argv = [f"kfusion {words[0]}", *words[1:]]
    runpy.run_module(module, run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    main()
