"""Copies of an engine that sample side by side under Ray Data: `replicas` in the profile, over any engine.

An existing cluster is used (`RAY_ADDRESS`, or what `ray start` began on this machine), else a local one that lives as long as
this engine. Requests go out in pieces; when a worker is lost, Ray starts another one and gives it the same pieces again. Seeds
belong to requests, so neither the number of copies nor a loss changes a draw beyond what the engine's own batches do.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gshf_release.checkpoints import context_tokens, load_generation_config, load_tokenizer, prepare
from gshf_release.errors import EngineError, GshfError
from gshf_release.profile import Profile
from gshf_release.rendering import stop_ids
from gshf_release.run import interrupt
from gshf_release.sampling import ENGINES
from gshf_release.sampling.protocol import Completion, Decoding, Progress, Request, require_fitting

FRACTION = 1e4
"""Ray counts CPUs in parts of this size."""


class RayEngine:
    """`replicas` workers, each with an engine of its own."""

    def __init__(self, checkpoint: Path, profile: Profile) -> None:
        """Reach the cluster, or start one here; the workers begin with the first requests.

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

        self.checkpoint, self.profile = checkpoint.resolve(), profile
        self.stops = stop_ids(load_tokenizer(checkpoint), load_generation_config(checkpoint))
        limits = [context_tokens(checkpoint), profile.vllm.context_tokens if profile.engine == "vllm" else None]
        self.context_tokens: int | None = min((limit for limit in limits if limit is not None), default=None)
        self._owned = not ray.is_initialized()
        if self._owned:
            _reach(ray)
        self._cpus = cpus_each(float(ray.cluster_resources().get("CPU", 0)), profile.replicas)

    def generate(self, requests: Sequence[Request], progress: Progress) -> list[Completion]:
        """Return one completion per request.

        Raises:
            EngineError: A prompt and its answer do not fit the context, or a worker's engine failed.
            Interrupted: The process was asked to stop.
        """
        require_fitting(requests, self.context_tokens)
        pieces = in_pieces(len(requests), self.profile.sampling_batch, self.profile.replicas)
        found: dict[int, Completion] = {}
        for row in self._answers([[asdict(requests[index]) for index in piece] for piece in pieces]):
            interrupt.check()
            if row["error"]:
                raise EngineError(str(row["error"]))
            completions = [Completion(**entry) for entry in json.loads(row["completions"])]
            found.update(zip(pieces[int(row["piece"])], completions, strict=True))
            progress(len(found), len(requests), "responses")
        return [found[index] for index in range(len(requests))]

    def close(self) -> None:
        """End the local cluster, or leave the one that was there."""
        if self._owned:
            import ray

            ray.shutdown()

    def _answers(self, pieces: Sequence[Sequence[dict[str, Any]]]) -> Any:
        """Yield `{"piece", "completions", "error"}` in the order in which pieces finish."""
        if not pieces:
            return iter(())
        import ray

        rows = [{"piece": number, "requests": json.dumps(piece)} for number, piece in enumerate(pieces)]
        gpus = self.profile.vllm.tensor_parallel if ray.cluster_resources().get("GPU") else 0
        return (
            ray.data.from_items(rows, override_num_blocks=len(rows))
            .map(
                Worker,
                fn_constructor_args=(str(self.checkpoint), self.profile.model_dump_json()),
                compute=ray.data.ActorPoolStrategy(size=min(self.profile.replicas, len(rows))),
                num_cpus=self._cpus,
                num_gpus=gpus,
            )
            .iter_rows()
        )


class Worker:
    """An engine in a process of Ray's."""

    def __init__(self, checkpoint: str, profile: str) -> None:
        known = Profile.model_validate_json(profile)
        prepare(known)
        self.error, self.engine = "", None
        try:
            self.engine = ENGINES[known.engine](Path(checkpoint), known)
        except GshfError as error:  # tried again, it would fail again
            self.error = str(error)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the completions of a piece, or why there are none."""
        answer = {"piece": row["piece"], "completions": "[]", "error": self.error}
        if self.engine is None:
            return answer
        requests = [
            Request(entry["prompt_ids"], Decoding(**entry["decoding"]), entry["seed"], entry["prompt_id"])
            for entry in json.loads(row["requests"])
        ]
        try:
            found = self.engine.generate(requests, lambda done, total, unit: None)
        except GshfError as error:
            return answer | {"error": str(error)}
        return answer | {"completions": json.dumps([asdict(completion) for completion in found])}


def cpus_each(total: float, replicas: int) -> float:
    """Return the CPUs that Ray books for each worker, 1 at most: one is always left.

    Ray Data reads and writes in tasks that need a CPU; if workers hold all of them, it waits forever.

    Raises:
        EngineError: The cluster has less than two.
    """
    if total < 2:
        raise EngineError(f"The Ray cluster has {total:g} CPU; one is needed beside the replicas.")
    return min(1.0, math.floor((total - 1) / replicas * FRACTION) / FRACTION)


def in_pieces(count: int, batch: int, replicas: int) -> list[list[int]]:
    """Return consecutive positions in pieces of at most a batch, and at least as many pieces as replicas if possible."""
    size = max(1, min(batch, math.ceil(count / replicas)))
    return [list(range(start, min(start + size, count))) for start in range(0, count, size)]


def _reach(ray: Any) -> None:
    """Connect to the cluster, or start one on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its own processes; what fails comes back as an exception
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        ray.init(address="auto", **quiet)
    except ConnectionError:
        ray.init(address="local", num_cpus=max(2, os.cpu_count() or 1), include_dashboard=False, **quiet)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.data._internal"):
        logging.getLogger(name).setLevel(logging.ERROR)
