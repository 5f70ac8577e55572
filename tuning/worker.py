"""One process of a search: keras-tuner's chief, or a worker that runs trials.

`python -m tuning.search` starts it as `python -m tuning.worker FOLDER`, and keeps its standard input open: when that
closes, the search has died, and so does the process. Which of the two it is, keras-tuner reads from the environment.
"""

import logging
import os
import socket
import sys
import threading
import time
from pathlib import Path

from kfusion.cli import fail, quiet, run_main
from kfusion.validation import UserError
from tuning.space import read_plan

CHIEF = "chief"
CORES = "KFUSION_CORES"
"""Environment variable: the processor cores of this process, as `0,1`."""
PATIENCE_SECONDS = 20.0
"""How long a worker waits for its chief to answer."""


def die_with_parent() -> None:
    """Ends the process when its standard input closes."""

    def watch() -> None:
        os.read(0, 1)  # Not through Python's own stream, whose lock would be in the way at the end.
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()


def address() -> tuple[str, int] | None:
    """Where keras-tuner's environment variables say that the chief is; None where neither address nor port is set.

    Raises:
        UserError: they are incomplete, or the port is no number.
    """
    names = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID")
    values = {name: os.environ.get(name, "") for name in names}
    if not any(name in os.environ for name in names[:2]):
        return None
    missing = [name for name, value in values.items() if not value]
    if missing:
        raise UserError(f"{', '.join(names)} must be set together. Missing: {', '.join(missing)}")
    port = values[names[1]]
    if not port.isdigit() or not 0 < int(port) < 2**16:
        raise UserError(f"'{names[1]}' must be in [1, 65535]. Received: {port!r}")
    return values[names[0]], int(port)


def reachable(where: tuple[str, int], seconds: float) -> bool:
    """Whether something listens at an address, or begins to in time.

    Args:
        where: host and port.
        seconds: how long to wait.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(where, timeout=2.0).close()
            return True
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)


def use_cores() -> None:
    """Keeps to the cores that the search gave this process, where the system can do that."""
    cores = {int(core) for core in os.environ.get(CORES, "").split(",") if core}
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def work(folder: Path) -> None:
    """Runs trials, or hands them out as the chief, until the oracle has nothing left.

    Raises:
        UserError: the data or the settings break a rule, or the chief is not there.
    """
    plan, chief = read_plan(folder), address()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # It complains that each trial is a new network.
    is_chief = chief is not None and CHIEF in os.environ["KERASTUNER_TUNER_ID"]
    with quiet():
        import grpc
        from keras_tuner.errors import FatalError

        from kfusion.environment import apply_precision, resolve_precision
        from kfusion.prepared_data import gather
        from tuning.tuner import SearchTuner
    if is_chief:
        SearchTuner(plan, folder).search()
        return
    if chief and not reachable(chief, PATIENCE_SECONDS):
        raise UserError(f"{chief[0]}:{chief[1]}: a chief must listen there. Found: none in {PATIENCE_SECONDS:g} s")
    arithmetic = resolve_precision(plan.config.training.precision)
    prepared = gather(plan.config)
    try:
        SearchTuner(plan, folder, prepared, apply_precision(arithmetic)).search()
    except FatalError as error:
        fail(str(error))
    except grpc.RpcError as error:
        details = getattr(error, "details", None)
        fail(f"the chief: {details() if details else error}", status=1)


def main() -> None:
    """Runs one process of a search."""
    die_with_parent()
    use_cores()
    work(Path(sys.argv[1]))


if __name__ == "__main__":
    run_main(main)
