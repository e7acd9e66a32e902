import json
from dataclasses import replace

import pytest

from slackdlm.benchmarks.alpaca_eval import (
    published_win_rate,
    question_id,
    read_answers,
    read_judgments,
    read_questions,
    write_answers,
)
from slackdlm.errors import DataError
from slackdlm.records import Answer

ROW = {
    "dataset": "d", "instruction": "say é\u2028", "output_1": "base", "generator_1": "gpt4",
    "output_2": "mine", "generator_2": "m", "annotator": "weighted", "preference": 1.25,
    "raw_completion": {"x": [None]},
}  # fmt: skip


def put(file, items):
    file.write_text(json.dumps(items))
    return file


def annotations(*preferences):
    return [ROW | {"instruction": str(n), "preference": p} for n, p in enumerate(preferences)]


def test_annotations_are_games_of_the_model_against_the_baseline(tmp_path):
    items = [ROW, *annotations(2, 1, 0, None, 1.5000001)]
    games = read_judgments(put(tmp_path / "in.json", items))
    assert [game.score for game in games] == [0.25, 1, 0, 0.5, None, pytest.approx(0.5000001)]
    assert {(game.a, game.b) for game in games} == {("m", "gpt4")}
    assert (games[0].extra["output_1"], games[0].extra["output_2"]) == ("base", "mine")
    assert games[0].category == "d"


def test_outputs_are_read_and_written(tmp_path):
    items = [{"dataset": "d", "instruction": "i", "output": "o", "generator": "m"}]
    answers = read_answers(put(tmp_path / "in.json", items))
    assert answers[0].extra == {}
    write_answers(tmp_path / "out.json", answers)
    written = json.loads((tmp_path / "out.json").read_text())
    assert written == [{"instruction": "i", "output": "o", "generator": "m"}]
    (question,) = read_questions(tmp_path / "in.json")
    assert question.id == answers[0].question_id == question_id("i")
    with pytest.raises(DataError, match="give it in messages"):
        write_answers(tmp_path / "out.json", [Answer("q", "m", ("x",))])


def test_the_leaderboard_line_counts_questions_and_none_with_an_order_missing(tmp_path):
    games = read_judgments(put(tmp_path / "in.json", annotations(2, 1, 0, None, 1.25)))
    assert published_win_rate(games) == pytest.approx(43.75)
    assert published_win_rate([]) is None
    orders = [("a", 1.0), ("a", 0.5), ("b", 0.0), ("b", None), ("c", 0.25), ("c", 0.25)]
    both = [
        replace(games[0], question_id=q, score=s, status="failed" if s is None else "ok")
        for q, s in orders
    ]
    assert published_win_rate(both) == pytest.approx(100 * (0.75 + 0.25) / 2)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([ROW, ROW], "judged twice"),
        ([ROW | {"preference": 3}], r"preference in \[1, 2\]"),
        ([ROW | {"preference": "2"}], "a number in 'preference'"),
        ([], "expected a list of AlpacaEval annotations"),
    ],
)
def test_a_bad_item_is_one_error(tmp_path, items, message):
    with pytest.raises(DataError, match=message):
        read_judgments(put(tmp_path / "in.json", items))
