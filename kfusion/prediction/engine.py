"""Rows in, predictions out, batch by batch and shard by shard: while the model answers one batch, a thread reads on.

`answer_shards` is the engine of every job, in one process or, by `ray_engine`, in several.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kfusion.prediction.inputs import Arrays, Files, Rows
from kfusion.prediction.models import Model
from kfusion.prediction.outputs import Votes, Work, answer_table, error_table
from kfusion.spec import FUSED, SHARES, TRUSTED, Caution, Spec
from kfusion.validation import UserError

BATCH_ROWS = 1024
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
    batches = ((at, min(at + BATCH_ROWS, stop)) for start, stop in spans for at in range(start, stop, BATCH_ROWS))

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
            for row, reason in self.work.bad_rows(start):
                raise self.stopped(row, reason)

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
        for place, reason in enumerate(batch.reason if plan.strict else ()):
            if reason:
                row = batch.start + place
                raise plan.stopped((plan.rows.ids(row, row + 1) or [row])[0], reason)
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
