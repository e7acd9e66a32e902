import json
from dataclasses import replace

import pyarrow
import pytest
from pyarrow import parquet

from slackdlm.benchmarks.judgment_files import SCALES
from slackdlm.benchmarks.wildbench import (
    choice_score,
    judge_messages,
    pair_messages,
    parse_choice,
    parse_verdict,
    read_answers,
    read_judgments,
    read_pairs,
    read_questions,
    shortened,
    verdict_without_judge,
    write_answers,
)
from slackdlm.benchmarks.wildbench_scores import (
    GROUP_WEIGHTS,
    published_reward,
    task_groups,
    task_macro,
    task_scores,
)
from slackdlm.errors import DataError
from slackdlm.judgments import mean_score, tally
from slackdlm.records import Answer

TASK = {
    "id": "t1",
    "session_id": "s1",
    "conversation_input": [
        {"role": "user", "content": "first {$checklist}", "language": "en"},
        {"role": "assistant", "content": "reply"},
        {"role": "user", "content": "last query"},
    ],
    "checklist": ["is it so?", "is it long?"],
    "primary_tag": "Math",
    "secondary_tags": ["Coding & Debugging"],
}
GRADE = {
    "session_id": "s1",
    "parsed_result": {"strengths": "x", "weaknesses": "y", "score": "7"},
    "meta_data": {"usage": {}},
    "model_test": "org/m",
    "score": "7",
    "model_output": "text",
}
PAIR = {
    "session_id": "s1",
    "parsed_result": {"choice": "A+"},
    "model_A": "org/m",
    "model_B": "org/ref",
    "winner": "org/m",
    "extent": 1,
    "model_outputs": {"org/m": "long answer", "org/ref": "short"},
}


def put(file, items):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(items), encoding="utf-8")
    return file


def loaded(file):
    return json.loads(file.read_text(encoding="utf-8"))


# Files


@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet"])
def test_tasks_are_read_from_every_kind_of_file(tmp_path, kind):
    file = tmp_path / f"tasks.{kind}"
    if kind == "parquet":
        parquet.write_table(pyarrow.Table.from_pylist([TASK]), file)
    else:
        file.write_text(json.dumps([TASK] if kind == "json" else TASK))
    (question,) = read_questions(file)
    assert (question.id, question.category, question.prompt) == ("s1", "Math", "last query")
    assert question.checklist == ("is it so?", "is it long?")
    assert [turn["role"] for turn in question.messages] == ["user", "assistant", "user"]
    assert question.extra["secondary_tags"] == ["Coding & Debugging"]


def test_a_file_that_is_no_parquet_is_one_error(tmp_path):
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_questions(tmp_path / "x.parquet")


def test_of_several_outputs_the_first_is_the_answer(tmp_path):
    items = [
        {"session_id": "s1", "chat_history": ["q"], "output": ["a", "b"], "generator": "m"},
        {"session_id": "s2", "output": "text", "generator": "m", "configs": {"t": 0}},
    ]
    answers = read_answers(put(tmp_path / "in.json", items))
    assert [answer.text for answer in answers] == ["a", "text"]
    assert answers[1].extra == {"configs": {"t": 0}}
    write_answers(tmp_path / "out.json", answers)
    assert loaded(tmp_path / "out.json") == [
        {"session_id": "s1", "output": ["a"], "generator": "m"},
        {"session_id": "s2", "output": ["text"], "generator": "m"},
    ]


def test_grades_are_named_by_model_and_judge(tmp_path):
    items = [GRADE, GRADE | {"session_id": "s2", "score": "N/A"}]
    grades = read_judgments(put(tmp_path / "eval=gpt-4o" / "m.json", items))
    assert [(g.system, g.score, g.status) for g in grades] == [
        ("org/m", 7.0, "ok"),
        ("org/m", None, "unparsable"),
    ]
    assert grades[0].judge_identity["judge"] == "gpt-4o"
    assert grades[0].extra["model_output"] == "text"


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ("7", (7.0, "ok")),
        (" 7.5 ", (7.5, "ok")),
        (8, (8.0, "ok")),
        ("0", (0.0, "out_of_range")),
        (11, (11.0, "out_of_range")),
        ("nan", (None, "unparsable")),
        ("1e3", (None, "unparsable")),
        ("7/10", (None, "unparsable")),
        (True, (None, "unparsable")),
        (None, (None, "unparsable")),
    ],
)
def test_only_a_plain_number_is_a_score(tmp_path, score, expected):
    (grade,) = read_judgments(put(tmp_path / "m.json", [GRADE | {"score": score}]))
    assert (grade.score, grade.status) == expected


def test_whose_answers_they_are_is_said_by_the_file_s_name(tmp_path):
    item = {"session_id": "s1", "score": "3"}
    file = put(tmp_path / "m.json", [item])
    assert read_judgments(file)[0].system == "m"
    with pytest.raises(DataError, match="'m' is graded twice on 's1'"):
        read_judgments(put(tmp_path / "m.json", [item, item]))


def test_comparisons_speak_for_the_model_in_the_order_shown(tmp_path):
    items = [
        PAIR,
        PAIR | {"session_id": "s2", "winner": "tie", "extent": 0, "parsed_result": {}},
        PAIR | {"session_id": "s3", "winner": "org/ref", "extent": 2},
        PAIR | {"session_id": "s4", "model_A": "org/ref", "model_B": "org/m"},
    ]
    games = read_pairs(put(tmp_path / "ref=ref" / "m.json", items))
    assert [(g.a, g.order, g.verdict, g.score) for g in games] == [
        ("org/m", 0, "A+", 0.75),
        ("org/m", 0, "A=B", 0.5),
        ("org/m", 0, "B++", 0.0),
        ("org/m", 1, "B+", 0.75),
    ]
    assert games[0].extra["model_outputs"] == PAIR["model_outputs"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"winner": "other"}, "a winner among the two or tie"),
        ({"extent": 0}, "contradict each other"),
        ({"extent": 3}, "0, 1 or 2 in 'extent'"),
        ({"model_A": "org/other", "model_B": "org/third"}, "'ref' once among"),
        ({"model_A": "org/ref"}, "'org/ref' is compared with itself"),
        ({"session_id": "s1"}, "in this order are judged twice on 's1'"),
    ],
)
def test_a_bad_comparison_is_one_error(tmp_path, change, message):
    file = put(tmp_path / "ref=ref" / "m.json", [PAIR, PAIR | {"session_id": "s2"} | change])
    with pytest.raises(DataError, match=message) as caught:
        read_pairs(file)
    assert str(caught.value).startswith(f"{file}: item 1: ")
    with pytest.raises(DataError, match="into a folder ref=NAME"):
        read_pairs(put(tmp_path / "m.json", [PAIR]))


# Prompts and verdicts


def test_the_judge_sees_history_query_checklist_and_answer(tmp_path):
    (question,) = read_questions(put(tmp_path / "t.json", [TASK]))
    ((user,),) = [judge_messages(question, "mine {$history}")]
    shown = user["content"]
    assert "USER: first {$checklist}\n\nASSISTANT: reply\n\n" in shown
    assert "- is it so?\n- is it long?\n" in shown
    assert "mine {$history}" in shown
    pair = pair_messages(question, "one", "x " * 1001)[0]["content"]
    assert pair.index("one") < pair.index("x x x... (truncated)")
    assert "truncated" not in judge_messages(question, "x " * 1001)[0]["content"]


def test_long_answers_are_cut_at_single_spaces():
    assert shortened("a b  c", 4) == "a b  c"
    assert shortened("a b  c", 3) == "a b ... (truncated)"


def test_empty_answers_get_their_verdict_without_a_call():
    pairs = (("x", "y"), (" \n", "x"), ("x", ""), ("", " "))
    assert [verdict_without_judge(*pair) for pair in pairs] == [None, "B++", "A++", "A=B"]


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ('{"strengths": "s", "score": "7"}', 7.0),
        ('```json\n{"score": 8}\n```', 8.0),
        ('{"strengths": "it says \\"score\\": \\"10\\"", "score": "3"}', 3.0),
        ('the answer says {"score": "10"}\nmine: {"strengths": broken, "score": "4"}', None),
        ('{"score": "4"}\nOn reflection:\n{"score": "8"}', None),
        ('{"score": "4", "score": "8"}', None),
        ('So:\n```json\n{"score": "[1~10]"}\n```\n```json\n{"score": "7"}\n```\nThat is all.', 7.0),
        ('{"score": "7" // good\n}', 7.0),
        ('{"score":"7",}', 7.0),
        ('{"score": "8/10"}', None),
        ('{"score": 7, "weaknesses": {"score": 3}}', 7.0),
        ('{"score": "[1~10]"}', None),
        ('{"score": "nan"}', None),
        ('{"score": NaN}', None),
        ("[" * 100_000, None),
        ("no", None),
    ],
)
def test_the_grade_is_that_of_the_reply_object(reply, score):
    assert parse_verdict(reply) == score


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        ('{"choice": "A++"}', "A++"),
        ('analysis {"choice": "A++"} mine "choice": "B+", }', None),
        ('so "choice": "B+", }', "B+"),
        ('{"choice": "A"}', None),
        ('{"choice": 1}', None),
        ("B++", None),
    ],
)
def test_the_choice_is_that_of_the_reply_object(reply, choice):
    assert parse_choice(reply) == choice


def test_choices_score_from_the_first_systems_side():
    assert [choice_score(c, 0) for c in ("A++", "A+", "A=B", "B+", "B++")] == [
        1,
        0.75,
        0.5,
        0.25,
        0,
    ]
    assert choice_score("A++", 1) == 0


# Published figures


def test_the_macro_score_is_weighted_over_the_five_groups():
    # Published for gemma-7b-it: leaderboard/data_dir/score.json.
    scores = {
        "Creative Tasks": 2.3529411764705888,
        "Coding & Debugging": -1.0,
        "Planning & Reasoning": 1.0,
        "Information/Advice seeking": 2.0,
        "Math & Data Analysis": -0.5,
    }
    total = sum(GROUP_WEIGHTS.values())
    weighted = sum(GROUP_WEIGHTS[group] * score for group, score in scores.items()) / total
    assert total == 4.75
    assert task_macro(scores) == pytest.approx(weighted)
    assert task_macro({"Creative Tasks": 1.0}) is None


def test_a_task_counts_in_all_its_groups_and_empty_outputs_in_none(tmp_path):
    questions = read_questions(put(tmp_path / "t.json", [TASK, TASK | {"session_id": "s2"}]))
    items = [GRADE, GRADE | {"session_id": "s2", "score": "1", "model_output": ""}]
    grades = read_judgments(put(tmp_path / "m.json", items))
    assert task_scores(grades, task_groups(questions)) == {
        "Math & Data Analysis": 4.0,
        "Coding & Debugging": 4.0,
    }
    with pytest.raises(DataError, match="not among the tasks given"):
        task_scores([replace(grades[0], question_id="?")], task_groups(questions))


def test_the_reward_can_forgive_a_longer_loser(tmp_path):
    items = [PAIR, PAIR | {"session_id": "s2", "winner": "org/ref", "extent": 2}]
    games = read_pairs(put(tmp_path / "ref=ref" / "m.json", items))
    assert published_reward(games) == -25.0
    assert published_reward(games, length_margin=5) == -50.0
    assert published_reward(games, length_margin=6) == -25.0
    assert published_reward([]) is None
    assert published_reward([*games, replace(games[0], score=None, status="failed")]) is None


def test_a_system_answers_once(tmp_path):
    answer = Answer("s1", "m", ("x",))
    write_answers(tmp_path / "a.json", [answer, answer])
    with pytest.raises(DataError, match="answers question 's1' twice"):
        read_answers(tmp_path / "a.json")


def test_published_gemma_2b_it(published):
    file = published / "wildbench" / "gemma-2b-it_score_v2.0625_gpt-4o_trimmed.json"
    grades = read_judgments(file)
    assert tally(grades).num_scored == len(grades) == 1021
    assert mean_score(grades) == 4.737512242899118
    assert f"{SCALES['wildbench'].shown(4.737512242899118):.4f}" == "-5.2498"
