"""Copies of an engine that sample side by side under Ray: `replicas` in the profile, over any engine.

An existing cluster is used (`RAY_ADDRESS`, or what `ray start` began on this machine), else a local one that lives as long as
this engine. The copies are actors and stay for all shards of a stage; those of Ray Data would start again with every shard.
Requests go out in pieces; when a worker is lost, Ray starts another one and gives it the same piece again. Seeds belong to
requests, so neither the number of copies nor a loss changes a draw beyond what the engine's own batches do.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gshf_release.checkpoints import context_tokens, load_generation_config, load_tokenizer, prepare
from gshf_release.errors import EngineError, GshfError
from gshf_release.profile import Profile
from gshf_release.rendering import stop_ids
from gshf_release.run import interrupt
from gshf_release.run.context import silent
from gshf_release.sampling import ENGINES, cores
from gshf_release.sampling.protocol import Completion, Progress, Request, SamplingEngine, require_fitting

FRACTION = 1e4
"""Ray counts CPUs in parts of this size."""
RESTARTS = 3
"""How often a lost worker is started again before its loss is an error."""
POLL_SECONDS = 1.0
PIECE_BATCHES = 8
"""A piece is at most so many batches: within it responses that end make room for others, after it a worker waits for the last
one; and it is what a lost worker loses."""


class RayEngine:
    """`replicas` workers, each with an engine of its own."""

    def __init__(self, checkpoint: Path, profile: Profile) -> None:
        """Reach the cluster, or start one here, and start the workers; what they answer says whether they could.

        Args:
            checkpoint: A checkpoint folder, at the same path on all machines of the cluster.
            profile: Its `replicas`, and the engine of each.

        Raises:
            EngineError: Ray is not installed, or the cluster has no CPU to spare.
        """
        if importlib.util.find_spec("ray") is None:
            raise EngineError(
                "The profile asks for replicas, and Ray is not installed.",
                hint="Run: pip install 'gshf-release[ray]'; or set replicas to 1.",
            )
        import ray

        self.profile = profile
        self.stops = stop_ids(load_tokenizer(checkpoint), load_generation_config(checkpoint))
        limits = [context_tokens(checkpoint), profile.vllm.context_tokens if profile.engine == "vllm" else None]
        self.context_tokens: int | None = min((limit for limit in limits if limit is not None), default=None)
        self._owned = not ray.is_initialized()
        started_here = _reach(ray) if self._owned else False
        resources = ray.cluster_resources()
        self._cpus = cpus_each(float(resources.get("CPU", 0)), profile.replicas)
        worker = ray.remote(Worker).options(
            num_cpus=self._cpus,
            num_gpus=profile.vllm.tensor_parallel if resources.get("GPU") else 0,
            max_restarts=RESTARTS,
            max_task_retries=RESTARTS,
        )
        arguments = (str(checkpoint.resolve()), profile.model_dump_json())
        own = cores.divided(cores.here(), profile.replicas) if started_here else [[]] * profile.replicas
        self._workers = [worker.remote(*arguments, share) for share in own]

    def generate(self, requests: Sequence[Request], progress: Progress) -> list[Completion]:
        """Return one completion per request.

        Raises:
            EngineError: A prompt and its answer do not fit the context, or a worker's engine failed.
            Interrupted: The process was asked to stop.
        """
        require_fitting(requests, self.context_tokens)
        pieces = in_pieces(len(requests), PIECE_BATCHES * self.profile.sampling_batch, self.profile.replicas)
        found: dict[int, Completion] = {}
        for number, completions, error in self._answers([[requests[index] for index in piece] for piece in pieces]):
            if error:
                raise EngineError(error)
            found.update(zip(pieces[number], completions, strict=True))
            progress(len(found), len(requests), "responses")
        return [found[index] for index in range(len(requests))]

    def close(self) -> None:
        """End the workers, and the local cluster; one that was there is left."""
        import ray

        for worker in self._workers:
            ray.kill(worker)
        self._workers = []
        if self._owned:
            ray.shutdown()

    def _answers(self, pieces: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Completion], str]]:
        """Yield a piece's number, its completions and what went wrong, in the order in which pieces finish."""
        import ray
        from ray.util import ActorPool

        pool = ActorPool(self._workers)
        for entry in enumerate(pieces):
            pool.submit(lambda worker, value: worker.generate.remote(*value), entry)
        while pool.has_next():
            interrupt.check()
            try:
                yield pool.get_next_unordered(timeout=POLL_SECONDS)
            except TimeoutError:
                continue
            except ray.exceptions.RayError as error:
                lost = (
                    f"a worker was lost {RESTARTS + 1} times" if isinstance(error, ray.exceptions.ActorError) else error
                )
                raise EngineError(f"Sampling under Ray failed: {str(lost).strip().splitlines()[-1]}") from error


class Worker:
    """An engine in a process of Ray's."""

    def __init__(self, checkpoint: str, profile: str, own: Sequence[int]) -> None:
        if own:
            cores.stay_on(own)
        known = Profile.model_validate_json(profile)
        prepare(known)
        self.error = ""
        self.engine: SamplingEngine | None = None
        try:
            self.engine = ENGINES[known.engine](Path(checkpoint), known)
        except GshfError as error:  # tried again, it would fail again
            self.error = str(error)

    def generate(self, number: int, requests: Sequence[Request]) -> tuple[int, list[Completion], str]:
        """Return the number, the completions of these requests, and why there are none."""
        if self.engine is None:
            return number, [], self.error
        try:
            return number, self.engine.generate(requests, silent), ""
        except GshfError as error:
            return number, [], str(error)


def cpus_each(total: float, replicas: int) -> float:
    """Return the CPUs that Ray books for each worker, 1 at most: one is always left for what else runs on the cluster.

    Raises:
        EngineError: The cluster has less than two.
    """
    if total < 2:
        raise EngineError(f"The Ray cluster has {total:g} CPU; one is needed beside the replicas.")
    return min(1.0, math.floor((total - 1) / replicas * FRACTION) / FRACTION)


def in_pieces(count: int, most: int, replicas: int) -> list[list[int]]:
    """Return consecutive positions in pieces of at most `most`, and at least as many pieces as replicas if possible."""
    size = max(1, min(most, math.ceil(count / replicas)))
    return [list(range(start, min(start + size, count))) for start in range(0, count, size)]


def _reach(ray: Any) -> bool:
    """Connect to the cluster, or start one on this machine; say whether it is one of our own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its own processes; what fails comes back as an exception
    os.environ.setdefault(
        "RAY_worker_niceness", "0"
    )  # workers started here are as urgent as this process, not the last
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        ray.init(address="auto", **quiet)
    except ConnectionError:
        ray.init(address="local", num_cpus=max(2, os.cpu_count() or 1), include_dashboard=False, **quiet)
        return True
    return False
