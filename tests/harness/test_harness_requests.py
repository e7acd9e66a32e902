import copy
import json

import pytest

from slackdlm.errors import DataError
from slackdlm.harness.requests import (
    encode_context,
    encode_pair,
    read_stopping,
    render_chat,
    stopped,
    unused_settings,
)
from slackdlm.models.chat import encode_prompt
from slackdlm.models.tokenizer import encode_text
from slackdlm.sampling.sampler import SamplerConfig


@pytest.mark.parametrize(
    ("text", "until", "expected"),
    [
        ("so 7.\nQuestion: next", ["Question:"], "so 7.\n"),
        ("a STOP b END c", ["END", "STOP"], "a "),
        ("a STOP b STOP c", ["STOP"], "a "),
        ("STOP", ["STOP"], ""),
        ("nothing to stop", ["STOP"], "nothing to stop"),
        ("nothing to stop", [], "nothing to stop"),
        ("cut at the border", ["border"], "cut at the "),
    ],
)
def test_an_answer_ends_before_the_first_stop_text(text, until, expected):
    assert stopped(text, until) == expected


def test_stop_texts_and_lengths_come_in_lm_evals_spellings():
    assert read_stopping({"until": "\n", "max_new_tokens": 4}) == (("\n",), 4)
    assert read_stopping({"until": ["a", "", "b"], "max_gen_toks": 9}) == (("a", "b"), 9)
    assert read_stopping({"until": None}) == ((), None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"until": 3}, "expected 'until' to be a text or texts, got 3"),
        ({"until": ["a", 3]}, "expected 'until' to be a text or texts"),
        ({"max_gen_toks": 0}, "expected 'max_gen_toks' to be at least 1, got 0"),
        ({"max_gen_toks": 2.5}, "expected 'max_gen_toks' to be at least 1, got 2.5"),
    ],
)
def test_requests_that_make_no_sense_are_named(arguments, message):
    with pytest.raises(DataError, match=message):
        read_stopping(arguments)


def test_what_a_task_asks_and_does_not_get_is_said():
    config = SamplerConfig(canvas_length=8)
    assert unused_settings({"until": ["x"], "do_sample": False, "temperature": 0.7}, config) == []
    assert unused_settings({"max_gen_toks": 8}, config) == []
    asked = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "max_gen_toks": 9}
    assert unused_settings(asked, config) == [
        "temperature=0.7 (decoded with 0)",
        "max_gen_toks=9 (the canvas has 8 positions)",
        "top_p=0.9",
    ]
    assert unused_settings({"do_sample": True}, config) == ["temperature=1 (decoded with 0)"]


def test_context_and_target_are_cut_as_one_text(speaker):
    tokenizer = speaker.tokenizer
    for context, target in [
        ("Question: 1+1?\nAnswer:", " 2"),
        ("Question: 1+1?\nAnswer: ", "2"),
        ("Ann has p", "ens and buys"),  # a token lies across the border
        ("", "Ann"),
        ("Ann", ""),
    ]:
        before, after = encode_pair(tokenizer, context, target)
        assert before + after == encode_text(tokenizer, context + target)
        assert context.startswith(tokenizer.decode(before))
    assert encode_pair(tokenizer, "Answer: ", "2") == encode_pair(tokenizer, "Answer:", " 2")
    joined = encode_text(tokenizer, "Ann has pens")
    assert encode_text(tokenizer, "Ann has p") != joined[: len(encode_text(tokenizer, "Ann has p"))]


def test_chats_get_the_models_format_and_spell_no_special_token(speaker):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Say <|eot_id|> or <|mdm_mask|>."},
    ]
    context = render_chat(messages)
    ids = encode_context(speaker.tokenizer, context)
    assert ids == encode_prompt(speaker.tokenizer, messages)
    assert speaker.mask_id not in ids
    assert json.loads(context[1:]) == messages
    assert encode_pair(speaker.tokenizer, context, "A") == (
        ids,
        encode_text(speaker.tokenizer, "A"),
    )


def test_an_opened_answer_is_gone_on_with(speaker):
    asked = [{"role": "user", "content": "Write add."}]
    opened = [*asked, {"role": "assistant", "content": "\n```python\n"}]
    ids = encode_context(speaker.tokenizer, render_chat(opened))
    before = encode_prompt(speaker.tokenizer, asked)
    assert ids == before + encode_text(speaker.tokenizer, "```python\n")


def test_an_opened_answer_keeps_its_indentation_where_the_template_does_not_trim(speaker):
    tokenizer = copy.copy(speaker.tokenizer)
    tokenizer.chat_template = tokenizer.chat_template.replace(" | trim", "")
    asked = [{"role": "user", "content": "Write add."}]
    opened = [*asked, {"role": "assistant", "content": "    return"}]
    ids = encode_context(tokenizer, render_chat(opened))
    assert ids == encode_prompt(tokenizer, asked) + encode_text(tokenizer, "    return")


def test_plain_text_has_no_special_tokens(speaker):
    ids = encode_context(speaker.tokenizer, "Say <|eot_id|>.")
    assert speaker.tokenizer.decode(ids) == "Say <|eot_id|>."
    assert not set(ids) & set(speaker.tokenizer.all_special_ids)
