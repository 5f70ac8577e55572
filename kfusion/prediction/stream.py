"""Rows in, answers out, batch by batch: while the model answers one, a thread reads the next."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from kfusion.prediction.chunks import Arrays, Files, Rows
from kfusion.prediction.models import Model
from kfusion.spec import FUSED, MODALITIES

BATCH_ROWS = 1024
AHEAD = 2
"""Batches that are read while one is answered."""
VOTES = (FUSED, *MODALITIES)


@dataclass(eq=False)
class Votes:
    """The answers to some rows.

    Args:
        start: the first row's number.
        label: for each view int (n,): the class, or -1 where there is no answer.
        confidence: for each view float (n,): its probability.
        reason: one text a row: why it was not answered, or "".
    """

    start: int
    label: dict[str, np.ndarray]
    confidence: dict[str, np.ndarray]
    reason: list[str]

    def __len__(self) -> int:
        return len(self.reason)


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
