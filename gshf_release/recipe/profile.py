"""The profile: *where* a run happens. Recorded, never fingerprinted: moving a run to another machine redoes nothing."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gshf_release.data import assets
from gshf_release.recipe import Count, Name, PositiveInt, Section, parse, read_mapping


class Server(Section):
    """A server that speaks OpenAI's chat completions: OpenAI itself, vLLM, llama.cpp, and many others."""

    address: Annotated[str, Field(pattern=r"^https?://[^@?#\s]+$")] | None = None
    """Up to `/v1`, as a rule, for example https://api.openai.com/v1; an ending `/chat/completions` does not count. No user,
    password or key stands in it."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; the key itself stands in no file."""
    key_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")] = "Authorization"
    """The header that carries the key: `Authorization` (as a bearer token), or Azure's `api-key`."""
    api_version: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+$")] | None = None
    """Azure's `api-version`; its address ends in `/openai/deployments/DEPLOYMENT`."""
    concurrent_requests: Count = 8
    timeout_seconds: Annotated[float, Field(gt=0)] = 120.0
    attempts: PositiveInt = 6
    """How often a request is tried before the command gives up."""


class Vllm(Section):
    """Says how vLLM runs; read with `engine: vllm` alone."""

    memory_share: Annotated[float, Field(gt=0, le=1)] = 0.85
    """Of a GPU's memory, for weights and the cache of keys and values."""
    cpu_cache_gb: PositiveInt = 2
    """Where there is no GPU, memory for the cache of keys and values in 2^30 bytes."""
    context_tokens: PositiveInt | None = None
    """Longest prompt with its answer; None is the model's own context, which must fit the cache."""
    tensor_parallel: Count = 1
    """GPUs that one copy of the model is spread over."""
    compile: bool = True
    """Faster sampling for a slower start; on a CPU it takes a C++ compiler."""


class Hardware(Section):
    """Says what `train --plan` reckons with, of one device. No stage reads it."""

    memory_gb: Annotated[float, Field(gt=0)] | None = None
    """Memory of one device in 1e9 bytes; None asks the device, if it is here."""
    tokens_per_second: Annotated[float, Field(gt=0)] | None = None
    """Response tokens sampled in a second with a model of `at_parameters`; other sizes go in inverse proportion.
    A copy of vLLM on n devices (`vllm.tensor_parallel`) is taken to be n times as fast."""
    at_parameters: Annotated[float, Field(gt=0)] = 7.24e9
    flops: Annotated[float, Field(gt=0)] | None = None
    """Floating-point operations in a second that training and scoring reach (not the peak of a data sheet)."""
    price_per_gpu_hour: Annotated[float, Field(ge=0)] | None = None
    """What a device costs in an hour, in any currency; all that train or sample are paid for by wall-clock hours."""


class Judging(Section):
    """Says how judges are paid and asked."""

    max_cost: Annotated[float, Field(ge=0)] | None = None
    """US dollars that one command may spend on judges; None sets no limit."""
    batch: bool = False
    """Ask through the endpoint's Batch API, which is slower and cheaper."""


class Profile(Section):
    """Devices, processes and batch sizes. None of it may change what a stage means."""

    name: Name = "laptop"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Count | None = None
    """CPU threads of torch; None leaves torch's own choice."""
    training_threads: Count | None = None
    """CPU threads of torch in optimiser steps, whose matrices are large enough for several; None: as `threads`."""
    engine: Literal["transformers", "vllm", "openai"] = "transformers"
    """What samples. `vllm` lives in its own environment (gshf-release setup vllm). `openai` is the server of `server`: it must
    serve the policy's own folder and answer with token ids, as `vllm serve FOLDER` does."""
    replicas: Count = 1
    """Copies of the engine that sample side by side under Ray, on an existing cluster or this machine. On a cluster the
    run must lie on a file system that all machines share."""
    inference_precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of sampling and scoring; the weights are rounded to BF16 in every case. `auto` is BF16 where the hardware has
    it."""
    sampling_batch: PositiveInt = 64
    """Responses decoded together."""
    sampling_tokens: PositiveInt | None = None
    """Engine `transformers`: bound of responses decoded together x tokens of the longest (prompt, longest answer and 64). Long
    prompts are then decoded fewer at a time, and one of them does not multiply the memory. None: `sampling_batch` alone counts.
    """
    scoring_batch: PositiveInt = 32
    """Sequences scored together by reward models and for log-probabilities. On a CPU reward models take fewer where these would
    have more than 2,048 tokens, for large batches are slower there."""
    concurrent_batches: Count = 1
    """Batches sampled or scored side by side in threads; on a CPU better than more `threads` for each."""
    micro_batch_pairs: PositiveInt = 4
    """Pairs in one forward and backward pass; batch_pairs must be a multiple."""
    activation_checkpointing: bool = False
    measure_in_turn: bool = False
    """Bring the three models of the validation (trained, rounded, base) to the device one at a time."""
    processes: Count = 1
    """Training processes of a machine, one a GPU. More than one starts the optimisation through torchrun, and the scoring of
    responses and the log-probabilities of pairs under the reference; one start does all shards of a stage."""
    nodes: Count = 1
    """Machines that train together, each with `processes`; more than one needs an allocation of Slurm."""
    sharding: Literal["none", "zero-2", "zero-3", "fsdp"] = "none"
    """What the training processes divide among themselves. `none`: only the data. `zero-2`: gradients and the optimiser's state
    as well (DeepSpeed). `zero-3` (DeepSpeed) and `fsdp` (torch): the weights too."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 10.0
    """A preempted optimisation loses at most this long, or the recipe's `training.checkpoint_every` steps if that is less."""
    stages: Literal["auto", "in-process", "worker"] = "auto"
    """`worker` runs each stage in a process of its own, which returns all its memory. Where there is a GPU, `auto` runs the
    stages between two engines or trainings in a process that ends with them: one that has computed on a GPU keeps some of its
    memory until it ends. Elsewhere `auto` is `in-process`."""
    parallel_workers: Count = 1
    """How many tasks run at once. More than one: each in a worker, a process that stays for the tasks to come."""
    vllm: Vllm = Vllm()
    server: Server = Server()
    judging: Judging = Judging()
    hardware: Hardware = Hardware()

    @property
    def world_size(self) -> int:
        """Training processes on all machines."""
        return self.processes * self.nodes

    @property
    def copy_devices(self) -> int:
        """Devices that one copy of the engine takes."""
        return self.vllm.tensor_parallel if self.engine == "vllm" else 1

    @property
    def devices(self) -> int:
        """Devices of the run: those that train, or those that the copies of the engine take where these are more."""
        return max(self.world_size, self.replicas * self.copy_devices)

    @model_validator(mode="after")
    def _what_goes_together(self) -> Self:
        if self.engine == "openai" and self.replicas > 1:
            raise ValueError("replicas are copies of an engine that runs here; a server is asked by one process")
        if self.sharding != "none" and self.world_size == 1:
            raise ValueError(f"sharding {self.sharding!r} needs more than one of processes or nodes")
        return self


def load(reference: str) -> Profile:
    """Return the profile in a file or of a name in training/profiles.

    Raises:
        RecipeError: No such profile, unknown key, or a value out of range.
    """
    path = assets.find(reference, "training/profiles", ".yaml")
    return parse(Profile, read_mapping(path), str(path))


def with_server(profile: Profile, address: str) -> Profile:
    """Return the profile with another server address.

    Raises:
        RecipeError: It is no http(s) address, or holds more than one.
    """
    server = parse(Server, profile.server.model_dump() | {"address": address}, "--server")
    return profile.model_copy(update={"server": server})
