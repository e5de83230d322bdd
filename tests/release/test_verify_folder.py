"""verify FOLDER: every changed byte, and numbers, headers and templates that hashes alone would let pass."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gshf_release.data.records import Judgment
from gshf_release.data.results import read_cells, write_cells
from gshf_release.errors import VerificationError
from gshf_release.release import eval_results, manifest
from gshf_release.release.verify_folder import verify_folder
from tests.conftest import Outcome
from tests.release import made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made.release(tmp_path / "iter-1")


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.release(tmp_path_factory.mktemp("shared") / "iter-1")


def relist(folder: Path) -> None:
    """Make the manifest agree with the files again, as somebody would who wants to deceive."""
    manifest.list_again(folder)


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def failures(folder: Path, **options: object) -> list[str]:
    with pytest.raises(VerificationError) as caught:
        verify_folder(folder, **options)  # type: ignore[arg-type]
    return caught.value.message.split("\n")


def test_an_untouched_folder_comes_out_as_recorded(folder: Path) -> None:
    checked = verify_folder(folder)
    assert (checked.files, checked.tensors, checked.signer) == (9, 3, None)
    assert checked.numbers == 2 + 1 + 3, "two from the judgments, one in the model-index, three in the table"


@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_any_changed_byte_of_a_listed_file_is_found(shared_folder: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(manifest.read_release_manifest(shared_folder)["files"])))
    path = shared_folder / name
    before = path.read_bytes()
    at, bit = data.draw(st.integers(0, len(before) - 1)), data.draw(st.integers(0, 7))
    try:
        path.write_bytes(before[:at] + bytes([before[at] ^ (1 << bit)]) + before[at + 1 :])
        assert failures(shared_folder) == [f"{path}: differs from manifest.json."]
    finally:
        path.write_bytes(before)


def test_every_failure_is_a_line_of_its_own_and_exit_code_3(folder: Path, command: Callable[..., Outcome]) -> None:
    (folder / "config.json").unlink()
    (folder / "more.txt").write_text("more", encoding="utf-8")
    outcome = command("verify", folder)
    assert outcome.code == 3
    lines = outcome.err.strip().split("\n")
    assert [line.split("/")[-1] for line in lines] == [
        "config.json: differs from manifest.json.",
        "more.txt: differs from manifest.json.",
    ]


def test_hashes_alone_can_be_verified(folder: Path) -> None:
    replace(folder / "README.md", "62.5", "72.5")
    relist(folder)
    assert verify_folder(folder, hashes_only=True).numbers == 0


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("| 62.5 ± 23.9 |", "| 72.5 ± 23.9 |", r"72.5 ± 23.9 in the row iteration-1 is no number of"),
        ("| 62.5 ± 23.9 |", "| 62.5 ± 3.9 |", r"62.5 ± 3.9 in the row iteration-1 is no number of"),
        (
            "value: 62.5",
            "value: 72.5",
            r"win_rate of iteration-1 is 72.5 in the model-index; eval/results.json has 62.5",
        ),
        ("n: 4", "n: 805", r"win_rate of iteration-1 is 62.5 in the model-index"),
    ],
)
def test_a_number_of_the_card_that_no_result_has_is_found(folder: Path, old: str, new: str, line: str) -> None:
    replace(folder / "README.md", old, new)
    relist(folder)
    (found,) = failures(folder)
    assert line in found


def test_reported_numbers_are_not_compared_with_what_was_measured(folder: Path) -> None:
    replace(folder / "README.md", "99.9", "98.7")
    relist(folder)
    verify_folder(folder)


def test_a_result_that_the_judgments_do_not_give_is_found(folder: Path) -> None:
    cells = [
        entry.model_copy(update={"value": 72.5}) if entry.metric == "win rate" else entry for entry in made.cells()
    ]
    write_cells(cells, folder / eval_results.RESULTS)
    (folder / "README.md").write_text(made.card(cells), encoding="utf-8")
    relist(folder)
    (found,) = failures(folder)
    assert "win rate of iteration-1, greedy: recorded as 72.5, computed as 62.5" in found


def test_a_changed_judgment_is_found(folder: Path) -> None:
    path = folder / eval_results.JUDGMENTS / "iteration-1.test.parquet"
    rows = Judgment.read(path)
    Judgment.write(rows[:-1], path)
    relist(folder)
    assert [line.split(": ")[1] for line in failures(folder)] == [
        "win rate of iteration-1, greedy",
        "gain over base of iteration-1, greedy",
    ]


def test_a_removed_result_is_found(folder: Path) -> None:
    path = folder / eval_results.RESULTS
    write_cells([entry for entry in read_cells(path) if entry.metric != "gain over base"], path)
    relist(folder)
    assert any("gain over base of iteration-1, greedy: computed as 0.125, not in" in line for line in failures(folder))


def test_a_tensor_of_another_dtype_is_found(folder: Path) -> None:
    made.write_safetensors(folder / "model.safetensors", {"lm_head.weight": 8}, "F32")
    relist(folder)
    assert "tensor lm_head.weight is F32, not BF16" in failures(folder)[0]


def test_two_chat_templates_are_found(folder: Path) -> None:
    made.write_json(folder / "tokenizer_config.json", {"eos_token": "</s>", "chat_template": made.TEMPLATE + " "})
    relist(folder)
    assert failures(folder) == ["tokenizer_config.json and chat_template.jinja hold different chat templates."]


def test_another_chat_template_than_the_manifest_names_is_found(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(made.TEMPLATE + "!", encoding="utf-8")
    relist(folder)
    assert failures(folder) == ["The chat template is not the one manifest.json names."]


def test_the_template_inside_a_gguf_file_must_be_that_of_the_checkpoint(folder: Path) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(folder / "made.gguf", "llama")
    writer.add_chat_template(made.TEMPLATE + "?")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    relist(folder)
    assert failures(folder) == ["chat_template.jinja and made.gguf hold different chat templates."]


def test_the_answer_as_json_has_the_digest(folder: Path, command: Callable[..., Outcome]) -> None:
    document = json.loads(command("verify", folder, "--json").out)
    assert document["digest"] == manifest.digest(folder)
    assert command("verify", folder).out.endswith(f"\nmanifest sha256 {manifest.digest(folder)}\n")
    assert document["files"] == 9


def test_the_digest_does_not_depend_on_how_the_manifest_is_written(folder: Path) -> None:
    before = manifest.digest(folder)
    path = folder / manifest.NAME
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")), sort_keys=False), encoding="utf-8")
    assert manifest.digest(folder) == before


def test_lineage_is_not_claimed_of_a_release_whether_here_or_on_the_hub(
    folder: Path, command: Callable[..., Outcome]
) -> None:
    for target in (folder, "tester/made@iter-1"):
        outcome = command("verify", target, "--lineage")
        assert outcome.code == 3
        assert "only a run holds the responses it was trained on" in outcome.line


# -- folders that others made ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("pytorch_model.bin", b"\x80\x04N.", ".bin is not on the list"),
        ("weights.pt", b"x", ".pt is not on the list"),
        ("code.py", b"x", ".py is not on the list"),
        ("optimizer.json", b"{}", "a state of training"),
        ("vocab.txt", b"\x80\x04N.", "a pickle or an archive"),
        ("more.model", b"PK\x03\x04", "a pickle or an archive"),
        ("m.gguf", b"cos\nsystem\n", "does not begin as a gguf file"),
        ("rows.parquet", b"cos\nsystem\n", "does not begin as a parquet file"),
        ("x.safetensors", b"cos\nsystem\n(S'x'\ntR.", "not a safetensors file"),
        ("processor_config.json", b'{"auto_map": {"AutoProcessor": "p.P"}}', "names custom code"),
    ],
)
def test_a_listed_file_that_no_release_may_hold_is_found(folder: Path, name: str, content: bytes, reason: str) -> None:
    (folder / name).write_bytes(content)
    relist(folder)
    for hashes_only in (False, True):
        assert any(name in line and reason in line for line in failures(folder, hashes_only=hashes_only))


def test_links_and_pipes_are_found_and_not_waited_for(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "pytorch_model.bin").write_bytes(b"x")
    (folder / "extra").symlink_to(tmp_path / "elsewhere")
    (folder / "dangling.json").symlink_to(tmp_path / "none")
    os.mkfifo(folder / "pipe.json")
    (folder / "config.json").rename(tmp_path / "config.json")
    (folder / "config.json").symlink_to(tmp_path / "config.json")
    assert failures(folder) == [
        "config.json is a symbolic link; a release holds files only.",
        "dangling.json is a symbolic link; a release holds files only.",
        "extra is a symbolic link; a release holds files only.",
        "pipe.json is a pipe or a device; a release holds files only.",
    ]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "lists no file, so it vouches for nothing"),
        ([], "is damaged"),
        (None, "is damaged"),
        ({"../outside.json": {"sha256": "0" * 64, "size": 1}}, "'../outside.json', which is no file of the folder"),
        ({"/etc/passwd": {"sha256": "0" * 64, "size": 1}}, "'/etc/passwd', which is no file of the folder"),
        ({"a/./b": {"sha256": "0" * 64, "size": 1}}, "which is no file of the folder"),
        ({"a\\b": {"sha256": "0" * 64, "size": 1}}, "which is no file of the folder"),
        ({"a\u001b[2J": {"sha256": "0" * 64, "size": 1}}, "which is no file of the folder"),
        ({"manifest.json": {"sha256": "0" * 64, "size": 1}}, "which is no file of the folder"),
        ({"config.json": {"sha256": 3, "size": 1}}, "has no sha256 and size for config.json"),
        ({"config.json": ["0" * 64, 1]}, "has no sha256 and size for config.json"),
    ],
)
def test_a_manifest_that_vouches_for_nothing_or_for_other_files_is_refused(
    folder: Path, files: object, reason: str
) -> None:
    document = json.loads((folder / manifest.NAME).read_text(encoding="utf-8")) | {"files": files}
    (folder / manifest.NAME).write_text(json.dumps(document), encoding="utf-8")
    (line,) = failures(folder)
    assert reason in line


def test_a_file_named_twice_in_the_manifest_is_refused(folder: Path) -> None:
    text = (folder / manifest.NAME).read_text(encoding="utf-8")
    (folder / manifest.NAME).write_text(text.replace('"files": {', '"files": {}, "files": {'), encoding="utf-8")
    with pytest.raises(VerificationError, match="name 'files' stands twice"):
        verify_folder(folder)


def test_names_that_differ_in_case_alone_are_found(folder: Path) -> None:
    (folder / "readme.md").write_text("another", encoding="utf-8")
    relist(folder)
    assert "readme.md and README.md are one file where case does not count." in failures(folder)


def test_nothing_hides_in_the_clients_cache(folder: Path) -> None:
    cache = folder / ".cache" / "huggingface"
    cache.mkdir(parents=True)
    (cache / ".gitignore").write_text("*", encoding="utf-8")
    assert verify_folder(folder).files == 9
    (cache / "payload.py").write_text("x", encoding="utf-8")
    assert failures(folder) == [f"{cache / 'payload.py'}: differs from manifest.json."]


@pytest.mark.parametrize(
    "index", ["3", "[3]", "[{results: 3}]", "[{results: [{metrics: [3]}]}]", "!!python/object:os.system [x]", "[" * 200]
)
def test_a_card_of_another_shape_is_one_line(folder: Path, index: str) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    (folder / "README.md").write_text(f"---\nmodel-index: {index}\n---\n" + text.split("---\n", 2)[2], encoding="utf-8")
    relist(folder)
    assert all("\n" not in line and len(line) < 400 for line in failures(folder))
