"""Search settings with keras-tuner: a plan in, a table of trials and the best config out.

Run: python -m tuning.search [--tuner random|bayesian|hyperband|grid] [--trials N] [--tune NAME[=VALUES] ...]
     [--repeats N] [--workers N] [--recipe paper|robust] [--out tuning_runs/NAME] [--any-setting VALUE]

On several machines, keras-tuner's environment variables say which part this process plays: with KERASTUNER_TUNER_ID
`chief` it hands out the trials at KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT, with another name it works for it.
"""

import os
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from kfusion import run_dir
from kfusion.cli import Starting, console, fail, parse, run_main, starting_settings
from kfusion.config import Config
from kfusion.validation import UserError, require
from tuning.process_pool import LOOPBACK, PoolError, ProcessPool, check_port, free_port, supervise
from tuning.space import Plan, Settings, check_same, read_plan
from tuning.worker import CHIEF, PATIENCE_SECONDS, address, reachable

PROG = "python -m tuning.search"
ROOT = Path("tuning_runs")
MAX_WORKERS = 256


@dataclass(frozen=True)
class Command(Starting):
    """Search settings of a training run; every trial is a real run, judged on its validation part."""

    out: Path | None = None
    """The search's folder; default: tuning_runs/RECIPE-NUMBER."""
    resume: bool = False
    """Go on where the same command was broken off; more --trials may be asked for."""
    workers: int = 0
    """Processes that train side by side, each on its share of the processor; 0: one, or none beside a lone chief."""
    deadline: float = 0.0
    """Stop after this many minutes and report what there is; 0: never."""
    search: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)
    settings: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def read_command(args: list[str] | None = None) -> Command:
    """The command line; `--recipe` or `--config` first decides what the other flags change."""
    name, settings = starting_settings(args)
    command = parse(tyro.conf.OmitArgPrefixes[Command], PROG, args, Command(recipe=name, settings=settings))
    require(0 <= command.workers <= MAX_WORKERS, "workers", f"in [0, {MAX_WORKERS}]", command.workers)
    require(command.deadline >= 0, "deadline", "≥ 0 minutes", command.deadline)
    return command


def plan_of(command: Command) -> Plan:
    """What is to be searched. All trials share one split: the seeds of their repeats decide all else."""
    config = command.settings
    return Plan(command.search, replace(config, data=replace(config.data, split_seed=config.split_seed)))


def folder_of(command: Command) -> Path:
    """The folder that the command means."""
    if command.out is not None:
        return command.out
    begun = [path.parent for path in ROOT.glob(f"{command.name}-*/search.json")]
    if command.resume and begun:
        return max(begun, key=lambda path: path.stat().st_mtime)
    return run_dir.default_folder(command.name, ROOT)


def pool_of(command: Command, folder: Path) -> ProcessPool:
    """The processes of this machine.

    Args:
        command: how many workers it wants.
        folder: of the search.

    Raises:
        UserError: the chief's port is in use, or no chief listens there.
    """
    where, count = address(), command.workers
    if where is None:
        names = [f"worker-{number}" for number in range(max(1, count))]
        return ProcessPool(folder, names, (LOOPBACK, free_port()) if count > 1 else None, runs_chief=count > 1)
    name = os.environ["KERASTUNER_TUNER_ID"]
    if CHIEF in name:
        check_port(where)
        names = [f"{name}-worker-{number}".replace(CHIEF, "main") for number in range(count)]
        return ProcessPool(folder, names, where, runs_chief=True, waits_for_chief=True)
    if not reachable(where, PATIENCE_SECONDS):
        raise UserError(f"{where[0]}:{where[1]}: a chief must listen there. Found: none in {PATIENCE_SECONDS:g} s")
    return ProcessPool(folder, [f"{name}-{number}" for number in range(count)] if count > 1 else [name], where)


def check_folder(folder: Path, plan: Plan, may_exist: bool) -> bool:
    """The search's folder must be free, or hold this very search; nothing is written.

    Args:
        folder: of the search.
        plan: of the search.
        may_exist: it may hold this search already.

    Returns:
        Whether it is free.

    Raises:
        UserError: it holds another search, or something else.
    """
    if (folder / "search.json").exists():
        if not may_exist:
            raise UserError(f"{folder}: an existing search is kept; choose another --out, or --resume it")
        check_same(read_plan(folder), plan, folder)
        return False
    foreign = [path.name for path in folder.iterdir() if path.name != run_dir.LOCK] if folder.is_dir() else []
    if foreign:
        raise UserError(f"{folder}: a search needs a folder of its own. Found: {', '.join(sorted(foreign)[:3])}")
    return True


def main() -> None:
    """Searches, or goes on with a search."""
    command = read_command()
    plan, folder = plan_of(command), folder_of(command)
    pool = pool_of(command, folder)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ends as Ctrl-C does: with a report.
    if pool.helps and not (folder / "search.json").exists():
        raise UserError(f"{folder}: must be the chief's folder, on a disk that all share. Found: no search.json")
    is_new = check_folder(folder, plan, may_exist=command.resume or pool.helps)
    lock = None if pool.helps else run_dir.lock(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not pool.helps:
            plan.write(folder)  # An old search may be wanted to go on for more trials.
        supervise(pool, plan, is_new=is_new, deadline_seconds=60 * command.deadline, console=console)
    except PoolError as error:
        fail(str(error), error.status)
    except KeyboardInterrupt:
        fail(f"stopped; run the same command with --resume --out {folder} to go on", 130)
    finally:
        if lock:
            lock.close()


if __name__ == "__main__":
    run_main(main)
