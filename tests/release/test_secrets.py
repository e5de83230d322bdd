"""The secret scan: every kind in every container, what it lets pass, and canaries that must appear nowhere."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gshf_release.errors import ReleaseError
from gshf_release.recipe import AllowedFinding
from gshf_release.release import rules, secrets
from tests.release import made

# Put together here, so that no scanner takes this file for a leak.
SECRETS = {
    "a Hugging Face token": "hf_" + "aB3" * 11 + "x",
    "an API key (sk-...)": "sk-" + "proj-" + "aB3_" * 12,
    "an AWS access key": "AKIA" + "Q7" * 8,
    "an AWS secret key": "aws_secret_" + "access_key = " + "aB3/" * 10,
    "a GitHub token": "ghp_" + "aB3" * 12,
    "a W&B key": "wandb login " + "0123456789abcdef" * 2 + "01234567",
    "a private key": "-----BEGIN " + "OPENSSH PRIVATE KEY-----",
    secrets.HOME_PATH: "/home/" + "somebody/models",
    secrets.EMAIL: "somebody" + "@" + "university.edu",
}
MORE = {
    "a Hugging Face token": ["api_org_" + "aB3" * 11 + "x"],
    "an API key (sk-...)": ["sk-" + "ant-api03-" + "aB3" * 20, "sk-" + "aB3" * 16],
    "an AWS access key": ["ASIA" + "Q7" * 8],
    "an AWS secret key": ['"aws_session_' + 'token": "' + "aB3+" * 10 + '"'],
    "a GitHub token": ["github_pat_" + "aB3_" * 20, "gho_" + "aB3" * 12],
    "a W&B key": ["wandb_v1_" + "aB3_" * 20, "WANDB_API_KEY=" + "ab12" * 10],
    "a private key": ["-----BEGIN " + "RSA PRIVATE KEY-----", "-----BEGIN " + "PRIVATE KEY-----"],
    secrets.HOME_PATH: ["/Users/" + "somebody/x", "/root/" + "runs", "C:\\Users\\" + "somebody"],
    secrets.EMAIL: ["first.last+tag" + "@" + "mail.company.co.uk"],
}
HARMLESS = [
    "the commit " + "ab12" * 10,
    "sha256 " + "ab12" * 16,
    "task-oriented-dialogue-systems-and-more",
    "risk-" + "adjusted-returns-of-long-portfolios",
    "hf_hub_download, hf_transfer, hf_xet",
    "someone@example.com, a@b.test and user@sub.example.org",
    "git@github.com:owner/name.git",
    "https://example.org/home/index, docs/home/x and ./tmp/y",
    "pip install package@1.2.3 and @dataclass",
    "-----BEGIN PUBLIC KEY-----",
    "wandb is not used",
]


@pytest.fixture(autouse=True)
def no_secrets_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def as_text(path: Path, secret: str) -> Path:
    path.with_suffix(".md").write_text(f"first line\nhere: {secret} .\n", encoding="utf-8")
    return path.with_suffix(".md")


def as_escaped_json(path: Path, secret: str) -> Path:
    escaped = "".join(f"\\u{ord(character):04x}" for character in secret)
    path.with_suffix(".json").write_text(f'{{"deep": [{{"key": "{escaped}"}}]}}', encoding="ascii")
    return path.with_suffix(".json")


def as_json_lines(path: Path, secret: str) -> Path:
    path.with_suffix(".jsonl").write_text(f"{{}}\n{json.dumps({'text': secret})}\n", encoding="utf-8")
    return path.with_suffix(".jsonl")


def as_json_key(path: Path, secret: str) -> Path:
    made.write_json(path.with_suffix(".json"), {secret: 1})
    return path.with_suffix(".json")


def as_safetensors_metadata(path: Path, secret: str) -> Path:
    made.write_safetensors(path.with_suffix(".safetensors"), {"a": 2}, note=secret)
    return path.with_suffix(".safetensors")


def as_gguf_string(path: Path, secret: str) -> Path:
    from gguf import GGUFWriter

    writer = GGUFWriter(path.with_suffix(".gguf"), "llama")
    writer.add_description(secret)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path.with_suffix(".gguf")


def as_parquet_text(path: Path, secret: str) -> Path:
    rows = [{"messages": [{"role": "user", "content": secret}]}]
    pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"), compression="zstd")
    return path.with_suffix(".parquet")


CONTAINERS = [
    as_text,
    as_escaped_json,
    as_json_lines,
    as_json_key,
    as_safetensors_metadata,
    as_gguf_string,
    as_parquet_text,
]


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("container", CONTAINERS, ids=lambda function: function.__name__)
def test_every_kind_is_found_in_every_container(tmp_path: Path, kind: str, container: object) -> None:
    path = container(tmp_path / "file", SECRETS[kind])  # type: ignore[operator]
    found = secrets.scan_folder(tmp_path)
    assert {(finding.file, finding.kind) for finding in found} == {(path.name, kind)}


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in MORE.items() for text in texts])
def test_further_forms_are_found(kind: str, text: str) -> None:
    assert [found for found, _ in secrets.find(f"x {text} y")] == [kind]


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_texts_pass(text: str) -> None:
    assert secrets.find(f"x {text} y") == []


def test_a_secret_is_named_by_file_and_line_and_not_repeated(tmp_path: Path) -> None:
    as_text(tmp_path / "notes", SECRETS["a GitHub token"])
    with pytest.raises(ReleaseError, match=r"^notes\.md, line 2: a GitHub token\.") as caught:
        rules.check_folder(tmp_path)
    assert SECRETS["a GitHub token"] not in str(caught.value)


def test_a_false_positive_is_declared_with_a_reason(tmp_path: Path) -> None:
    as_text(tmp_path / "notes", SECRETS[secrets.EMAIL])
    assert len(secrets.scan_folder(tmp_path, [AllowedFinding(text="somebody@elsewhere.edu", reason="public")])) == 1
    assert (
        secrets.scan_folder(tmp_path, [AllowedFinding(text="*@university.edu", reason="the authors' public one")]) == []
    )
    with pytest.raises(ValueError, match="reason"):
        AllowedFinding(text="x", reason="")


def test_pieces_of_a_vocabulary_are_no_paths_but_may_be_secrets(tmp_path: Path) -> None:
    vocabulary = {"/home/user": 0, "me@mail.ru": 1}
    document = {"model": {"vocab": vocabulary, "merges": ["/root/x y"]}, "added_tokens": []}
    made.write_json(tmp_path / "tokenizer.json", document)
    assert secrets.scan_folder(tmp_path) == []
    vocabulary[SECRETS["a GitHub token"]] = 2
    made.write_json(tmp_path / "tokenizer.json", document)
    assert [finding.kind for finding in secrets.scan_folder(tmp_path)] == ["a GitHub token"]
    made.write_json(tmp_path / "tokenizer.json", {"added_tokens": [{"content": "/home/user"}]})
    assert [finding.kind for finding in secrets.scan_folder(tmp_path)] == [secrets.HOME_PATH]


CANARY = "canary" + "-7Qx-without-any-known-form"


def from_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", CANARY)


def from_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text(f"machine host.test login me password {CANARY}\n", encoding="utf-8")
    (tmp_path / "netrc").chmod(0o600)


def from_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "hf-home").mkdir()
    (tmp_path / "hf-home" / "token").write_text(CANARY + "\n", encoding="utf-8")


def from_stored_tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "hf-home").mkdir()
    (tmp_path / "hf-home" / "stored_tokens").write_text(f"[mine]\nhf_token = {CANARY}\n", encoding="utf-8")


@pytest.mark.parametrize("plant", [from_environment, from_netrc, from_store, from_stored_tokens])
def test_a_secret_of_this_machine_is_found_whatever_its_form(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plant: object
) -> None:
    plant(monkeypatch, tmp_path)  # type: ignore[operator]
    secrets._known.cache_clear()
    release = tmp_path / "release"
    release.mkdir()
    as_text(release / "notes", CANARY)
    assert [finding.kind for finding in secrets.scan_folder(release)] == [secrets.OWN]
    assert CANARY not in secrets.redact(f"error 500: {CANARY}")


def test_words_of_the_environment_are_no_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SORT_KEY", "short")
    monkeypatch.setenv("SSH_AUTH_FILE", str(tmp_path))
    assert {"short", str(tmp_path)}.isdisjoint(secrets.known_secrets())


def test_messages_lose_their_secrets_and_keep_the_rest() -> None:
    text = f"Refused: Bearer {SECRETS['a Hugging Face token']} is wrong"
    assert secrets.redact(text) == "Refused: Bearer [secret removed] is wrong"


# -- rules about content -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["optimizer.safetensors", "optimizer_state.json", "trainer_state.json", "rng_state_0.json", "global_step12/x.json"],
)
def test_states_of_training_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{}", encoding="utf-8")
    with pytest.raises(ReleaseError, match=r"must not be published: it is a state of training"):
        rules.check_folder(tmp_path)


def test_tensors_of_an_optimiser_are_refused(tmp_path: Path) -> None:
    made.write_safetensors(tmp_path / "model.safetensors", {"model.norm.weight": 2, "model.norm.weight.exp_avg": 2})
    with pytest.raises(ReleaseError, match=r"tensor model\.norm\.weight\.exp_avg is a state of the optimiser"):
        rules.check_folder(tmp_path)


@pytest.mark.parametrize("content", [b"\x80\x04\x95rest", b"PK\x03\x04rest"], ids=["pickle", "archive"])
def test_a_pickle_under_another_name_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(ReleaseError, match="by its first bytes it is a pickle or an archive"):
        rules.check_folder(tmp_path)


@pytest.mark.parametrize("content", [b"\xff\xfeh\x00i\x00", b"a\x00b"], ids=["utf-16", "zero byte"])
def test_text_that_could_hide_something_from_the_scan_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "notes.txt").write_bytes(content)
    with pytest.raises(ReleaseError, match=r"notes\.txt (is not UTF-8|holds a zero byte)"):
        rules.check_folder(tmp_path)


def test_a_file_larger_than_the_hub_takes_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors").open("wb") as stream:
        stream.truncate(rules.LARGEST_FILE + 1)
    with pytest.raises(ReleaseError, match=r"model\.safetensors has 200 GB"):
        rules.check_folder(tmp_path)


def test_a_secret_in_binary_files_is_found(tmp_path: Path) -> None:
    text = b"tEXtAuthor\0" + SECRETS["a GitHub token"].encode()
    (tmp_path / "plot.png").write_bytes(b"\x89PNG\r\n\x1a\n" + base64.b64decode("AAAA") + text)
    assert [finding.kind for finding in secrets.scan_folder(tmp_path)] == ["a GitHub token"]
