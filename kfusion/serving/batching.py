"""Micro-batching: requests that arrive while the model runs share its next run.

An idle model starts at once, with the requests that are there. If a joined run fails, its requests are halved until the
bad one is alone, so that the others get their outputs.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np

from kfusion.serving.model_manager import Version

Arrays = Mapping[str, np.ndarray]
Reply = dict[str, np.ndarray] | Exception


@dataclass(frozen=True, eq=False)
class Job:
    """One request's tensors, and the future that gets its outputs."""

    inputs: Arrays
    num_rows: int
    outputs: asyncio.Future[dict[str, np.ndarray]]


@dataclass(eq=False)
class Lane:
    """The requests to one signature of one version; at most one run of it at a time."""

    version: Version
    signature: str
    waiting: deque[Job] = field(default_factory=deque)
    busy: bool = False
    joins: bool = True
    """Whether the outputs have a row for each row of the inputs, as far as is known."""


class Batcher:
    """Gives jobs to the model in joined runs.

    Args:
        pool: the threads in which models run.
        max_joined: most rows of several jobs in one run; a larger job runs alone.
        observe: is called with the rows, jobs and seconds of each run.
    """

    def __init__(self, pool: Executor, max_joined: int, observe: Callable[[int, int, float], None]) -> None:
        self._pool, self._max_joined, self._observe = pool, max_joined, observe
        self._lanes: dict[tuple[Version, str], Lane] = {}

    def submit(self, version: Version, signature: str, inputs: Arrays, num_rows: int) -> asyncio.Future:
        """Queues a job; the version is held until the job's run is over, however long its sender waits.

        Args:
            version: the version that runs.
            signature: the endpoint's name.
            inputs: its arrays by name.
            num_rows: rows of each of them.

        Returns:
            A future of {name: array} with `num_rows` rows each, or of the runtime's error.
        """
        outputs = asyncio.get_running_loop().create_future()
        lane = self._lanes.setdefault((version, signature), Lane(version, signature))
        lane.waiting.append(Job(inputs, num_rows, outputs))
        version.hold()
        if not lane.busy:
            self._start(lane)
        return outputs

    def forget(self, version: Version) -> None:
        """Drops the lanes of a version that is not served any more."""
        self._lanes = {key: lane for key, lane in self._lanes.items() if key[0] is not version}

    def _start(self, lane: Lane) -> None:
        jobs = self._take(lane)
        lane.busy = bool(jobs)
        if jobs:
            run = asyncio.get_running_loop().run_in_executor(self._pool, _run, lane, jobs)
            run.add_done_callback(lambda done: self._finish(lane, jobs, done))

    def _take(self, lane: Lane) -> list[Job]:
        """The next jobs that fit into one run; cancelled ones are dropped."""
        jobs: list[Job] = []
        num_rows = 0
        while lane.waiting:
            job = lane.waiting[0]
            if job.outputs.done():
                lane.version.release()
            elif jobs and (num_rows + job.num_rows > self._max_joined or not _alike(jobs[0], job)):
                break
            else:
                jobs.append(job)
                num_rows += job.num_rows
            lane.waiting.popleft()
        return jobs

    def _finish(self, lane: Lane, jobs: list[Job], run: asyncio.Future) -> None:
        error = run.exception()
        replies, seconds = ([error] * len(jobs), 0.0) if error else run.result()
        for job, reply in zip(jobs, replies, strict=True):
            lane.version.release()
            if job.outputs.done():
                continue
            if isinstance(reply, BaseException):
                job.outputs.set_exception(reply)
            else:
                job.outputs.set_result(reply)
        self._observe(sum(job.num_rows for job in jobs), len(jobs), seconds)
        self._start(lane)


def _alike(one: Job, other: Job) -> bool:
    """Whether two jobs' tensors differ in the number of rows only."""
    return all(array.shape[1:] == other.inputs[name].shape[1:] for name, array in one.inputs.items())


def _run(lane: Lane, jobs: list[Job]) -> tuple[list[Reply], float]:
    """In a thread of the pool: the outputs or the error of each job, and the seconds that it took."""
    began = time.perf_counter()
    return _replies(lane, jobs), time.perf_counter() - began


def _replies(lane: Lane, jobs: list[Job], any_fails: bool = False) -> list[Reply]:
    """The outputs or the error of each job. One bad job of n costs some 2·log₂ n further runs.

    Args:
        lane: theirs.
        jobs: all of one shape but for the rows.
        any_fails: a bad job is known to be among them, so that a joined run would fail.
    """
    if len(jobs) == 1 or not lane.joins:
        return [_alone(lane, job) for job in jobs]
    if not any_fails and (shares := _together(lane, jobs)) is not None:
        return shares
    middle = len(jobs) // 2
    first = _replies(lane, jobs[:middle])
    failed = sum(isinstance(reply, Exception) for reply in first)
    if failed == middle:  # They fail in numbers: halving would cost more than it saves.
        return first + [_alone(lane, job) for job in jobs[middle:]]
    return first + _replies(lane, jobs[middle:], any_fails=not failed)


def _together(lane: Lane, jobs: list[Job]) -> list[Reply] | None:
    """Each job's rows of one run; None where it fails, or its outputs have no row for each input row."""
    try:
        joined = {name: np.concatenate([job.inputs[name] for job in jobs]) for name in jobs[0].inputs}
        outputs = lane.version.ask(lane.signature, joined)
    except Exception:  # Separate runs show which job is bad.
        return None
    ends = np.cumsum([job.num_rows for job in jobs]).tolist()
    if any(not array.ndim or len(array) != ends[-1] for array in outputs.values()):
        lane.joins = False
        return None
    starts = [0, *ends[:-1]]
    return [
        {name: array[start:end] for name, array in outputs.items()} for start, end in zip(starts, ends, strict=True)
    ]


def _alone(lane: Lane, job: Job) -> Reply:
    try:
        return dict(lane.version.ask(lane.signature, job.inputs))
    except Exception as error:  # The job's own reply.
        return error
