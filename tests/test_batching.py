"""Micro-batching by itself, on a small model: which requests share a run, and that one bad request fails alone."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from kfusion.runtime.c_api import Refused
from kfusion.serving.batching import Batcher
from kfusion.serving.model_manager import Version
from tests.tiny_models import export_modalities


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batching")
    export_modalities(folder / "1", ("audio",))
    loaded = Version(folder, 1)
    loaded.load()
    yield loaded
    loaded.close()


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """In a thread of its own: playwright's loop, where another test began it, runs in the main one to the end."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(main())).result()


def answers(version, jobs, max_joined=64):
    """Submits the jobs while the model is kept busy; their answers, and (rows, jobs) of each run."""
    runs: list[tuple[int, int]] = []

    async def main() -> list[Any]:
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(pool, max_joined, lambda rows, number, _: runs.append((rows, number)))
            free = threading.Event()
            pool.submit(free.wait)
            futures = [batcher.submit(version, signature, {"audio": rows}, len(rows)) for signature, rows in jobs]
            free.set()
            return await asyncio.gather(*futures, return_exceptions=True)

    return run(main), runs


def sounds(*sizes):
    rng = np.random.default_rng(0)
    return [("audio_only", rng.normal(size=(size, 26)).astype(np.float32)) for size in sizes]


def test_jobs_that_wait_share_a_run_and_get_their_own_rows(version):
    jobs = sounds(1, 2, 3, 1)
    found, runs = answers(version, jobs)
    # The first was alone when it came; the others came while it waited for the model.
    assert runs == [(1, 1), (6, 3)]
    for (signature, rows), answer in zip(jobs, found, strict=True):
        alone = version.ask(signature, {"audio": rows})
        assert answer.keys() == alone.keys()
        np.testing.assert_allclose(answer["probabilities"], alone["probabilities"], atol=1e-6)
        assert answer["class_name"].tolist() == alone["class_name"].tolist()


def test_no_run_is_larger_than_it_may_be(version):
    assert answers(version, sounds(1, 3, 3, 3, 9), max_joined=6)[1] == [(1, 1), (6, 2), (3, 1), (9, 1)]


def test_a_bad_job_fails_alone(version):
    jobs = sounds(1, 2, 1, 2)
    jobs[2][1][:] = np.nan
    found, runs = answers(version, jobs)
    assert runs == [(1, 1), (5, 3)]
    assert isinstance(found[2], Refused) and found[2].code == "INVALID_ARGUMENT"
    for index in (0, 1, 3):
        np.testing.assert_allclose(
            found[index]["probabilities"], version.ask(*_named(jobs[index]))["probabilities"], atol=1e-6
        )


class Counting:
    """Stands in for a version: counts its runs, and refuses any in which a row is NaN."""

    def __init__(self, outputs=lambda rows: {"sum": rows.sum(axis=1)}):
        self.outputs, self.sizes = outputs, []

    def hold(self):
        pass

    release = hold

    def ask(self, _, inputs):
        rows = inputs["audio"]
        self.sizes.append(len(rows))
        if np.isnan(rows).any():
            raise Refused(3, f"refused: {np.flatnonzero(np.isnan(rows).any(axis=1))}")
        return self.outputs(rows)


def counted(num_jobs, bad=(), **settings):
    """The answers to jobs of a row each, and the sizes of the runs that they took; the first job runs alone."""
    version = Counting(**settings)
    jobs = [("audio_only", np.full((1, 2), np.nan if job in bad else job)) for job in range(num_jobs)]
    return answers(version, jobs)[0], version.sizes


@pytest.mark.parametrize(("bad", "most_runs"), [((), 2), ((1,), 15), ((64,), 15), ((40,), 15), ((7, 50), 28)])
def test_one_bad_job_costs_its_neighbours_a_few_runs_and_not_one_each(bad, most_runs):
    found, sizes = counted(65, bad)
    assert len(sizes) <= most_runs
    for job, answer in enumerate(found):
        if job in bad:
            assert isinstance(answer, Refused) and str(answer) == "refused: [0]"
        else:
            assert answer["sum"].tolist() == [2 * job]


def test_many_bad_jobs_cost_little_more_than_a_run_each():
    found, sizes = counted(65, range(65))
    assert all(isinstance(answer, Refused) for answer in found)
    assert len(sizes) <= 65 + 6
    found, sizes = counted(65, range(1, 65, 2))
    assert sum(isinstance(answer, Refused) for answer in found) == 32 and len(sizes) < 2 * 65


def test_outputs_that_cannot_be_shared_out_are_asked_for_one_by_one_and_not_halved():
    found, sizes = counted(9, outputs=lambda rows: {"mean": rows.mean()})
    assert [answer["mean"] for answer in found] == list(range(9))
    assert sizes == [1, 8, *[1] * 8]


def _named(job):
    return job[0], {"audio": job[1]}


def test_a_version_is_held_until_its_last_run_is_over(version):
    async def main():
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(pool, 64, lambda *_: None)
            free = threading.Event()
            pool.submit(free.wait)
            futures = [batcher.submit(version, name, {"audio": rows}, len(rows)) for name, rows in sounds(1, 1)]
            drained = asyncio.create_task(version.drained())
            for future in futures:
                future.cancel()  # Nobody waits any more, but the first run has begun.
            await asyncio.sleep(0.05)
            assert not drained.done()
            free.set()
            await asyncio.wait_for(drained, 60)

    run(main)
