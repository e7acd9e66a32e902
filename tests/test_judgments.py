import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slackdlm.errors import DataError
from slackdlm.judgments import (
    Game,
    Grade,
    Tally,
    read_games,
    read_grades,
    tally,
    write_judgments,
)

JUDGE = {"judge": "parser", "prompt_version": 1}
GAME = Game("q1", "ours", "base", 0, 1.0, "A>>B", "ok", "maths", JUDGE)
GRADE = Grade("81", "ours", 1, 7.0, "ok", "writing", JUDGE)
texts = st.text(max_size=8)


def test_rows_come_back_as_they_were_written(tmp_path):
    file = tmp_path / "deep" / "judgments.jsonl"
    games = [
        GAME,
        replace(GAME, order=1, score=None, verdict=None, status="failed"),
        replace(GAME, turn=2, score=None, status="unparsable", reply="lone \ud800 and \u2028 é"),
        replace(GAME, turn=3, prompt=({"role": "user", "content": "hi"},), extra={"tstamp": 1.5}),
    ]
    write_judgments(file, games)
    assert read_games(file) == games
    grades = [GRADE, replace(GRADE, score=0.0, status="out_of_range", turn=2)]
    write_judgments(file, grades)
    assert read_grades(file) == grades
    assert list(file.parent.iterdir()) == [file]


@given(
    st.lists(
        st.tuples(texts, st.sampled_from([0, 1]), st.floats(0, 1)),
        min_size=1,
        max_size=4,
        unique_by=lambda row: row[0],
    )
)
def test_any_text_survives_the_file(tmp_path_factory, rows):
    file = tmp_path_factory.mktemp("games") / "g.jsonl"
    games = [
        Game(f"q{text}", "a", "b", order, score, text, "ok", text, {text: text}, reply=text)
        for text, order, score in rows
    ]
    write_judgments(file, games)
    assert read_games(file) == games


ROW = {
    "question_id": "q1", "a": "x", "b": "y", "order": 0, "score": 0.5, "verdict": "A=B",
    "status": "ok", "category": None, "judge_identity": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", "expected a JSON object"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        (json.dumps(ROW | {"score": "0.5"}), "a number in 'score'"),
        (json.dumps(ROW).replace("0.5", "NaN"), "NaN is no JSON number"),
        (json.dumps(ROW).replace("0.5", "1e999"), "does not fit"),
        (json.dumps(ROW).replace("0.5", "9" * 5000), "not valid JSON"),
        (json.dumps(ROW).replace("0.5", "9" * 400), "fits a double in 'score'"),
        (json.dumps(ROW | {"score": True}), "a number in 'score'"),
        (json.dumps(ROW | {"order": True}), "expected 0 or 1 in 'order'"),
        (json.dumps(ROW | {"question_id": ""}), "an id"),
        (json.dumps(ROW | {"judge_identity": None}), "an object in 'judge_identity'"),
        (json.dumps(ROW | {"winner": "x"}), "unknown key 'winner'"),
        (json.dumps(ROW | {"score": 1.5}), "at most 1 in 'score'"),
        (json.dumps(ROW | {"score": None}), "contradict"),
        (json.dumps(ROW | {"status": "failed"}), "contradict"),
        (json.dumps(ROW | {"status": "fine"}), "'ok', 'failed' or 'unparsable' in 'status'"),
        (json.dumps(ROW | {"order": 2}), "0 or 1 in 'order'"),
        (json.dumps(ROW | {"turn": 0}), "at least 1 in 'turn'"),
        (json.dumps(ROW | {"turn": True}), "a whole number in 'turn'"),
        (json.dumps(ROW | {"prompt": [{"role": "user"}]}), "turns with role and content"),
        (json.dumps(ROW | {"a": "y"}), "'y' is compared with itself"),
        (json.dumps({k: v for k, v in ROW.items() if k != "status"}), "'status', which is missing"),
    ],
)
def test_a_bad_line_is_one_error_with_file_and_line(tmp_path, unchecked_shapes, line, message):
    file = tmp_path / "games.jsonl"
    file.write_text(json.dumps(ROW) + "\n\n" + line + "\n")
    with pytest.raises(DataError, match=message) as caught:
        read_games(file)
    assert str(caught.value).startswith(f"{file}:3: ")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"turn": 0}, "at least 1 in 'turn'"),
        ({"status": "out_of_range", "score": None}, "contradict"),
        ({"status": "unparsable"}, "contradict"),
        ({"status": "?"}, "in 'status'"),
    ],
)
def test_a_grade_that_contradicts_itself_is_refused(tmp_path, change, message):
    (tmp_path / "grades.jsonl").write_text(json.dumps(asdict(GRADE) | change))
    with pytest.raises(DataError, match=message):
        read_grades(tmp_path / "grades.jsonl")


def test_files_that_are_none_are_one_error(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_games(tmp_path / "missing.jsonl")
    (tmp_path / "latin").write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(DataError, match=r"not UTF-8 text \(byte 7\)"):
        read_grades(tmp_path / "latin")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(DataError, match="holds no line"):
        read_grades(tmp_path / "empty")


def test_every_row_is_counted_by_what_became_of_it():
    grades = [
        GRADE,
        replace(GRADE, score=None, status="failed"),
        replace(GRADE, score=None, status="unparsable"),
        replace(GRADE, score=0.0, status="out_of_range"),
        GRADE,
    ]
    assert tally(grades) == Tally(5, 2, 1, 1, 1)
