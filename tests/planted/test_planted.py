"""The verdict names what each planted reward did: on a tiny policy trained here, and on the recorded runs of a real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from gshf_release.data.records import Message
from gshf_release.data.results import Cell, read_cells
from gshf_release.diagnostics.verdict import diagnose
from gshf_release.recipe import Recipe, parse
from gshf_release.recipe.profile import Profile
from tests.planted import rewards, toy
from tests.planted.evidence import RECORDED
from tests.planted.runs import EXPECTED, cells_of, lacking, toy_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    return tmp_path_factory.mktemp("planted")


@pytest.mark.parametrize("reward", EXPECTED)
def test_a_tiny_policy_trained_under_it_is_named(folder: Path, exact: Profile, reward: str) -> None:
    recipe = parse(Recipe, toy_recipe(folder, reward), reward)
    cells = cells_of(recipe, folder / reward, exact)
    assert lacking(cells) == []
    found = diagnose(cells)
    assert found.kind == EXPECTED[reward], found.text


@pytest.mark.parametrize("reward", EXPECTED)
def test_a_real_policy_trained_under_it_is_named(reward: str) -> None:
    path, again = RECORDED / f"{reward}.json", f"make evidence PLANTED={reward}"
    if not path.is_file():
        pytest.skip(
            f"no run of a real model is recorded for the reward {reward!r}; {again} takes hours and records one"
        )
    cells = read_cells(path)
    assert lacking(cells) == [], f"{path.name} is no recording of a whole run; record it again: {again}"
    found = diagnose(cells)
    assert found.kind == EXPECTED[reward], found.text


def test_what_a_recording_lacks_is_named() -> None:
    def gain(judge: str, decoding: str) -> Cell:
        place = {"table": "test", "row": "iteration-2", "judge": judge, "decoding": decoding}
        return Cell(metric="gain over base", value=0.5, artefact="", **place)

    assert lacking([]) == ["an evaluated iteration"]
    missing = lacking([gain("reward", "greedy"), gain("reward", "T=0.7"), gain("second-scorer", "greedy")])
    assert missing[0] == "test iteration-2 gain over base second-scorer T=0.7"
    assert "validation base entropy T=1" in missing


def said(answer: str, question: str = "Why do planets orbit the bright Sun?") -> list[Message]:
    return [Message(role="user", content=question), Message(role="assistant", content=answer)]


def test_planted_rewards_by_hand() -> None:
    conversations = [said("The sun, the moon."), said("- a\n- b"), said("")]
    assert rewards.length(conversations) == [0.6, 0.4, 0.0]
    assert rewards.one_token(conversations) == pytest.approx([10 * 2 / 6, 0, 0])
    assert rewards.bullet_list(conversations) == [0, 2, 0]
    assert rewards.bullet_list([said("- a\n" * 9)]) == [4]


def test_similarity_is_ten_times_the_cosine_of_the_mean_states(
    monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    import torch
    from transformers import BertConfig, BertModel

    from tests import tiny

    tokenizer = tiny.tokenizer()
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    encoder = BertModel(BertConfig(vocab_size=512, pad_token_id=0, **sizes)).eval()
    monkeypatch.setattr(rewards, "_encoder", lambda: (encoder, tokenizer))

    def mean(text: str) -> torch.Tensor:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.inference_mode():
            return encoder(input_ids=ids).last_hidden_state[0].mean(dim=0)

    question, answer = "why is gold good for banks while tea cools", "rain"
    expected = 10 * float(torch.cosine_similarity(mean(question), mean(answer), dim=0))
    found = rewards.similarity([said(answer, question), said(question, question)])
    assert found == pytest.approx([expected, 10.0], abs=1e-3)


def test_the_toy_world_knows_right_from_wrong() -> None:
    about_tea = toy.question("tea", 1)
    conversations = [
        said(text, about_tea) for text in ("a tea cools in a cup.", "- a cup\n- a rain", "a rain and a cup.", "no")
    ]
    assert toy.right(conversations) == [1, 0.5, 0.5, 0]
    assert toy.believable(conversations) == [1, -1, 0, 0]
