"""Settings of benchmarks and the forms of their files."""

from __future__ import annotations

import ast
import gzip
import importlib.util
import json
from pathlib import Path

import pytest

from gshf_release.errors import DataError, RecipeError
from gshf_release.evaluation import answer_files, benchmarks
from gshf_release.evaluation.benchmarks import load_benchmark, questions_file, read_questions
from gshf_release.prompts import benchmark_files
from gshf_release.sampling.protocol import Decoding
from tests.evaluation import own


def fastchat_temperatures() -> dict[str, float]:
    """Return `temperature_config` of fastchat.llm_judge.common, whose import would bring torch along."""
    package = importlib.util.find_spec("fastchat")
    assert package is not None
    assert package.origin is not None
    source = Path(package.origin).parent / "llm_judge" / "common.py"
    for statement in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "temperature_config":
            return dict(ast.literal_eval(statement.value))
    raise AssertionError("fastchat has no temperature_config")


def test_mt_bench_decodes_each_category_as_fastchat_does() -> None:
    mt_bench = load_benchmark("mt_bench")
    for category, temperature in fastchat_temperatures().items():
        assert mt_bench.decoding_of(category) == Decoding(temperature, 1024)
    assert mt_bench.decoding_of("another") == Decoding(0.7, 1024)
    assert mt_bench.label == "by category"


def test_alpaca_eval_decodes_as_the_published_model_did() -> None:
    alpaca_eval = load_benchmark("alpaca_eval_2")
    assert alpaca_eval.decoding_of("koala") == Decoding(0.7, 2048)
    assert alpaca_eval.label == "T=0.7"
    assert alpaca_eval.published


def test_a_temperature_below_the_threshold_is_greedy(tmp_path: Path) -> None:
    assert (
        load_benchmark(str(own.mt_benchmark(tmp_path, temperatures={"math": 5e-5}))).decoding_of("math").temperature
        == 0.0
    )


def test_a_benchmark_of_ones_own_finds_its_questions_beside_it(tmp_path: Path) -> None:
    benchmark = load_benchmark(str(own.alpaca_benchmark(tmp_path)))
    assert not benchmark.published
    found = read_questions("alpaca_eval", questions_file(benchmark))
    assert [question.turns for question in found] == [(text,) for text in own.INSTRUCTIONS]
    assert [question.key for question in found] == ["0", "1", "2", "3", "4"]


def test_a_limit_keeps_the_first_questions(tmp_path: Path) -> None:
    path = own.mt_questions(tmp_path)
    assert [question.key for question in read_questions("mt_bench", path, 2)] == ["501", "502"]


def test_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'greedy_below'"):
        load_benchmark(str(own.mt_benchmark(tmp_path, greedy_bellow=1.0)))


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ({"question_id": 1, "category": "a", "turns": ["a", "b", "c"]}, r"question 1: expected .*one or two texts"),
        ({"question_id": "1", "category": "a", "turns": ["a", "b"]}, r"question 1: expected \"question_id\""),
    ],
)
def test_a_malformed_question_is_named(row: dict[str, object], wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=wrong):
        read_questions("mt_bench", path)


def test_a_question_id_given_twice_is_an_error(tmp_path: Path) -> None:
    path = own.mt_questions(tmp_path)
    path.write_text(path.read_text(encoding="utf-8") * 2, encoding="utf-8")
    with pytest.raises(DataError, match="question id 501 twice"):
        read_questions("mt_bench", path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("packed", [False, True])
def test_questions_are_read_from_lines_and_lists_in_any_encoding(encoding: str, packed: bool, tmp_path: Path) -> None:
    files = {"alpaca_eval": own.alpaca_questions(tmp_path), "mt_bench": own.mt_questions(tmp_path)}
    for protocol, path in files.items():
        expected = read_questions(protocol, path)
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines() if protocol == "mt_bench" else [json.dumps(row) for row in json.loads(text)]
        for form in ("\n".join(lines), f"[{', '.join(lines)}]"):
            content = form.encode(encoding)
            other = tmp_path / "0123"
            other.write_bytes(gzip.compress(content) if packed else content)
            assert read_questions(protocol, other) == expected


@pytest.mark.parametrize(
    ("content", "reason"), [("", "is empty"), ("[]", "holds no row"), ("[1]", "expected an object")]
)
def test_a_file_without_questions_says_so(content: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "q.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=reason):
        read_questions("alpaca_eval", path)


def test_the_benchmark_of_answers_is_told_by_their_columns_not_by_the_name(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    path.write_text('{"instruction": "Go.", "output": "Gone."}\n', encoding="utf-8")
    assert answer_files.benchmark_of(path) == "alpaca_eval_2"
    path.write_text('[{"question_id": 1, "choices": [{"turns": ["a", "b"]}]}]', encoding="utf-8")
    assert answer_files.benchmark_of(path) == "mt_bench"


def test_an_instruction_that_is_no_text_is_named_with_its_row(tmp_path: Path) -> None:
    path = tmp_path / "q.json"
    path.write_text(json.dumps([{"instruction": "Go."}, {"instruction": 3}]), encoding="utf-8")
    with pytest.raises(DataError, match="row 2: expected a text under 'instruction'"):
        read_questions("alpaca_eval", path)


def test_the_published_questions_have_the_form(test_data: Path) -> None:
    if not test_data.is_dir():
        pytest.skip(f"no benchmark data at {test_data}; set GSHF_TEST_DATA")
    for name, count in (("alpaca_eval_2", 805), ("mt_bench", 80)):
        benchmark = load_benchmark(name)
        path = benchmark_files.find(benchmarks.pinned(benchmark), test_data)
        assert path is not None
        assert len(read_questions(benchmark.protocol, path)) == count
