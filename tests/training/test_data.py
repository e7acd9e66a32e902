import json
import logging
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from slackdlm.errors import DataError
from slackdlm.training.data import Dialogue, encode_samples, fingerprint, read_dialogues


def write(tmp_path: Path, *rows: Any) -> Path:
    file = tmp_path / "data.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def dialogue(num_words: int, answer: int = 1) -> Dialogue:
    turns = [("user", "w1 " * num_words), ("assistant", "w2 " * answer)]
    return Dialogue([{"role": role, "content": text} for role, text in turns], "made:1")


def test_the_three_layouts_give_the_same_dialogue(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2"}]
    rows = [{"messages": messages}, {"prompt": "w1", "response": "w2"}]
    plain = read_dialogues(write(tmp_path, *rows), prompt=None, response=None)
    file = write(tmp_path, {"question": "w1", "answer": "w2"})
    mapped = read_dialogues(file, prompt="question", response="answer")
    assert plain[0].messages == plain[1].messages == mapped[0].messages == messages


def test_sources_count_blank_lines(tmp_path: Path) -> None:
    row = {"prompt": "w1", "response": "w2"}
    file = write(tmp_path, row, "", row)
    assert [d.source for d in read_dialogues(file, prompt=None, response=None)] == [
        f"{file}:1",
        f"{file}:3",
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", r"data\.jsonl:2: not valid JSON"),
        ([1], r"data\.jsonl:2: expected a JSON object, got list"),
        ({"prompt": "w1"}, r"data\.jsonl:2: expected text in column 'response'; .* data\.columns"),
        ({"prompt": 1, "response": "w2"}, r"data\.jsonl:2: expected text in column 'prompt'"),
        ({"messages": "w1"}, r"data\.jsonl:2: expected a list of turns in 'messages'"),
        ({"messages": ["w1"]}, r"data\.jsonl:2: expected a list of turns in 'messages'"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, row: Any, message: str) -> None:
    file = write(tmp_path, {"prompt": "w1", "response": "w2"}, row)
    with pytest.raises(DataError, match=message):
        read_dialogues(file, prompt=None, response=None)


def test_a_missing_or_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: there is no such data file"):
        read_dialogues(tmp_path / "none.jsonl", prompt=None, response=None)
    with pytest.raises(DataError, match="holds no dialogue"):
        read_dialogues(write(tmp_path, ""), prompt=None, response=None)


def encode(
    dialogues: list[Dialogue], tokenizer: PreTrainedTokenizerFast, **lengths: int
) -> list[Any]:
    limits = {"max_prompt_length": 100, "canvas_length": 100, **lengths}
    return encode_samples(dialogues, tokenizer, name="train", **limits)


def test_every_assistant_turn_is_a_sample(tokenizer: PreTrainedTokenizerFast) -> None:
    roles = ["user", "assistant", "user", "assistant"]
    turns = [{"role": role, "content": f"w{i}"} for i, role in enumerate(roles)]
    first, second = encode([Dialogue(turns, "made:7")], tokenizer)
    assert first.prompt.numel() < second.prompt.numel()
    assert tokenizer.convert_ids_to_tokens(second.response.tolist()) == ["w3", "<|eot_id|>"]
    assert second.source == "made:7"


def test_an_undecodable_dialogue_is_named(tokenizer: PreTrainedTokenizerFast) -> None:
    bad = Dialogue([{"role": "assistant", "content": "w1"}], "made:9")
    with pytest.raises(DataError, match=r"^made:9: messages"):
        encode([bad], tokenizer)


def test_too_long_samples_are_left_out_and_counted(
    tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    dialogues = [dialogue(2), dialogue(2), dialogue(50), dialogue(2, answer=9)]
    with caplog.at_level(logging.WARNING):
        kept = encode(dialogues, tokenizer, max_prompt_length=20, canvas_length=8)
    assert len(kept) == 2
    (record,) = caplog.messages
    assert record.startswith("train: 2 of 4 samples are too long and left out: 1 prompts above 20")
    assert "1 responses above 8 (longest 10)" in record


@pytest.mark.parametrize("num_short", [0, 1])
def test_a_limit_that_leaves_less_than_half_is_refused(
    tokenizer: PreTrainedTokenizerFast, num_short: int
) -> None:
    dialogues = [dialogue(2)] * num_short + [dialogue(50)] * 2
    with pytest.raises(DataError, match=r"raise data\.max_prompt_length or data\.canvas_length"):
        encode(dialogues, tokenizer, max_prompt_length=20)


def test_the_fingerprint_is_that_of_the_ids_in_order(tokenizer: PreTrainedTokenizerFast) -> None:
    samples = encode([dialogue(2), dialogue(3)], tokenizer)
    assert fingerprint(samples) == fingerprint(list(samples))
    assert fingerprint(samples) != fingerprint(samples[::-1])
    assert fingerprint(samples) != fingerprint(samples[:1])
