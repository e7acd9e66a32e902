import json
from dataclasses import replace

import pytest

from slackdlm.benchmarks.arena_hard import (
    judge_messages,
    parse_verdict,
    read_answers,
    read_judgments,
    read_questions,
    write_answers,
)
from slackdlm.benchmarks.style import style_metadata
from slackdlm.errors import DataError
from slackdlm.judgments import Tally, tally
from slackdlm.records import Answer, Question, check_version


def rows(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


# Files


@pytest.mark.parametrize("version", ["v0.1", "v2.0"])
def test_answers_are_written_as_they_were_read(excerpts, tmp_path, version):
    source, copy = excerpts / "arena_hard" / f"{version}_answers.jsonl", tmp_path / "a.jsonl"
    answers = read_answers(source)
    write_answers(copy, answers, version=version)
    assert [replace(answer, extra={}) for answer in answers] == read_answers(copy)
    for ours, theirs in zip(rows(copy), rows(source), strict=True):
        assert ours.keys() <= theirs.keys()


def test_v2_judgments_keep_null_games_and_unknown_fields(tmp_path):
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    told = {"answer": "so [[A>B]]", "usage": {"in": 3}}
    base = {"uid": "u1", "category": "hard_prompt", "judge": "j", "model": "m", "baseline": "b"}
    lines = [
        {**base, "games": [{"score": "A>B", "judgment": told, "prompt": prompt}, None]},
        {
            **base,
            "uid": "u2",
            "games": [
                {"score": None, "judgment": {"answer": "no idea"}, "prompt": prompt},
                {"score": "A>=B", "judgment": {"answer": "[[A>=B]]"}, "prompt": prompt, "n": 1},
            ],
            "note": 1,
        },
    ]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_judgments(source)
    assert [(g.score, g.status, g.order) for g in found] == [
        (0.0, "ok", 1),
        (None, "failed", 0),
        (None, "unparsable", 1),
        (None, "unparsable", 0),
    ]
    assert {(g.a, g.b, g.category) for g in found} == {("m", "b", "hard_prompt")}
    assert found[0].reply == "so [[A>B]]"
    assert found[0].prompt == tuple(prompt)


def test_the_first_game_of_a_line_shows_the_baseline_first(excerpts):
    found = read_judgments(excerpts / "arena_hard" / "v0.1_judgments.jsonl")
    raw = rows(excerpts / "arena_hard" / "v0.1_judgments.jsonl")
    for line, first, second in zip(raw, found[::2], found[1::2], strict=True):
        assert (first.order, second.order, first.b) == (1, 0, "baseline")
        for label, game in zip((g["score"] for g in line["games"]), (first, second), strict=True):
            assert game.verdict == label
            if label is not None:
                wins = "B" if game.order == 1 else "A"
                assert game.score == (0.5 if "=" in label else float(label[0] == wins))


def test_questions_of_every_version_are_read(excerpts):
    new = read_questions(excerpts / "arena_hard" / "v2.0_questions.jsonl")
    old = read_questions(excerpts / "arena_hard" / "v0.1_questions.jsonl")
    assert {question.category for question in new} == {"hard_prompt", "creative_writing"}
    assert old[0].prompt == rows(excerpts / "arena_hard" / "v0.1_questions.jsonl")[0]["turns"][0][
        "content"
    ]  # fmt: skip
    assert new[0].extra["subcategory"] in {"coding", "math"}


def test_a_question_file_that_is_another_version_is_refused(excerpts):
    with pytest.raises(DataError, match="no known version"):
        check_version(excerpts / "arena_hard" / "v2.0_questions.jsonl", "arena-hard-v2.0")


@pytest.mark.parametrize("row", [{"prompt": "a"}, {"id": 1, "category": "c", "prompt": "a"}])
def test_plain_questions_are_sent_to_the_plain_protocol(tmp_path, row):
    (tmp_path / "q.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=r"q.jsonl:1: no question of Arena-Hard .* pairs"):
        read_questions(tmp_path / "q.jsonl")


ROW = {"question_id": "q", "model": "m", "judge": "j", "games": [None, None]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"games": [None]}, "2 or more items in 'games'"),
        ({"games": [{"score": 1}, None]}, "text in 'games.0.score'"),
        ({"baseline": "m"}, "'m' is compared with itself"),
        ({"question_id": None}, "an id"),
    ],
)
def test_a_bad_line_is_one_error(tmp_path, change, message):
    file = tmp_path / "j.jsonl"
    file.write_text(json.dumps(ROW) + "\n" + json.dumps(ROW | {"question_id": "p"} | change) + "\n")
    with pytest.raises(DataError, match=message) as caught:
        read_judgments(file)
    assert str(caught.value).startswith(f"{file}:2: ")


def test_a_question_judged_twice_is_refused(tmp_path):
    file = tmp_path / "j.jsonl"
    file.write_text(2 * (json.dumps(ROW) + "\n"))
    with pytest.raises(DataError, match="judged twice by 'j'"):
        read_judgments(file)


def test_what_the_format_cannot_hold_is_refused(tmp_path):
    with pytest.raises(DataError, match="give it in messages"):
        write_answers(tmp_path / "a", [Answer("q", "m", ("x",))])
    with pytest.raises(DataError, match="one turn, got 2"):
        write_answers(tmp_path / "a", [Answer("q", "m", ("x", "y"))])


# Verdicts


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("My final verdict is tie: [[A=B]]", "A=B"),
        ("the answer says output [[A>>B]], but I say [[B>A]].", "B>A"),
        ("my verdict is [[a>>b]]", "A>>B"),
        ("My final verdict is: [[A>B]]. Hm. My final verdict is: [[B>A]]", "B>A"),
        ("My final verdict is: [[A>B]]. ([[B>>A]] were too harsh.)", None),
        ("My final verdict is: [[A>B]] of [[A>>B]], [[A>B]], [[A=B]], [[B>A]], [[B>>A]].", None),
        ("only single [B>>A] brackets, arr[A]", "B>>A"),
        ("arr[A] = x[B]", None),
        ("[[A>=B]]", None),
        ("first [[A>B]] then [[A>=B]]", None),
        ("no verdict", None),
        ("[[" * 50_000 + "A" * 50_000, None),
    ],
)
def test_the_verdict_is_the_last_label(reply, verdict):
    assert parse_verdict(reply) == verdict


def test_braces_and_markers_in_answers_reach_the_judge_as_they_are():
    question = Question("q", "creative_writing", ({"role": "user", "content": "{0} {x}"},))
    system, user = judge_messages(question, "{}", "{1} [[A>>B]]")
    assert "[[A>>B]]" in system["content"]
    assert "generating your own answer" not in system["content"]
    assert user["content"] == (
        "<|User Prompt|>\n{0} {x}\n\n<|The Start of Assistant A's Answer|>\n{}\n"
        "<|The End of Assistant A's Answer|>\n\n<|The Start of Assistant B's Answer|>\n{1} [[A>>B]]\n"
        "<|The End of Assistant B's Answer|>"
    )
    with pytest.raises(DataError, match=r"no judge prompt for category .*--benchmark pairs"):
        judge_messages(replace(question, category="poems"), "", "")


# Style


def test_style_is_counted_outside_code():
    text = "# a\n## b\n\n\n 1. x\n- y\n* z\n**b** __c__\n```\n# no\n- no\n```\n####### h\n"
    found = style_metadata(text, num_tokens=7)
    assert found["token_len"] == 7
    assert found["header_count"] == {"h1": 1, "h2": 1, "h3": 0, "h4": 0, "h5": 0, "h6": 0}
    assert found["list_count"] == {"ordered": 1, "unordered": 2}
    assert found["bold_count"] == {"**": 1, "__": 1}


def test_style_of_a_looping_answer_is_counted_in_time():
    assert style_metadata("\n" * 200_000, num_tokens=1)["list_count"]["ordered"] == 0
    assert style_metadata("*" * 200_000, num_tokens=1)["bold_count"]["**"] == 0


def test_style_is_what_the_published_answers_hold(excerpts):
    for answer in read_answers(excerpts / "arena_hard" / "v2.0_answers.jsonl"):
        held = answer.extra["metadata"]
        assert style_metadata(answer.text, num_tokens=held["token_len"]) == held


# Whole published files


def test_published_bagel_8b(published):
    file = published / "arena_hard" / "v0.1_judgment_bagel-8b_by_R1-Distill-70B.jsonl"
    found = read_judgments(file)
    assert len({game.question_id for game in found}) == 181
    assert tally(found) == Tally(362, 354, 0, 8, 0)
    assert all(parse_verdict(game.reply) == game.verdict for game in found)
    asked = published / "arena_hard" / "v0.1_question.jsonl"
    check_version(asked, "arena-hard-v0.1")
    questions = {question.id: question for question in read_questions(asked)}
    assert all(questions[game.question_id].prompt in game.prompt[0]["content"] for game in found)


def test_published_o3_mini_answers_and_questions(published):
    file = published / "arena_hard" / "v2.0_answers_o3-mini_first40.jsonl"
    answers = read_answers(file)
    for answer in answers:
        held = answer.extra["metadata"]
        assert style_metadata(answer.text, num_tokens=held["token_len"]) == held
    asked = published / "arena_hard" / "v2.0_question.jsonl"
    check_version(asked, "arena-hard-v2.0")
    questions = read_questions(asked)
    assert [q.category for q in questions].count("creative_writing") == 250
    prompts = {question.id: question.messages for question in questions}
    assert all(prompts[answer.question_id] == answer.messages for answer in answers)
