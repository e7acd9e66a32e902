"""Another tool's valid files with one thing more: each is used, named as not used, or refused.

Every strategy draws a valid input and one plausible addition that carries a mark; ``Door.run`` gives what was used
and what was said about it. A mark that is in neither, of an input that was not refused, is the fault looked for.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from slackdlm.benchmarks.answers import read_questions
from slackdlm.errors import SlackDLMError
from slackdlm.models.chat import written_fields
from slackdlm.models.tokenizer import train_tokenizer
from slackdlm.training.data import encode_samples, read_dialogues
from slackdlm.training.dialogues import description

MARK = "zebra"
"""Word of an added value: where it is used, it is found in what was used."""


class Addition(NamedTuple):
    """A valid input with one thing more."""

    content: Any
    name: str
    """What was added, as a message would call it."""
    unwanted: str = ""
    """Word that must not be learnt or asked."""


class Result(NamedTuple):
    """What became of it."""

    used: str
    """All that was used, as text."""
    said: str
    """All that was said, errors included."""
    refused: bool


class Door(NamedTuple):
    """Where inputs of one kind come in."""

    name: str
    inputs: st.SearchStrategy[Addition]
    run: Callable[[Addition, Path], Result]
    sample: int = 60
    """How many of it the suite tries."""


def check(door: Door, addition: Addition, folder: Path) -> str:
    """``used``, ``named`` or ``refused``; AssertionError if the addition was dropped without a word."""
    result = door.run(addition, folder)
    if result.refused:
        assert "\n" not in result.said, result.said
        return "refused"
    assert not addition.unwanted or addition.unwanted not in result.used, (
        f"{addition.name}: {addition.unwanted} was learnt or asked"
    )
    if addition.unwanted:
        return "used"
    if MARK in result.used:
        return "used"
    assert addition.name in result.said, f"{addition.name}: neither used, named nor refused"
    return "named"


@contextmanager
def listening() -> Iterator[list[str]]:
    """What is logged while it lasts."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler, logger = Handler(), logging.getLogger("slackdlm")
    disabled, level = logging.root.manager.disable, logger.level
    logging.disable(logging.NOTSET)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logging.disable(disabled)
        logger.removeHandler(handler)
        logger.setLevel(level)


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(["any text"], vocab_size=263, kind="byte_bpe")


def write_rows(file: Path, rows: list[Any]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


# Rows to train on

ROW_FIELDS = (
    "input", "context", "system", "system_prompt", "history", "tools", "functions", "source", "dataset", "id",
    "category", "reasoning", "thinking", "reasoning_content", "chosen", "rejected", "score", "answer", "text",
    "instruction", "query", "hint", "choices", "documents", "images", "language", "metadata", "label_text", "rubric",
)  # fmt: skip
TURN_FIELDS = (
    "name", "reasoning_content", "thinking", "reasoning", "tool_calls", "function_call", "audio", "refusal",
    "annotations", "citations", "tool_call_id", "prefix", "id", "timestamp", "metadata", "images",
)  # fmt: skip
NOT_LEARNT = (
    ("weight", 0), ("weight", 0.0), ("train", False), ("train_on_turn", False), ("learn", False), ("loss", False),
    ("loss_weight", 0), ("trainable", False), ("training", False), ("mask", True),
)  # fmt: skip
VALUES = (
    f"the {MARK} runs",
    [f"the {MARK} runs"],
    {"key": f"the {MARK} runs"},
    [{"role": "user", "content": f"the {MARK} runs"}, {"role": "assistant", "content": "x"}],
    [[f"the {MARK} runs", "yes"]],
    [{"type": "function", "function": {"name": f"{MARK}", "arguments": "{}"}}],
)


def turns(names: tuple[str, str, str, str]) -> list[dict[str, Any]]:
    role, text, user, assistant = names
    said = ["What is 1 plus 1?", "It is 2.", "And 2 plus 2?", "It is 4."]
    return [{role: (user, assistant)[n % 2], text: words} for n, words in enumerate(said)]


CHAT, SHAREGPT = ("role", "content", "user", "assistant"), ("from", "value", "human", "gpt")
ROWS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("messages", {"messages": turns(CHAT)}),
    ("conversations", {"conversations": turns(SHAREGPT)}),
    ("", {"prompt": "What is 1 plus 1?", "response": "It is 2."}),
    ("", {"instruction": "Add them.", "input": "1 and 1", "output": "It is 2."}),
    ("", {"question": "What is 1 plus 1?", "answer": "It is 2."}),
    ("prompt", {"prompt": turns(CHAT)[:1], "completion": turns(CHAT)[1:2]}),
)


@st.composite
def rows(draw: st.DrawFn) -> Addition:
    column, row = draw(st.sampled_from(ROWS))
    row = json.loads(json.dumps(row))
    unwanted = ""
    if column and draw(st.booleans()):
        place = draw(st.integers(0, len(row[column]) - 1))
        turn = row[column][place]
        is_answer = turn.get("role", turn.get("from")) in ("assistant", "gpt")
        if is_answer and draw(st.booleans()):
            name, value = draw(st.sampled_from(NOT_LEARNT))
            text = "content" if "content" in turn else "value"
            turn[text] = unwanted = f"never {MARK}"
        else:
            name, value = draw(st.sampled_from(TURN_FIELDS)), draw(st.sampled_from(VALUES))
        if name in turn:
            return draw(rows())
        turn[name] = value
    else:
        name, value = draw(st.sampled_from(ROW_FIELDS)), draw(st.sampled_from(VALUES))
        if name in row:
            return draw(rows())
        row[name] = value
    plain = json.loads(json.dumps(dict(ROWS)[column] if column else row))
    plain.pop(name, None)
    place = draw(st.integers(0, 2))
    content = [json.loads(json.dumps(plain)) for _ in range(3)]
    content[place] = row
    return Addition(content, name, unwanted)


def read_rows_to_train_on(addition: Addition, folder: Path) -> Result:
    file = write_rows(folder / "rows.jsonl", addition.content)
    with listening() as lines:
        try:
            dialogues = read_dialogues(file)
            said, _ = description(dialogues, written_fields(tokenizer()), None)
            samples = encode_samples(
                dialogues,
                tokenizer(),
                name="rows",
                max_prompt_length=4000,
                canvas_length=4000,
                max_unusable=1,
            )
        except SlackDLMError as error:
            return Result("", str(error), refused=True)
    prompts, responses = (
        " ".join(str(tokenizer().decode(getattr(s, part).tolist())) for s in samples)
        for part in ("prompt", "response")
    )
    used = responses if addition.unwanted else f"{prompts} {responses}"
    return Result(used, " ".join([said, *lines]), refused=False)


# Questions

QUESTION_FIELDS = (
    "system", "input", "context", "choices", "reference", "answer", "history", "tools", "instruction", "cluster",
    "source", "options", "image", "language", "difficulty", "checklist", "documents", "response", "messages_en",
)  # fmt: skip


@st.composite
def questions(draw: st.DrawFn) -> Addition:
    chat = draw(st.booleans())
    content: list[dict[str, Any]] = [
        {"messages": turns(CHAT)[:1]} if chat else {"prompt": f"What is {n} plus 1?"}
        for n in range(3)
    ]
    row = content[draw(st.integers(0, 2))]
    if chat and draw(st.booleans()):
        if draw(st.booleans()):  # a reference answer behind the question
            row["messages"] = [*row["messages"], {"role": "assistant", "content": f"never {MARK}"}]
            return Addition(content, "turns behind the last user", f"never {MARK}")
        name = draw(st.sampled_from(TURN_FIELDS))
        row["messages"][0][name] = draw(st.sampled_from(VALUES))
    else:
        name = draw(st.sampled_from(QUESTION_FIELDS))
        row[name] = draw(st.sampled_from(VALUES))
    return Addition(content, name)


def read_questions_to_ask(addition: Addition, folder: Path) -> Result:
    file = write_rows(folder / "questions.jsonl", addition.content)
    with listening() as lines:
        try:
            asked = read_questions(file)
        except SlackDLMError as error:
            return Result("", str(error), refused=True)
    used = " ".join(turn["content"] for question in asked for turn in question.messages)
    return Result(used, " ".join(lines), refused=False)


def all_doors() -> list[Door]:
    return [
        Door("rows to train on", rows(), read_rows_to_train_on, sample=150),
        Door("questions", questions(), read_questions_to_ask),
    ]
