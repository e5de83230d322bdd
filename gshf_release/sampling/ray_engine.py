"""Runs replicas of an engine side by side under Ray: `replicas` in the profile, over any engine.

An existing cluster is used (`RAY_ADDRESS`, or what `ray start` began on this machine), else a local one that lives as long as
this engine. The replicas are actors and stay for all shards of a stage; those of Ray Data would start again with every shard.
Requests go out in pieces; when a worker is lost, with its machine or alone, another takes its piece, and a new one is started
where the cluster has room. Seeds belong to requests, so neither their number nor a loss changes a draw beyond what the
engine's own batches do.
"""

from __future__ import annotations

import importlib.util
import math
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from gshf_release import environments
from gshf_release.errors import EngineError, GshfError
from gshf_release.models.chat_tokenizer import stop_ids
from gshf_release.models.checkpoints import context_tokens, load_generation_config, load_tokenizer, prepare
from gshf_release.recipe.profile import Profile
from gshf_release.run import interrupt
from gshf_release.run.context import silent
from gshf_release.sampling import ENGINES, cpu_cores
from gshf_release.sampling.protocol import Completion, Progress, Request, SamplingEngine, require_fitting

FRACTION = 1e4
"""Ray counts CPUs in parts of this size."""
REPLACEMENTS = 3
"""How often a lost worker is replaced before its loss is an error."""
POLL_SECONDS = 1.0
LEAVING_SECONDS = 30.0
"""How long workers may take to leave by themselves."""
PATIENCE_SECONDS = 600.0
"""How long the cluster may have a place for no worker at all before that is an error."""
PIECE_BATCHES = 8
"""A piece is at most so many batches: within it responses that end make room for others, after it a worker waits for the last
one; and it is what a lost worker loses."""


class RayEngine:
    """Divides requests among `replicas` workers, each with an engine of its own."""

    def __init__(self, checkpoint: Path, profile: Profile) -> None:
        """Reach the cluster, or start one here, and start the workers; what they answer says whether they could.

        Args:
            checkpoint: A checkpoint folder, at the same path on all machines of the cluster.
            profile: Its `replicas`, and the engine of each.

        Raises:
            EngineError: Ray is not installed, the cluster does not answer, or it is too small.
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
        machines = [float(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]]
        try:
            self._cpus = cpus_each(float(ray.cluster_resources().get("CPU", 0)), profile.replicas)
            gpus = gpus_each(machines, profile.replicas, profile.vllm.tensor_parallel)
        except EngineError:
            if self._owned:
                ray.shutdown()
            raise
        self._kind = ray.remote(Worker).options(
            num_cpus=self._cpus,
            num_gpus=gpus,
            scheduling_strategy="SPREAD",  # over machines; Ray would fill one half before it takes another
            # A cluster that was started from vLLM's environment has no other way to this package.
            runtime_env={"env_vars": {"PYTHONPATH": str(environments.package_folder())}},
        )
        self._arguments = (str(checkpoint.resolve()), profile.model_dump_json())
        self._replicas: list[EngineReplica] = []
        self._idle: list[EngineReplica] = []
        self._pending: dict[Any, tuple[EngineReplica, int | None]] = {}
        """What each unfinished call is for: a replica, and the number of its piece; None where nobody waits for the answer."""
        own = cpu_cores.divided(cpu_cores.here(), profile.replicas) if started_here else [[]] * profile.replicas
        for share in own:
            self._replicas.append(EngineReplica(share))
            self._start(self._replicas[-1])

    def generate(self, requests: Sequence[Request], progress: Progress) -> list[Completion]:
        """Return one completion per request.

        Raises:
            EngineError: A prompt and its answer do not fit the context, or a worker's engine failed.
            Interrupted: The process was asked to stop.
        """
        require_fitting(requests, self.context_tokens)
        pieces = in_pieces(len(requests), PIECE_BATCHES * self.profile.sampling_batch, self.profile.replicas)
        found: dict[int, Completion] = {}
        for number, completions in self._results([[requests[index] for index in piece] for piece in pieces]):
            found.update(zip(pieces[number], completions, strict=True))
            progress(len(found), len(requests), "responses")
        return [found[index] for index in range(len(requests))]

    def close(self) -> None:
        """End the workers, and the local cluster; one that was there is left."""
        import ray

        leaving = [replica.actor.__ray_terminate__.remote() for replica in self._idle]
        if leaving:  # what comes next needs the memory of their devices
            ray.wait(leaving, num_returns=len(leaving), timeout=LEAVING_SECONDS)
        for replica in self._replicas:
            ray.kill(replica.actor)
        self._replicas, self._idle, self._pending = [], [], {}
        if self._owned:
            ray.shutdown()

    def _start(self, replica: EngineReplica) -> None:
        """Start the worker of a replica, and have its engine opened: pieces go only to those that are.

        The replica is idle, and gets pieces, once the call `open` has answered.
        """
        replica.actor = self._kind.remote(*self._arguments, replica.cores)
        replica.placed = replica.actor.__ray_ready__.remote()
        self._pending[replica.actor.open.remote()] = replica, None

    def _results(self, pieces: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Completion]]]:
        """Yield a piece's number and its completions, in the order in which pieces finish.

        Raises:
            EngineError: An engine failed, a worker was lost too often, or no worker gets a place.
        """
        waiting, placed = deque(range(len(pieces))), time.monotonic()
        try:
            missing = len(pieces)
            while missing:
                interrupt.check()
                placed = self._last_placed(placed)
                while waiting and self._idle:
                    replica, number = self._idle.pop(), waiting.popleft()
                    self._pending[replica.actor.generate.remote(pieces[number])] = replica, number
                for replica, finished, completions in self._completed():
                    if completions is not None:
                        self._idle.append(replica)
                    if finished is not None and completions is None:  # the worker was lost: its piece goes out first
                        waiting.appendleft(finished)
                    elif finished is not None:
                        missing -= 1
                        yield finished, completions or []
        finally:
            # After an error or Ctrl-C, answers to these pieces still come: the next call must not take them for its own.
            self._pending = {call: (replica, None) for call, (replica, _) in self._pending.items()}

    def _completed(self) -> Iterator[tuple[EngineReplica, int | None, list[Completion] | None]]:
        """Wait a moment; yield each replica that answered, its piece and the completions: None if its worker was lost."""
        import ray
        from ray import exceptions

        for call in ray.wait(list(self._pending), timeout=POLL_SECONDS)[0]:
            replica, number = self._pending.pop(call)
            try:
                completions, error = ray.get(call)
            except (exceptions.RayActorError, exceptions.ObjectLostError, exceptions.OutOfMemoryError) as lost:
                self._replace(replica, _last_line(lost))
                yield replica, number, None
            except exceptions.RayError as failure:
                raise EngineError(f"Sampling under Ray failed: {_last_line(failure)}") from failure
            else:
                if error:
                    if number is not None:  # the worker is there, and may be asked again
                        self._idle.append(replica)
                    raise EngineError(error)
                yield replica, number, completions

    def _last_placed(self, before: float) -> float:
        """Return when a worker last had a place on the cluster: now, if one has; its engine may take long to open all the same.

        Raises:
            EngineError: That is too long ago.
        """
        import ray

        if ray.wait([replica.placed for replica in self._replicas], timeout=0)[0]:
            return time.monotonic()
        if time.monotonic() - before > PATIENCE_SECONDS:
            raise EngineError(
                f"The Ray cluster has had no room for a replica for {PATIENCE_SECONDS / 60:g} minutes; others may use it.",
                hint="Run the same command when it is free; `ray status` on it says what is taken.",
            )
        return before

    def _replace(self, replica: EngineReplica, why: str) -> None:
        """Start another worker for a replica whose worker was lost.

        Raises:
            EngineError: It was lost too often.
        """
        import ray

        replica.losses += 1
        if replica.losses > REPLACEMENTS:
            raise EngineError(
                f"Sampling under Ray failed: a worker was lost {replica.losses} times; the last time: {why}"
            )
        ray.kill(replica.actor)  # it may only be out of reach
        self._start(replica)


@dataclass(eq=False)
class EngineReplica:
    """Holds the state of one of the `replicas`, whichever worker serves it."""

    cores: Sequence[int]
    """Those that it keeps to; empty: Ray's choice."""
    actor: Any = None
    placed: Any = None
    """A call that is answered as soon as its worker runs somewhere."""
    losses: int = 0


class Worker:
    """Runs an engine in a process of Ray's; every call returns completions, and why there are none.

    An expected error is returned, not raised: Ray would wrap it and add the worker's traceback to its message.
    """

    engine: SamplingEngine

    def __init__(self, checkpoint: str, profile: str, own: Sequence[int]) -> None:
        self.checkpoint, self.profile = Path(checkpoint), Profile.model_validate_json(profile)
        if own:
            cpu_cores.stay_on(own)

    def open(self) -> tuple[list[Completion], str]:
        """Open the engine."""
        prepare(self.profile)
        try:
            self.engine = ENGINES[self.profile.engine](self.checkpoint, self.profile)
        except GshfError as error:
            return [], str(error)
        return [], ""

    def generate(self, requests: Sequence[Request]) -> tuple[list[Completion], str]:
        """Sample these requests."""
        try:
            return self.engine.generate(requests, silent), ""
        except GshfError as error:
            return [], str(error)


def cpus_each(total: float, replicas: int) -> float:
    """Return the CPUs that Ray books for each worker, 1 at most: one is always left for what else runs on the cluster.

    Raises:
        EngineError: The cluster has less than two.
    """
    if total < 2:
        raise EngineError(f"The Ray cluster has {total:g} CPU; one is needed beside the replicas.")
    return min(1.0, math.floor((total - 1) / replicas * FRACTION) / FRACTION)


def gpus_each(machines: Sequence[float], replicas: int, wanted: int) -> int:
    """Return the GPUs that Ray books for each worker: none on a cluster without any.

    Args:
        machines: The GPUs of each machine.
        replicas: How many workers there will be.
        wanted: The GPUs of one worker, all of one machine.

    Raises:
        EngineError: They do not fit, and some would wait for ever.
    """
    if not any(machines):
        return 0
    room = sum(int(gpus // wanted) for gpus in machines)
    if room < replicas:
        raise EngineError(
            f"replicas: {replicas} with vllm.tensor_parallel: {wanted} needs {replicas * wanted} GPUs; the Ray cluster has "
            f"{sum(machines):g}, at most {max(machines):g} on a machine, which is room for {room}.",
            hint="Set replicas or vllm.tensor_parallel in the profile lower, or add machines to the cluster.",
        )
    return wanted


def in_pieces(count: int, most: int, replicas: int) -> list[list[int]]:
    """Return consecutive positions in pieces of at most `most`, and at least as many pieces as replicas if possible."""
    size = max(1, min(most, math.ceil(count / replicas)))
    return [list(range(start, min(start + size, count))) for start in range(0, count, size)]


def _reach(ray: Any) -> bool:
    """Connect to the cluster, or start one on this machine; say whether it is one of our own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    os.environ.setdefault(
        "RAY_worker_niceness", "0"
    )  # Ray's default is 15, the last to get a core: https://github.com/ray-project/ray/pull/24928
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        ray.init(address="auto", **quiet)
    except ConnectionError as error:
        if address := os.environ.get("RAY_ADDRESS"):  # one of our own would be much smaller than what was asked for
            raise EngineError(
                f"The Ray cluster at RAY_ADDRESS={address} does not answer.",
                hint="Start it, or unset RAY_ADDRESS; if it was started with a token, set RAY_AUTH_MODE=token here too.",
            ) from error
        ray.init(address="local", num_cpus=max(2, os.cpu_count() or 1), include_dashboard=False, **quiet)
        return True
    return False


def _last_line(error: Exception) -> str:
    return shorten((str(error).strip().splitlines() or [type(error).__name__])[-1], width=200)
