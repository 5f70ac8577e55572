"""The contender's half of the conversation: one JSON command a line comes in, one JSON reply a line goes out.

A command `{"do": "train", "steps": 93}` calls `contender.train(steps=93)`; the reply holds the seconds it took, what
it returned, and the memory. This module imports the standard library alone, so that any interpreter can run it.
"""

import contextlib
import json
import multiprocessing
import os
import sys
import time
import traceback
from pathlib import Path
from typing import IO, Any


def answer(make: Any) -> None:
    """Build the contender with `make(**first command)` and answer until the input ends.

    Args:
        make: a class or function; what it returns has a method for each command.
    """
    # The libraries print to the standard output: the replies keep the pipe, everything else goes to the log.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        _converse(make, replies)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    # At once: a thread that waits for its next turn would keep the process alive.
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(0)


def _converse(make: Any, replies: IO[str]) -> None:
    contender = None
    for line in sys.stdin:
        command = json.loads(line)
        name = command.pop("do")
        began = time.perf_counter()
        if name == "start":
            contender, result = make(**command), None
        else:
            result = getattr(contender, name)(**command)
        seconds = time.perf_counter() - began
        replies.write(json.dumps({"seconds": seconds, "result": result, **memory()}) + "\n")


def memory() -> dict[str, int]:
    """Memory of this process and its workers, in bytes: the peak, and what is resident now by kind.

    Pages that workers share with their parent count once for each process.
    """
    names = {"VmHWM": "peak_bytes", "VmRSS": "resident_bytes", "RssAnon": "anonymous_bytes", "RssFile": "file_bytes"}
    totals = dict.fromkeys(names.values(), 0)
    for pid in family(os.getpid()):
        # A worker may end between the listing and the reading.
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                key, _, value = line.partition(":")
                if key in names:
                    totals[names[key]] += int(value.split()[0]) * 1024
    return totals


def family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += family(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and its descendants, ended ones too, have used so far."""
    ticks = 0
    for member in family(pid):
        with contextlib.suppress(OSError):
            # After the name in brackets: utime, stime, and the two of the children that ended.
            after_name = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in after_name[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")
