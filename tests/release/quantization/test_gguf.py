"""GGUF conversion: what transformers and llama.cpp read back is the checkpoint that went in."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from gshf_release.errors import ReleaseError
from gshf_release.release.quantization.gguf import GGUF_TYPES, write_gguf

CHAT_TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>\r\n{% endfor %}\n"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
STRINGS = [
    "bake limo",
    "  Ünïcode 🎉, tabs\t and\n\nlines",
    "<|im_start|>kebali<|im_end|>",
    "a <think>lo</think> b",
    "",
]
Edit = Callable[[dict[str, Any]], object]

SMOLLM2_CONFIG: dict[str, Any] = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "tie_word_embeddings": True,
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def train_tokenizer(*before: pre_tokenizers.PreTokenizer) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE of 512 tokens, trained on made-up words; `<think>` is added but not special."""
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*before, byte_level]) if before else byte_level
    tokenizer.decoder = decoders.ByteLevel()
    syllables = ["ba", "ke", "li", "mo", "run", "ste", "vi"]
    words = [f"{a}{b}{c} 1{a}" for a in syllables for b in syllables for c in syllables]
    trainer = trainers.BpeTrainer(
        vocab_size=511,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(words, trainer)
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    bos, eos = "<|im_start|>", "<|im_end|>"
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, pad_token=eos, unk_token="<|endoftext|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_mistral(**changes: Any) -> PreTrainedModel:
    """Return a random model whose weights are large enough for every layer to matter in the logits."""
    settings: dict[str, Any] = {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 256,
        "sliding_window": None,
        "initializer_range": 0.2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "tie_word_embeddings": False,
    }
    torch.manual_seed(0)
    return MistralForCausalLM(MistralConfig(**(settings | changes)))


def tied_llama() -> PreTrainedModel:
    """Return the Llama twin of `tiny_mistral`, with tied embeddings."""
    config = tiny_mistral(tie_word_embeddings=True).config.to_dict()
    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(**{k: v for k, v in config.items() if k != "sliding_window"}))


def save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **options: Any) -> Path:
    model.save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny random Mistral with its tokenizer."""
    return save(tmp_path_factory.mktemp("tiny"), tiny_mistral(), train_tokenizer())


@pytest.fixture
def editable(checkpoint: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny checkpoint that a test may break."""
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))


def edit_json(path: Path, change: Edit) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def load_gguf(path: Path, **options: Any) -> PreTrainedModel:
    settings = {"dtype": torch.float32, "quantization_config": GgufConfig(dequantize=True)} | options
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, **settings)
    return model


@torch.no_grad()
def logits(model: PreTrainedModel, length: int = 32) -> torch.Tensor:
    """Return the logits `(length, vocabulary)` after fixed random tokens."""
    ids = torch.randint(3, model.config.vocab_size, (1, length), generator=torch.Generator().manual_seed(7))
    result: torch.Tensor = model(ids).logits[0]
    return result


def metadata(path: Path, *keys: str) -> list[Any]:
    """Return metadata values of a GGUF file, None for an absent key."""
    fields = GGUFReader(path).fields
    return [fields[key].contents() if key in fields else None for key in keys]


def tensor_types(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}


@pytest.mark.parametrize("build", [tiny_mistral, tied_llama])
def test_f32_gives_the_same_logits(build: Callable[[], PreTrainedModel], tmp_path: Path) -> None:
    model = build()
    output = tmp_path / "model.gguf"
    write_gguf(save(tmp_path / "hf", model, train_tokenizer()), output, encoding="F32", name="Tiny")
    torch.testing.assert_close(logits(load_gguf(output)), logits(model), atol=1e-5, rtol=0)


def test_bf16_of_a_bf16_checkpoint_loses_nothing(tmp_path: Path) -> None:
    folder = save(tmp_path / "hf", tiny_mistral().bfloat16(), train_tokenizer())
    output = tmp_path / "model.gguf"
    write_gguf(folder, output, encoding="BF16", name="Tiny")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.testing.assert_close(logits(load_gguf(output)), logits(model), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("encoding", "tolerance"), [("F16", 0.003), ("Q8_0", 0.06)])
def test_rounded_encodings_stay_close(encoding: str, tolerance: float, checkpoint: Path, tmp_path: Path) -> None:
    """The root mean square error of the logits stays below `tolerance` standard deviations of the logits."""
    output = tmp_path / "model.gguf"
    write_gguf(checkpoint, output, encoding=encoding, name="Tiny")
    expected, actual = logits(tiny_mistral()), logits(load_gguf(output))
    assert actual.shape == expected.shape
    assert (actual - expected).square().mean().sqrt() / expected.std() < tolerance


def test_sharded_checkpoint_gives_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    sharded = save(tmp_path / "sharded", tiny_mistral(), train_tokenizer(), max_shard_size="100KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    for folder, name in ((checkpoint, "one.gguf"), (sharded, "many.gguf")):
        write_gguf(folder, tmp_path / name, name="Tiny")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "many.gguf").read_bytes()


def test_writing_twice_gives_the_same_bytes_and_leaves_no_other_file(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "model.gguf"
    write_gguf(checkpoint, output, name="Tiny")
    first = output.read_bytes()
    write_gguf(checkpoint, output, name="Tiny")
    assert output.read_bytes() == first
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize("encoding", GGUF_TYPES)
def test_matrices_get_the_encoding_and_norms_stay_f32(encoding: str, checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "model.gguf"
    write_gguf(checkpoint, output, encoding=encoding, name="Tiny")
    for name, stored in tensor_types(output).items():
        assert stored == ("F32" if "norm" in name else encoding), name


def test_rows_that_do_not_fill_q8_blocks_become_f16(tmp_path: Path) -> None:
    model = tiny_mistral(hidden_size=48)
    write_gguf(save(tmp_path / "hf", model, train_tokenizer()), tmp_path / "model.gguf", name="Tiny")
    types = tensor_types(tmp_path / "model.gguf")
    assert (types["token_embd.weight"], types["blk.0.attn_q.weight"]) == ("F16", "F16")  # rows of 48
    assert (types["blk.0.ffn_down.weight"], types["blk.0.attn_output.weight"]) == (
        "Q8_0",
        "Q8_0",
    )  # 96 and 128


def test_output_weight_is_written_only_when_untied(checkpoint: Path, tmp_path: Path) -> None:
    write_gguf(checkpoint, tmp_path / "untied.gguf", name="Tiny")
    write_gguf(save(tmp_path / "tied", tied_llama(), train_tokenizer()), tmp_path / "tied.gguf", name="Tiny")
    assert "output.weight" in tensor_types(tmp_path / "untied.gguf")
    assert "output.weight" not in tensor_types(tmp_path / "tied.gguf")


def test_metadata_describes_the_model(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "model.gguf"
    write_gguf(checkpoint, output, name="Tiny")
    expected = {
        "general.architecture": "llama",
        "general.name": "Tiny",
        "general.file_type": 7,
        "general.quantization_version": 2,
        "llama.vocab_size": 512,
        "llama.context_length": 256,
        "llama.embedding_length": 64,
        "llama.block_count": 2,
        "llama.feed_forward_length": 96,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 32,
        "llama.attention.value_length": 32,
        "llama.attention.layer_norm_rms_epsilon": pytest.approx(1e-6),
        "llama.rope.dimension_count": 32,
        "llama.rope.freq_base": 5000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
    }
    assert dict(zip(expected, metadata(output, *expected), strict=True)) == expected


def test_rope_base_is_found_where_transformers_4_stored_it(editable: Path, tmp_path: Path) -> None:
    edit_json(editable / "config.json", lambda c: (c.pop("rope_parameters"), c.update(rope_theta=7000.0)))
    write_gguf(editable, tmp_path / "model.gguf", name="Tiny")
    assert metadata(tmp_path / "model.gguf", "llama.rope.freq_base") == [7000.0]


def test_context_ends_at_the_sliding_window(editable: Path, tmp_path: Path) -> None:
    edit_json(editable / "config.json", lambda c: c.update(sliding_window=128))
    write_gguf(editable, tmp_path / "model.gguf", name="Tiny")
    assert metadata(tmp_path / "model.gguf", "llama.context_length") == [128]


def test_chat_template_is_byte_equal(checkpoint: Path, tmp_path: Path) -> None:
    write_gguf(checkpoint, tmp_path / "model.gguf", name="Tiny")
    stored = GGUFReader(tmp_path / "model.gguf").fields["tokenizer.chat_template"]
    assert bytes(stored.parts[stored.data[0]]) == (checkpoint / "chat_template.jinja").read_bytes()
    assert b"\r\n" in bytes(stored.parts[stored.data[0]])


def test_tokenizer_read_back_gives_the_same_ids(checkpoint: Path, tmp_path: Path) -> None:
    write_gguf(checkpoint, tmp_path / "model.gguf", name="Tiny")
    before = AutoTokenizer.from_pretrained(checkpoint)
    after = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    assert [after(text)["input_ids"] for text in STRINGS] == [before(text)["input_ids"] for text in STRINGS]
    assert after.eos_token_id == before.eos_token_id == 2


def test_added_tokens_are_control_or_user_defined_and_missing_ids_unused(tmp_path: Path) -> None:
    model = tiny_mistral(vocab_size=520)
    write_gguf(save(tmp_path / "hf", model, train_tokenizer()), tmp_path / "model.gguf", name="Tiny")
    keys = ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type")
    tokens, types = metadata(tmp_path / "model.gguf", *keys)
    assert (tokens[:3], types[:3]) == (SPECIAL, [3, 3, 3])
    assert (tokens[511], types[511]) == ("<think>", 4)
    assert (tokens[519], types[519], len(tokens)) == ("[PAD519]", 5, 520)
    assert set(types[3:511]) == {1}


def test_digits_before_byte_level_is_smollm(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(pre_tokenizers.Digits(individual_digits=True))
    write_gguf(save(tmp_path / "hf", tiny_mistral(), tokenizer), tmp_path / "model.gguf", name="Tiny")
    assert metadata(tmp_path / "model.gguf", "tokenizer.ggml.pre") == ["smollm"]


def test_add_bos_follows_the_tokenizer(tmp_path: Path) -> None:
    tokenizer = train_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    write_gguf(save(tmp_path / "hf", tiny_mistral(), tokenizer), tmp_path / "model.gguf", name="Tiny")
    assert metadata(tmp_path / "model.gguf", "tokenizer.ggml.add_bos_token") == [True]
    after = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    assert after("bake")["input_ids"] == tokenizer("bake")["input_ids"]
    assert after("bake")["input_ids"][0] == 1


def test_a_second_stop_token_is_kept(editable: Path, tmp_path: Path) -> None:
    edit_json(editable / "generation_config.json", lambda c: c.update(eos_token_id=[0, 2]))
    write_gguf(editable, tmp_path / "model.gguf", name="Tiny")
    keys = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
    assert metadata(tmp_path / "model.gguf", *keys) == [0, 2]


REFUSALS: dict[str, tuple[str, Edit, str]] = {
    "architecture": (
        "config.json",
        lambda c: c.update(architectures=["Qwen2ForCausalLM"]),
        "LlamaForCausalLM",
    ),
    "rope scaling": ("config.json", lambda c: c["rope_parameters"].update(rope_type="yarn"), "default"),
    "activation": ("config.json", lambda c: c.update(hidden_act="gelu"), "silu"),
    "missing key": ("config.json", lambda c: c.pop("rms_norm_eps"), "rms_norm_eps"),
    "tensor shape": ("config.json", lambda c: c.update(intermediate_size=128), "mlp.gate_proj"),
    "unexpected tensor": ("config.json", lambda c: c.update(num_hidden_layers=1), "Plain Llama and Mistral"),
    "missing tensor": (
        "config.json",
        lambda c: c.update(num_hidden_layers=3),
        "model.layers.2.input_layernorm",
    ),
    "end token": ("generation_config.json", lambda g: g.update(eos_token_id=512), "never stop"),
    "unigram": ("tokenizer.json", lambda t: t["model"].update(type="Unigram"), "byte-level BPE"),
    "normalizer": ("tokenizer.json", lambda t: t.update(normalizer={"type": "NFC"}), "byte-level BPE"),
    "pre-tokenizer": ("tokenizer.json", lambda t: t.update(pre_tokenizer={"type": "Whitespace"}), "smollm"),
    "prefix space": ("tokenizer.json", lambda t: t["pre_tokenizer"].update(add_prefix_space=True), "gpt-2"),
    "token id": ("tokenizer.json", lambda t: t["added_tokens"][0].update(id=512), "Resize the embeddings"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_not_supported_is_refused_in_one_line(case: str, editable: Path, tmp_path: Path) -> None:
    file, change, names = REFUSALS[case]
    edit_json(editable / file, change)
    with pytest.raises(ReleaseError) as caught:
        write_gguf(editable, tmp_path / "out" / "model.gguf", name="Tiny")
    assert names in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").glob("*"))


def test_unknown_encoding_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="F16, BF16, F32, Q8_0"):
        write_gguf(checkpoint, tmp_path / "model.gguf", encoding="Q4_K_M", name="Tiny")


def test_model_without_end_token_is_refused(editable: Path, tmp_path: Path) -> None:
    (editable / "generation_config.json").unlink()
    (editable / "tokenizer_config.json").unlink()
    edit_json(editable / "config.json", lambda c: c.update(eos_token_id=None))
    with pytest.raises(ReleaseError, match="never stop"):
        write_gguf(editable, tmp_path / "model.gguf", name="Tiny")


@pytest.mark.parametrize(("encoding", "value"), [("F16", 1e6), ("F32", float("nan"))])
def test_values_that_do_not_fit_are_refused_and_the_old_file_stays(encoding: str, value: float, tmp_path: Path) -> None:
    model = tiny_mistral()
    with torch.no_grad():
        model.get_parameter("lm_head.weight")[0, 0] = value
    output = tmp_path / "out" / "model.gguf"
    output.parent.mkdir()
    output.write_bytes(b"old")
    with pytest.raises(ReleaseError, match=r"lm_head\.weight"):
        write_gguf(save(tmp_path / "hf", model, train_tokenizer()), output, encoding=encoding, name="Tiny")
    assert [path.read_bytes() for path in output.parent.iterdir()] == [b"old"]


def test_llama_cpp_computes_the_same_logits(checkpoint: Path, tmp_path: Path) -> None:
    """Tolerance 0.02 standard deviations: llama.cpp keeps keys and values in 16 bits."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    output = tmp_path / "model.gguf"
    write_gguf(checkpoint, output, encoding="F32", name="Tiny")
    engine = llama_cpp.Llama(str(output), n_ctx=64, n_threads=1, logits_all=True, verbose=False)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    for text in filter(None, STRINGS):
        assert engine.tokenize(text.encode(), add_bos=False, special=True) == tokenizer(text)["input_ids"]
    expected = logits(tiny_mistral())
    ids = torch.randint(3, 512, (1, 32), generator=torch.Generator().manual_seed(7))
    engine.eval(ids[0].tolist())
    actual = np.asarray(engine.scores[:32])
    assert np.sqrt(np.mean((actual - expected.numpy()) ** 2)) / float(expected.std()) < 0.02


@pytest.mark.slow
def test_smollm2_in_q8_agrees_with_its_bf16_checkpoint(
    smollm2_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Transformers builds the same table of names anew for each of 397 submodules: half of its loading time.
    monkeypatch.setattr(gguf, "get_tensor_name_map", functools.cache(gguf.get_tensor_name_map))
    source = smollm2_gguf
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    # The config is given, not read, in both directions: each reading of the vocabulary costs seconds, and the
    # tiny models cover the metadata.
    model = load_gguf(source, dtype=torch.bfloat16, config=LlamaConfig(**SMOLLM2_CONFIG))
    output = tmp_path / "smollm2.gguf"
    write_gguf(save(tmp_path / "hf", model, tokenizer), output, encoding="Q8_0", name="SmolLM2")
    reloaded = load_gguf(output, dtype=torch.bfloat16, config=LlamaConfig(**SMOLLM2_CONFIG))
    ids = tokenizer(Path(__file__).read_text(encoding="utf-8")[:2000], return_tensors="pt")["input_ids"][:, :200]
    with torch.no_grad():
        agreement = (model(ids).logits.argmax(-1) == reloaded(ids).logits.argmax(-1)).float().mean()
    assert ids.shape == (1, 200)
    assert agreement >= 0.9, f"top-1 agreement {agreement:.3f}"
    assert tokenizer.chat_template.encode() in output.read_bytes()
