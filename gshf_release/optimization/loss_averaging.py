"""The loss of an optimiser step as the plain mean over its pairs, however they are divided.

transformers' Trainer takes the mean of each micro-batch and then the mean of the micro-batches (with `num_items_in_batch`, only
where a loss counts tokens). In a step that the pairs do not fill, a lone pair in the last micro-batch would so weigh as much as
all those of another. Here every micro-batch is weighed by its pairs, over all processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from gshf_release.optimization.distributed import split_batch

LOG_TWO = math.log(2)
"""A loss -log sigmoid(x) at x = 0."""


def fill_last_step(order: Sequence[int], *, batch: int, micro_batch: int, processes: int) -> list[int | None]:
    """Return the order, its last step filled up with None so that every process has as many micro-batches as the others.

    None stands for an empty example, which moves nothing. Left alone, the processes' samplers would fill the step with examples
    of the first one.
    """
    if processes == 1:
        return list(order)
    micro_batch, _ = split_batch(batch, micro_batch, processes)
    missing = -(len(order) % batch) % (micro_batch * processes)
    return [*order, *[None] * missing]


def mean_over_pairs(
    trainer: type, *, real: Callable[[dict[str, Any]], Any], empty_loss: float, metrics: Sequence[str]
) -> Any:
    """Return one of TRL's trainers of pairs whose step has the plain mean of its pairs' losses as loss, gradient and report.

    Args:
        trainer: Its loss is a mean over the pairs of a micro-batch, the better sides first, then the worse ones.
        real: From a micro-batch to a mask, (pairs,): false at those that only fill it up. Their loss must not depend on the
            weights.
        empty_loss: The loss of a pair that only fills up; its metrics must be 0.
        metrics: Which of the trainer's metrics are means over pairs: names, or beginnings that end with a slash.
    """

    class MeanOverPairs(trainer):  # type: ignore[misc]
        loss_is_scaled_for_ga = True  # else Trainer divides by the number of micro-batches

        def get_batch_samples(self, *args: Any, **options: Any) -> Any:
            """Return the micro-batches of a step, having counted the pairs of all processes in it."""
            samples, items = super().get_batch_samples(*args, **options)
            own = sum(int(real(inputs).sum()) for inputs in samples)
            self._step_pairs = _over_all_processes(own, self.accelerator)
            self._micro_batches = len(samples)
            return samples, items

        def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **options: Any) -> Any:
            """Return this process's part of the step's mean; the mean over processes of the sum of these is that mean."""
            found = super().compute_loss(model, inputs, return_outputs, **options)
            if not self.model.training:
                return found
            loss, *outputs = found if return_outputs else (found,)
            counted = real(inputs)
            pairs, processes = len(counted), self.accelerator.num_processes
            for name, values in self._metrics["train"].items():
                if name.startswith(
                    tuple(metrics)
                ):  # a mean over the processes' micro-batches; `log` takes that of a step
                    values[-1] *= pairs * processes * self._micro_batches / self._step_pairs
            loss = (loss * pairs - empty_loss * int((~counted).sum())) * processes / self._step_pairs
            return (loss, *outputs) if return_outputs else loss

    return MeanOverPairs


def _over_all_processes(count: int, accelerator: Any) -> int:
    import torch

    if accelerator.num_processes == 1:
        return count
    total = torch.tensor(count, device=accelerator.device)
    return int(accelerator.reduce(total, reduction="sum"))
