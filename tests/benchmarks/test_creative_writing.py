import json

import pytest

from slackdlm.benchmarks.creative_writing import (
    Criteria,
    judge_messages,
    parse_grade,
    parse_verdict,
    read_answers,
    read_criteria,
    read_judgments,
    read_questions,
    read_rubric,
    write_answers,
)
from slackdlm.errors import DataError
from slackdlm.records import Answer, Question

# Ours: the benchmark's own criteria and prompts have no licence.
CRITERIA = Criteria(("Clear", "Vivid", "Dull"), ("Dull",))


def piece(scores=None, **block):
    return {
        "model_response": "a story",
        "judge_scores": scores or {},
        "raw_judge_text": "r",
    } | block


def task(blocks, iteration):
    return {
        "prompt_id": "1",
        "test_model": "m",
        "judge_model": "j",
        "iteration_index": iteration,
        "status": "completed",
        "results_by_modifier": blocks,
    }


def run_file(file, *pieces):
    tasks = {
        str(n): {"1": task({f"seed {n}": block}, n)} for n, block in enumerate(pieces, start=1)
    }
    run = {"test_model": "m", "judge_model": "j", "creative_tasks": tasks, "results": {"x": 1}}
    file.write_text(json.dumps({"run__m": run}))
    return file


def test_grades_are_inverted_where_lower_is_better(tmp_path):
    file = run_file(
        tmp_path / "in.json",
        piece({"Clear": 10, "Vivid": 12.0, "Dull": 4, "it was 3": 3}),
        {"generation_failed": True, "judge_scores": {}},
        piece({"Clear": 25, "Vivid": 8}),
        piece({}, raw_judge_text="I liked it"),
        piece({}, raw_judge_text="[ERROR: timeout]"),
    )
    grades = read_judgments(file, CRITERIA)
    assert [(g.turn, g.score, g.status) for g in grades] == [
        (1, pytest.approx((10 + 12 + 16) / 3), "ok"),
        (2, None, "failed"),
        (3, 8.0, "out_of_range"),
        (4, None, "unparsable"),
        (5, None, "failed"),
    ]
    assert {grade.question_id for grade in grades} == {"1"}


def test_prompts_get_the_seed_of_their_iteration_and_answers_go_back(tmp_path):
    prompts = {
        "7": {
            "category": "c",
            "title": "t",
            "writing_prompt": "Write. <SEED> End.",
            "seed_modifiers": ["one", "two"],
        }
    }
    (tmp_path / "p.json").write_text(json.dumps(prompts))
    questions = read_questions(tmp_path / "p.json")
    assert [(q.id, q.prompt) for q in questions] == [
        ("7#1", "Write. one End."),
        ("7#2", "Write. two End."),
        ("7#3", "Write. one End."),
    ]
    answers = [Answer(q.id, "org/m", (f"story {q.id}",)) for q in questions]
    write_answers(tmp_path / "run.json", answers, questions)
    back = read_answers(tmp_path / "run.json")
    assert [(a.question_id, a.system, a.text) for a in back] == [
        (a.question_id, a.system, a.text) for a in answers
    ]
    with pytest.raises(DataError, match="no such question"):
        write_answers(tmp_path / "run.json", [Answer("8#1", "m", ("x",))], questions)


def test_the_judge_is_sent_the_users_prompt_file(rubric):
    question = Question(
        "7#1", "c", ({"role": "user", "content": "p"},), extra={"base_prompt": "b <SEED>"}
    )
    (user,) = judge_messages(question, "{writing_prompt} {x}", read_rubric(rubric))
    assert user["content"] == (
        "Grade it.\nDull\n[P]\nb <SEED>\n[R]\n{writing_prompt} {x}\n[C]\n- Clear\n- Vivid\n- Dull"
    )


def test_another_file_is_no_judge_prompt(rubric, tmp_path):
    other = tmp_path / "p.txt"
    other.write_text("{writing_prompt} {creative_writing_criteria}")
    with pytest.raises(
        DataError, match=r"no \{test_model_response\}, \{lower_is_better_criteria\} in it"
    ):
        read_rubric(other)
    other.write_text(rubric.read_text())
    with pytest.raises(DataError, match=r"creative_writing_criteria\.txt: there is no such file"):
        read_rubric(other)


def test_only_criteria_are_read_from_a_reply():
    reply = (
        "[Analysis]\nClear: 3 reasons\nThe story says Vivid: 20\n[Scores]\n\n"
        "Clear: [Score 12]\nvivid : 9.5\nDull: Score 30\nOther: 4\nVivid: 8\n" + "Clear" * 50_000
    )
    assert parse_verdict(reply, CRITERIA) == {"Clear": 12.0, "Vivid": 8.0, "Dull": 30.0}
    assert parse_verdict("- **Clear**: 7", CRITERIA) == {"Clear": 7.0}
    assert parse_verdict("nothing", CRITERIA) == {}
    assert parse_grade(reply, CRITERIA) == 10.0, "a criterion off the scale is in no mean"
    assert parse_grade("Vivid: 9\nDull: 20", CRITERIA) == 4.5, "one left out is missing, not 0"
    assert parse_grade("nothing", CRITERIA) is None


def test_criteria_come_from_the_users_copy(tmp_path):
    (tmp_path / "creative_writing_criteria.txt").write_text("Clear\nVivid\nDull")
    (tmp_path / "negative_criteria.txt").write_text("Dull\n")
    assert read_criteria(tmp_path) == CRITERIA
    (tmp_path / "negative_criteria.txt").write_text("Boring")
    with pytest.raises(DataError, match="negative criteria that are no criteria"):
        read_criteria(tmp_path)


def test_an_empty_run_is_an_error(tmp_path):
    (tmp_path / "r.json").write_text('{"r": {"creative_tasks": {}}}')
    with pytest.raises(DataError, match="holds no piece"):
        read_answers(tmp_path / "r.json")
