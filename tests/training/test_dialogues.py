"""Rows as other tools publish them, and what each must become; the right values are written by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from slackdlm.errors import ConfigError, DataError
from slackdlm.models.tokenizer import train_tokenizer
from slackdlm.training.config import ColumnsConfig, DataConfig
from slackdlm.training.data import encode_samples
from slackdlm.training.dialogues import Dialogue, description, read_dialogue
from slackdlm.training.rows import Row

Chat = list[tuple[str, str]]


@pytest.fixture(scope="module")
def spelling() -> PreTrainedTokenizerFast:
    return train_tokenizer(["any text"], vocab_size=263, kind="byte_bpe")


def read(row: dict[str, Any], **settings: Any) -> Dialogue:
    return read_dialogue(Row(row, "d.jsonl:1"), **settings)


def samples(dialogue: Dialogue, tokenizer: PreTrainedTokenizerFast) -> list[tuple[str, str]]:
    """Prompt and response of each sample, as text with its special tokens."""
    found = encode_samples(
        [dialogue], tokenizer, name="t", max_prompt_length=999, canvas_length=999
    )
    return [
        (tokenizer.decode(s.prompt.tolist()), tokenizer.decode(s.response.tolist())) for s in found
    ]


def sample(*before: tuple[str, str], says: str) -> tuple[str, str]:
    """LLaDA's format, written out."""
    turns = [
        f"<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>" for role, text in before
    ]
    opening = "<|start_header_id|>assistant<|end_header_id|>\n\n"
    return f"<|startoftext|>{''.join(turns)}{opening}", f"{says}<|eot_id|>"


def turn(role: str, content: object, **more: object) -> dict[str, object]:
    return {"role": role, "content": content, **more}


ASKED = sample(("user", "Q"), says="A")
TOLD = sample(("system", "S"), ("user", "Q"), says="A")
JOINED = sample(("user", "Q\nI"), says="A")
QA = [turn("user", "Q"), turn("assistant", "A")]
GPT = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
LONG = [turn("user", "Q"), turn("assistant", "X"), turn("user", "R"), turn("assistant", "A")]
LAST = sample(("user", "Q"), ("assistant", "X"), ("user", "R"), says="A")
BOTH = [sample(("user", "Q"), says="X"), LAST]


CACHED = {"type": "text", "text": "I", "cache_control": {"type": "ephemeral"}}


def marked(**fields: object) -> list[dict[str, object]]:
    return [LONG[0], LONG[1] | fields, *LONG[2:]]


PUBLISHED = {
    "OpenAI": ({"messages": QA}, [ASKED], []),
    "OpenAI parts": (
        {"messages": [turn("user", [{"type": "text", "text": "Q"}]), QA[1]]},
        [ASKED],
        [],
    ),
    "two parts": (
        {"messages": [turn("user", [{"type": "text", "text": "Q\n"}, CACHED]), QA[1]]},
        [JOINED],
        ["content.cache_control (of turns)"],
    ),
    "ShareGPT": ({"conversations": GPT, "id": "x"}, [ASKED], ["id"]),
    "ShareGPT with a system column": ({"conversations": GPT, "system": "S"}, [TOLD], []),
    "ShareGPT with a system turn": ({"conversations": [{"from": "system", "value": "S"}, *GPT]}, [TOLD], []),
    "another system beside the turns'": (
        {"messages": [turn("system", "S"), *QA], "system": "other"},
        [TOLD],
        ["system"],
    ),
    "conversation": ({"conversation": QA}, [ASKED], []),
    "dialogue": ({"dialogue": QA}, [ASKED], []),
    "UltraChat": ({"id": "0", "data": ["Q", "X", "R", "A"]}, BOTH, ["id"]),
    "a last turn of the user's": (
        {"dialog": ["Q", "A", "R"], "act": [1, 2, 1]},
        [ASKED],
        ["act", "turns behind the last answer"],
    ),
    "a dict of lists": (
        {"messages": {"role": ["user", "assistant"], "content": ["Q", "A"], "name": [None, None]}},
        [ASKED],
        [],
    ),
    "Arrow's nulls": (
        {"messages": [t | {"tool_calls": None, "name": None} for t in QA]}
        | dict.fromkeys(("system", "prompt", "response")),
        [ASKED],
        [],
    ),
    "Alpaca": ({"instruction": "Q", "input": "I", "output": "A"}, [JOINED], []),
    "Alpaca without input": ({"instruction": "Q", "input": "", "output": "A"}, [ASKED], []),
    "Stanford's with its text": (
        {"instruction": "Q", "input": "I", "output": "A", "text": "Below is"},
        [JOINED],
        ["text"],
    ),
    "LLaMA-Factory's": (
        {"instruction": "R", "input": "", "output": "A", "system": "", "history": [["Q", "X"]]},
        BOTH,
        [],
    ),
    "Dolly": (
        {"instruction": "Q", "context": "I", "response": "A", "category": "qa"},
        [JOINED],
        ["category"],
    ),
    "OpenOrca": (
        {"id": "1", "system_prompt": "S", "question": "Q", "response": "A"},
        [TOLD],
        ["id"],
    ),
    "GSM8K": ({"question": "Q", "answer": "A"}, [ASKED], []),
    "MetaMath": ({"query": "Q", "response": "A", "type": "x"}, [ASKED], ["type"]),
    "TRL texts": ({"prompt": "Q", "completion": "A"}, [ASKED], []),
    "TRL messages": ({"prompt": QA[:1], "completion": QA[1:]}, [ASKED], []),
    "TRL learns the completion alone": ({"prompt": LONG[:3], "completion": LONG[3:]}, [LAST], []),
    "KTO, good": ({"prompt": "Q", "completion": "A", "label": True}, [ASKED], []),
    "a class beside the texts": ({"prompt": "Q", "response": "A", "label": 0}, [ASKED], ["label"]),
    "no_robots": ({"prompt": "Q", "prompt_id": "7", "messages": QA}, [ASKED], ["prompt", "prompt_id"]),
    "preferences beside turns": (
        {"messages": QA, "chosen": QA, "rejected": LONG},
        [ASKED],
        ["chosen", "rejected"],
    ),
    "weight 0": ({"messages": marked(weight=0)}, [LAST], []),
    "weight 0.0": ({"messages": marked(weight=0.0)}, [LAST], []),
    "weight 1": ({"messages": marked(weight=1)}, BOTH, []),
    "train": ({"messages": marked(train=False)}, [LAST], []),
    "training": ({"messages": marked(training=False)}, [LAST], []),
    "train_on_turn": ({"messages": marked(train_on_turn=False)}, [LAST], []),
    "loss": ({"messages": marked(loss=False)}, [LAST], []),
    "loss_mask": ({"messages": marked(loss_mask=0)}, [LAST], []),
    "loss_scale": ({"messages": marked(loss_scale=0.0)}, [LAST], []),
    "learn": ({"messages": marked(learn=False)}, [LAST], []),
    "masked": ({"messages": marked(masked=True)}, [LAST], []),
    "mask": ({"messages": marked(mask=False)}, BOTH, []),
    "a null weight": ({"messages": marked(weight=None)}, BOTH, []),
    "a user's weight 0": ({"messages": [QA[0] | {"weight": 0}, QA[1]]}, [ASKED], []),
    "a user's weight 1": (
        {"messages": [QA[0] | {"weight": 1}, QA[1]]},
        [ASKED],
        ["weight of a user's turn (of turns)"],
    ),
    "weights of ShareGPT": (
        {"conversations": [*GPT[:1], GPT[1] | {"weight": 0}, *GPT]},
        [sample(("user", "Q"), ("assistant", "A"), ("user", "Q"), says="A")],
        [],
    ),
    "a row's weight 1": ({"prompt": "Q", "response": "A", "weight": 1.0}, [ASKED], []),
    "a row's weight 0.3": ({"prompt": "Q", "response": "A", "weight": 0.3}, [ASKED], ["weight"]),
    "a name": ({"messages": [QA[0] | {"name": "Ann"}, QA[1]]}, [ASKED], ["name (of turns)"]),
    "reasoning": (
        {"messages": [QA[0], QA[1] | {"reasoning_content": "Hm."}]},
        [ASKED],
        ["reasoning_content (of turns)"],
    ),
    "calls and tools": (
        {"messages": [QA[0], QA[1] | {"tool_calls": [{"id": "c"}]}], "tools": [{"type": "function"}]},
        [ASKED],
        ["tool_calls (of turns)", "tools"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("row", "expected", "unused"), PUBLISHED.values(), ids=list(PUBLISHED))
def test_a_published_row_is_trained_on_as_its_tool_means_it(
    spelling: PreTrainedTokenizerFast,
    row: dict[str, Any],
    expected: list[tuple[str, str]],
    unused: list[str],
) -> None:
    dialogue = read(row)
    assert samples(dialogue, spelling) == expected
    text, is_lossy = description([dialogue], frozenset(), None)
    assert is_lossy == bool(unused)
    named = text.partition("; columns not used: ")[2]
    assert sorted(named.split(", ") if named else []) == sorted(unused)


@pytest.mark.parametrize("row", [row for row, *_ in PUBLISHED.values()], ids=list(PUBLISHED))
def test_a_field_more_is_named_or_refused(row: dict[str, Any]) -> None:
    """Nothing that a row says is lost without a word, wherever it is said."""
    assert "odd" in description([read(row | {"odd": 0})], frozenset(), None)[0]
    for column in ("messages", "conversations", "prompt"):
        turns = row.get(column)
        if isinstance(turns, list):
            more = row | {column: [t | {"odd": "x"} for t in turns]}
            assert "odd (of turns)" in description([read(more)], frozenset(), None)[0]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [QA[0], QA[1] | {"weight": 0}]},
        {"prompt": "Q", "completion": "A", "label": False},
        {"prompt": "Q", "response": "A", "weight": 0},
        {"prompt": "Q", "response": "A", "train": "false"},
    ],
)
def test_a_row_of_which_nothing_is_to_be_learnt_is_left_out(
    spelling: PreTrainedTokenizerFast, row: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match="nothing is to be learnt: every row is marked weight: 0"):
        samples(read(row), spelling)
    # Left out on purpose: half of such rows are not too many that cannot be used.
    kept = encode_samples(
        [read(row), read({"prompt": "Q", "response": "A"})],
        spelling,
        name="t",
        max_prompt_length=999,
        canvas_length=999,
        max_unusable=0,
    )
    assert len(kept) == 1
    assert "1 answer marked not to be learnt" in description([read(row)], frozenset(), None)[0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": marked(weight=0.5)}, r"turn 1: expected weight to be 0 or 1, got 0\.5"),
        ({"messages": marked(train_detail=[{"train": False}])}, "expected train_detail to be 0 or 1"),
        ({"messages": marked(mask=1)}, "turn 1: expected mask to be true or false, got 1"),
        ({"messages": QA, "assistant_masks": [0, 1]}, "'assistant_masks' marks single tokens"),
        ({"prompt": "Q", "completion": "A", "completion_mask": [1]}, "'completion_mask' marks"),
        (
            {"messages": QA, "instruction": "Q", "output": "A"},
            r"d\.jsonl:1: can be read in 2 ways; set data\.format=messages or data\.format=alpaca",
        ),
        (
            {"messages": QA, "prompt": "Q", "response": "A"},
            r"set data\.format=messages or data\.format=prompt_response",
        ),
        (
            {"messages": QA, "conversations": GPT},
            r"set data\.columns\.messages=messages or data\.columns\.messages=conversations",
        ),
        (
            {"question": "Q", "response": "A", "answer": "B"},
            r"a response from response or answer; set data\.columns\.prompt and",
        ),
        (
            {"prompt": "Q", "chosen": "A", "rejected": "B"},
            r"set data\.columns\.response=chosen to learn the preferred answer$",
        ),
        (
            {"prompt": "Q", "chosen": QA, "rejected": QA},
            r"set data\.columns\.messages=chosen to learn the preferred conversation$",
        ),
        ({"chosen": "Q", "rejected": "A"}, r"the columns are 'chosen', 'rejected'; set data\.columns$"),
        ({"system": "S", "chat": "USER: Q"}, r"'chat'; set data\.columns$"),
        ({"text": "Q"}, r"the columns are 'text'; set data\.columns$"),
        (
            {"de": "Q", "en": "A"},
            r"set data\.columns\.prompt=de and data\.columns\.response=en, or the other way",
        ),
        ({"category": "c", "turns": ["Q", "R"]}, "expected turns in 'messages'"),
        ({"data": [{"prompt": "Q", "response": "A"}]}, "expected turns in 'messages'"),
        ({"messages": {"role": ["user"], "content": ["Q", "A"]}}, "messages: expected a list of turns, got dict"),
    ],
)  # fmt: skip
def test_what_has_no_clear_meaning_is_refused_with_the_setting_that_reads_it(
    row: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(row)


@pytest.mark.parametrize(
    ("row", "form", "expected"),
    [
        ({"messages": QA, "instruction": "Z", "output": "Z"}, "messages", ASKED),
        ({"messages": [], "instruction": "Q", "output": "A"}, "alpaca", ASKED),
        ({"messages": [], "prompt": "Q", "response": "A"}, "prompt_response", ASKED),
    ],
)
def test_the_format_that_a_refusal_names_reads_the_row(
    spelling: PreTrainedTokenizerFast, row: dict[str, Any], form: Any, expected: tuple[str, str]
) -> None:
    assert samples(read(row, form=form), spelling) == [expected]


def test_named_columns_alone_are_read_and_the_others_are_named() -> None:
    row = {"instruction": "Q", "input": "I", "output": "A", "id": 7}
    columns = ColumnsConfig(prompt="instruction", response="output")
    dialogue = read(row, columns=columns)
    assert [t["content"] for t in dialogue.messages] == ["Q", "A"]
    empty = read(row | {"input": ""}, columns=columns)
    assert description([dialogue, empty], frozenset(), columns) == (
        "2 rows read as prompt_response: instruction, output; columns not used: input (1 of 2 rows),"
        " id; data.columns=null reads input",
        True,
    )
    chosen = {"prompt": "Q", "chosen": QA[1:], "rejected": QA[1:]}
    dialogue = read(chosen, columns=ColumnsConfig(response="chosen"))
    assert (dialogue.messages, dialogue.unused) == (QA, ("rejected",))


def test_a_format_beside_named_columns_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.format: alpaca and data\.columns both say"):
        DataConfig(train="x", format="alpaca", columns=ColumnsConfig())


def test_a_call_in_sharegpt_s_manner_is_a_call_and_its_result_a_tool_s_turn() -> None:
    call = {"name": "add", "arguments": {"a": 1}}
    turns = [
        GPT[0],
        {"from": "function_call", "value": json.dumps(call)},
        {"from": "observation", "value": "2"},
        GPT[1],
    ]
    dialogue = read({"conversations": turns, "tools": '[{"name": "add"}]'})
    assert dialogue.messages == [
        QA[0],
        turn("assistant", "", tool_calls=[{"type": "function", "function": call}]),
        turn("tool", "2"),
        QA[1],
    ]
    assert dialogue.tools == [{"name": "add"}]
    text, is_lossy = description([dialogue], {"tool_calls", "tools"}, None)
    assert (text, is_lossy) == ("1 row read as messages: conversations", False)


def test_rows_of_several_forms_are_counted(tmp_path: Path) -> None:
    rows = [read({"messages": QA}), read({"prompt": "Q", "response": "A"}), read({"messages": QA})]
    assert description(rows, frozenset(), None)[0] == (
        "2 rows read as messages: messages; 1 row read as prompt_response: prompt, response"
    )


def test_a_whole_conversation_is_no_answer_beside_a_prompt() -> None:
    columns = ColumnsConfig(prompt="prompt", response="chosen")
    with pytest.raises(DataError, match=r"'chosen' holds a whole conversation.*messages=chosen"):
        read({"prompt": "Q", "chosen": QA}, columns=columns)


def test_parts_of_openai_s_newer_names_are_text(spelling: PreTrainedTokenizerFast) -> None:
    asked = turn("user", [{"type": "input_text", "text": "Q"}])
    said = turn("assistant", [{"type": "output_text", "text": "A"}])
    assert samples(read({"messages": [asked, said]}), spelling) == [ASKED]


def test_a_part_that_is_no_text_is_named(spelling: PreTrainedTokenizerFast) -> None:
    image = [{"type": "text", "text": "Q"}, {"type": "image_url", "image_url": {"url": "x"}}]
    with pytest.raises(DataError, match="parts of type image_url, text"):
        samples(read({"messages": [turn("user", image), QA[1]]}), spelling)
