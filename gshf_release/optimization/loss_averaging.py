"""Makes the loss of an optimiser step the plain mean over its pairs, however they are divided.

transformers' Trainer takes the mean of each micro-batch and then the mean of the micro-batches (with `num_items_in_batch`, only
where a loss counts tokens). In a step that the pairs do not fill, a lone pair in the last micro-batch would so weigh as much as
all those of another: the mean of means of https://github.com/huggingface/trl/issues/2175, in pairs instead of tokens. Here
every micro-batch is weighed by its pairs, over all processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from gshf_release.optimization.distributed import split_batch
from gshf_release.optimization.trl_internals import training_metrics

LOG_TWO = math.log(2)
"""A loss -log sigmoid(x) at x = 0."""


def fill_last_step(order: Sequence[int], *, batch: int, micro_batch: int, processes: int) -> list[int | None]:
    """Return the order, its last step filled up with None so that every process has as many micro-batches as the others.

    None stands for an empty example, which moves nothing. Left alone, the processes' samplers would fill the step with examples
    of the first one.

        5 pairs left, 2 processes, micro-batches of 2:   a b | c d | e - | - -      (- is None)
    """
    if processes == 1:
        return list(order)
    micro_batch, _ = split_batch(batch, micro_batch, processes)
    # To a multiple of what all processes compute at once, and not to the whole batch: a step may have fewer micro-batches.
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
            self._step_pairs = sum_over_processes(own, self.accelerator)
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
            # With N pairs in the step, P processes and micro-batches of n places, TRL gives means over places. Trainer adds up
            # a process's micro-batches, and the processes' gradients are averaged, so each mean has to become
            #     (sum over the real pairs of the micro-batch) x P / N        for 1/P x sum of all = the mean over N pairs
            for name, values in training_metrics(self).items():
                if name.startswith(tuple(metrics)):
                    # The same, but TRL has averaged it over the processes, and `log` averages it over the micro-batches.
                    values[-1] *= pairs * processes * self._micro_batches / self._step_pairs
            loss = (loss * pairs - empty_loss * int((~counted).sum())) * processes / self._step_pairs
            return (loss, *outputs) if return_outputs else loss

    return MeanOverPairs


def sum_over_processes(count: int, accelerator: Any) -> int:
    """Return the sum of the processes' counts, on each of them."""
    import torch

    if accelerator.num_processes == 1:
        return count
    total = torch.tensor(count, device=accelerator.device)
    return int(accelerator.reduce(total, reduction="sum"))
