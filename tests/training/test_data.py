import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from slackdlm.errors import DataError
from slackdlm.training.config import ColumnsConfig
from slackdlm.training.data import (
    Sample,
    encode_samples,
    fingerprint,
    num_shared,
    read_dialogues,
)
from slackdlm.training.dialogues import Dialogue
from slackdlm.training.rows import check_there


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
    plain = read_dialogues(write(tmp_path, *rows))
    file = write(tmp_path, {"question": "w1", "answer": "w2"})
    mapped = read_dialogues(file, columns=ColumnsConfig(prompt="question", response="answer"))
    assert plain[0].messages == plain[1].messages == mapped[0].messages == messages


def test_sources_count_blank_lines(tmp_path: Path) -> None:
    row = {"prompt": "w1", "response": "w2"}
    file = write(tmp_path, row, "", row)
    assert [d.source for d in read_dialogues(file)] == [
        f"{file}:1",
        f"{file}:3",
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", r"data\.jsonl:2: not valid JSON"),
        ([1], r"data\.jsonl:2: expected a JSON object, got list"),
        (
            {"prompt": "w1"},
            r"data\.jsonl:2: expected .* text in 'prompt' and 'response'; .* data\.columns",
        ),
        ({"messages": "w1"}, r"data\.jsonl:2: messages: expected a list of turns, got str"),
        ({"messages": ["w1"]}, r"data\.jsonl:2: messages\[0\]: expected \{\"role\": .* got 'w1'"),
        ({"messages": [{"role": "user"}]}, r"data\.jsonl:2: messages\[0\]: expected \{\"role\""),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, row: Any, message: str) -> None:
    file = write(tmp_path, {"prompt": "w1", "response": "w2"}, row)
    with pytest.raises(DataError, match=message):
        read_dialogues(file)


def test_a_missing_or_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: there is no such data file"):
        read_dialogues(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="holds no dialogue"):
        read_dialogues(write(tmp_path, ""))


@pytest.mark.parametrize("name", ["owner/data.jsonl", "owner/data.parquet", "owner/deep/name", "x"])
def test_a_name_that_no_hub_has_is_a_missing_file(name: str) -> None:
    for ask in (check_there, read_dialogues):
        with pytest.raises(DataError, match=rf"{name}: there is no such data file"):
            ask(name)


def test_a_hub_s_name_passes_unless_its_owner_is_a_folder_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_there("owner/some.data_set-2")
    (tmp_path / "owner").mkdir()
    with pytest.raises(DataError, match="there is no such data file"):
        check_there("owner/some.data_set-2")


def encode(
    dialogues: list[Dialogue], tokenizer: PreTrainedTokenizerFast, **lengths: Any
) -> list[Any]:
    limits: dict[str, Any] = {"max_prompt_length": 100, "canvas_length": 100, **lengths}
    return encode_samples(dialogues, tokenizer, name="train", **limits)


def test_every_assistant_turn_is_a_sample(tokenizer: PreTrainedTokenizerFast) -> None:
    roles = ["user", "assistant", "user", "assistant"]
    turns = [{"role": role, "content": f"w{i}"} for i, role in enumerate(roles)]
    first, second = encode([Dialogue(turns, "made:7")], tokenizer)
    assert first.prompt.numel() < second.prompt.numel()
    assert tokenizer.convert_ids_to_tokens(second.response.tolist()) == ["w3", "<|eot_id|>"]
    assert second.source == "made:7"


def test_a_dialogue_without_an_answer_is_left_out_and_named(
    tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    bad = Dialogue([{"role": "assistant", "content": "w1"}], "made:9")
    with caplog.at_level(logging.WARNING):
        kept = encode([dialogue(2)] * 9 + [bad], tokenizer)
    assert len(kept) == 9
    assert caplog.messages == [
        "train: 1 of 10 samples left out: 1 cannot be used, messages[0]: expected a"
        " user's or system's message first, got assistant's (made:9)"
    ]
    with pytest.raises(DataError, match=r"\(made:9\)\. None is left; repair these rows$"):
        encode([bad], tokenizer)


def test_several_processes_say_once_what_is_left_out(
    tokenizer: PreTrainedTokenizerFast,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    second = SimpleNamespace(is_main_process=False)
    monkeypatch.setattr("slackdlm.training.data.this_process", lambda: second)
    bad = Dialogue([{"role": "assistant", "content": "w1"}], "made:9")
    with caplog.at_level(logging.WARNING):
        assert len(encode([dialogue(2)] * 9 + [bad], tokenizer)) == 9
    assert caplog.messages == []


def test_rows_whose_turns_are_no_text_are_left_out_and_named(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    calls = [{"role": "user", "content": "w1"}, {"role": "assistant", "content": None}]
    parts = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    role = [{"role": 1, "content": "w1"}]
    bad = [{"prompt": "w1", "response": None}, *({"messages": m} for m in (calls, parts, role))]
    file = write(tmp_path, *[{"prompt": "w1", "response": "w2"}] * 36, *bad)
    with caplog.at_level(logging.WARNING):
        assert len(encode(read_dialogues(file), tokenizer)) == 36
    assert caplog.messages == [
        "train: 4 of 40 samples left out: 2 cannot be used, messages[1]: expected content to be text,"
        f" got NoneType ({file}:37, {file}:38); 1 cannot be used, messages[0]: expected content to be"
        f" text, got parts of type image_url ({file}:39); 1 cannot be used, messages[0]: unknown role 1; use 'system',"
        f" 'user' or 'assistant' ({file}:40)"
    ]


def test_samples_are_shared_if_prompt_and_response_are() -> None:
    def sample(prompt: int, response: int) -> Sample:
        return Sample(torch.tensor([prompt]), torch.tensor([response]), f"{prompt}-{response}")

    others = [sample(1, 2), sample(1, 2), sample(3, 4)]
    assert num_shared([sample(1, 2), sample(2, 1), sample(1, 4), sample(1, 2)], others) == 2
    assert num_shared([], others) == num_shared(others, []) == 0


def test_rows_that_cannot_be_used_are_grouped_by_their_reason(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    def bad(role: str, number: int) -> Dialogue:
        return Dialogue([{"role": role, "content": "w1"}], f"made:{number}")

    roles = ["bot", "assistant", "bot", "user", "owl", "system"]
    dialogues = [bad(role, number) for number, role in enumerate(roles)]
    with pytest.raises(
        DataError,
        match=r"6 of 6 samples left out: 2 cannot be used, messages\[0\]: unknown role 'bot'.* \(made:0,"
        r" made:2\); 2 cannot be used, .* got none \(made:3, made:5\); 1 cannot be used, .* \(made:1\);"
        r" 1 cannot be used for other reasons\. None is left; repair these rows$",
    ):
        encode(dialogues, tokenizer)


def test_too_long_samples_are_left_out_whole_counted_and_named(
    tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    dialogues = [dialogue(2), dialogue(2), dialogue(50), dialogue(2, answer=9)]
    with caplog.at_level(logging.WARNING):
        kept = encode(dialogues, tokenizer, max_prompt_length=20, canvas_length=8, max_unusable=0.5)
    assert len(kept) == 2
    assert kept[0].prompt.tolist() == encode(dialogues[:1], tokenizer)[0].prompt.tolist()
    (record,) = caplog.messages
    assert record.startswith("train: 2 of 4 samples left out: 1 prompt above 20 tokens")
    assert "1 response above 8 tokens, longest 10 (made:1)" in record


def test_many_names_are_cut_short(tokenizer: PreTrainedTokenizerFast) -> None:
    long = [dialogue(50)._replace(source=f"made:{n}") for n in range(7)]
    with pytest.raises(
        DataError, match=r"\(made:0, .*, made:4, and 2 more\)\. None is left; raise"
    ):
        encode(long, tokenizer, max_prompt_length=20)


@pytest.mark.parametrize(
    ("num_short", "limit", "verdict"),
    [(0, 1.0, "None is left"), (8, 0.1, r"That is more than data\.max_unusable \(0\.1\)")],
)
@pytest.mark.parametrize(
    ("unusable", "advice"),
    [
        (dialogue(50), r"raise data\.max_prompt_length$"),
        (dialogue(2, answer=50), r"raise data\.canvas_length$"),
    ],
)
def test_too_many_unusable_samples_are_refused(
    tokenizer: PreTrainedTokenizerFast,
    num_short: int,
    limit: float,
    verdict: str,
    unusable: Dialogue,
    advice: str,
) -> None:
    dialogues = [dialogue(2)] * num_short + [unusable] * 2
    with pytest.raises(DataError, match=rf"{verdict}; {advice}"):
        encode(dialogues, tokenizer, max_prompt_length=20, canvas_length=20, max_unusable=limit)


ROWS = [{"question": f"w{n}", "answer": f"w{n + 1}"} for n in range(6)]
COLUMNS = ColumnsConfig(prompt="question", response="answer")


def test_parquet_and_a_folder_give_what_jsonl_gives(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), file)
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "test.jsonl").write_text(json.dumps(ROWS[3]) + "\n")
    expected = [d.messages for d in read_dialogues(write(tmp_path, *ROWS), columns=COLUMNS)]
    assert len(expected) == 6
    parquet = read_dialogues(file, columns=COLUMNS)
    assert [d.messages for d in parquet] == expected
    assert parquet[1].source == f"{file}:2"
    assert [d.messages for d in read_dialogues(folder, columns=COLUMNS)] == expected
    (test,) = read_dialogues(folder, columns=COLUMNS, split="test")
    assert (test.messages, test.source) == (expected[3], f"{folder / 'test.jsonl'}:1")


def test_nested_messages_come_out_of_parquet_too(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2"}]
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([{"turns": messages}]), file)
    (found,) = read_dialogues(file, columns=ColumnsConfig(messages="turns"))
    assert found.messages == messages


def test_a_hub_data_set_is_read_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def load_dataset(*arguments: Any, **settings: Any) -> Iterator[dict[str, str]]:
        calls.append((arguments, settings))
        for row in ROWS:
            assert len(calls) == 1
            yield row

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    where = {"split": "train_sft", "subset": "main", "streaming": True}
    found = read_dialogues("owner/some-set", columns=COLUMNS, limit=2, **where)
    assert [d.source for d in found] == [
        "owner/some-set[train_sft]:1",
        "owner/some-set[train_sft]:2",
    ]
    settings = {"name": "main", "split": "train_sft", "streaming": True}
    assert calls == [(("owner/some-set",), settings)]


def test_a_hub_data_set_out_of_reach_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*arguments: Any, **settings: Any) -> None:
        raise ConnectionError("Couldn't reach it")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    message = r"owner/set\[train\]: datasets cannot read it \(ConnectionError: .*; check name, split .* and network"
    with pytest.raises(DataError, match=message):
        read_dialogues("owner/set")


def test_what_datasets_cannot_read_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("datasets"), "propagate", True)
    file = tmp_path / "rows.parquet"
    file.write_bytes(b"no parquet")
    with pytest.raises(
        DataError, match=r"rows\.parquet: datasets cannot read .*; copy the file again"
    ):
        read_dialogues(file)
    assert not caplog.messages
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    with pytest.raises(
        DataError, match=r"set\[nope\]: there is no such split, only train; set data\.split"
    ):
        read_dialogues(folder, split="nope")


def test_a_file_that_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "latin.jsonl"
    file.write_bytes(b'{"prompt": "a", "response": "b"}\n{"prompt": "\xe9", "response": "b"}\n')
    with pytest.raises(DataError, match=r"latin\.jsonl:2: expected UTF-8 text .*save the file"):
        read_dialogues(file)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "mark.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"prompt": "a", "response": "b"}\n')
    assert read_dialogues(file)[0].messages[0]["content"] == "a"


def test_the_fingerprint_is_that_of_the_ids_in_order(tokenizer: PreTrainedTokenizerFast) -> None:
    samples = encode([dialogue(2), dialogue(3)], tokenizer)
    assert fingerprint(samples) == fingerprint(list(samples))
    assert fingerprint(samples) != fingerprint(samples[::-1])
    assert fingerprint(samples) != fingerprint(samples[:1])
