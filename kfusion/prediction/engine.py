"""Rows in, answers out, batch by batch: while the model answers one, a thread reads the next.

Shards answered and kept: the function that every engine runs.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kfusion.prediction.inputs import Arrays, Files, Rows
from kfusion.prediction.models import Model
from kfusion.prediction.outputs import Votes, answer_table, error_table
from kfusion.prediction.work_dir import Work
from kfusion.spec import FUSED, MODALITIES, Spec
from kfusion.validation import UserError

BATCH_ROWS = 1024
AHEAD = 2
"""Batches that are read while one is answered."""
VOTES = (FUSED, *MODALITIES)


def answered(model: Model, rows: Rows, spans: Iterable[tuple[int, int]]) -> Iterator[Votes]:
    """The answers to the rows of some spans, batch by batch, in order.

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
    """The classes and confidences of one batch; rows that have a reason get none."""
    answers = model.answer(rows)
    good = np.array([not reason for reason in rows.reason], bool)
    there = {FUSED: good}
    if len(answers) > 1:
        there |= {name: good & rows.present[:, index] for index, name in enumerate(MODALITIES)}
    label = {view: np.where(there[view], answers[view].argmax(axis=1), -1) for view in there}
    confidence = {view: np.where(there[view], answers[view].max(axis=1), np.nan) for view in there}
    return Votes(start, label, confidence, rows.reason)


def joined(parts: list[Votes]) -> Votes:
    """Several batches, one after the other, as one."""
    views = parts[0].label
    return Votes(
        parts[0].start,
        {view: np.concatenate([part.label[view] for part in parts]) for view in views},
        {view: np.concatenate([part.confidence[view] for part in parts]) for view in views},
        [reason for part in parts for reason in part.reason],
    )


Spans = list[tuple[int, int]]


@dataclass(frozen=True)
class Plan:
    """All that a process needs to answer shards of a job; it can be sent to another one.

    Args:
        model: the model's folder.
        full: all that is known of each row.
        work: the job's folder.
        rows: the input.
        source: what to call it.
        strict: stop at the first row that cannot be answered.
    """

    model: Path
    full: bool
    work: Work
    rows: Rows
    source: Path
    strict: bool

    def check_strict(self, starts: list[int]) -> None:
        """Stops a strict job at the first bad row of shards that are kept already.

        Raises:
            UserError: there is one.
        """
        for start in starts if self.strict else ():
            for row, reason in self.work.bad_rows(start):
                raise self.stopped(row, reason)

    def stopped(self, row: int | str, reason: str) -> UserError:
        """What a strict job says of its first bad row."""
        rule = "'--strict' stops at the first row that cannot be answered"
        return UserError(f"{self.source}: {rule}. Found: row {row}: {reason}")


def answer_shards(plan: Plan, model: Model, spans: Spans) -> Iterator[int]:
    """Answers shards in order, keeps each as soon as it is complete, and tells how many rows are done with each step.

    Raises:
        UserError: a row cannot be answered and the job is strict.
    """
    stops = iter(spans)
    parts: list[Votes] = []
    span = next(stops, None)
    for votes in answered(model, plan.rows, spans):
        _check(plan, votes)
        parts.append(votes)
        if span and votes.start + len(votes) == span[1]:
            keep(plan, joined(parts), model.spec)
            parts, span = [], next(stops, None)
        yield len(votes)


def keep(plan: Plan, votes: Votes, spec: Spec) -> None:
    """Writes one shard."""
    span = votes.start, votes.start + len(votes)
    names, ids = plan.rows.names(*span), plan.rows.ids(*span)
    answers = answer_table(votes, names, spec.class_names, plan.full, ids)
    plan.work.keep(votes.start, answers, error_table(votes, names, ids))


def _check(plan: Plan, votes: Votes) -> None:
    for place, reason in enumerate(votes.reason if plan.strict else ()):
        if reason:
            row = votes.start + place
            raise plan.stopped((plan.rows.ids(row, row + 1) or [row])[0], reason)
