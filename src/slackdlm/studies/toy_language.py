"""A toy language with a known grammar: generator, parser and exact likelihood.

Stories of two or three sentences, written from an unambiguous context-free grammar with number agreement and many
optional parts, so that the position of a word is truly uncertain. A prompt asks for a number of sentences and for
particular words of the story. Ours; it stands in for open-ended generation where a judge must be exact.

    story    -> sentence+
    sentence -> [opener] clause ["and" clause'] "."         clause' shares the subject of its clause
    clause   -> np(number) vp(number)
    np       -> determiner(number) [size] [colour] noun(number)
    vp       -> intransitive(number) [adverb] [pp] | transitive(number) np [adverb] [pp]
    pp       -> preposition np
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from slackdlm.errors import DataError

NUMBERS = ("singular", "plural")
NOUNS = {
    "singular": "boat cat child dog farmer girl horse king lamp owl poet ship stone tree wolf woman".split(),
    "plural": "boats cats children dogs farmers girls horses kings lamps owls poets ships stones trees wolves "
    "women".split(),
}
INTRANSITIVE = {
    "singular": "dances falls glows rests sings sleeps waits wakes".split(),
    "plural": "dance fall glow rest sing sleep wait wake".split(),
}
TRANSITIVE = {
    "singular": "calls carries finds follows holds likes sees watches".split(),
    "plural": "call carry find follow hold like see watch".split(),
}
DETERMINERS = {"singular": "the a one every".split(), "plural": "the some many two".split()}
SIZES = "big huge little small tiny".split()
COLOURS = "black blue green grey red white".split()
ADVERBS = "badly gladly loudly often quickly quietly slowly softly".split()
PREPOSITIONS = "behind beside near under with".split()
OPENERS = "later now suddenly then today".split()
ADJECTIVES = frozenset(SIZES) | frozenset(COLOURS)

P_OPENER = 0.3
P_SECOND_CLAUSE = 0.2
P_SIZE = 0.35
P_COLOUR = 0.35
P_TRANSITIVE = 0.5
P_ADVERB = 0.35
P_PP = 0.35
SENTENCES = (2, 3)
LENGTH = (20, 40)
"""Shortest and longest story in words, full stops included; others are drawn again."""

ASK = "tell"
COUNT_WORDS = {2: "twice", 3: "thrice"}
"""Prompts say ``tell twice: ...``; the count words do not occur in stories."""


def vocabulary() -> list[str]:
    """Every word that a prompt or a story can hold, sorted."""
    words = {".", "and", ASK, *COUNT_WORDS.values(), *ADJECTIVES, *ADVERBS, *PREPOSITIONS, *OPENERS}
    for table in (NOUNS, INTRANSITIVE, TRANSITIVE, DETERMINERS):
        for number in NUMBERS:
            words.update(table[number])
    return sorted(words)


class Task(NamedTuple):
    """One question of the toy benchmark with the story it was made from."""

    prompt: str
    story: str


# ------------------------------------------------------------------------------------------- generator


def _pick(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def _noun_phrase(number: str, rng: np.random.Generator) -> list[str]:
    words = [_pick(DETERMINERS[number], rng)]
    if rng.random() < P_SIZE:
        words.append(_pick(SIZES, rng))
    if rng.random() < P_COLOUR:
        words.append(_pick(COLOURS, rng))
    return [*words, _pick(NOUNS[number], rng)]


def _any_noun_phrase(rng: np.random.Generator) -> list[str]:
    return _noun_phrase(_pick(NUMBERS, rng), rng)


def _verb_phrase(number: str, rng: np.random.Generator) -> list[str]:
    if rng.random() < P_TRANSITIVE:
        words = [_pick(TRANSITIVE[number], rng), *_any_noun_phrase(rng)]
    else:
        words = [_pick(INTRANSITIVE[number], rng)]
    if rng.random() < P_ADVERB:
        words.append(_pick(ADVERBS, rng))
    if rng.random() < P_PP:
        words += [_pick(PREPOSITIONS, rng), *_any_noun_phrase(rng)]
    return words


def write_sentence(rng: np.random.Generator) -> list[str]:
    """One sentence drawn from the grammar, full stop included."""
    number = _pick(NUMBERS, rng)
    words = [_pick(OPENERS, rng)] if rng.random() < P_OPENER else []
    words += [*_noun_phrase(number, rng), *_verb_phrase(number, rng)]
    if rng.random() < P_SECOND_CLAUSE:
        words += ["and", *_verb_phrase(number, rng)]
    return [*words, "."]


def write_story(rng: np.random.Generator) -> list[list[str]]:
    """A story of two or three sentences and 20 to 40 words."""
    while True:
        count = SENTENCES[int(rng.integers(len(SENTENCES)))]
        sentences = [write_sentence(rng) for _ in range(count)]
        if LENGTH[0] <= sum(map(len, sentences)) <= LENGTH[1]:
            return sentences


def write_task(rng: np.random.Generator) -> Task:
    """A story and a prompt that asks for its number of sentences and some of its words.

    The prompt names up to two nouns, two adjectives and one adverb of the story, in random order.
    """
    sentences = write_story(rng)
    words = sorted({word for sentence in sentences for word in sentence})
    nouns = [word for word in words if word in _NOUN_NUMBER]
    adjectives = [word for word in words if word in ADJECTIVES]
    adverbs = [word for word in words if word in ADVERBS]
    wanted: list[str] = []
    for candidates, most in ((nouns, 2), (adjectives, 2), (adverbs, 1)):
        order = rng.permutation(len(candidates))[:most]
        wanted += [candidates[int(i)] for i in order]
    wanted = [wanted[int(i)] for i in rng.permutation(len(wanted))]
    prompt = " ".join([ASK, COUNT_WORDS[len(sentences)], *wanted])
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


# ---------------------------------------------------------------------------------------------- parser

_NOUN_NUMBER = {noun: number for number in NUMBERS for noun in NOUNS[number]}
_VERB_NUMBER = {
    verb: (number, transitive)
    for transitive, table in ((False, INTRANSITIVE), (True, TRANSITIVE))
    for number in NUMBERS
    for verb in table[number]
}


class _Reader:
    """Recursive descent over one sentence; sums the log-probability of every choice it reads."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self.place = 0
        self.log_likelihood = 0.0

    def next_in(self, words: Sequence[str] | dict[str, str]) -> bool:
        return self.place < len(self.words) and self.words[self.place] in words

    def take(self, words: Sequence[str]) -> None:
        """Read one word drawn uniformly from ``words``."""
        if not self.next_in(words):
            raise ValueError
        self.place += 1
        self.log_likelihood -= math.log(len(words))

    def optional(self, words: Sequence[str], probability: float) -> bool:
        """Account for an optional part that begins with one of ``words``; does not read it."""
        present = self.next_in(words)
        self.log_likelihood += math.log(probability if present else 1 - probability)
        return present

    def noun_phrase(self) -> str:
        """Read a noun phrase and return its number, which only the noun decides."""
        determiner = self.place
        self.place += 1
        if self.optional(SIZES, P_SIZE):
            self.take(SIZES)
        if self.optional(COLOURS, P_COLOUR):
            self.take(COLOURS)
        if not self.next_in(_NOUN_NUMBER):
            raise ValueError
        number = _NOUN_NUMBER[self.words[self.place]]
        self.log_likelihood -= math.log(len(NUMBERS))
        self.take(NOUNS[number])
        if self.words[determiner] not in DETERMINERS[number]:
            raise ValueError
        self.log_likelihood -= math.log(len(DETERMINERS[number]))
        return number

    def verb_phrase(self, number: str) -> None:
        if self.optional(TRANSITIVE[number], P_TRANSITIVE):
            self.take(TRANSITIVE[number])
            self.noun_phrase()
        else:
            self.take(INTRANSITIVE[number])
        if self.optional(ADVERBS, P_ADVERB):
            self.take(ADVERBS)
        if self.optional(PREPOSITIONS, P_PP):
            self.take(PREPOSITIONS)
            self.noun_phrase()

    def sentence(self) -> float:
        if self.optional(OPENERS, P_OPENER):
            self.take(OPENERS)
        number = self.noun_phrase()
        self.verb_phrase(number)
        if self.optional(["and"], P_SECOND_CLAUSE):
            self.take(["and"])
            self.verb_phrase(number)
        self.take(["."])
        if self.place != len(self.words):
            raise ValueError
        return self.log_likelihood


def sentence_log_likelihood(words: Sequence[str]) -> float | None:
    """Exact log-probability of a sentence under the grammar, in nats.

    Args:
        words: The sentence, its full stop included.

    Returns:
        The log-probability, before stories are conditioned on their length; ``None`` where the sentence does
        not parse. The grammar is unambiguous, so one derivation is the whole sum.
    """
    try:
        return _Reader(words).sentence()
    except (ValueError, IndexError):
        return None


# ----------------------------------------------------------------------------------------------- judge


class Request(NamedTuple):
    """What a prompt asks for."""

    num_sentences: int
    words: tuple[str, ...]


def read_prompt(prompt: str) -> Request:
    """The request behind a prompt of :func:`write_task`.

    Raises:
        DataError: If the prompt is not of that form.
    """
    counts = {word: count for count, word in COUNT_WORDS.items()}
    ask, *rest = prompt.split()
    if ask != ASK or not rest or rest[0] not in counts:
        raise DataError(f"toy prompt: expected '{ASK} {'|'.join(counts)} WORD...', got {prompt!r}")
    return Request(num_sentences=counts[rest[0]], words=tuple(rest[1:]))


class Verdict(NamedTuple):
    """The exact judgment of one answer."""

    grammatical: float
    """Share of grammatical sentences, of as many as were asked for or written, whichever is more."""
    coverage: float
    """Share of the requested words that occur; 1 where nothing was requested."""
    quality: float
    """``grammatical * coverage``: the score that pairwise verdicts compare."""
    right_count: float
    """1 if the number of sentences is the one asked for, else 0."""
    words: int
    """Words written, full stops included."""
    adjectives: float | None
    """Share of adjectives among the words; ``None`` where there are no words."""
    log_likelihood: float | None
    """Mean log-probability per word, in nats, under the grammar; ``None`` unless every sentence parses."""


def judge(prompt: str, answer: str) -> Verdict:
    """Judge one answer against its prompt, exactly and without a model.

    Args:
        prompt: A prompt of :func:`write_task`.
        answer: Any text; it is split at white space, and sentences end at ``.``. Words after the last full
            stop count as a sentence that does not parse.
    """
    request = read_prompt(prompt)
    words = answer.split()
    sentences: list[list[str]] = [[]]
    for word in words:
        sentences[-1].append(word)
        if word == ".":
            sentences.append([])
    if not sentences[-1]:
        sentences.pop()
    scores = [sentence_log_likelihood(sentence) for sentence in sentences]
    parsed = [score for score in scores if score is not None]
    grammatical = len(parsed) / max(len(sentences), request.num_sentences)
    present = [word in words for word in request.words]
    coverage = sum(present) / len(present) if present else 1.0
    all_parse = bool(sentences) and len(parsed) == len(sentences)
    return Verdict(
        grammatical=grammatical,
        coverage=coverage,
        quality=grammatical * coverage,
        right_count=float(len(sentences) == request.num_sentences),
        words=len(words),
        adjectives=sum(word in ADJECTIVES for word in words) / len(words) if words else None,
        log_likelihood=sum(parsed) / len(words) if all_parse else None,
    )
