import json

import pytest
from surface_form import answers_tokenizer, check_answers, dropped_kinds, gold_texts, survey

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
    kept, lost, whole = check_answers(file, decode, slack_id=SLACK, eos_ids=(END,))
    assert (kept.is_changed, kept.would_change) == (False, True)
    assert kept.dropped == {"trailing zeros": 1}
    assert (lost.is_changed, lost.collapse) == (True, "graves")
    assert (whole.is_changed, whole.would_change, whole.dropped) == (False, False, {})


def test_gold_texts_come_from_a_column_or_from_every_assistant_turn(tmp_path):
    said = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "two"},
    ]
    file = put(tmp_path / "g.jsonl", {"answer": "a"}, {"messages": said})
    assert gold_texts(file, column="answer") == ["a", "one", "two"]


def test_slack_gives_every_answer_back_and_merging_does_not():
    texts = [f"so #### {n}000" for n in range(1, 9)]
    tokenizer, slack_id = answers_tokenizer(texts, None)
    slack, graves = (
        survey(texts, tokenizer, slack_id=slack_id, mode=mode, slack_ratio=(0, 0), seed=0)
        for mode in ("slack", "graves")
    )
    assert (slack.num_changed, slack.num_finals_changed, slack.num_finals) == (0, 0, 8)
    assert (graves.num_changed, graves.num_finals_changed) == (8, 8)


def test_the_more_slack_the_less_is_merged():
    texts = ["0" * 20] * 20
    tokenizer, slack_id = answers_tokenizer(texts, None)
    rare, thick = (
        survey(texts, tokenizer, slack_id=slack_id, mode="graves", slack_ratio=(r, r), seed=0)
        for r in (2.0, 50.0)
    )
    assert sum(thick.dropped.values()) < 0.3 * sum(rare.dropped.values())
