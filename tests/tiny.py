"""A tiny random Mistral with a 512-token vocabulary, made on the spot: the whole loop runs on it in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "read",
    "why",
    "gold",
    "is",
    "good",
    "for",
    "banks",
    "while",
    "tea",
    "cools",
    "in",
    "the",
    "cup",
    "near",
    "rain",
]


def corpus() -> list[str]:
    """Return sentences for the tokenizer and the model."""
    return [" ".join(WORDS[(start + step * 3) % len(WORDS)] for step in range(12)) for start in range(60)]


def tokenizer() -> Any:
    """Return a byte-level BPE tokenizer of 512 tokens with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    specials = ["<unk>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(corpus(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )
    fast.chat_template = TEMPLATE
    return fast


def deaf(tokenizer: Any) -> Any:
    """Return a tokenizer of the same ids to which its control tokens, written out, are plain text.

    Its template writes them under other names. So it gives the ids that a conversation should get where control tokens in
    messages are text, without any code of the package.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    document = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in document["added_tokens"]:
        name = f"[[{token['id']}]]"
        del document["model"]["vocab"][token["content"]]
        document["model"]["vocab"][name] = token["id"]
        if document["model"]["unk_token"] == token["content"]:
            document["model"]["unk_token"] = name
        token["content"] = name
    roles = "{'system': 3, 'user': 4, 'assistant': 5}"
    template = TEMPLATE.replace("<|{{ message['role'] }}|>", "[[{{ " + roles + "[message['role']] }}]]")
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(document)))
    made.chat_template = template.replace("</s>", "[[2]]").replace("<|assistant|>", "[[5]]")
    return made


def model(seed: int = 0, **changes: Any) -> Any:
    """Return a random two-layer Mistral."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    settings: dict[str, Any] = {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "initializer_range": 0.08,
        "sliding_window": None,
    }
    torch.manual_seed(seed)
    return MistralForCausalLM(MistralConfig(**(settings | changes))).eval()


STRICT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
"""Like Mistral-Instruct's: no system turn, strict alternation, EOS as the very last token."""


def save(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Save the tiny model and its tokenizer as a checkpoint folder."""
    model(seed, **changes).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


EOS = 2
OTHER_END = 350
ENDING, OTHER_ENDING = 300, 301
"""Tokens after which the model of `save_ending` ends its response for certain: with `EOS`, and with `OTHER_END`."""


def save_ending(folder: Path, *, chance: float = 0.08, **changes: Any) -> Path:
    """Save a tiny model that draws the EOS with about `chance` at each step, and always right after the token `ENDING`.

    The first hidden dimension carries nothing but that: a constant of each token, untouched by the layers, which only the EOS's
    row of the output reads. So does the second, for `OTHER_END` right after `OTHER_ENDING`.
    """
    import torch

    made = model(**changes)
    body, head = made.model, made.lm_head.weight
    with torch.no_grad():
        body.embed_tokens.weight[:, 0] = 0.2
        body.embed_tokens.weight[:, 1] = 0
        body.embed_tokens.weight[ENDING, 0] = body.embed_tokens.weight[OTHER_ENDING, 1] = 100.0
        for layer in body.layers:
            layer.self_attn.o_proj.weight[:2] = 0
            layer.mlp.down_proj.weight[:2] = 0
        head[:, :2] = 0
        head[EOS] = 0
        head[OTHER_END, 1] = 100.0
        words = torch.randint(6, ENDING, (16, 20), generator=torch.Generator().manual_seed(0))
        hidden = body(words).last_hidden_state
        others = (hidden @ head.T)[..., [token for token in range(512) if token != EOS]].logsumexp(dim=-1)
        wanted = others + torch.logit(torch.tensor(chance))
        head[EOS, 0] = (wanted / hidden[..., 0]).mean()
    made.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def save_reward_model(folder: Path, seed: int = 1, **changes: Any) -> Path:
    """Save a random reward model of the same family: one logit."""
    import torch
    from transformers import MistralForSequenceClassification

    config = model(seed, **changes).config
    config.num_labels = 1
    torch.manual_seed(seed)
    MistralForSequenceClassification(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def retemplate(folder: Path, template: str, **changes: Any) -> Path:
    """Give a saved checkpoint another chat template, and its tokenizer other attributes."""
    from transformers import AutoTokenizer

    changed = AutoTokenizer.from_pretrained(folder)
    changed.chat_template = template
    for name, value in changes.items():
        setattr(changed, name, value)
    changed.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    sides = {name: value for name, value in changes.items() if name.endswith("_side")}  # not saved when set later
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | sides), encoding="utf-8")
    return folder


def prompts_file(path: Path, count: int = 80) -> Path:
    """Write `count` distinct prompts."""
    lines = [
        f'{{"prompt": "{" ".join(WORDS[(i * k) % len(WORDS)] for k in (1, 2, 3, 5))} {i}?"}}' for i in range(count)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return a recipe of the tiny model; the checkpoint and the prompts are made in `folder` if they are not there."""
    checkpoint = folder / "tiny"
    if not checkpoint.exists():
        save(checkpoint)
    prompts = folder / "prompts.jsonl"
    if not prompts.exists():
        prompts_file(prompts)
    evaluation = folder / "eval.jsonl"
    if not evaluation.exists():
        evaluation.write_text('{"prompt": "why is tea good?"}\n{"prompt": "a cat near rain?"}\n', encoding="utf-8")
    for seed, name in ((1, "reward"), (2, "second-scorer")):
        if not (folder / name).exists():
            save_reward_model(folder / name, seed)
    content: dict[str, Any] = {
        "name": "tiny",
        "base": {"model": str(checkpoint)},
        "prompts": {
            "source": str(prompts),
            "roles": {"per_iteration": 8, "validation": 4, "test": 4},
        },
        "loop": {"iterations": 2},
        "sampling": {"n": 4, "max_new_tokens": 12, "prompts_per_shard": 4},
        "reward": {"model": str(folder / "reward")},
        "training": {"batch_pairs": 4, "learning_rate": 0.001, "precision": "fp32", "checkpoint_every": 1},
        "evaluation": {
            "prompts": str(evaluation),
            "max_new_tokens": 12,
            "second_scorer": {"model": str(folder / "second-scorer")},
        },
    }
    return content | changes
