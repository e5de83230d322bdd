"""Adds the negative log-likelihood of the chosen responses to a preference loss: `training.sft_weight`.

    loss of a step = mean over its pairs of the preference loss
                     + weight x (sum of -log pi over its chosen tokens) / (number of its chosen tokens)

A chosen token is one of a chosen completion, with the EOS that ended it; prompt tokens are none. TRL has the term as its loss
type `sft`, but as a mean of each micro-batch: its value depends on how a step is divided, and it is NaN in a micro-batch that
only fills the last step up. Here it is exact for a step, over all micro-batches and processes.
"""

from __future__ import annotations

from typing import Any

from gshf_release.optimization.loss_averaging import sum_over_processes
from gshf_release.optimization.trl_internals import training_metrics

METRIC = "nll"
"""In the log of an optimiser step: the mean over its chosen tokens, in nats."""


def with_chosen_nll(trainer: type, weight: float) -> Any:
    """Return a trainer of `mean_over_pairs` whose step has this many times the chosen tokens' mean NLL in its loss.

    Args:
        trainer: Its batches hold `completion_mask`, (2 pairs, width), the chosen rows first. It calls the policy once a
            micro-batch, for log-probabilities that are zero outside the completions.
        weight: Above 0.
    """

    class ChosenNLL(trainer):  # type: ignore[misc]
        def get_batch_samples(self, *args: Any, **options: Any) -> Any:
            """Return the micro-batches of a step, having counted the chosen tokens of all processes in it."""
            samples, items = super().get_batch_samples(*args, **options)
            # No row begins with its completion, so the first place, for which there is no log-probability, is never masked in.
            own = sum(int(inputs["completion_mask"].chunk(2)[0].sum()) for inputs in samples)
            self._step_tokens = sum_over_processes(own, self.accelerator)
            return samples, items

        def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **options: Any) -> Any:
            """Return this process's part of the step's loss, with its part of the term."""
            # TRL's own outputs are none of this call: `return_outputs` computes logits by another forward pass.
            heard = _Policy(model)
            found = super().compute_loss(heard, inputs, return_outputs, **options)
            if not self.model.training:
                return found
            loss, *outputs = found if return_outputs else (found,)
            # A sum, so a micro-batch without chosen tokens adds 0. As in `mean_over_pairs`: Trainer adds up a process's
            # micro-batches, and the gradients of P processes are averaged, so each part is its sum x P / all tokens.
            nll = -heard.log_probs.chunk(2)[0].sum()
            part = self.accelerator.num_processes / self._step_tokens
            everywhere = float(self.accelerator.reduce(nll.detach().clone(), reduction="sum"))
            # `log` takes the mean over micro-batches.
            training_metrics(self)[METRIC].append(everywhere * self._micro_batches / self._step_tokens)
            loss = loss + weight * part * nll
            return (loss, *outputs) if return_outputs else loss

    return ChosenNLL


class _Policy:
    """A policy that keeps the log-probabilities of its last call, (rows, width - 1)."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.log_probs: Any = None

    def __call__(self, **inputs: Any) -> Any:
        output = self._model(**inputs)
        self.log_probs = output.log_probs
        return output
