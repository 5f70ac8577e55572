"""Shards answered by several processes, on one machine or many: Ray Data runs what the local engine runs.

Input, model and the output's folder must be on storage that all machines see. A worker keeps a shard by renaming it
into place, so that one that is killed has done a shard or has not; Ray hands its shard to another.
"""

import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfusion
from kfusion.cli import quiet
from kfusion.prediction.engine import Plan, Spans, answer_shards
from kfusion.prediction.models import Model, load_model
from kfusion.validation import UserError, reason

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
