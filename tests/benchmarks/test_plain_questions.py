"""Question and answer files of our own: what is asked, what is named, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from slackdlm.benchmarks.answers import read_answers, read_benchmark_questions, read_questions
from slackdlm.errors import ConfigError, DataError


def write(file: Path, *rows: dict[str, Any]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"prompt": "caf\xe9"}\n', r"q\.jsonl: not UTF-8 text \(byte 15\)"),
        (b'{"messages": ["hi"]}\n', r"q\.jsonl:1: 'messages'\[0\]: expected .*, got 'hi'"),
        (b'{"messages": "hi"}\n', r"q\.jsonl:1: 'messages': expected a list of turns, got str"),
        (b'{"messages": []}\n', r"q\.jsonl:1: expected a question with words"),
        (b'{"prompt": " "}\n', r"q\.jsonl:1: expected a question with words"),
        (b'{"question": "x"}\n', r"q\.jsonl:1: expected 'prompt', which is missing"),
        (b'{"prompt": "x", "id": []}\n', r"q\.jsonl:1: expected an id"),
        (b'{"prompt": "x", "id": 1}\n{"prompt": "y", "id": "1"}', "two questions have the id '1'"),
        (b"[]\n", r"q\.jsonl: expected a list of questions, got \[\]"),
        (b"id,prompt\n1,x\n", r"q\.jsonl:1: not valid JSON"),
        (b"\n", "holds no line"),
    ],
)
def test_a_bad_question_file_is_one_clear_error(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "q.jsonl"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_questions(file)
    with pytest.raises(ConfigError, match="--first: expected at least 1, got 0"):
        read_questions(file, first=0)


@pytest.mark.parametrize("key", ["id", "question_id", "uid"])
def test_a_question_keeps_its_id_by_any_of_its_names(tmp_path: Path, key: str) -> None:
    file = write(tmp_path / "q.jsonl", {key: "q7", "prompt": "x"}, {"prompt": "y"})
    assert [question.id for question in read_questions(file)] == ["q7", "1"]


def no_robots(number: int) -> dict[str, Any]:
    """A row as no_robots and UltraChat are published, with the reference answer behind the question."""
    said = [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": "a"}]
    return {"prompt": f"q{number}", "prompt_id": f"p{number}", "messages": said, "category": "QA"}


def test_messages_are_asked_up_to_the_last_user_turn_and_the_rest_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = {"messages": [{"role": "user", "content": "q2", "name": "Ann"}], "tools": None}
    file = write(tmp_path / "q.jsonl", no_robots(0), no_robots(1), plain)
    questions = read_questions(file)
    asked = [({"role": "user", "content": f"q{number}"},) for number in range(3)]
    assert [question.messages for question in questions] == asked
    assert [question.category for question in questions] == ["QA", "QA", None]
    assert caplog.messages == [
        f"{file}: not used of its questions: turns behind the last user's (2 of 3 rows), prompt (2 of"
        " 3 rows), prompt_id (2 of 3 rows), name (of turns) (1 of 3 rows)"
    ]


def test_a_named_column_is_asked_even_beside_messages(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    messages = [{"role": "user", "content": "Nenne eine Farbe."}]
    row = {"id": "a", "prompt_en": "Name a colour.", "messages": messages, "input": ""}
    file = write(tmp_path / "q.jsonl", row)
    assert read_questions(file, column="prompt_en")[0].prompt == "Name a colour."
    assert caplog.messages == [f"{file}: not used of its questions: messages"]
    assert read_questions(file)[0].prompt == "Nenne eine Farbe."
    with pytest.raises(DataError, match="expected 'prompt_fr', which is missing"):
        read_questions(file, column="prompt_fr")
    with pytest.raises(ConfigError, match="--column: has no effect beside --benchmark arena-hard"):
        read_benchmark_questions(file, "arena-hard", column="prompt_en")


def test_questions_of_other_files_are_those_of_jsonl(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"messages": [{"from": "human", "value": f"q{number}"}]} for number in range(2)]
    expected = read_questions(write(tmp_path / "q.jsonl", *rows))
    assert [(question.id, question.prompt) for question in expected] == [("0", "q0"), ("1", "q1")]
    (tmp_path / "q.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "q.parquet")
    assert read_questions(tmp_path / "q.json") == expected
    assert read_questions(tmp_path / "q.parquet") == expected


def test_benchmark_files_are_read_as_questions(excerpts: Path, tmp_path: Path) -> None:
    arena = read_benchmark_questions(
        excerpts / "arena_hard" / "v2.0_questions.jsonl", "arena-hard", first=2
    )
    assert len(arena) == 2
    (mt, *_) = read_benchmark_questions(excerpts / "mt_bench" / "questions.jsonl", "mt-bench")
    assert len(mt.later_turns) == 1
    piece = {"category": "c", "writing_prompt": "Write. <SEED>", "seed_modifiers": ["one", "two"]}
    (tmp_path / "prompts.json").write_text(json.dumps({"9": piece}))
    pieces = read_benchmark_questions(tmp_path / "prompts.json", "creative-writing")
    assert [(piece.id, piece.prompt) for piece in pieces] == [
        ("9#1", "Write. one"), ("9#2", "Write. two"), ("9#3", "Write. one"),
    ]  # fmt: skip
    (tmp_path / "alpaca.json").write_text(json.dumps([{"instruction": "Say.", "dataset": "d"}]))
    (said,) = read_benchmark_questions(tmp_path / "alpaca.json", "alpaca-eval")
    assert (said.prompt, said.category) == ("Say.", "d")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": 1, "system": "s", "text": "x"}, "'turn'"),
        ({"id": 1, "system": "s", "text": "x", "turn": 2}, "but not every turn before it"),
        ({"id": 1, "system": "s", "turn": 1}, "'text'"),
        ({"id": 1, "text": "x", "turn": 1}, "'system'"),
    ],
)
def test_a_bad_answer_file_is_one_clear_error(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_answers(write(tmp_path / "answers.jsonl", row))


def test_a_line_separator_inside_a_question_does_not_split_it(tmp_path: Path) -> None:
    text, file = "one\u2028two\u0085three", tmp_path / "questions.jsonl"
    file.write_text(json.dumps({"prompt": text}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert [question.prompt for question in read_questions(file)] == [text]
