"""GSHF as a declaration: which stages T iterations consist of. It reads like Algorithm 2 of arXiv 2405.07863; no I/O.

    for t = 1 .. T:
        draw the prompts of iteration t
        sample n responses to each from pi_{t-1}, half at each temperature
        rank them by the reward
        D_t <- best against worst
        pi_t <- DPO on D_t with pi_0 as the reference

Deviations from the cited algorithm, each a recipe key: it restarts every optimisation from pi_0 (`loop.init: base`) and
trains on all pairs so far (`loop.history: all`). The defaults go on from pi_{t-1} with the current pairs, as the authors'
public runs do (field reports: no regression, half the time). The reference is pi_0 in both.
"""

from __future__ import annotations

from gshf_release.diagnostics import exploration, validation
from gshf_release.optimization import dpo, reference
from gshf_release.preference import pairs
from gshf_release.recipe import Recipe
from gshf_release.rewards.stages import declare_model, declare_scores
from gshf_release.run.stage import Stage
from gshf_release.sampling import stage as sampling
from gshf_release.sampling.protocol import Decoding

BASE = "base"


def policy_stage(iteration: int) -> str:
    """Return the stage that puts out pi_t; pi_0 is the base."""
    return BASE if iteration == 0 else f"iteration-{iteration}/policy"


def declare(recipe: Recipe) -> list[Stage]:
    """Declare the reward model and T iterations, in the order they run."""
    stages = declare_model(recipe, "reward")
    stages += validate(0, recipe)
    for iteration in range(1, recipe.loop.iterations + 1):
        stages += iterate(iteration, recipe)
    return stages


def iterate(iteration: int, recipe: Recipe) -> list[Stage]:
    """Declare one iteration: sample, score, choose, reference log-probabilities, optimise, validate."""
    explored = explore(iteration, recipe)
    prompts = f"iteration-{iteration}/prompts"
    loop = recipe.loop
    init = policy_stage(iteration - 1 if loop.init == "previous" else 0)
    anchor = policy_stage(iteration - 1 if loop.reference == "previous" else 0)
    history = [iteration] if loop.history == "current" else list(range(1, iteration + 1))
    return [
        explored,
        declare_scores(f"iteration-{iteration}/rewards", samples=explored, prompts=prompts, scorer="reward"),
        pairs.declare(iteration),
        exploration.declare(iteration),
        reference.declare(iteration, anchor),
        dpo.declare(iteration, init=init, history=history),
        *validate(iteration, recipe),
    ]


def explore(iteration: int, recipe: Recipe) -> Stage:
    """Declare the sampling of n responses per prompt from the current policy, temperatures taken in turn."""
    chosen = recipe.sampling
    return sampling.declare(
        f"iteration-{iteration}/samples",
        policy=policy_stage(iteration - 1),
        prompts=f"iteration-{iteration}/prompts",
        count=recipe.prompts.roles.per_iteration,
        decodings=[
            Decoding(chosen.temperature(index), chosen.max_new_tokens, chosen.top_p, chosen.top_k)
            for index in range(chosen.n)
        ],
        purpose=f"iteration-{iteration}",
        prompts_per_shard=chosen.prompts_per_shard,
    )


def validate(iteration: int, recipe: Recipe) -> list[Stage]:
    """Declare the measurement of pi_t on the validation prompts."""
    return validation.declare(
        BASE if iteration == 0 else f"iteration-{iteration}",
        policy_stage(iteration),
        count=recipe.prompts.roles.validation,
        max_new_tokens=recipe.sampling.max_new_tokens,
        prompts_per_shard=recipe.sampling.prompts_per_shard,
    )
