"""The parser against an independent inside algorithm over the grammar written out as rules."""

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slackdlm.errors import DataError
from slackdlm.study import toy_language as lang
from slackdlm.study.toy_judge import judge, read_prompt, sentence_log_likelihood


def rules() -> dict[str, list[tuple[float, tuple[str, ...]]]]:
    """The grammar as plain weighted productions; words are terminals in quotes."""
    table: dict[str, list[tuple[float, tuple[str, ...]]]] = {
        "S": [(1.0, ("opener?", "np", "vp", "adverb?", "pp?", "'.'"))],
        "np": [(1.0, ("determiner", "adjective?", "noun"))],
        "vp": [(0.5, ("transitive", "np")), (0.5, ("intransitive",))],
        "opener?": [(0.3, ("opener",)), (0.7, ())],
        "adjective?": [(0.4, ("adjective",)), (0.6, ())],
        "adverb?": [(0.35, ("adverb",)), (0.65, ())],
        "pp?": [(0.35, ("preposition", "np")), (0.65, ())],
    }
    for head, words in (
        ("noun", lang.NOUNS),
        ("intransitive", lang.INTRANSITIVE),
        ("transitive", lang.TRANSITIVE),
        ("determiner", lang.DETERMINERS),
        ("adjective", lang.ADJECTIVES),
        ("adverb", lang.ADVERBS),
        ("preposition", lang.PREPOSITIONS),
        ("opener", lang.OPENERS),
    ):
        table[head] = [(1 / len(words), (f"'{word}'",)) for word in words]
    return table


RULES = rules()


def inside(words: list[str]) -> float:
    """Probability of the sentence: the sum over every derivation."""
    sentence = tuple(words)

    @cache
    def symbol(name: str, start: int, end: int) -> float:
        if name.startswith("'"):
            return float(end == start + 1 and sentence[start] == name[1:-1])
        return sum(p * sequence(body, start, end) for p, body in RULES[name])

    @cache
    def sequence(body: tuple[str, ...], start: int, end: int) -> float:
        if not body:
            return float(start == end)
        return sum(
            first * sequence(body[1:], middle, end)
            for middle in range(start, end + 1)
            if (first := symbol(body[0], start, middle)) > 0
        )

    return symbol("S", 0, len(sentence))


def draw(seed: int) -> list[str]:
    return lang.write_sentence(np.random.Generator(np.random.PCG64(seed)))


@given(st.integers(0, 100_000))
def test_likelihood_equals_the_inside_algorithm(seed):
    words = draw(seed)
    found = sentence_log_likelihood(words)
    assert found == pytest.approx(math.log(inside(words)), abs=1e-9)


@given(st.integers(0, 100_000), st.data())
def test_a_damaged_sentence_parses_exactly_when_the_grammar_derives_it(seed, data):
    words = draw(seed)
    place = data.draw(st.integers(0, len(words) - 1))
    damage = data.draw(st.sampled_from(["drop", "repeat", "swap", "replace"]))
    if damage == "drop":
        del words[place]
    elif damage == "repeat":
        words.insert(place, words[place])
    elif damage == "swap":
        words[place - 1], words[place] = words[place], words[place - 1]
    else:
        words[place] = data.draw(st.sampled_from([*lang.vocabulary(), "unknown"]))
    found, probability = sentence_log_likelihood(words), inside(words)
    if probability == 0:
        assert found is None
    else:
        assert found == pytest.approx(math.log(probability), abs=1e-9)


def test_every_source_story_gets_full_marks():
    for task in lang.write_tasks(200, seed=0):
        verdict = judge(task.prompt, task.story)
        assert (verdict.grammatical, verdict.coverage, verdict.quality) == (1, 1, 1)
        assert verdict.right_count == 1
        assert verdict.words == len(task.story.split())
        assert lang.LENGTH[0] <= verdict.words <= lang.LENGTH[1]
        assert verdict.too_long == 0


def test_a_verdict_by_hand():
    verdict = judge("tell thrice cat red gladly", "the red cat sings . the the boat . a cat")
    assert verdict.grammatical == 1 / 3
    assert verdict.coverage == 2 / 3
    assert verdict.quality == pytest.approx(2 / 9)
    assert verdict.right_count == 1, "the rest without a full stop counts as a sentence"
    assert verdict.words == 11
    assert verdict.adjectives == 1 / 11
    assert verdict.log_likelihood is None, "not every sentence parses"


def test_more_sentences_than_asked_for_do_not_dilute_a_fault():
    one = "the cat sings ."
    assert judge("tell twice cat", f"{one} {one} {one} cat .").grammatical == 3 / 4
    assert judge("tell twice cat", one).grammatical == 1 / 2


def test_no_more_sentences_count_than_were_asked_for():
    one = "the cat sings ."
    values = {n: judge("tell twice cat", " ".join([one] * n)).quality for n in (1, 2, 3, 4)}
    assert values == {1: 1 / 2, 2: 1, 3: 2 / 3, 4: 1 / 2}
    assert judge("tell twice cat", f"{one} {one} cat .").quality == 2 / 3
    assert judge("tell twice cat", f"{one} cat . cat .").quality == 1 / 3


@given(st.integers(0, 100_000), st.integers(1, 3))
def test_another_sentence_never_raises_the_quality_of_a_story(seed, num_more):
    (task,) = lang.write_tasks(1, seed=seed)
    more = " ".join(word for n in range(num_more) for word in draw(seed + n))
    assert judge(task.prompt, f"{task.story} {more}").quality < 1


def test_an_answer_is_too_long_above_the_longest_story():
    words = ["cat"] * lang.LENGTH[1]
    assert judge("tell twice cat", " ".join(words)).too_long == 0
    assert judge("tell twice cat", " ".join([*words, "cat"])).too_long == 1


def test_an_empty_answer_is_worth_nothing_and_has_no_shares():
    verdict = judge("tell twice cat", "  ")
    assert verdict.quality == 0
    assert verdict.words == 0
    assert verdict.adjectives is None
    assert verdict.log_likelihood is None


def test_log_likelihood_is_the_mean_per_word():
    text = "the cat sings . later every dog sees a tree near the lamp ."
    sentences = ["the cat sings .".split(), "later every dog sees a tree near the lamp .".split()]
    expected = sum(math.log(inside(s)) for s in sentences) / len(text.split())
    assert judge("tell twice cat", text).log_likelihood == pytest.approx(expected)


@pytest.mark.parametrize("prompt", ["", "tell", "write twice cat", "tell once cat"])
def test_a_prompt_of_another_form_is_refused(prompt):
    with pytest.raises((DataError), match="toy prompt: expected"):
        read_prompt(prompt)
