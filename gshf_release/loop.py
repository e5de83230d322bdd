"""GSHF as a declaration: which stages T iterations consist of. It reads like Algorithm 2 of arXiv 2405.07863; no I/O.

    for t = 1 .. T:
        draw the prompts of iteration t
        sample n responses to each from pi_{t-1}, half at each temperature
        rank them by the reward
        D_t <- best against worst
        pi_t <- DPO on D_t with pi_0 as the reference

Deviations from the cited algorithm, each a recipe key: it restarts every optimisation from pi_0 (`loop.init: base`) and
trains on all pairs so far (`loop.history: all`); `loop.resample: false` leaves out the sampling after iteration 1, which is
offline DPO. The defaults go on from pi_{t-1} with the current pairs, as the authors'
public runs do (field reports: no regression, half the time). The reference is pi_0 in both.

RAFT (`loop.algorithm: raft`, arXiv 2304.06767) differs in the last two lines: D_t is the best response to each prompt, and
pi_t a supervised step on it.
"""

from __future__ import annotations

from dataclasses import replace

from gshf_release.diagnostics import checkpoint_selection, exploration, validation
from gshf_release.models import stages as model_stages
from gshf_release.optimization import dpo, raft, reference_logprobs
from gshf_release.preference import offline, pairs, ranking, winners
from gshf_release.recipe import Recipe
from gshf_release.rewards.stages import declare_model, declare_scores
from gshf_release.run.stage import Stage, in_part, iteration_part, iteration_row, iteration_stage
from gshf_release.sampling import stage as sampling
from gshf_release.sampling.protocol import Decoding

BASE = "base"


def policy_stage(iteration: int) -> str:
    """Return the stage that puts out pi_t; pi_0 is the base."""
    return BASE if iteration == 0 else iteration_stage(iteration, "policy")


def declare_loop(recipe: Recipe) -> list[Stage]:
    """Declare the reward model and T iterations, in the order they run; pairs from elsewhere are declared before."""
    stages = declare_model(recipe, "reward")
    if recipe.loop.reference not in ("base", "previous"):
        stages.append(model_stages.declare_reference())
    if recipe.pairs.offline is not None:
        anchor, adapter = reference_stage(1, recipe), recipe.training.adapter is not None
        stages.append(reference_logprobs.declare_reference_logprobs(offline.SOURCE, anchor, frozen=adapter))
    stages += validate(0, recipe)
    for iteration in range(1, recipe.loop.iterations + 1):
        stages += iterate(iteration, recipe)
    stages.append(checkpoint_selection.declare_checkpoint_selection(recipe.loop.iterations))
    return stages


def iterate(iteration: int, recipe: Recipe) -> list[Stage]:
    """Declare one iteration: sample, score, choose, optimise, validate."""
    drawn = draw(iteration, recipe) if iteration in recipe.loop.sampled and recipe.pairs.source != "offline" else []
    stages = [*drawn, optimise(iteration, recipe), *validate(iteration, recipe)]
    return in_part(stages, iteration_part(iteration))


def draw(iteration: int, recipe: Recipe) -> list[Stage]:
    """Declare what makes D_t: responses of pi_(t-1), their rewards, and the pairs or best responses among them."""
    explored = explore(iteration, recipe)
    prompts = iteration_stage(iteration, "prompts")
    stages = [
        explored,
        declare_scores(
            recipe, iteration_stage(iteration, "rewards"), samples=explored, prompts=prompts, scorer="reward"
        ),
    ]
    log_ratios = recipe.pairs.kl_weight > 0
    if log_ratios:
        stages.append(ranking.declare_log_ratios(iteration, policy_stage(iteration - 1), explored.shards))
    if recipe.loop.algorithm == "raft":
        return [
            *stages,
            winners.declare_winners(iteration, log_ratios=log_ratios),
            exploration.declare_exploration(iteration, pairs=False),
        ]
    return [
        *stages,
        pairs.declare_pairs(iteration, log_ratios=log_ratios),
        exploration.declare_exploration(iteration, pairs=True),
        reference_logprobs.declare_reference_logprobs(
            iteration_row(iteration), reference_stage(iteration, recipe), frozen=recipe.training.adapter is not None
        ),
    ]


def reference_ahead(stages: list[Stage], recipe: Recipe) -> list[Stage]:
    """Return the stages with the reference log-probabilities computed shard by shard, while other shards are still sampled.

    For several workers only: a single one, or the training processes of a cluster, would load the reference once per shard.

    Args:
        stages: All stages of a run.
        recipe: The recipe.
    """
    by_name = {stage.name: stage for stage in stages}
    found = list(stages)
    for iteration in range(1, recipe.loop.iterations + 1):
        anchor, samples = (by_name.get(iteration_stage(iteration, name)) for name in ("reference", "samples"))
        if anchor is None or samples is None or samples.shards == 1:
            continue
        ahead = reference_logprobs.declare_reference_logprobs_ahead(
            iteration, anchor, log_ratios=recipe.pairs.kl_weight > 0, shards=samples.shards
        )
        ahead = replace(ahead, part=anchor.part)
        place = found.index(anchor)
        found[place : place + 1] = [ahead, replace(anchor, after=(ahead.name,))]
    return found


def optimise(iteration: int, recipe: Recipe) -> Stage:
    """Declare what turns D_off, D_1 .. D_t into pi_t: DPO on pairs, or a supervised step on the best responses."""
    init = policy_stage(iteration - 1 if recipe.loop.init == "previous" else 0)
    latest = min(iteration, recipe.loop.sampled[-1])
    past = range(latest if recipe.loop.history == "current" else 1, latest + 1)
    online = [iteration_row(number) for number in past]
    given = {"online": online, "hybrid": [offline.SOURCE, *online], "offline": [offline.SOURCE]}
    sources, adapter = given[recipe.pairs.source], recipe.training.adapter is not None
    if recipe.loop.algorithm == "raft":
        return raft.declare_raft(iteration, init=init, sources=sources, adapter=adapter)
    nll = recipe.training.sft_weight > 0
    return dpo.declare_dpo(iteration, init=init, sources=sources, adapter=adapter, nll=nll)


def reference_stage(iteration: int, recipe: Recipe) -> str:
    """Return the stage that puts out the policy that DPO stays near in iteration t."""
    known = {"base": policy_stage(0), "previous": policy_stage(iteration - 1)}
    return known.get(recipe.loop.reference, model_stages.REFERENCE)


def explore(iteration: int, recipe: Recipe) -> Stage:
    """Declare the sampling of n responses per prompt from the current policy, temperatures taken in turn."""
    chosen = recipe.sampling
    return sampling.declare_samples(
        iteration_stage(iteration, "samples"),
        policy=policy_stage(iteration - 1),
        prompts=iteration_stage(iteration, "prompts"),
        count=recipe.prompts.roles.per_iteration,
        decodings=[
            Decoding(chosen.temperature(index), chosen.max_new_tokens, chosen.top_p, chosen.top_k)
            for index in range(chosen.n)
        ],
        purpose=iteration_row(iteration),
        prompts_per_shard=chosen.prompts_per_shard,
    )


def validate(iteration: int, recipe: Recipe) -> list[Stage]:
    """Declare the measurement of pi_t on the validation prompts."""
    row = BASE if iteration == 0 else iteration_row(iteration)
    return validation.declare_validation(recipe, row, policy_stage(iteration))
