"""The exact judge of the toy language: a parser with likelihoods, and a verdict on each answer.

Ours; it stands in for the judge model of open-ended evaluation.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from slackdlm.errors import DataError
from slackdlm.records import Question
from slackdlm.study.toy_language import (
    ADJECTIVES,
    ADVERBS,
    ASK,
    COUNT_WORDS,
    DETERMINERS,
    INTRANSITIVE,
    LENGTH,
    NOUNS,
    OPENERS,
    P_ADJECTIVE,
    P_ADVERB,
    P_OPENER,
    P_PP,
    P_TRANSITIVE,
    PREPOSITIONS,
    TRANSITIVE,
)


class _Reader:
    """Recursive descent over one sentence; sums the log-probability of every choice it reads."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self.place = 0
        self.log_likelihood = 0.0

    def next_in(self, words: Sequence[str]) -> bool:
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

    def noun_phrase(self) -> None:
        self.take(DETERMINERS)
        if self.optional(ADJECTIVES, P_ADJECTIVE):
            self.take(ADJECTIVES)
        self.take(NOUNS)

    def sentence(self) -> float:
        if self.optional(OPENERS, P_OPENER):
            self.take(OPENERS)
        self.noun_phrase()
        if self.optional(TRANSITIVE, P_TRANSITIVE):
            self.take(TRANSITIVE)
            self.noun_phrase()
        else:
            self.take(INTRANSITIVE)
        if self.optional(ADVERBS, P_ADVERB):
            self.take(ADVERBS)
        if self.optional(PREPOSITIONS, P_PP):
            self.take(PREPOSITIONS)
            self.noun_phrase()
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
    words = prompt.split()
    if words[:1] != [ASK] or len(words) < 2 or words[1] not in counts:
        raise DataError(f"toy prompt: expected '{ASK} {'|'.join(counts)} WORD...', got {prompt!r}")
    return Request(num_sentences=counts[words[1]], words=tuple(words[2:]))


class Verdict(NamedTuple):
    """The exact judgment of one answer."""

    grammatical: float
    """Share of grammatical sentences, of as many as were asked for or written, whichever is more."""
    coverage: float
    """Share of the requested words that occur; 1 where nothing was requested."""
    quality: float
    """Coverage times the share of grammatical sentences, of which no more count than were asked for: the score that
    pairwise verdicts compare. Sentences that nobody asked for lower it, grammatical or not."""
    right_count: float
    """1 if the number of sentences is the one asked for, else 0."""
    words: int
    """Words written, full stops included."""
    too_long: float
    """1 if no story of the language has that many words, else 0."""
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
    num_due = max(len(sentences), request.num_sentences)
    present = [word in words for word in request.words]
    coverage = sum(present) / len(present) if present else 1.0
    all_parse = bool(sentences) and len(parsed) == len(sentences)
    return Verdict(
        grammatical=len(parsed) / num_due,
        coverage=coverage,
        quality=min(len(parsed), request.num_sentences) / num_due * coverage,
        right_count=float(len(sentences) == request.num_sentences),
        words=len(words),
        too_long=float(len(words) > LENGTH[1]),
        adjectives=sum(word in ADJECTIVES for word in words) / len(words) if words else None,
        log_likelihood=sum(parsed) / len(words) if all_parse else None,
    )


def compare(question: Question, shown: Sequence[Sequence[str]]) -> str:
    """Which of two answers has the higher quality, as a judge's reply with Arena-Hard's labels.

    Args:
        question: Its prompt is one of :func:`write_task`.
        shown: Two answers in the order shown.

    Raises:
        DataError: If the prompt is not of that form.
    """
    first, second = (judge(question.prompt, answer[0]).quality for answer in shown)
    label = "A>B" if first > second else "B>A" if second > first else "A=B"
    return f"quality {first:.3f} and {second:.3f}: [[{label}]]"
