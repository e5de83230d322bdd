"""A benchmark's answers: questions, the first prompt as it is rendered, one sampling stage a turn, and the answer file.

    benchmarks/<benchmark>/questions    questions.json
    benchmarks/<benchmark>/rendering    prompt.json: the first question as text and ids
    <row>/<benchmark>/prompts-1, ...    prompts.json: ids, where a template of FastChat's renders them; in shards
    <row>/<benchmark>/turn-1, turn-2    samples.parquet, in shards
    <row>/<benchmark>/answers           model_outputs.json as AlpacaEval writes it, or model_answer.jsonl as FastChat does

Turn 2 is asked with the row's own answer to turn 1 in the conversation. FastChat's templates are rendered in a stage of their
own, because an engine may live in an environment without FastChat.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from gshf_release.data.hashing import seed_from
from gshf_release.data.records import Message, Sample
from gshf_release.errors import DataError
from gshf_release.evaluation import answer_files, file_copies
from gshf_release.evaluation.answer_templates import Ending, FastChatTemplate, Template, TokenizerTemplate, template
from gshf_release.evaluation.benchmarks import AnswerSettings, Protocol, Question, read_questions
from gshf_release.models.chat_template_checks import check_policy
from gshf_release.models.chat_tokenizer import KEYS as RENDERING
from gshf_release.models.checkpoints import load_tokenizer
from gshf_release.recipe import Recipe
from gshf_release.run.context import StageContext
from gshf_release.run.directory import write_json
from gshf_release.run.persistent_worker import ENGINE
from gshf_release.run.stage import Input, Parameters, Stage
from gshf_release.sampling import stage as sampling
from gshf_release.sampling.protocol import Request

QUESTIONS = "questions.json"
PROMPTS = "prompts.json"
KEYS = ("seed", "prompts.system", *RENDERING)


class QuestionParameters(Parameters):
    """Say which questions are asked."""

    protocol: Protocol
    sha256: str
    """Of their file."""
    limit: int | None
    """Only the first of them; None asks all."""


class RenderingParameters(Parameters):
    """Say how a benchmark's first prompt is rendered."""

    asking: AnswerSettings
    benchmark: str
    template: str | None
    """One of FastChat's; None is the tokenizer's own."""


class TurnParameters(RenderingParameters):
    """Say which turn of a row is rendered or sampled."""

    row: str
    policy: str
    turn: int
    prompts_per_shard: int


class AnswerParameters(Parameters):
    """Say whose answers are written in a benchmark's own form."""

    protocol: Protocol
    benchmark: str
    row: str
    model: str
    """What the file calls the row's model."""


class ExistingAnswerParameters(Parameters):
    """Say which file of answers becomes a row."""

    protocol: Protocol
    benchmark: str
    sha256: str
    model: str | None
    """What the model of answers is called that name none."""


def questions_stage(benchmark: str) -> str:
    """Return the name of the stage of a benchmark's questions."""
    return f"benchmarks/{benchmark}/questions"


def rendering_stage(benchmark: str) -> str:
    """Return the name of the stage that writes down the first prompt."""
    return f"benchmarks/{benchmark}/rendering"


def answers_stage(row: str, benchmark: str) -> str:
    """Return the name of the stage of a row's answers."""
    return f"{row}/{benchmark}/answers"


def prompts_stage(row: str, benchmark: str, turn: int) -> str:
    """Return the name of the stage that renders a row's prompts of a turn with a template of FastChat's."""
    return f"{row}/{benchmark}/prompts-{turn}"


def model_name(recipe: Recipe, row: str) -> str:
    """Return what answer files call the model of a row."""
    return row if recipe.evaluation.only else f"{recipe.name}-{row}"


def declare_questions(benchmark: str, asking: AnswerSettings, sha256: str, limit: int | None) -> Stage:
    """Declare the questions, read from the run's own copy of their file.

    Args:
        benchmark: Its name.
        asking: Its settings.
        sha256: Of the file of questions.
        limit: Only the first of them; None asks all.
    """
    return Stage(
        name=questions_stage(benchmark),
        identity="write-questions/1",
        work="gshf_release.evaluation.answers:write_questions",
        kind="other",
        outputs=(QUESTIONS,),
        parameters=QuestionParameters(protocol=asking.protocol, sha256=sha256, limit=limit).as_json(),
    )


def declare_rendering(benchmark: str, asking: AnswerSettings, name: str | None) -> Stage:
    """Declare the record of the first prompt, rendered with the base's tokenizer and the template `name`."""
    return Stage(
        name=rendering_stage(benchmark),
        identity="render-first-question/1",
        work="gshf_release.evaluation.answers:write_rendering",
        kind="other",
        inputs=(Input("base", "model"), Input(questions_stage(benchmark), QUESTIONS)),
        outputs=("prompt.json",),
        keys=KEYS[1:],
        parameters=RenderingParameters(asking=asking, benchmark=benchmark, template=name).as_json(),
    )


def declare_row(
    recipe: Recipe,
    benchmark: str,
    asking: AnswerSettings,
    count: int,
    row: str,
    policy: str,
    model: str,
    name: str | None,
    turns_asked: int,
) -> list[Stage]:
    """Declare a row's answers.

    Args:
        recipe: The recipe.
        benchmark: The benchmark's name.
        asking: Its settings.
        count: How many questions are asked.
        row: Whose answers.
        policy: The stage of its model.
        model: What the answer files call it.
        name: The template, None for the tokenizer's own.
        turns_asked: The most turns that a question has.
    """
    steps: list[Stage] = []
    turns: list[Stage] = []
    for turn in range(1, turns_asked + 1):
        asked = TurnParameters(
            asking=asking,
            benchmark=benchmark,
            template=name,
            row=row,
            policy=policy,
            turn=turn,
            prompts_per_shard=recipe.sampling.prompts_per_shard,
        )
        steps += _declare_turn(asked, count, turns)
        turns.append(steps[-1])
    answers = Stage(
        name=answers_stage(row, benchmark),
        identity="write-answers/1",
        work="gshf_release.evaluation.answers:write_answers",
        kind="other",
        inputs=(
            Input(questions_stage(benchmark), QUESTIONS),
            *(Input(stage.name, sampling.FILE) for stage in turns),
        ),
        outputs=(answer_files.FILES[asking.protocol],),
        parameters=AnswerParameters(protocol=asking.protocol, benchmark=benchmark, row=row, model=model).as_json(),
    )
    return [*steps, answers]


def _declare_turn(asked: TurnParameters, count: int, turns: Sequence[Stage]) -> list[Stage]:
    """Declare the sampling of a turn, and before it the rendering of its prompts where a template of FastChat's is named."""
    row, benchmark, turn = asked.row, asked.benchmark, asked.turn
    inputs = [Input(asked.policy, "model"), Input(questions_stage(benchmark), QUESTIONS)]
    earlier = [Input(stage.name, sampling.FILE, "shard") for stage in turns]
    earlier = earlier or [Input(rendering_stage(benchmark), "prompt.json")]  # so that it is shown before all work
    shards = max(1, math.ceil(count / asked.prompts_per_shard))
    found: list[Stage] = []
    if asked.template is not None:
        found.append(
            Stage(
                name=prompts_stage(row, benchmark, turn),
                identity="render-questions/1",
                work="gshf_release.evaluation.answers:write_prompts",
                kind="other",
                inputs=(*inputs, *earlier),
                outputs=(PROMPTS,),
                keys=KEYS[1:],
                parameters=asked.as_json(),
                shards=shards,
            )
        )
        earlier = [Input(found[0].name, PROMPTS, "shard")]
    sampled = Stage(
        name=f"{row}/{benchmark}/turn-{turn}",
        identity="sample-answers/1",
        work="gshf_release.evaluation.answers:sample_turn",
        kind="sampling",
        inputs=(*inputs, *earlier),
        outputs=(sampling.FILE,),
        keys=KEYS,
        parameters=asked.as_json(),
        shards=shards,
        runs_in=ENGINE,
    )
    return [*found, sampled]


def declare_existing(benchmark: str, asking: AnswerSettings, row: str, sha256: str, model: str | None) -> Stage:
    """Declare a row of existing answers, read from the run's own copy of their file; `model` names those that name none."""
    return Stage(
        name=answers_stage(row, benchmark),
        identity="import-answers/1",
        work="gshf_release.evaluation.answers:adopt_answers",
        kind="other",
        inputs=(Input(questions_stage(benchmark), QUESTIONS),),
        outputs=(answer_files.FILES[asking.protocol],),
        parameters=ExistingAnswerParameters(
            protocol=asking.protocol, benchmark=benchmark, sha256=sha256, model=model
        ).as_json(),
    )


def write_questions(context: StageContext) -> None:
    """Write the questions that are asked."""
    of = context.parameters(QuestionParameters)
    questions = read_questions(of.protocol, file_copies.path(context.run, of.sha256), of.limit)
    write_json(context.output(QUESTIONS), {"questions": [asdict(question) for question in questions]})


def stored_questions(context: StageContext, benchmark: str) -> list[Question]:
    """Return the questions that `write_questions` wrote."""
    document = json.loads(context.input(questions_stage(benchmark), QUESTIONS).read_text(encoding="utf-8"))
    return [Question(entry["key"], entry["category"], tuple(entry["turns"])) for entry in document["questions"]]


def write_rendering(context: StageContext) -> None:
    """Write the first question's prompt as text and ids, having tried the template.

    Raises:
        CheckpointError: The tokenizer's own template refuses a conversation, or loses words of it.
    """
    of = context.parameters(RenderingParameters)
    asking, tokenizer = of.asking, load_tokenizer(context.input("base", "model"))
    form = _template(context, of, tokenizer)
    if isinstance(form, TokenizerTemplate):
        system = asking.system is not None or context.recipe.prompts.system is not None or form.rules.empty_system
        check_policy(tokenizer, repr(tokenizer.name_or_path), form.rules, system=system, today=context.today)
    question = stored_questions(context, of.benchmark)[0]
    ids = form.ids(conversation(asking, context.recipe, question, []))
    document = {
        "question": question.key,
        "template": of.template or "the tokenizer's own",
        "text": tokenizer.decode(ids),
        "ids": ids,
    }
    write_json(context.output("prompt.json"), document)


def conversation(asking: AnswerSettings, recipe: Recipe, question: Question, answers: Sequence[str]) -> list[Message]:
    """Return the conversation that waits for the answer after `answers`."""
    system = recipe.prompts.system if asking.system is None else asking.system
    messages = [] if system is None else [Message(role="system", content=system)]
    for text, answer in zip(question.turns, answers, strict=False):
        messages += [Message(role="user", content=text), Message(role="assistant", content=answer)]
    return [*messages, Message(role="user", content=question.turns[len(answers)])]


def write_prompts(context: StageContext) -> None:
    """Write this shard's prompts of one turn as a template of FastChat's renders them, and where it ends an answer."""
    of = context.parameters(TurnParameters)
    form = _template(context, of, load_tokenizer(context.input(of.policy, "model")))
    assert isinstance(form, FastChatTemplate)  # the stage is declared for those alone
    document = {"prompts": _prompt_ids(context, of, form), "ending": asdict(form.ending)}
    write_json(context.output(PROMPTS), document)


def _shard_questions(context: StageContext, of: TurnParameters) -> list[Question]:
    """Return this shard's questions that have the turn."""
    size, shard = of.prompts_per_shard, context.task.shard
    own = stored_questions(context, of.benchmark)[shard * size : (shard + 1) * size]
    return [question for question in own if len(question.turns) >= of.turn]


def _prompt_ids(context: StageContext, of: TurnParameters, form: Template) -> dict[str, list[int]]:
    """Return `{question: prompt ids}` of this shard and turn, the answers to earlier turns in the conversation."""
    earlier = [_answers_of(context, f"{of.row}/{of.benchmark}/turn-{number}") for number in range(1, of.turn)]
    return {
        question.key: form.ids(
            conversation(of.asking, context.recipe, question, [answers[question.key] for answers in earlier])
        )
        for question in _shard_questions(context, of)
    }


def _form(
    context: StageContext, of: TurnParameters, tokenizer: Any
) -> tuple[dict[str, list[int]], Callable[[Sequence[int], Sequence[int]], str]]:
    """Return the prompts' ids, and what makes text of a completion; without FastChat, which may not be installed here."""
    if of.template is None:
        own = _template(context, of, tokenizer)
        return _prompt_ids(context, of, own), own.text
    stage = prompts_stage(of.row, of.benchmark, of.turn)
    document = json.loads(context.input(stage, PROMPTS).read_text(encoding="utf-8"))
    ending = Ending(*(tuple(document["ending"][key]) for key in ("stop_ids", "stop_texts")))
    return document["prompts"], lambda ids, stops: ending.cut(tokenizer, ids)


def sample_turn(context: StageContext) -> None:
    """Sample this shard's answers to one turn."""
    of = context.parameters(TurnParameters)
    questions = _shard_questions(context, of)
    checkpoint = context.input(of.policy, "model")
    prompts, text_of = _form(context, of, load_tokenizer(checkpoint))
    engine = sampling.engine_of(context, checkpoint)
    requests = [
        Request(
            prompts[question.key],
            of.asking.decoding_of(question.category),
            seed_from(context.seed, of.benchmark, question.key, of.turn),
            question.key,
        )
        for question in questions
    ]
    completions = engine.generate(requests, context.progress)
    policy_sha256 = context.input_sha256(of.policy, "model")
    Sample.write(
        (
            Sample(
                prompt_id=question.key,
                sample_index=0,
                decoding=request.decoding.label,
                temperature=request.decoding.temperature,
                prompt_ids=request.prompt_ids,
                completion_ids=completion.ids,
                text=text_of(completion.ids, engine.stops),
                finish_reason=completion.finish_reason,
                policy_sha256=policy_sha256,
            )
            for question, request, completion in zip(questions, requests, completions, strict=True)
        ),
        context.output(sampling.FILE),
    )


def write_answers(context: StageContext) -> None:
    """Write the answer file of the benchmark's own form."""
    of = context.parameters(AnswerParameters)
    questions = stored_questions(context, of.benchmark)
    turns = [
        _answers_of(context, f"{of.row}/{of.benchmark}/turn-{number}")
        for number in range(1, max(len(question.turns) for question in questions) + 1)
    ]
    rows = []
    for question in questions:
        given = [turn[question.key] for turn in turns if question.key in turn]
        rows.append(answer_files.answer_row(of.protocol, question, given, of.model))
    answer_files.write_rows(of.protocol, rows, context.output(answer_files.FILES[of.protocol]))


def adopt_answers(context: StageContext) -> None:
    """Write existing answers to the questions that are asked, in the questions' order.

    Raises:
        DataError: The file answers something that the benchmark does not ask, or none of its questions.
    """
    of = context.parameters(ExistingAnswerParameters)
    path, protocol = file_copies.path(context.run, of.sha256), of.protocol
    questions = stored_questions(context, of.benchmark)
    found = answer_files.read_answers(protocol, path)
    keys = [question.turns[0] if protocol == "alpaca_eval" else question.key for question in questions]
    chosen = [found[key] for key in keys if key in found]
    if not chosen:
        raise DataError(f"The answers given with --outputs answer none of the {len(keys)} questions that are asked.")
    if len(chosen) < len(keys):
        other = len(found) - len(chosen)
        told = f"; {other} of the {len(found)} answers are to other questions and left out" if other else ""
        context.say(
            f"The answers given with --outputs answer {len(chosen)} of the {len(keys)} questions that are asked{told}."
        )
    if of.model is not None:
        key = answer_files.MODEL_KEYS[protocol]
        chosen = [row | {key: row.get(key) or of.model} for row in chosen]
    answer_files.write_rows(protocol, chosen, context.output(answer_files.FILES[protocol]))


def _answers_of(context: StageContext, stage: str) -> dict[str, str]:
    return {sample.prompt_id: sample.text for sample in Sample.read(*context.inputs(stage, sampling.FILE))}


def _template(context: StageContext, of: RenderingParameters, tokenizer: Any) -> Template:
    rules = context.recipe.prompts
    if of.asking.empty_system is not None:
        rules = rules.model_copy(update={"empty_system": of.asking.empty_system})
    return template(of.template, tokenizer, rules, context.today)
