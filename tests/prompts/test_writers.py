"""Writers: the model in this process gets exact ids and begins inside the list; the record survives kills."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gshf_release.prompts import writers
from gshf_release.prompts.writers import (
    Answer,
    EngineWriter,
    ListRequest,
    WriterRecord,
    ask_once,
    make_writer,
    request_key,
)
from gshf_release.recipe import Augmentation, Recipe
from gshf_release.release.prompt_set import make_prompt_set, public_writer
from gshf_release.run.context import silent
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import SilentObserver
from gshf_release.sampling.protocol import Completion, Progress, Request
from tests.prompts.written import files, list_of, prompts_recipe
from tests.run.plans import PROFILES

SETTINGS = Augmentation(max_new_tokens=30)
EOS = 2


class Scripted:
    """An engine whose answers follow from the seed; it keeps the requests it got."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.requests: list[Request] = []

    def generate(self, requests: Sequence[Request], progress: Progress) -> list[Completion]:
        """Answer as a model would that was given the list's next number."""
        self.requests += requests
        return [self._complete(request) for request in requests]

    def _complete(self, request: Request) -> Completion:
        text = list_of(request.seed).removeprefix("9. ")
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        limit = request.decoding.max_new_tokens
        return Completion(ids[:limit], "length") if len(ids) > limit else Completion([*ids, EOS], "stop")


def test_the_prompt_ids_are_the_rendered_request_and_the_next_number(tokenizer: Any) -> None:
    engine = Scripted(tokenizer)
    writer = EngineWriter(
        engine, [EOS], tokenizer, "model", Augmentation(max_new_tokens=2000, temperature=0.8, top_p=0.9)
    )
    heard: list[Any] = []
    (answer,) = writer.write([ListRequest("Go on:\n1. Why?", 9, 77)], heard.extend, silent)
    (request,) = engine.requests
    assert tokenizer.decode(request.prompt_ids) == "<|user|>\nGo on:\n1. Why?</s>\n<|assistant|>\n9."
    assert (request.seed, request.decoding.temperature, request.decoding.top_p) == (77, 0.8, 0.9)
    assert answer.text == list_of(77)
    assert answer.finish_reason == "stop"
    assert heard == [(0, answer)]


def test_an_answer_cut_by_the_limit_says_so(tokenizer: Any) -> None:
    writer = EngineWriter(Scripted(tokenizer), [EOS], tokenizer, "model", SETTINGS)
    (answer,) = writer.write([ListRequest("Go on", 9, 1)], lambda heard: None, silent)
    assert (answer.finish_reason, answer.tokens) == ("length", 30)


def test_the_record_finds_what_was_added_also_after_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "answers.jsonl"
    one, two = Answer("9. Why?\u2028\r\n10. é😀", "stop", 5), Answer("", "length", 0)
    WriterRecord(path).add([("a", one)])
    with path.open("ab") as stream:
        stream.write(b'{"key": "b", "text": "cut by a ki')
    record = WriterRecord(path)
    assert record.find("a") == one
    assert record.find("b") is None
    record.add([("b", two)])
    again = WriterRecord(path)
    assert (again.find("a"), again.find("b")) == (one, two)


def test_a_key_changes_with_everything_an_answer_depends_on(tokenizer: Any) -> None:
    engine = Scripted(tokenizer)

    def key(identity: str = "m", text: str = "t", first: int = 9, seed: int = 1, **changes: Any) -> str:
        settings = Augmentation(**changes)
        return request_key(
            EngineWriter(engine, [EOS], tokenizer, identity, settings), ListRequest(text, first, seed), settings
        )

    keys = [key(), key("n"), key(text="u"), key(first=8), key(seed=2), key(temperature=0.5), key(top_p=0.5)]
    keys += [key(max_new_tokens=9)]
    assert len(set(keys)) == 8
    assert key(target=5, similarity=0.5) == key()


class Counted:
    """A writer that counts how many requests it is asked at once."""

    identity = "counted"

    def __init__(self, *, whole_rounds: bool) -> None:
        self.whole_rounds = whole_rounds
        self.asked: list[int] = []

    def write(self, asks: Sequence[ListRequest], heard: writers.Heard, progress: Progress) -> list[Answer]:
        """Answer with the request's seed."""
        self.asked.append(len(asks))
        answers = [Answer(f"seed {ask.seed}", "stop", 1) for ask in asks]
        heard(list(enumerate(answers)))
        return answers


@pytest.mark.parametrize(("whole_rounds", "asked"), [(True, 4), (False, 3)])
def test_only_what_is_missing_is_asked_unless_answers_depend_on_their_company(
    tmp_path: Path, whole_rounds: bool, asked: int
) -> None:
    writer, record = Counted(whole_rounds=whole_rounds), WriterRecord(tmp_path / "answers.jsonl")
    asks = [ListRequest("t", 9, seed) for seed in range(4)]
    ask_once(writer, asks[1:2], SETTINGS, record, silent)
    answers, new = ask_once(writer, asks, SETTINGS, record, silent)
    assert [answer.text for answer in answers] == [f"seed {seed}" for seed in range(4)]
    assert writer.asked == [1, asked]
    assert len(new) == asked
    assert ask_once(writer, asks, SETTINGS, record, silent) == (answers, [])


def in_process(folder: Path, tiny_folder: Path, **changes: Any) -> Recipe:
    chosen = prompts_recipe(folder, **({"writer": {"model": "base"}, "requests_per_round": 2} | changes))
    return chosen.model_copy(update={"base": chosen.base.model_copy(update={"model": str(tiny_folder / "tiny")})})


def test_a_run_with_a_model_in_this_process(
    tiny_folder: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = in_process(tmp_path, tiny_folder, target=20, max_new_tokens=2000)
    engine = Scripted(tokenizer)
    monkeypatch.setattr(
        writers, "make_writer", lambda *_: EngineWriter(engine, [EOS], tokenizer, "x", chosen.prompts.augmentation)
    )
    monkeypatch.setattr("gshf_release.prompts.augmentation.make_writer", writers.make_writer)
    run = RunDirectory.create(tmp_path / "run", chosen, PROFILES["here"])
    make_prompt_set(run, chosen, PROFILES["here"], allow_redo=False, observer=SilentObserver())
    lines = (run.path / "prompts" / "set" / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 20
    answered = (run.path / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(answered) == len(engine.requests)
    assert json.loads(answered[0])["text"] == list_of(engine.requests[0].seed)


def test_a_real_model_in_this_process_writes_the_same_twice(
    tiny_folder: Path, tmp_path: Path, one_thread: None
) -> None:
    """The tiny model writes gibberish; what counts is that the whole way from its ids to the files is walked, alike."""
    chosen = in_process(
        tmp_path, tiny_folder, maximum_requests=4, max_new_tokens=20, shown_seeds=1, shown_generated=0, asked=2
    )
    template = tmp_path / "training" / "prompts" / "self-instruct.txt"
    template.parent.mkdir(parents=True)
    template.write_text("$examples\n$first", encoding="utf-8")
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gshf_release.data.assets.roots", lambda: [tmp_path, *_shipped()])
        for name in ("one", "two"):
            run = RunDirectory.create(tmp_path / name, chosen, PROFILES["here"])
            make_prompt_set(run, chosen, PROFILES["here"], allow_redo=False, observer=SilentObserver())
            found.append(files(run) | {"answers": (run.path / "answers.jsonl").read_bytes()})
    assert found[0] == found[1]
    assert found[0]["answers"].count(b"\n") == 4


def _shipped() -> list[Path]:
    from gshf_release.data import assets

    return [assets.shipped()]


def test_the_writers_identity_is_the_models_content(tiny_folder: Path, tmp_path: Path) -> None:
    from gshf_release.data.hashing import sha256_tree, tree

    writer = make_writer(in_process(tmp_path, tiny_folder), PROFILES["here"])
    assert writer.identity == sha256_tree(tree(tiny_folder / "tiny"))
    assert writer.whole_rounds


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("served:gpt-4o-mini", "gpt-4o-mini"),
        ("package:llm-x==1.0/inside/x.Q8_0.gguf", "x.Q8_0.gguf of the Python package llm-x==1.0"),
        ("owner/some-model", "owner/some-model"),
        ("/home/me/models/mine", "mine"),
    ],
)
def test_a_card_names_the_writer_without_paths_of_this_machine(tmp_path: Path, model: str, shown: str) -> None:
    assert public_writer(prompts_recipe(tmp_path, writer={"model": model})) == shown
