import json

import pytest

from slackdlm.errors import DataError
from slackdlm.evaluation.surface_form import (
    check_answers,
    dropped_kinds,
    gold_texts,
    has_canvases,
)

SLACK, END = 0, 1
WORDS = dict(enumerate(["<slack>", "<end>", "1", "0", "00", "2", " ", "\n", " the", "a", "!", "5"]))
IDS = {text: token for token, text in WORDS.items()}


def decode(ids):
    return "".join(WORDS[token] for token in ids if token not in (SLACK, END))


def ids(*texts):
    return [IDS[text] for text in texts]


@pytest.mark.parametrize(
    ("canvas", "dropped"),
    [
        (["1", "0", "0", "0"], {"trailing zeros": 2}),
        (["1", "0", "<slack>", "0"], {}),
        (["1", "0", "0", "5"], {"other digits": 1}),
        (["1", "0", "0", "<slack>", "5"], {"other digits": 1}),
        (["1", "00", "00"], {"trailing zeros": 1}),
        (["2", "2"], {"other digits": 1}),
        (["\n", " ", " ", " ", "a"], {"indentation": 2}),
        ([" the", " the"], {"repeated words": 1}),
        (["a", "a", "!", "!", "!"], {"repeated characters": 3}),
        (["<slack>", "<slack>"], {}),
        ([], {}),
    ],
)
def test_every_dropped_token_has_its_kind(canvas, dropped):
    assert dropped_kinds(ids(*canvas), decode, slack_id=SLACK) == dropped


def test_a_looping_answer_is_walked_once():
    assert dropped_kinds([IDS["a"]] * 500_000, decode, slack_id=SLACK) == {
        "repeated characters": 499_999
    }


def row(canvas, text, mode="slack", **more):
    return {
        "id": "q", "turn": 1, "system": "m", "text": text, "canvas": canvas,
        "settings": {"collapse": mode},
    } | more  # fmt: skip


def put(file, *rows):
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return file


def test_what_collapse_changed_is_told_per_answer(tmp_path):
    canvas = [*ids("1", "0", "<slack>", "0", "0", "<end>", "a")]
    file = put(
        tmp_path / "answers.jsonl",
        row(canvas, "1000"),
        row(canvas, "100", "graves", id="r"),
        row(ids("1", "2", "<end>"), "12", "graves", id="s"),
    )
    assert has_canvases(file)
    kept, lost, whole = check_answers(file, decode, slack_id=SLACK, eos_ids=(END,))
    assert (kept.is_changed, kept.would_change, kept.spelled) == (False, True, "1000")
    assert kept.dropped == {"trailing zeros": 1}
    assert (lost.is_changed, lost.collapse, lost.text) == (True, "graves", "100")
    assert (whole.is_changed, whole.would_change, whole.dropped) == (False, False, {})


@pytest.mark.parametrize("canvas", ["x", [1.5], [-1], [True], [[1]]])
def test_a_canvas_that_is_none_is_one_error(tmp_path, canvas):
    with pytest.raises(DataError, match="'canvas'"):
        check_answers(
            put(tmp_path / "a.jsonl", row(canvas, "x")), decode, slack_id=SLACK, eos_ids=(END,)
        )


def test_gold_texts_come_from_a_column_or_from_every_assistant_turn(tmp_path):
    said = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "two"},
    ]
    file = put(tmp_path / "g.jsonl", {"answer": "a"}, {"messages": said})
    assert gold_texts(file) == ["a", "one", "two"]
    with pytest.raises(DataError, match="a text in 'answer', which is missing; keys: 'messages'"):
        gold_texts(file, column="answer")
    with pytest.raises(DataError, match="a text in 'other'"):
        gold_texts(file, column="other")
    with pytest.raises(DataError, match="assistant's turn"):
        gold_texts(put(tmp_path / "h.jsonl", {"messages": said[:1]}))
    (tmp_path / "latin").write_bytes(b'{"answer": "\xe9"}')
    with pytest.raises(DataError, match="not UTF-8 text"):
        gold_texts(tmp_path / "latin")
