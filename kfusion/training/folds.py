"""k-fold cross-validation, for data too small to be divided once: a run for each fold, and what they have in common.

    FOLDER/fold-1 … fold-K   run folders; the test parts of all of them are all rows, each once
    FOLDER/folds.json        mean and spread of each view's figures; written last: the folds are done

Every command takes one of the runs as any other. All rows of a group are in one fold, and each class is in each fold in
nearly the same share; see `data.splits.deal_fold`.
"""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from kfusion import run_dir
from kfusion.config import Config
from kfusion.data.loaders import load
from kfusion.data.splits import require_no_names, split
from kfusion.io import PARTIAL, write_json
from kfusion.plots.tables import folds_table
from kfusion.run_dir import FOLDS, LOCK, Run, fold_folder
from kfusion.training.trainer import train
from kfusion.validation import UserError

SCORES = ("accuracy", "macro_f1")


def train_folds(
    config: Config,
    folder: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
    tensorboard: bool = False,
) -> Path:
    """Trains a run for each fold, those that are finished already aside, and writes folds.json.

    Args:
        config: every setting; `data.folds` says how many.
        folder: of the runs.
        resume: go on with folds that were begun.
        overwrite: replace the runs in the folder.
        console: where progress and results are shown; None: nowhere.
        tensorboard: write scalars into each run.

    Returns:
        The folder.

    Raises:
        UserError: the data, the settings or the folder break a rule; nothing is written then. Or another process
            trains in the folder.
    """
    configs = [replace(config, data=replace(config.data, fold=n)) for n in range(1, config.data.folds + 1)]
    earlier = check_folder(folder, len(configs), resume, overwrite)
    run_dir.check_unlocked(folder)
    require_no_names(config.data)
    source = load(config.data, console)
    for each in configs:  # A class with too few rows for some fold is found before the first one is trained.
        split(source, each.data, each.split_seed)
    with run_dir.lock(folder):
        if not resume:
            (folder / FOLDS).unlink(missing_ok=True)
            for path in earlier:
                shutil.rmtree(path)
        for number, each in enumerate(configs, 1):
            if console:
                console.print(f"fold {number} of {len(configs)}", style="bold")
            train(
                each,
                fold_folder(folder, number),
                resume=resume,
                console=console,
                tensorboard=tensorboard,
                source=source,
            )
        facts = summarize([Run(fold_folder(folder, n)).metrics() for n in range(1, len(configs) + 1)])
        write_json(folder / FOLDS, facts)
    if console:
        console.print(folds_table(facts["views"]))
    return folder


def check_folder(folder: Path, num_folds: int, resume: bool, overwrite: bool) -> list[Path]:
    """The folds that are in a folder, which must hold nothing else.

    Args:
        folder: may be missing.
        num_folds: that are to be there.
        resume: folds may be there, no more than these.
        overwrite: folds may be there, and are to be replaced.

    Raises:
        UserError: a rule is broken; nothing is changed.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: folds need a folder. Found: a file")
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    folds = [folder / name for name in names if re.fullmatch(r"fold-\d+", name)]
    foreign = [name for name in names if folder / name not in folds and name not in (FOLDS, LOCK)]
    foreign = [name for name in foreign if not name.startswith(PARTIAL)]
    if foreign:
        raise UserError(f"{folder}: folds need a folder of their own. Found: {', '.join(foreign[:3])}")
    if folds and not (resume or overwrite):
        raise UserError(f"{folder}: existing folds are kept; choose another --out, --resume them, or --overwrite them")
    more = [path.name for path in folds if int(path.name.removeprefix("fold-")) > num_folds]
    if more and resume:
        raise UserError(f"{folder}: '--resume' needs the folds of the runs, {num_folds}. Found: {more[0]}")
    for path in folds if overwrite else ():
        run_dir.check_new(path, overwrite=True)
    return folds


def summarize(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """The content of folds.json.

    Args:
        metrics: of each fold's run.

    Returns:
        `{"folds", "num_rows", "views": {view: {score: {"mean", "std", "values"}}}}`; "std" is the sample standard
        deviation over the folds.
    """
    return {
        "folds": len(metrics),
        "num_rows": [each["views"]["fused"]["num_rows"] for each in metrics],
        "views": {
            view: {score: _spread([each["views"][view][score] for each in metrics]) for score in SCORES}
            for view in metrics[0]["views"]
        },
    }


def _spread(values: list[float]) -> dict[str, Any]:
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)), "values": values}
