"""Sampling with vLLM: token ids in, token ids out, in a process of vLLM's own environment (`gshf-release setup vllm`).

Requests enter one by one and leave as they finish (continuous batching); responses to one prompt share its prefill (prefix
caching). Every request keeps its own seed. A response is reproducible on the same machine with the same requests; another
batch may flip a draw in the last bits of its logits, unlike in the transformers engine.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gshf_release.errors import EngineError, Interrupted, first_line
from gshf_release.models.chat_tokenizer import stop_ids
from gshf_release.models.checkpoints import load_generation_config, load_tokenizer
from gshf_release.recipe.profile import Profile, Vllm
from gshf_release.run import interrupt
from gshf_release.sampling import cpu_cores
from gshf_release.sampling.protocol import Completion, Progress, Request, require_fitting
from gshf_release.sampling.vllm_rope import rope_limit

DTYPES = {"auto": "bfloat16", "bf16": "bfloat16"}


class VllmEngine:
    """One vLLM engine on one checkpoint, and what it needs to be told of it."""

    def __init__(self, checkpoint: Path, *, dtype: str, batch: int, cores: Sequence[int], settings: Vllm) -> None:
        """Start vLLM: half a minute, two where it compiles for the first time.

        Args:
            checkpoint: A checkpoint folder.
            dtype: `bfloat16` or `float32`; the weights are converted to it.
            batch: Responses decoded together.
            cores: Where there is no GPU, the CPU cores it computes on, one thread each.
            settings: The profile's section.

        Raises:
            EngineError: This process is not in vLLM's environment, or vLLM cannot run this model.
        """
        if importlib.util.find_spec("vllm") is None:
            raise EngineError("vLLM is not in this environment.", hint="Run: gshf-release setup vllm")
        for name, value in _variables(cores, settings).items():
            os.environ.setdefault(name, value)
        from vllm import LLM

        self.checkpoint = checkpoint
        limit = rope_limit(checkpoint)
        self.stops = stop_ids(load_tokenizer(checkpoint), load_generation_config(checkpoint))
        try:
            self._llm: Any = LLM(
                str(checkpoint),
                skip_tokenizer_init=True,
                trust_remote_code=False,
                generation_config="vllm",  # the recipe's decoding is the whole truth, not the checkpoint's own defaults
                dtype=dtype,
                max_num_seqs=batch,
                max_model_len=min(filter(None, [settings.context_tokens, limit]), default=None),
                enforce_eager=not settings.compile,
                enable_prefix_caching=True,
                gpu_memory_utilization=settings.memory_share,
                tensor_parallel_size=settings.tensor_parallel,
            )
        except (ValueError, RuntimeError, NotImplementedError, OSError) as error:
            interrupt.check()  # Ctrl-C reaches the processes that vLLM divides a model among
            raise EngineError(f"vLLM cannot start on {checkpoint.name}: {first_line(error)}.") from error
        self.context_tokens: int | None = self._llm.llm_engine.model_config.max_model_len
        self._asked = 0

    @classmethod
    def open(cls, checkpoint: Path, profile: Profile) -> VllmEngine:
        """Return the engine on a checkpoint as a profile wants it.

        Raises:
            EngineError: As the constructor; or the profile asks for FP32 arithmetic.
        """
        dtype = DTYPES.get(profile.inference_precision)
        if dtype is None:
            raise EngineError(
                "vLLM samples in BF16: in FP32 it would not round the weights, and sample from another policy.",
                hint="Set inference_precision to bf16 or auto, or engine to transformers.",
            )
        own = cpu_cores.here()
        if profile.threads is not None:
            own = own[: profile.threads * profile.concurrent_batches]
        return cls(checkpoint, dtype=dtype, batch=profile.sampling_batch, cores=own, settings=profile.vllm)

    def generate(self, requests: Sequence[Request], progress: Progress) -> list[Completion]:
        """Return one completion per request.

        Raises:
            EngineError: A prompt and its answer do not fit the context, or vLLM gave a request up.
            Interrupted: The process was asked to stop.
        """
        require_fitting(requests, self.context_tokens)
        engine = self._llm.llm_engine
        waiting = {}
        for index, request in enumerate(requests):
            prompt = {"type": "token", "prompt_token_ids": request.prompt_ids}
            waiting[engine.add_request(f"{self._asked + index}", prompt, self._parameters(request))] = index
        first, self._asked = self._asked, self._asked + len(requests)
        found: dict[int, Completion] = {}
        try:
            while engine.has_unfinished_requests():
                interrupt.check()
                before = len(found)
                for output in engine.step():
                    if output.finished:
                        found[int(output.request_id) - first] = self._completion(output.outputs[0])
                if len(found) > before:
                    progress(len(found), len(requests), "responses")
        except RuntimeError as error:
            interrupt.check()  # Ctrl-C reaches the processes that vLLM divides a model among, and they end
            raise error if isinstance(error, EngineError) else _failed(error) from error
        except Interrupted:
            engine.abort_request(list(waiting), internal=True)
            raise
        return [found[index] for index in range(len(requests))]

    def close(self) -> None:
        """End vLLM's own processes."""
        self._llm.llm_engine.engine_core.shutdown()

    def _parameters(self, request: Request) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        decoding = request.decoding
        return SamplingParams(
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            top_k=decoding.top_k,
            seed=request.seed,
            max_tokens=decoding.max_new_tokens,
            stop_token_ids=self.stops,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _completion(self, output: Any) -> Completion:
        """Return a response; vLLM's ids hold the EOS that ended it."""
        ids = [int(token) for token in output.token_ids]
        if output.finish_reason == "stop" and ids and ids[-1] in self.stops:
            return Completion(ids, "stop")
        if output.finish_reason == "length":
            return Completion(ids, "length")
        raise EngineError(f"vLLM ended a request with {output.finish_reason!r} after {len(ids)} tokens.")


def _failed(error: Exception) -> EngineError:
    return EngineError(f"vLLM cannot compute this: {first_line(error)}.")


def _variables(cores: Sequence[int], settings: Vllm) -> dict[str, str]:
    """Return vLLM's environment variables; they are read when it is imported."""
    return {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # a scheduler in a process of its own would outlive a kill of this one
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "OMP_NUM_THREADS": str(len(cores)),
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(str(core) for core in cores),
        "VLLM_CPU_KVCACHE_SPACE": str(settings.cpu_cache_gb),
    }
