import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slackdlm.benchmarks.mt_bench import (
    judge_messages,
    pair_messages,
    parse_verdict,
    parse_winner,
    prompt_name,
    published_win_rate,
    read_answers,
    read_judgments,
    read_pairs,
    read_questions,
    winner_score,
    write_answers,
)
from slackdlm.errors import DataError
from slackdlm.judgments import Tally, mean_score, tally
from slackdlm.records import Question, check_version


def rows(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


# Files


@pytest.mark.parametrize("name", ["answers", "references"])
def test_answers_are_written_as_they_were_read(excerpts, tmp_path, name):
    source, copy = excerpts / "mt_bench" / f"{name}.jsonl", tmp_path / "a.jsonl"
    answers = read_answers(source)
    write_answers(copy, answers)
    assert [replace(answer, extra={}) for answer in answers] == read_answers(copy)
    for ours, theirs in zip(rows(copy), rows(source), strict=True):
        assert ours == {key: theirs[key] for key in ours}


def test_unparsable_failed_and_impossible_grades_are_told_apart(excerpts):
    raw = rows(excerpts / "mt_bench" / "judgments.jsonl")
    found = read_judgments(excerpts / "mt_bench" / "judgments.jsonl")
    for line, grade in zip(raw, found, strict=True):
        expected = {-1: "unparsable", 0: "out_of_range"}.get(line["score"], "ok")
        if line["judgment"] == "$ERROR$":
            expected = "failed"
        assert grade.status == expected
        assert grade.score == (None if line["score"] == -1 else line["score"])
        assert (grade.question_id, grade.turn) == (str(line["question_id"]), line["turn"])


def test_of_several_choices_the_first_is_the_answer(tmp_path):
    choices = [{"index": 0, "turns": ["a", "b"]}, {"index": 1, "turns": ["c", "d"]}]
    line = {"question_id": 81, "answer_id": "x", "model_id": "m", "choices": choices, "tstamp": 1.0}
    (tmp_path / "in").write_text(json.dumps(line) + "\n")
    (answer,) = read_answers(tmp_path / "in")
    assert (answer.question_id, answer.turns) == ("81", ("a", "b"))
    assert answer.extra == {"answer_id": "x", "tstamp": 1.0}


PAIR = {
    "question_id": 81, "model_1": "x", "model_2": "y", "g1_winner": "model_1",
    "g2_winner": "model_2", "judge": ["j", "pair-v2"], "g1_user_prompt": "p",
    "g1_judgment": "[[A]]", "g2_user_prompt": "q", "g2_judgment": "[[A]]", "turn": 1, "tstamp": 2.5,
}  # fmt: skip


def test_a_line_of_pairs_is_two_games(tmp_path):
    lines = [
        PAIR,
        PAIR | {"turn": 2, "g1_winner": "tie", "g2_winner": "error", "g2_judgment": "?"},
        PAIR | {"question_id": 82, "g2_winner": "error", "g2_judgment": "$ERROR$"},
    ]
    source = tmp_path / "in"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_pairs(source)
    assert [(g.order, g.score, g.verdict, g.status, g.turn) for g in found] == [
        (0, 1.0, "A", "ok", 1),
        (1, 0.0, "A", "ok", 1),
        (0, 0.5, "C", "ok", 2),
        (1, None, None, "unparsable", 2),
        (0, 1.0, "A", "ok", 1),
        (1, None, None, "failed", 1),
    ]


def test_the_published_win_rate_counts_disagreement_as_a_tie(tmp_path):
    lines = [
        PAIR | {"g2_winner": "model_1"},
        PAIR | {"question_id": 82},
        PAIR | {"question_id": 83, "g2_winner": "error"},
    ]
    file = tmp_path / "in"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert published_win_rate(read_pairs(file)) == 0.75
    assert published_win_rate(read_pairs(file)[-2:]) is None


GRADE = {
    "question_id": 81, "model": "m", "judge": ["j", "single-v1"], "user_prompt": "p",
    "judgment": "[[5]]", "score": 5, "turn": 1, "tstamp": 2.5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": "5"}, "a number in 'score'"),
        ({"turn": 3}, "expected 1 or 2 in 'turn'"),
        ({"judge": ["j"]}, r"'judge.1', which is missing"),
        ({"question_id": 81}, "graded twice"),
    ],
)
def test_a_bad_line_is_one_error(tmp_path, change, message):
    file = tmp_path / "j.jsonl"
    file.write_text(json.dumps(GRADE) + "\n" + json.dumps(GRADE | {"question_id": 82} | change))
    with pytest.raises(DataError, match=message) as caught:
        read_judgments(file)
    assert str(caught.value).startswith(f"{file}:2: ")


# Prompts and verdicts


def test_the_judge_is_sent_what_the_published_judge_was(excerpts):
    folder = excerpts / "mt_bench"
    questions = {
        question.id: question
        for question in read_questions(
            folder / "questions.jsonl", references=folder / "references.jsonl"
        )
    }
    answers = {answer.question_id: answer for answer in read_answers(folder / "answers.jsonl")}
    for grade in read_judgments(folder / "judgments.jsonl"):
        question, answer = questions[grade.question_id], answers[grade.question_id]
        messages = judge_messages(question, answer.turns, turn=grade.turn)
        assert messages[-1] == grade.prompt[-1]
        assert prompt_name(question, turn=grade.turn, mode="single") == grade.extra["prompt_name"]


QUESTION = Question("81", "writing", ({"role": "user", "content": "{q}"},), ("then {r}",))


def test_a_pair_is_shown_in_the_order_given():
    system, user = pair_messages(QUESTION, ["first {x}", "f2"], ["second", "s2"], turn=1)
    assert user["content"].index("first {x}") < user["content"].index("second")
    assert "[[C]]" in system["content"]
    both = pair_messages(QUESTION, ["first", "f2"], ["second", "s2"], turn=2)[1]["content"]
    assert [both.index(text) for text in ("first", "f2", "second", "s2")] == sorted(
        both.index(text) for text in ("first", "f2", "second", "s2")
    )


def test_mathematics_is_not_judged_without_its_reference():
    question = replace(QUESTION, category="math")
    with pytest.raises(DataError, match="with --references"):
        judge_messages(question, ["a", "b"], turn=1)
    with pytest.raises(DataError, match="with --references"):
        judge_messages(replace(question, reference=("only one",)), ["a", "b"], turn=2)
    shown = judge_messages(replace(question, reference=("r1", "r2")), ["a", "b"], turn=2)
    assert "r2" in shown[1]["content"]
    with pytest.raises(DataError, match="no turn 2"):
        judge_messages(replace(QUESTION, later_turns=()), ["a"], turn=2)


@pytest.mark.parametrize(
    ("reply", "rating"),
    [
        ("Rating: [[5]]", 5.0),
        ("it says [[10]] but Rating: [[2.5]]", 2.5),
        ("[7]", 7.0),
        ("[7] but [[3]] then [9]", 3.0),
        ("[[0]]", 0.0),
        ("[[8/10]]", None),
        ("[[7-8]]", None),
        ("Good. Rating: [[8]] out of [[10]]", 8.0),
        ("[[8]]/[[10]]", 8.0),
        ("[[8]], again **Rating: [[8]]**", 8.0),
        ('Rating: [[9]] (format: "[[rating]]", for example "Rating: [[5]]")', 9.0),
        ('It demands "Rating: [[10]]". Rating: [[2]]', 2.0),
        ("[[10]] is too high, so [[7]]", None),
        ("Rating: [[9]]. Improved it were Rating: [[10]]", None),
        ("It cites [1] and [2]. Rating: 7", None),
        ("It cites [1]. Rating: 7", None),
        ("It cites [1]. Rating: [7]", 7.0),
        ("[[rating: 8]]", None),
        ("[[-3]]", None),
        ("[[" + "1" * 400 + "]]", None),
        ("", None),
    ],
)
def test_the_rating_is_the_one_in_brackets_or_none(reply, rating):
    assert parse_verdict(reply) == rating


def test_the_winner_is_the_one_letter_or_the_one_announced():
    assert parse_winner("[[B]], so [[B]]") == "B"
    assert parse_winner("the answer says [[A]]; I say [[B]]") is None
    assert parse_winner("the answer says [[A]].\n\n**[[B]]**") == "B"
    assert parse_winner("My final verdict: [[A]]. (Not [[B]] or [[C]].)") == "A"
    assert parse_winner("The verdict is [[A]].\nNo, the verdict is [[B]].") is None
    assert parse_winner("[[D]] [A]") is None
    assert [winner_score(w, o) for w in "ABC" for o in (0, 1)] == [1, 0, 0, 1, 0.5, 0.5]


FIRST_RATING = re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]")
"""FastChat's two patterns, in their order; it takes the first match."""


@given(st.lists(st.sampled_from(["[[7]]", "[[10]]", "[7]", "[1]", "Rating: ", " of ", "\n"])))
def test_a_rating_is_fastchat_s_or_the_reply_says_another_too(parts):
    reply = "".join(parts)
    found = next((m for p in FIRST_RATING if (m := p.search(reply))), None)
    rating = parse_verdict(reply)
    if rating is not None and (found is None or rating != float(found[1])):
        assert f"Rating: [[{rating:g}]]" in reply or f"Rating: [{rating:g}]" in reply
    if len(set(FIRST_RATING[1].findall(reply))) == 1:
        assert rating == float(found[1])


def test_published_granite_7b_lab(published):
    folder = published / "mt_bench"
    file = folder / "model_judgment_gpt-4_single.jsonl"
    grades = read_judgments(file)
    assert tally(grades) == Tally(160, 38, 10, 110, 2)
    assert mean_score(grades) == pytest.approx(7.4)
    assert mean_score([g for g in grades if g.turn == 1]) == pytest.approx(7.621621621621622)
    assert mean_score([g for g in grades if g.turn == 2]) == pytest.approx(14 / 3)
    questions = read_questions(
        folder / "question.jsonl",
        references=folder / "reference_answer_gpt-4.jsonl",
    )
    other = [g.question_id for g in grades if g.reply and parse_verdict(g.reply) != g.score]
    assert other == ["159", "96"], (
        "a rating of another answer, improved by the judge, stands there too"
    )
    check_version(folder / "question.jsonl", "mt-bench")
    known = {question.id: question for question in questions}
    answers = {a.question_id: a for a in read_answers(folder / "model_answer_granite-7b-lab.jsonl")}
    for grade in grades:
        question = known[grade.question_id]
        sent = judge_messages(question, answers[grade.question_id].turns, turn=grade.turn)
        assert sent[-1] == grade.prompt[-1]
