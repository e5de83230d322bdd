"""Write prompts that state rules which a program can check: "Write one sentence about rain. Use no commas. ..."."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from gshf_release.data.hashing import seed_from
from gshf_release.errors import DataError
from gshf_release.prompts.instruction_rules import Rule
from gshf_release.run.directory import write_text

OPENING = "Write one sentence about {}."
LONGER_OPENING = "Write a short text about {}."
"""For a prompt whose rules say how many sentences or paragraphs there are."""
LAYOUT = "layout"
FAILURES = 1000
"""Prompts that may come twice in a row before the rules are said to give no more."""
TOPICS = """
airports apples autumn bakeries balloons bees bicycles birds board games books bread bridges butterflies cakes cameras camping
candles canoes castles cats cheese chess clocks clouds coffee comets cooking coral crosswords dancing dentists deserts dinosaurs
dogs dolphins dreams drums elephants elevators farming festivals fishing flags flowers fog football forests foxes friendship
gardens glaciers glass gold gravity guitars hats hiking honey horses hospitals ice islands jazz juice kites kitchens ladders
lakes laughter lemons letters libraries lighthouses lightning lions magnets maps marathons markets medicine memory mirrors
mountains museums mushrooms music neighbors newspapers noodles oceans olives opera oranges orchards owls painting pancakes paper
parks penguins photography pianos picnics pirates planets poetry pottery puppets rain rainbows recycling restaurants rivers
robots rockets roses running sailing salt sandwiches satellites school science shadows sheep ships shoes silence singing skating
sleep snow soap soccer soup spiders squirrels stars storms stories subways sugar sunflowers surfing swimming taxis tea teachers
telescopes theater tigers time tomatoes tools toys traffic trains travel trees trumpets turtles umbrellas valleys vegetables
violins volcanoes waterfalls weather whales wheels windmills windows wine winter wolves yoga zoos
""".replace("board games", "board-games").split()


def instruction_prompts(
    count: int, seed: int, rules: Sequence[Rule], *, rules_each: int = 2, topics: Sequence[str] = TOPICS
) -> list[str]:
    """Return distinct prompts, each with a topic and rules of different groups.

    The first n of a longer list are the shorter list.

    Args:
        count: How many.
        seed: Of the draws.
        rules: The kinds of rules to draw from, each as often as any other; those without a phrase are left out.
        rules_each: Rules in one prompt.
        topics: What the prompts are about.

    Raises:
        DataError: The rules have fewer groups than a prompt wants, or give fewer different prompts.
    """
    written = [rule for rule in rules if rule.phrase]
    groups = {rule.group for rule in written}
    if len(groups) < rules_each:
        raise DataError(f"{rules_each} rules a prompt need as many groups of rules; there are {len(groups)}.")
    found: dict[str, None] = {}
    failures = 0
    for prompt in _drawn(random.Random(seed_from(seed, "instruction prompts")), written, rules_each, topics):
        if len(found) == count:
            break
        failures = failures + 1 if prompt in found else 0
        if failures == FAILURES:
            raise DataError(f"The rules give no more than about {len(found)} different prompts; {count} are asked for.")
        found[prompt] = None
    return list(found)


def write_prompts(prompts: Sequence[str], path: Path) -> None:
    """Write prompts as JSON lines, through a temporary name.

    Raises:
        DataError: The file cannot be written.
    """
    text = "".join(json.dumps({"prompt": prompt}, ensure_ascii=False) + "\n" for prompt in prompts)
    try:
        write_text(path, text)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}.") from error


def _drawn(draw: random.Random, rules: Sequence[Rule], rules_each: int, topics: Sequence[str]) -> Iterator[str]:
    while True:
        chosen: dict[str, Rule] = {}
        while len(chosen) < rules_each:
            rule = draw.choice(rules)
            chosen.setdefault(rule.group, rule)
        opening = LONGER_OPENING if LAYOUT in chosen else OPENING
        stated = [rule.phrase.format(*rule.draw(draw)) for rule in chosen.values()]
        yield " ".join([opening.format(draw.choice(topics).replace("-", " ")), *stated])
