"""Switch off what is random in a model that is trained: the first loss is that of policy = reference only without it."""

from __future__ import annotations

from typing import Any

from gshf_release.errors import EngineError

RANDOM = ("dropout", "layerdrop", "drop_path", "input_jitter", "jitter_noise")
"""Beginnings or ends of the names of numbers that make a forward pass random in training: `attention_dropout` and others."""
PROBE_TOKENS = 32


def without_dropout(model: Any) -> Any:
    """Return the model with every dropout and jitter rate 0; its configuration keeps the rates, and with it what is saved.

    TRL's `disable_dropout` sets those of `torch.nn.Dropout` alone. The attention of Llama and Mistral keeps its rate in a
    number of its own, and so do the routers of Mixtral, which multiply what they read by noise.

    Raises:
        EngineError: The model computes something else in training all the same.
    """
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            # PhiMoE's `router_jitter_noise` is no noise but a threshold, in evaluation too.
            if isinstance(value, float) and any(word in name for word in RANDOM) and name != "router_jitter_noise":
                setattr(module, name, 0.0)
    _require_equal_in_training(model)
    return model


def _require_equal_in_training(model: Any) -> None:
    """Compare the logits of a few tokens in evaluation and in training; some routers sample their experts in the latter."""
    import torch

    if any(weight.is_meta or weight.numel() == 0 for weight in model.parameters()):
        return  # this process has only a part of it; another one compares
    config = model.config.get_text_config()
    size = int(config.vocab_size)
    ids = torch.arange(PROBE_TOKENS, device=model.device).mul(max(1, size // PROBE_TOKENS)).remainder(size).unsqueeze(0)
    was_training, found = model.training, []
    with torch.no_grad(), torch.random.fork_rng():
        for training in (False, True):
            model.train(training)
            found.append(model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits.float())
    model.train(was_training)
    if not torch.allclose(found[0], found[1], rtol=1e-3, atol=1e-3):
        raise EngineError(
            f"{type(model).__name__} computes something else in training than in evaluation, without any dropout.",
            hint="Choose another base: trained on such numbers, the policy would not begin at the reference.",
        )
