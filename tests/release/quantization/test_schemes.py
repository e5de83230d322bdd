"""Names of schemes, and what is refused before any work."""

from __future__ import annotations

import pytest

from gshf_release.errors import ReleaseError
from gshf_release.release.quantization import schemes
from gshf_release.release.quantization.schemes import SUPPORTED, Scheme, parse


@pytest.mark.parametrize("name", SUPPORTED)
def test_a_scheme_is_found_by_its_name_in_any_case(name: str) -> None:
    assert parse(name.lower()).name == parse(name.upper()).name == name


def test_a_label_is_what_a_table_shows() -> None:
    assert [parse(name).label for name in ("gguf:q4_k_m", "fp8", "gptq:w4a16")] == ["Q4_K_M", "FP8", "GPTQ-W4A16"]
    assert [parse(name).environment for name in ("gguf:Q8_0", "fp8")] == ["llama-cpp", "quant"]


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("gguf:Q4_K_S", "gguf:Q4_K_M"),
        ("gguf:IQ2_XS", "gguf:Q4_K_M"),
        ("gguf:F32", "gguf:F16"),
        ("q5_0", "gguf:Q5_K_M"),
        ("fp9", "fp8"),
        ("gptq:W4A8", "gptq:W4A16"),
    ],
)
def test_an_unknown_scheme_is_refused_with_the_nearest(wrong: str, nearest: str) -> None:
    with pytest.raises(ReleaseError, match=f"The nearest is {nearest};"):
        parse(wrong)


@pytest.mark.parametrize("name", ["awq", "awq:W4A16"])
def test_what_needs_a_gpu_is_not_run_and_says_why(name: str) -> None:
    with pytest.raises(ReleaseError, match=r"is not run: AWQ needs a GPU.*gptq:W4A16"):
        parse(name)


@pytest.mark.parametrize(("hidden", "inner", "size"), [(4096, 14336, 128), (576, 1536, 64), (96, 256, 32)])
def test_a_group_is_the_largest_that_divides_every_row(hidden: int, inner: int, size: int) -> None:
    config = {"hidden_size": hidden, "intermediate_size": inner, "num_attention_heads": hidden // 32}
    assert schemes.group_size(config) == size


def test_a_head_length_of_its_own_counts_as_a_row() -> None:
    config = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 1, "head_dim": 64}
    assert schemes.group_size(config) == 64


def test_rows_that_no_group_divides_are_refused_with_the_nearest() -> None:
    config = {"hidden_size": 48, "intermediate_size": 96, "num_attention_heads": 3}
    with pytest.raises(ReleaseError, match=r"rows of \[48, 96\].*nearest that fits is fp8"):
        schemes.group_size(config)


def test_matrices_whose_rows_256_does_not_divide_are_counted_as_fallbacks() -> None:
    shapes = {"a": [8, 576], "b": [8, 576], "c": [8, 1536], "norm": [576], "d": [8, 576]}
    types = {"a": "Q5_0", "b": "Q8_0", "c": "Q4_K", "norm": "F32", "d": "Q5_0"}
    assert schemes.fallbacks(types, shapes) == {"Q5_0": 2, "Q8_0": 1}


def test_schemes_are_values() -> None:
    assert parse("fp8") == Scheme("fp8", "FP8")
