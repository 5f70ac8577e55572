"""Rows in, predictions out, batch by batch and shard by shard: while the model answers one batch, a thread reads on.

`answer_shards` is the engine of every job, in one process or, by Ray Data, in several, on one machine or many. Then
input, model and the output's folder must be on storage that all machines see. A worker keeps a shard by renaming it
into place, so that one that is killed has done a shard or has not; Ray hands its shard to another.
"""

import logging
import os
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import kfusion
from kfusion.cli import quiet
from kfusion.modalities import each_of
from kfusion.prediction.inputs import Arrays, Files, Rows, batch_rows
from kfusion.prediction.models import Model, load_model
from kfusion.prediction.outputs import Votes, Work, answer_table, error_table
from kfusion.spec import FUSED, SHARES, TRUSTED, Caution, Spec, Window
from kfusion.validation import UserError, reason

AHEAD = 2
"""Batches that are read while one is answered."""
Spans = list[tuple[int, int]]
"""From which row up to which."""


def answered(model: Model, rows: Rows, spans: Iterable[tuple[int, int]]) -> Iterator[Votes]:
    """The predictions for the rows of some spans, batch by batch, in order.

    Args:
        model: what answers.
        rows: the input.
        spans: from which row up to which; no batch holds rows of two.
    """
    num = batch_rows(rows, model.spec)
    batches = ((at, min(at + num, stop)) for start, stop in spans for at in range(start, stop, num))

    def read(start: int, stop: int) -> tuple[int, Arrays | Files]:
        return start, model.prepare(rows.read(start, stop))

    with ThreadPoolExecutor(1, "reader") as reader:
        waiting: deque[Future[tuple[int, Arrays | Files]]] = deque()
        try:
            for batch in batches:
                waiting.append(reader.submit(read, *batch))
                if len(waiting) > AHEAD:
                    yield votes(model, *waiting.popleft().result())
            while waiting:
                yield votes(model, *waiting.popleft().result())
        finally:
            for future in waiting:
                future.cancel()


def votes(model: Model, start: int, rows: Arrays | Files) -> Votes:
    """The classes and confidences of one batch; rows that have a reason get none.

    Args:
        model: what answers.
        start: the number of the first row.
        rows: the batch.
    """
    answers = model.answer(rows)
    good = np.array([not reason for reason in rows.reason], bool)
    valid = {FUSED: good} | {name: good & rows.present[:, place] for place, name in enumerate(model.spec.names)}
    return Votes(
        start,
        {view: np.where(here, answers[view].argmax(axis=1), -1) for view, here in valid.items() if view in answers},
        {view: np.where(here, answers[view].max(axis=1), np.nan) for view, here in valid.items() if view in answers},
        rows.reason,
        {name: answers[name] for name in (*TRUSTED, SHARES) if name in answers},
    )


def in_windows(model: Model, rows: Files) -> tuple[Files, np.ndarray, dict[str, list[Window]]]:
    """Each window of some rows as a row of its own, with the row's other modalities.

    Args:
        model: what is to answer them.
        rows: as they were read, before `Model.prepare`.

    Returns:
        The windows; int (n,), the row of each; and for each modality that is cut what part of the file each is.
    """
    cutters = {name: cut for name, kind, shape in each_of(model.spec) if (cut := kind.windows(shape))}
    parts = {name: [cutters[name](content) for content in rows.contents[name]] for name in cutters}
    num = [max(map(len, each), default=1) for each in zip(*parts.values(), strict=True)] or [1] * len(rows.reason)
    row = np.repeat(np.arange(len(num)), num)
    within = np.concatenate([np.arange(each) for each in num])
    windows = {
        name: [each[at][k * len(each[at]) // num[at]] for at, k in zip(row, within, strict=True)]
        for name, each in parts.items()
    }
    contents = {
        name: [window.content for window in windows[name]] if name in windows else [each[at] for at in row]
        for name, each in rows.contents.items()
    }
    numbers = {name: each[row] for name, each in rows.numbers.items()}
    return Files(contents, [rows.reason[at] for at in row], numbers), row, windows


def window_table(model: Model, rows: Rows, start: int, stop: int) -> pd.DataFrame:
    """The answer to each window of some rows of files, of which the rows' own answers are pooled.

    Args:
        model: loaded with all views.
        rows: the input.
        start: the first row.
        stop: the row after the last.

    Returns:
        `row_id`; the window's number; for each modality that is cut `{name}_start_s` and `{name}_end_s`; the label and
        the confidence, also of each modality alone; and why a window is not heard, as a silent one, else "".
    """
    files = rows.read(start, stop)
    if not isinstance(files, Files):
        raise UserError("windows are of files alone. Received: arrays")
    cut, row, windows = in_windows(model, files)
    answers = votes(model, start, model.prepare(cut))
    table = answer_table(answers, None, model.spec.class_names, full=True)
    ids = np.array(rows.ids(start, stop) or range(start, stop), object)
    number = np.arange(len(row)) - np.searchsorted(row, row)
    spans = {
        f"{name}_{end}_s": [getattr(window, f"{end}_s") for window in each]
        for name, each in windows.items()
        for end in ("start", "end")
    }
    wanted = [column for column in table.columns if column.endswith(("label", "confidence"))]
    return pd.DataFrame({"row_id": ids[row], "window": number, **spans, **table[wanted], "reason": answers.reason})


def joined(parts: list[Votes]) -> Votes:
    """Several batches, one after the other, as one."""
    views = parts[0].label
    return Votes(
        parts[0].start,
        {view: np.concatenate([part.label[view] for part in parts]) for view in views},
        {view: np.concatenate([part.confidence[view] for part in parts]) for view in views},
        [reason for part in parts for reason in part.reason],
        {name: np.concatenate([part.trust[name] for part in parts]) for name in parts[0].trust},
    )


@dataclass(frozen=True)
class Plan:
    """All that a process needs to answer shards of a job; it can be sent to another one.

    Args:
        model: the model's folder.
        full: write all that is known of each row.
        work: the job's folder.
        rows: the input.
        source: what to call it.
        strict: stop at the first row that cannot be answered.
        caution: how much a run's network is to be trusted; None: as usual, or as a version was exported.
        abstain: give no label where nothing of a row is familiar.
    """

    model: Path
    full: bool
    work: Work
    rows: Rows
    source: Path
    strict: bool
    caution: Caution | None = None
    abstain: bool = False

    def check_strict(self, starts: list[int]) -> None:
        """Stops a strict job at the first bad row of shards that are complete already.

        Raises:
            UserError: there is one.
        """
        for start in starts if self.strict else ():
            for row, why in self.work.bad_rows(start):
                raise self.stopped(row, why)

    def stopped(self, row: int | str, reason: str) -> UserError:
        """The error of a strict job at its first bad row.

        Args:
            row: its number or name.
            reason: why it cannot be answered.
        """
        rule = "'--strict' stops at the first row that cannot be answered"
        return UserError(f"{self.source}: {rule}. Found: row {row}: {reason}")


def answer_shards(plan: Plan, model: Model, spans: Spans) -> Iterator[int]:
    """Answers shards in order, and writes each as soon as it is complete.

    Args:
        plan: the job.
        model: what answers.
        spans: the shards.

    Yields:
        How many rows are done with each step.

    Raises:
        UserError: a row cannot be answered and the job is strict.
    """
    stops = iter(spans)
    parts: list[Votes] = []
    span = next(stops, None)
    for batch in answered(model, plan.rows, spans):
        for place, why in enumerate(batch.reason if plan.strict else ()):
            if why:
                row = batch.start + place
                raise plan.stopped((plan.rows.ids(row, row + 1) or [row])[0], why)
        parts.append(batch)
        if span and batch.start + len(batch) == span[1]:
            _write(plan, joined(parts), model.spec)
            parts, span = [], next(stops, None)
        yield len(batch)


def _write(plan: Plan, votes: Votes, spec: Spec) -> None:
    """Writes one shard."""
    span = votes.start, votes.start + len(votes)
    files, ids = plan.rows.files(*span), plan.rows.ids(*span)
    answers = answer_table(votes, files, spec.class_names, plan.full, ids, plan.abstain)
    plan.work.keep(votes.start, answers, error_table(votes, files, ids))


MAX_BLOCKS = 1000
"""Tasks that Ray is given at most; each is some shards in turn."""


@dataclass(frozen=True)
class RayEngine:
    """An engine for `job.predict`.

    Args:
        workers: processes that answer, a core each.
        address: an existing cluster; None: one is started on this machine and ended afterwards.

    Raises:
        UserError: Ray is not installed, or nobody listens at the address.
    """

    workers: int
    address: str | None = None

    def __post_init__(self) -> None:
        try:
            import ray  # noqa: F401
        except ImportError:
            raise UserError(
                "'--engine ray' needs the extra: pip install 'kfusion[ray]' (from a checkout: pip install '.[ray]'). "
                "Found: no package ray"
            ) from None
        if self.address is not None:
            _check_reachable(self.address)

    def __call__(self, plan: Plan, model: Model, spans: Spans) -> Iterator[int]:
        """As `engine.answer_shards`, shard by shard in any order; the workers load the model themselves."""
        end: BaseException | None = None
        # Ray tells of everything that it does, a killed worker's fate included.
        with quiet():
            try:
                for row in self._answered(plan, spans) if spans else ():
                    if row["error"]:
                        raise UserError(row["error"])
                    yield int(row["num_rows"])
            except (UserError, KeyboardInterrupt, GeneratorExit) as error:
                end = error  # Raised outside, or all that was held back would be shown.
        if end:
            raise end

    def _answered(self, plan: Plan, spans: Spans) -> Iterator[dict[str, Any]]:
        """What the workers say of each shard, as they end."""
        import ray
        import ray.data
        import ray.exceptions

        # A cluster of one's own is reached from this machine alone.
        own = {"num_cpus": self.workers, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        # The other machines run this very kfusion, whatever is installed there.
        shared = {"address": self.address, "runtime_env": {"py_modules": [str(Path(kfusion.__file__).parent)]}}
        where: dict[str, Any] = shared if self.address else own
        # Ray tells its makers how it is used, unless somebody says otherwise.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            cluster = self.address or "--engine ray"
            yield {"error": f"{cluster}: a Ray cluster must be there. Found: {reason(error)}"}
            return
        try:
            logging.getLogger("ray.data").setLevel(logging.CRITICAL)
            ray.data.DataContext.get_current().enable_progress_bars = False
            items = [{"start": start, "stop": stop} for start, stop in spans]
            # A worker for which there is no core would be waited for without end.
            cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
            yield from (
                ray.data.from_items(items, override_num_blocks=min(len(items), MAX_BLOCKS))
                .map_batches(
                    ShardWorker,
                    fn_constructor_args=[plan, os.getcwd()],
                    batch_size=1,
                    compute=ray.data.ActorPoolStrategy(size=min(self.workers, cores, len(items))),
                    num_cpus=1,
                )
                .iter_rows()
            )
        except ray.exceptions.RayError as error:
            # What a worker raised by itself is a fault of kfusion, unless it is a user's error.
            if isinstance(error, ray.exceptions.RayTaskError) and not isinstance(error.cause, UserError):
                raise
            lines = [line for line in str(error).splitlines() if line.strip()]
            yield {"error": f"'--engine ray' failed; --resume goes on from what is done. Found: {(lines or ['?'])[-1]}"}
        finally:
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """Ray itself waits for minutes.

    Raises:
        UserError: nobody listens there.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal() or not host:
        raise UserError(f"'ray_address' must be HOST:PORT. Received: {address!r}")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        received = getattr(error, "strerror", None) or error
        raise UserError(f"{address}: a Ray cluster must be there. Found: {received}") from None


class ShardWorker:
    """One process of the pool: the model is loaded once.

    Args:
        plan: the job.
        folder: where the command runs.
    """

    def __init__(self, plan: Plan, folder: str) -> None:
        os.chdir(folder)  # Paths may be relative to where the command was given.
        # One core each: the processes share the machine. TensorFlow reads these when it is loaded.
        os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
        self.plan, self.model = plan, load_model(plan.model, plan.full, plan.caution)

    def __call__(self, shard: dict[str, Any]) -> dict[str, list[Any]]:
        """Answers one shard, unless a process that was killed afterwards has written it."""
        start, stop = int(shard["start"][0]), int(shard["stop"][0])
        error = ""
        if not self.plan.work.part(start).exists():
            try:
                for _ in answer_shards(self.plan, self.model, [(start, stop)]):
                    pass
            except UserError as wrong:
                error = str(wrong)
            except OSError as wrong:
                where = f"{wrong.filename}: " if wrong.filename else ""
                error = f"{where}reading or writing failed. Found: {wrong.strerror or wrong}"
        return {"num_rows": [stop - start], "error": [error]}
