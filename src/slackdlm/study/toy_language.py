"""A toy language with a known grammar, and tasks written in it.

Stories of two to four sentences, written from an unambiguous context-free grammar with many optional parts, so that
the position of a word is truly uncertain. A prompt asks for a number of sentences and for particular words of the
story. Ours; it stands in for open-ended generation where a judge must be exact.

    story    -> sentence+
    sentence -> [opener] np vp "."
    np       -> determiner [adjective] noun
    vp       -> (intransitive | transitive np) [adverb] [preposition np]
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NOUNS = "boat cat child dog king lamp tree wolf".split()
INTRANSITIVE = "falls sings sleeps waits".split()
TRANSITIVE = "calls finds likes sees".split()
DETERMINERS = "the a every".split()
ADJECTIVES = "blue huge red tiny".split()
ADVERBS = "gladly loudly often softly".split()
PREPOSITIONS = "near under with".split()
OPENERS = "later now then".split()

P_OPENER = 0.3
P_ADJECTIVE = 0.4
P_TRANSITIVE = 0.5
P_ADVERB = 0.35
P_PP = 0.35
SENTENCES = (2, 3, 4)
LENGTH = (20, 32)
"""Shortest and longest story in words, full stops included; others are drawn again."""

ASK = "tell"
COUNT_WORDS = {2: "twice", 3: "thrice", 4: "fourfold"}
"""Prompts say ``tell twice: ...``; the count words do not occur in stories."""


def vocabulary() -> list[str]:
    """Every word that a prompt or a story can hold, sorted."""
    lists = (
        NOUNS,
        INTRANSITIVE,
        TRANSITIVE,
        DETERMINERS,
        ADJECTIVES,
        ADVERBS,
        PREPOSITIONS,
        OPENERS,
    )
    return sorted({".", ASK, *COUNT_WORDS.values(), *(word for words in lists for word in words)})


class Task(NamedTuple):
    """One question of the toy benchmark with the story it was made from."""

    prompt: str
    story: str


def _pick(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def _noun_phrase(rng: np.random.Generator) -> list[str]:
    words = [_pick(DETERMINERS, rng)]
    if rng.random() < P_ADJECTIVE:
        words.append(_pick(ADJECTIVES, rng))
    return [*words, _pick(NOUNS, rng)]


def write_sentence(rng: np.random.Generator) -> list[str]:
    """One sentence drawn from the grammar, full stop included."""
    words = [_pick(OPENERS, rng)] if rng.random() < P_OPENER else []
    words += _noun_phrase(rng)
    if rng.random() < P_TRANSITIVE:
        words += [_pick(TRANSITIVE, rng), *_noun_phrase(rng)]
    else:
        words.append(_pick(INTRANSITIVE, rng))
    if rng.random() < P_ADVERB:
        words.append(_pick(ADVERBS, rng))
    if rng.random() < P_PP:
        words += [_pick(PREPOSITIONS, rng), *_noun_phrase(rng)]
    return [*words, "."]


def write_story(rng: np.random.Generator) -> list[list[str]]:
    """A story of two to four sentences and 20 to 32 words."""
    while True:
        count = SENTENCES[int(rng.integers(len(SENTENCES)))]
        sentences = [write_sentence(rng) for _ in range(count)]
        if LENGTH[0] <= sum(map(len, sentences)) <= LENGTH[1]:
            return sentences


def write_task(rng: np.random.Generator) -> Task:
    """A story and a prompt that asks for its number of sentences and some of its words.

    The prompt names up to four nouns, three adjectives and two adverbs of the story, in the order
    of their first appearance.
    """
    sentences = write_story(rng)
    words = list(dict.fromkeys(word for sentence in sentences for word in sentence))
    nouns = [word for word in words if word in NOUNS]
    adjectives = [word for word in words if word in ADJECTIVES]
    adverbs = [word for word in words if word in ADVERBS]
    wanted: set[str] = set()
    for candidates, most in ((nouns, 4), (adjectives, 3), (adverbs, 2)):
        wanted |= {candidates[int(i)] for i in rng.permutation(len(candidates))[:most]}
    prompt = " ".join(
        [ASK, COUNT_WORDS[len(sentences)], *(word for word in words if word in wanted)]
    )
    return Task(prompt=prompt, story=" ".join(word for sentence in sentences for word in sentence))


def write_tasks(num_tasks: int, *, seed: int, unlike: frozenset[str] = frozenset()) -> list[Task]:
    """Tasks with prompts distinct from each other and from ``unlike``; the same seed gives the same tasks."""
    rng = np.random.Generator(np.random.PCG64(seed))
    tasks: list[Task] = []
    seen = set(unlike)
    while len(tasks) < num_tasks:
        task = write_task(rng)
        if task.prompt not in seen:
            seen.add(task.prompt)
            tasks.append(task)
    return tasks
