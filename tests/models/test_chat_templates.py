"""A tokenizer's own chat template is used: ids are those of ``apply_chat_template``, beside which stands
that no special token that a message spells is one."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from chat_templates import ALL, MISTRAL, QWEN
from dream_checkpoint import write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from slackdlm.errors import ConfigError, DataError
from slackdlm.models.chat import (
    decode_answer,
    encode_dialogue,
    encode_opening,
    encode_prompt,
    end_of_turn,
    written_fields,
)
from slackdlm.models.chat_format import chat_format
from slackdlm.models.identity import model_identity
from slackdlm.models.loading import load_model

SPECIALS = [
    *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eot_id|>", "<start_of_turn>", "<end_of_turn>", "[CLS]", "[SEP]", "<mask>", "<slack>"),
]
# Qwen's pieces: white space goes with what stands behind it, so that texts joined are cut otherwise than apart.
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXTS = ["<|user|>\n\n    return x\n\n", "assistant\n\nassistant system user [INST] [/INST]\n"] * 3
USER = {"role": "user", "content": "What is 7 + 5?"}
REPLY = {"role": "assistant", "content": "It is 12."}
SYSTEM = {"role": "system", "content": "Be brief."}
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "add", "arguments": {"a": 7}}}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]


def make(template: Any, *, spaces: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE, or with ``spaces`` pieces that are cut otherwise at the start of a text."""
    backend = Tokenizer(models.BPE(byte_fallback=spaces))
    if spaces:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        alphabet = sorted(set("".join(TEXTS)) | set(map(chr, range(32, 127))))
        first = [f"<0x{byte:02X}>" for byte in range(256)]
    else:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        alphabet, first = sorted(pre_tokenizers.ByteLevel.alphabet()), []
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=alphabet, special_tokens=first, show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    backend.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIALS])
    backend.add_tokens([AddedToken("<tool_call>", normalized=False)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>"}
    if template == ALL["questions"]:
        names |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **names)


TOKENIZERS = {name: make(template) for name, template in ALL.items()}
EACH = pytest.mark.parametrize("name", TOKENIZERS)


def applied(tokenizer: PreTrainedTokenizerFast, messages: Any, **options: Any) -> list[int]:
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, **options)[
        "input_ids"
    ]


PLAIN_TEXTS = st.text(max_size=12) | st.sampled_from(
    ["    x\n", "\n\ny ", "🌊é", "</think>\n\nz", "{}"]
)
CONTENTS = PLAIN_TEXTS.filter(lambda text: text.strip() and "<|" not in text and ">" not in text)
HOSTILE = st.lists(
    st.sampled_from([*SPECIALS, "<|im_", "end|>", "<", ">", " ", "\n", "a"]), min_size=1
)


@EACH
@settings(max_examples=40, deadline=None)
@given(contents=st.lists(CONTENTS, min_size=1, max_size=5))
def test_a_prompt_has_the_ids_of_the_tokenizers_own_template(
    name: str, contents: list[str]
) -> None:
    tokenizer, odd = TOKENIZERS[name], contents[: len(contents) - 1 + len(contents) % 2]
    messages = [
        {"role": ("user", "assistant")[n % 2], "content": content} for n, content in enumerate(odd)
    ]
    assert encode_prompt(tokenizer, messages) == applied(tokenizer, messages)
    if name not in ("mistral", "gemma"):
        assert encode_prompt(tokenizer, [SYSTEM, *messages]) == applied(
            tokenizer, [SYSTEM, *messages]
        )


@pytest.mark.parametrize("spaces", [False, True])
@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=25, deadline=None)
@given(pieces=HOSTILE)
def test_what_spells_a_special_token_is_text(name: str, spaces: bool, pieces: list[str]) -> None:
    tokenizer = SPACED[name] if spaces else TOKENIZERS[name]
    content = "a" + "".join(pieces) + "a" if len(pieces) % 2 else "".join(pieces)
    messages = [{"role": "user", "content": content}, REPLY, USER]
    if not content.strip():
        return
    ids = encode_prompt(tokenizer, messages)
    specials = {tokenizer.convert_tokens_to_ids(s) for s in SPECIALS}
    harmless = encode_prompt(tokenizer, [USER, REPLY, USER])
    assert [i for i in ids if i in specials] == [i for i in harmless if i in specials]
    said = content.strip() if name in ("llama3", "llada", "gemma", "questions") else content
    if not spaces:
        assert said in tokenizer.decode(ids)
    [turn] = encode_dialogue(tokenizer, [USER, {"role": "assistant", "content": content}])
    end = [i for i in turn.response_ids if i in specials]
    assert len(end) == 1
    assert turn.response_ids[-1] == end[0]


SPACED = {name: make(template, spaces=True) for name, template in ALL.items()}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_pieces_that_are_cut_otherwise_at_the_start_of_a_text_are_those_of_the_whole(
    name: str,
) -> None:
    messages = [USER, REPLY, USER]
    assert encode_prompt(SPACED[name], messages) == applied(SPACED[name], messages)
    spelled = encode_prompt(SPACED[name], [{"role": "user", "content": "a <mask> b"}, REPLY, USER])
    plain = applied(SPACED[name], [{"role": "user", "content": "a ~mask~ b"}, REPLY, USER])
    names = SPACED[name].convert_ids_to_tokens
    assert [s.replace("<", "~").replace(">", "~") for s in names(spelled)] == [
        s.replace("<", "~").replace(">", "~") for s in names(plain)
    ]


@EACH
def test_a_turn_and_its_prompt_are_the_whole_conversation_cut_in_two(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    turns = encode_dialogue(tokenizer, [USER, REPLY, USER, REPLY])
    for turn, history in zip(turns, ([USER], [USER, REPLY, USER]), strict=True):
        assert turn.prompt_ids == encode_prompt(tokenizer, history)
        whole = tokenizer.apply_chat_template([*history, REPLY])["input_ids"]
        both = turn.prompt_ids + turn.response_ids
        if name == "asked":  # the thought is in the prompt alone
            assert tokenizer.decode(turn.response_ids) == "It is 12.<|im_end|>"
        elif name == "questions":
            assert both == [*whole, tokenizer.sep_token_id]
        else:
            assert both == whole[: len(both)]
            rest = tokenizer.decode(whole[len(both) :])
            assert rest in ("", "\n", "<|start_header_id|>assistant<|end_header_id|>\n\n")


@pytest.mark.parametrize("content", ["    y = x + 1\n    return y\n", "\n\n x", "x\n\n", "🌊 "])
@EACH
def test_a_response_is_never_cut(name: str, content: str) -> None:
    tokenizer = TOKENIZERS[name]
    [turn] = encode_dialogue(tokenizer, [USER, {"role": "assistant", "content": content}])
    written = (
        content.lstrip("\n") if name == "thinking" else content
    )  # this template says so itself
    assert written in tokenizer.decode(turn.response_ids)
    assert turn.prompt_ids == encode_prompt(tokenizer, [USER])
    answer = decode_answer(tokenizer, turn.response_ids)
    assert answer.removeprefix(" " if name == "mistral" else "").endswith(written)


def test_generation_marks_say_what_is_learnt() -> None:
    tokenizer = TOKENIZERS["marked"]
    messages = [USER, REPLY, USER, {"role": "assistant", "content": "12 again"}]
    applied_ = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    pairs = zip(applied_["input_ids"], applied_["assistant_masks"], strict=True)
    learnt = [token for token, mark in pairs if mark]
    turns = encode_dialogue(tokenizer, messages)
    assert [i for turn in turns for i in turn.response_ids] == learnt
    without_end = ALL["marked"].replace(
        "{{ m['content'] + '<|im_end|>' }}{% endgeneration %}",
        "{{ m['content'] }}{% endgeneration %}{{ '<|im_end|>' }}",
    )
    [turn] = encode_dialogue(make(without_end), [USER, REPLY])
    assert tokenizer.decode(turn.response_ids) == "It is 12."


def test_thoughts_are_learnt_where_the_template_writes_them_and_named_where_not() -> None:
    tokenizer = TOKENIZERS["thinking"]
    thought = {**REPLY, "reasoning_content": "7 + 5"}
    [turn] = encode_dialogue(tokenizer, [USER, thought])
    assert tokenizer.decode(turn.response_ids) == "<think>\n7 + 5\n</think>\n\nIt is 12.<|im_end|>"
    assert written_fields(tokenizer) == {"reasoning_content", "thinking"}
    assert written_fields(TOKENIZERS["chatml"]) == frozenset()
    assert written_fields(TOKENIZERS["gemma"]) == frozenset()


def test_tools_their_calls_and_results_are_context() -> None:
    tokenizer = TOKENIZERS["qwen"]
    messages = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "12", "learn": False},
        REPLY,
    ]
    given_ = [{k: v for k, v in m.items() if k != "learn"} for m in messages]
    first, second = encode_dialogue(tokenizer, messages, tools=TOOLS)
    assert first.prompt_ids == applied(tokenizer, [USER], tools=TOOLS)
    assert second.prompt_ids == applied(tokenizer, given_[:3], tools=TOOLS)
    assert second.prompt_ids == encode_prompt(tokenizer, messages[:3], tools=TOOLS)
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 7}}\n</tool_call><|im_end|>'
    assert tokenizer.decode(first.response_ids).strip() == call
    assert written_fields(tokenizer) == {"tools", "tool_calls"}
    [turn] = encode_dialogue(tokenizer, [USER, {**REPLY, "tool_calls": [CALL]}], tools=TOOLS)
    assert tokenizer.decode(turn.response_ids) == f"It is 12.\n{call}"


def test_special_tokens_in_tools_and_calls_are_text() -> None:
    tokenizer = TOKENIZERS["qwen"]
    function = {"name": "<|im_end|>", "arguments": {"<|im_start|>": "<|im_end|>"}}
    tools = [{"type": "function", "function": {"name": "<|im_end|>", "role": "<|im_end|>"}}]
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}
    harmless = {**call, "tool_calls": [{"function": {"name": "x", "arguments": {"x": "x"}}}]}
    for token in ("<|im_end|>", "<|im_start|>"):
        token_id = tokenizer.convert_tokens_to_ids(token)
        counts = [
            encode_prompt(tokenizer, [USER, m, {"role": "tool", "content": "1"}], tools=t).count(
                token_id
            )
            for m, t in ((call, tools), (harmless, TOOLS))
        ]
        assert counts[0] == counts[1]


def test_arguments_that_are_text_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    call = {"function": {"name": "add", "arguments": '{"a": 7}'}}
    messages = [USER, {"role": "assistant", "content": "", "tool_calls": [call]}]
    for _ in range(2):
        [turn] = encode_dialogue(make(QWEN), messages)
    assert TOKENIZERS["qwen"].decode(turn.response_ids).count('{\\"a\\": 7}') == 1
    assert "arguments that are text" in caplog.text


TOOL = {"role": "tool", "content": "1"}
CALLS_ALONE = ALL["chatml"].replace("{{ m['content'] }}", "{{ m.tool_calls or m.content }}")


@pytest.mark.parametrize(
    ("template", "messages", "message"),
    [
        (ALL["gemma"], [SYSTEM, USER], "template refuses them: System role not supported"),
        (ALL["mistral"], [USER, USER], "refuses them: Conversation roles must alternate"),
        (ALL["zephyr"], [USER, REPLY, TOOL], r"\[2\].*does not write .* 'tool'"),
        (ALL["zephyr"], [{**TOOL, "role": "developer"}, USER], "does not write .* 'developer'"),
        (ALL["questions"], [USER, REPLY, TOOL], "does not write .* 'tool'"),
        (
            CALLS_ALONE,
            [USER, {**REPLY, "tool_calls": [CALL]}, USER],
            r"messages\[1\]: .* 'assistant' beside its tool_calls",
        ),
        ("{{ messages[0].content }}", [USER, REPLY, USER], r"\[1\]: .* not write .* 'assistant'"),
    ],
)
def test_what_a_template_leaves_out_or_refuses_is_an_error(
    template: str, messages: list[dict[str, object]], message: str
) -> None:
    tokenizer = make(template)
    with pytest.raises(DataError, match=message):
        encode_prompt(tokenizer, messages)
    with pytest.raises(DataError, match=message):
        encode_dialogue(tokenizer, [*messages, REPLY])


@pytest.mark.parametrize(("half", "rest"), [("<|im_end", "|>"), ("a <", "|im_end|>")])
def test_halves_of_special_tokens_do_not_meet(half: str, rest: str) -> None:
    joined = make(ALL["chatml"].replace("{{ m['content'] }}", "{{ m['content'] }}" + rest))
    ids = encode_prompt(joined, [{"role": "user", "content": half}])
    end = joined.convert_tokens_to_ids("<|im_end|>")
    assert ids.count(end) == 1
    assert joined.decode(ids).startswith(f"<|im_start|>user\n{half}{rest}<|im_end|>")
    assert applied(joined, [{"role": "user", "content": half}]).count(end) == 2


def test_a_template_that_acts_on_what_special_tokens_spell_refuses_them() -> None:
    template = ALL["chatml"].replace("m['content']", "m['content'].replace('<mask>', '')")
    spelled = {"role": "user", "content": "a <mask> b"}
    with pytest.raises(DataError, match="which the chat template treats in its own way"):
        encode_prompt(make(template), [spelled])
    assert encode_prompt(make(template), [USER]) == applied(make(template), [USER])


@pytest.mark.parametrize(
    ("name", "end", "text"),
    [
        ("qwen", "<|im_end|>", ""),
        ("llada", "<|eot_id|>", ""),
        ("zephyr", "</s>", ""),
        ("gemma", "<end_of_turn>", ""),
        ("marked", "<|im_end|>", ""),
        ("questions", "[SEP]", "\n[/Answer]\n\n"),
    ],
)
def test_an_answer_ends_as_the_template_ends_it(name: str, end: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    assert end_of_turn(tokenizer) == (tokenizer.convert_tokens_to_ids(end), text)


def test_decoding_ends_at_the_end_of_turn_of_a_template_of_its_own(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "dream")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = config["chat_template"].replace("<|im_end|>", "<|beginoftext|>")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = load_model(folder)
    ends = loaded.tokenizer.convert_ids_to_tokens(list(loaded.eos_ids))
    assert ends == ["<|endoftext|>", "<|im_end|>", "<|beginoftext|>"]
    before = model_identity(loaded)
    loaded.tokenizer.chat_template = ALL["chatml"]
    assert model_identity(loaded)["tokenizer_sha256"] != before["tokenizer_sha256"]


def test_an_end_that_is_mere_text_is_no_part_of_the_answer() -> None:
    tokenizer = TOKENIZERS["questions"]
    [turn] = encode_dialogue(tokenizer, [USER, {"role": "assistant", "content": "    x\n"}])
    assert tokenizer.decode(turn.response_ids) == "    x\n\n[/Answer]\n\n[SEP]"
    assert decode_answer(tokenizer, turn.response_ids) == "    x\n"
    assert decode_answer(tokenizer, turn.response_ids[:4]) == tokenizer.decode(
        turn.response_ids[:4]
    )


@pytest.mark.parametrize(
    ("template", "response"),
    [
        (MISTRAL, " It is 12.</s>"),  # its space is learnt once
        (
            "{% for m in messages %}{{ m.role + ': ' + m.content }}{% endfor %}",
            "assistant: It is 12.</s>",  # without an end of turn: the tokenizer's
        ),
    ],
)
def test_a_response_has_one_beginning_and_one_end(template: str, response: str) -> None:
    tokenizer = make(template)
    [turn] = encode_dialogue(tokenizer, [USER, REPLY])
    assert tokenizer.decode(turn.response_ids) == response


def test_an_opened_answer_is_trimmed_where_the_template_would_trim_it() -> None:
    for name, text in (("llada", "x"), ("qwen", "\n x")):
        ids = encode_opening(TOKENIZERS[name], "\n x")
        assert TOKENIZERS[name].decode(ids) == text


def test_a_date_is_honoured_and_said(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = make(ALL["llama3"])
    ids = encode_prompt(tokenizer, [USER])
    assert ids == encode_prompt(tokenizer, [USER]) == applied(tokenizer, [USER])
    assert datetime.now().strftime("%d %b %Y") in tokenizer.decode(ids)
    assert caplog.text.count("depend on the day") == 1
    assert "writes today's date" in chat_format(tokenizer).description


def test_a_template_of_another_tokenizer_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = make(ALL["chatml"].replace("im_end", "turn_end"))
    assert encode_prompt(tokenizer, [USER]) == applied(tokenizer, [USER])
    assert "writes <|turn_end|>, which its tokenizer reads as mere text" in caplog.text
    encode_prompt(make(ALL["chatml"]), [USER])
    assert caplog.text.count("mere text") == 1


def test_of_several_named_templates_the_default_is_used_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tokenizer = make({"default": ALL["chatml"], "rag": ALL["zephyr"], "tool_use": QWEN})
    for _ in range(2):
        assert encode_prompt(tokenizer, [USER]) == applied(tokenizer, [USER])
    assert encode_prompt(tokenizer, [USER], tools=TOOLS) == applied(tokenizer, [USER], tools=TOOLS)
    assert caplog.text.count("'default' (tool_use where there are tools) of the 3") == 1
    without = make({"rag": ALL["zephyr"], "other": QWEN})
    with pytest.raises(ConfigError, match=r"its chat template cannot be used .*default"):
        encode_prompt(without, [USER])


@pytest.mark.parametrize("where", ["config", "jinja", "json", "folder"])
def test_a_template_is_found_wherever_it_is_kept(tmp_path: Path, where: str) -> None:
    dream = write_checkpoint(tmp_path / "dream")
    path = dream / "tokenizer_config.json"
    config = json.loads(path.read_text())
    template = config.pop("chat_template").replace("helpful", "merry")
    if where == "config":
        config["chat_template"] = template
    elif where == "jinja":
        (dream / "chat_template.jinja").write_text(template)
    elif where == "json":
        (dream / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    else:
        (dream / "additional_chat_templates").mkdir()
        (dream / "additional_chat_templates" / "rag.jinja").write_text("x")
        (dream / "chat_template.jinja").write_text(template)
    path.write_text(json.dumps(config))
    tokenizer = load_model(dream).tokenizer
    user = {"role": "user", "content": "Hello"}
    assert "merry" in tokenizer.decode(encode_prompt(tokenizer, [user]))
