"""What a person sees in the terminal: no start-up chatter, one console, one line for an error."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from kfusion.rules import UserError

BEFORE_TENSORFLOW = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # A GPU is shared: an export's proof runs beside it, and TensorFlow would take all memory at once.
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    # float32 is float32 on a GPU too, in whatever process: TensorFloat-32 has 10 bits where float32 has 23.
    "NVIDIA_TF32_OVERRIDE": "0",
}
"""Environment variables of every process that loads TensorFlow; what the user has set already stays."""

console = Console(highlight=False, markup=False, emoji=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Holds back what C++ libraries write to standard error; shown after all if the block fails.

    TensorFlow logs its start-up before any of its own settings for logging can act, so the file descriptor itself is
    turned away meanwhile. What it must know before it starts is said here too.
    """
    for name, value in BEFORE_TENSORFLOW.items():
        os.environ.setdefault(name, value)
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 2)
        try:
            yield
        except BaseException:
            chatter.seek(0)
            os.write(kept, chatter.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def fail(message: str, status: int = 2) -> None:
    """Prints one line to standard error and ends the program."""
    sys.stderr.write(f"kfusion: {' '.join(message.split())}\n")
    raise SystemExit(status)


def run_main(main: Callable[[], None], go_on: str = "run the same command with --resume to go on") -> None:
    """Runs a verb: bad input and a full disk become one line and status 2, Ctrl-C status 130.

    Args:
        main: the verb.
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
    except KeyboardInterrupt:
        fail(f"stopped; {go_on}", 130)
