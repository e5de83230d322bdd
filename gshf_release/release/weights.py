"""Checks of a checkpoint folder as its user gets it: headers, tied weights, end tokens, equal logits, generations that stop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gshf_release.errors import CheckpointError, ReleaseError
from gshf_release.models import checkpoints
from gshf_release.models.chat_template_checks import answer_ends
from gshf_release.models.checkpoint_files import read_object
from gshf_release.release import rules

HEAD = "lm_head.weight"
EMBEDDING = "embed_tokens.weight"
PROBE_TOKENS = 48
FORCED_AT = 3
"""The generated token that is forced to be an end token; the generation must be exactly this long."""


def check_files(folder: Path, dtype: str = "BF16") -> dict[str, int]:
    """Check dtypes, shards, index, tied weights and end tokens from the files alone; return `{file: tensor count}`.

    Raises:
        ReleaseError: Names the tensor or the file that is wrong.
    """
    counts = rules.check_dtype(folder, dtype)
    check_tied(folder)
    check_ends(folder)
    return counts


def check_tied(folder: Path) -> None:
    """Check that the output matrix is stored if and only if the config says that it is not the embedding.

    A stored copy of tied weights is accepted if its bytes are equal: loaders that tie and those that do not agree on it then.

    Raises:
        ReleaseError: It is missing, or differs.
    """
    config = read_object(folder / "config.json")
    where = {name: path for path in sorted(folder.glob("*.safetensors")) for name in rules.safetensors_header(path)}
    embedding = next((name for name in where if name.endswith(EMBEDDING)), None)
    if embedding is None:
        return
    if not config.get("tie_word_embeddings", True):
        if HEAD not in where and any(name.endswith("ForCausalLM") for name in config.get("architectures") or []):
            raise ReleaseError(f"config.json says that the weights are not tied, and there is no {HEAD}.")
    elif HEAD in where and _bytes(where[HEAD], HEAD) != _bytes(where[embedding], embedding):
        raise ReleaseError(f"config.json says that the weights are tied, and {HEAD} differs from {embedding}.")


def check_ends(folder: Path) -> None:
    """Check that generation ends at the tokenizer's EOS and at those of the config.

    Raises:
        ReleaseError: A file is missing, or an end token is not in `generation_config.json`.
    """
    if not (folder / "generation_config.json").is_file():
        raise ReleaseError("There is no generation_config.json, so a generation may not stop.")
    ends = _ids(read_object(folder / "generation_config.json").get("eos_token_id"))
    if not ends:
        raise ReleaseError("generation_config.json has no eos_token_id, so a generation may not stop.")
    wanted = {"config.json": _ids(read_object(folder / "config.json").get("eos_token_id"))}
    if (folder / "tokenizer_config.json").is_file():
        eos = read_object(folder / "tokenizer_config.json").get("eos_token")
        text = eos.get("content") if isinstance(eos, dict) else eos
        found = None if text is None else _token_id(folder / "tokenizer.json", str(text))
        wanted["tokenizer_config.json"] = set() if found is None else {found}
    for name, ids in wanted.items():
        if ids - ends:
            raise ReleaseError(f"{name} ends at token {min(ids - ends)}, generation_config.json at {sorted(ends)}.")


def check_reload(model: Any, folder: Path) -> None:
    """Check that the folder, loaded as its user would, gives the logits of the model it was saved from, and stops.

    Args:
        model: The model that was saved, in the released precision.
        folder: Where it was saved, with its tokenizer.

    Raises:
        ReleaseError: The logits differ, or a generation runs past its end token.
    """
    import torch

    published, tokenizer = checkpoints.load_model(folder, "auto"), checkpoints.load_tokenizer(folder)
    ids = _probe(tokenizer, int(model.config.vocab_size))
    with torch.inference_mode():
        if not torch.equal(model(ids).logits, published(ids).logits):
            raise ReleaseError("The saved weights do not give the logits of the model they were saved from.")
        for end in turn_ends(tokenizer, folder):
            _check_stop(published, ids, end)


def turn_ends(tokenizer: Any, folder: Path) -> list[int]:
    """Return the ids at which a generation must stop: the tokenizer's EOS, and what the template ends an answer with.

    Raises:
        ReleaseError: The template ends an answer with control tokens at none of which `generation_config.json` does not stop.
    """
    if tokenizer.eos_token_id is None:
        raise ReleaseError(f"The tokenizer of {folder} has no end-of-sequence token, so a generation may not stop.")
    ends = {int(tokenizer.eos_token_id)}
    if getattr(tokenizer, "chat_template", None):
        written = answer_ends(tokenizer)
        stops = _ids(checkpoints.load_generation_config(folder).eos_token_id)
        if written and not stops.intersection(written):
            token = tokenizer.convert_ids_to_tokens(written[0])
            raise ReleaseError(f"The chat template ends an answer with {token!r}, generation does not stop there.")
        ends |= {next(token for token in written if token in stops)} if written else set()
    return sorted(ends)


def _check_stop(model: Any, ids: Any, end: int) -> None:
    """Generate with the released settings, the end token forced at one place: nothing may come after it."""
    import torch

    def force(tokens: Any, scores: Any) -> Any:
        forced = torch.full_like(scores, float("-inf"))
        wanted = end if tokens.shape[1] - ids.shape[1] == FORCED_AT - 1 else int(ids[0, 0])
        forced[:, wanted] = 0.0
        return forced

    made = model.generate(ids, max_new_tokens=2 * FORCED_AT, do_sample=False, logits_processor=[force])
    if made.shape[1] - ids.shape[1] != FORCED_AT:
        raise ReleaseError(f"A generation goes on after the end token {end}.")


def _probe(tokenizer: Any, vocabulary: int) -> Any:
    """Return ordinary token ids of shape (1, length), spread over the vocabulary."""
    import torch

    special = _special(tokenizer)
    step = max(1, vocabulary // (2 * PROBE_TOKENS))
    ids = [token for token in range(step, vocabulary, step) if token not in special][:PROBE_TOKENS]
    return torch.tensor([ids])


def _special(tokenizer: Any) -> set[int]:
    """Return the ids of control tokens; `all_special_ids` has only those with a role such as EOS."""
    added = {int(token) for token, entry in tokenizer.added_tokens_decoder.items() if entry.special}
    return added | {int(token) for token in tokenizer.all_special_ids}


def _ids(value: Any) -> set[int]:
    values: Sequence[Any] = value if isinstance(value, list) else [value]
    wrong = [entry for entry in values if entry is not None and (not isinstance(entry, int) or isinstance(entry, bool))]
    if wrong:
        raise ReleaseError(f"eos_token_id is {str(wrong[0])[:60]!r}, which is no token's number.")
    return {int(entry) for entry in values if entry is not None}


def _token_id(path: Path, text: str) -> int | None:
    if not path.is_file():
        return None
    content = read_object(path)
    try:
        added = {str(entry["content"]): int(entry["id"]) for entry in content.get("added_tokens") or []}
        vocabulary = (content.get("model") or {}).get("vocab", {})
        found = added.get(text, vocabulary.get(text) if isinstance(vocabulary, dict) else None)
        return None if found is None else int(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: its tokens are no tokens.") from error


def _bytes(path: Path, name: str) -> bytes:
    start, end = rules.safetensors_header(path)[name]["data_offsets"]
    with path.open("rb") as stream:
        header = int.from_bytes(stream.read(8), "little")
        stream.seek(8 + header + start)
        return stream.read(end - start)
