"""Shards answered and kept: the function that every engine runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kfusion.prediction.chunks import Rows
from kfusion.prediction.models import Model
from kfusion.prediction.stream import Votes, answered, joined
from kfusion.prediction.tables import answer_table, error_table
from kfusion.prediction.work import Work
from kfusion.rules import UserError
from kfusion.spec import Spec

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
