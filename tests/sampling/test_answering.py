"""Answers are the same however they came about: killed, resumed, shared among processes, in any batches."""

import json
import os
import subprocess
import sys
from dataclasses import make_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_questions import toy_model, toy_questions

from slackdlm.benchmarks.answers import read_answers, read_benchmark_questions, read_questions
from slackdlm.errors import ConfigError, DataError
from slackdlm.models.adapter import new_adapter
from slackdlm.models.identity import model_identity
from slackdlm.models.loaded import LoadedModel
from slackdlm.records import Question
from slackdlm.sampling.answering import (
    Answered,
    Shard,
    answer_questions,
    shard_from_environment,
)
from slackdlm.sampling.sampler import Sampler, SamplerConfig

CONFIG = SamplerConfig(canvas_length=8, steps=2, batch_size=4)
SCRIPT = Path(__file__).parents[1] / "support" / "answering_process.py"


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return toy_model()


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def without_seconds(path: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(path)]


def test_kills_processes_and_batches_change_no_answer(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], check=True, env=environment)
    whole = without_seconds(tmp_path / "whole.jsonl")
    assert [(row["id"], row["turn"]) for row in whole] == [
        (question.id, turn)
        for question in toy_questions(11)
        for turn in range(1, 2 + len(question.later_turns))
    ]
    assert len({row["text"] for row in whole}) > 8, "answers that can tell rows apart"
    assert without_seconds(tmp_path / "resumed.jsonl") == whole
    assert without_seconds(tmp_path / "sharded.jsonl") == whole
    counts = [len(rows(file)) for file in (tmp_path / "sharded.jsonl.journal").iterdir()]
    assert sum(counts) == len(whole), "nothing was answered twice"
    assert len(counts) == 3, "one that was killed, and the two that went on"


def test_a_row_says_all_that_decided_it(model: LoadedModel, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    answered = answer_questions(model, toy_questions(2), CONFIG, output, system="mine")
    assert answered == Answered(output, 2, 3, [])
    first, _, second_turn = rows(output)
    assert set(first) == set(
        "id category turn system prompt text tokens canvas forwards dose seconds slack_share seed "
        "settings intervention model device".split()
    )
    assert first["device"] == "cpu"
    assert first["model"] == model_identity(model)
    assert first["seed"] == [0, 0]
    assert first["settings"]["steps"] == 2
    assert "batch_size" not in first["settings"]
    assert len(first["canvas"]) == 8
    assert second_turn["turn"] == 2
    question = toy_questions(2)[1]
    assert second_turn["prompt"] == [
        *question.messages,
        {"role": "assistant", "content": rows(output)[1]["text"]},
        {"role": "user", "content": question.later_turns[0]},
    ]
    answer = read_answers(output)[1]
    assert answer.turns == (rows(output)[1]["text"], second_turn["text"])
    assert (answer.question_id, answer.system) == ("q1", "mine")


def test_a_second_run_decodes_nothing(model: LoadedModel, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    answer_questions(model, toy_questions(4), CONFIG, output)
    before = output.read_bytes()
    counts: list[int] = []
    answer_questions(
        model, toy_questions(4), replace(CONFIG, batch_size=1), output, on_answers=counts.append
    )
    assert output.read_bytes() == before, "the recorded seconds show that nothing ran again"
    assert counts == [4, 2]


def test_a_setting_added_later_makes_no_answer_another_one(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "answers.jsonl"
    answer_questions(model, toy_questions(4), CONFIG, output)
    before = rows(output)
    later = make_dataclass(
        "Later", [("added", int, 3)], bases=(SamplerConfig,), frozen=True, kw_only=True
    )
    monkeypatch.setattr("slackdlm.sampling.config.SamplerConfig", later)
    config = later(canvas_length=8, steps=2)
    answer_questions(model, toy_questions(4), config, output)
    after = rows(output)
    assert [row["seconds"] for row in after] == [row["seconds"] for row in before]
    assert {row["settings"]["added"] for row in after} == {3}, "rows hold every setting"
    answer_questions(model, toy_questions(4), replace(config, added=4), output)
    assert [row["seconds"] for row in rows(output)] != [row["seconds"] for row in before]


def test_another_kind_of_device_answers_anew(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "answers.jsonl"
    answer_questions(model, toy_questions(2), CONFIG, output)
    answer = Sampler(model, CONFIG).generate(["tell cat"])[0]
    monkeypatch.setattr(LoadedModel, "device", property(lambda _: torch.device("cuda:1")))
    monkeypatch.setattr(Sampler, "generate", lambda _, prompts, row_ids: [answer] * len(prompts))
    answer_questions(model, toy_questions(2), CONFIG, output)
    assert [(row["device"], row["text"]) for row in rows(output)] == [("cuda", answer.text)] * 3


def test_other_settings_weights_or_noise_are_other_answers(
    model: LoadedModel, tmp_path: Path
) -> None:
    output = tmp_path / "answers.jsonl"
    answer_questions(model, toy_questions(2), CONFIG, output)
    answer_questions(model, toy_questions(2), replace(CONFIG, steps=4), output)
    assert {row["settings"]["steps"] for row in rows(output)} == {4}
    answer_questions(toy_model(seed=4), toy_questions(2), CONFIG, output)
    files = (tmp_path / "answers.jsonl.journal").iterdir()
    assert len({row["key"] for file in files for row in rows(file)}) == 3 * 3


def test_a_question_s_place_decides_its_noise(model: LoadedModel, tmp_path: Path) -> None:
    same = [replace(toy_questions(1)[0], id=f"q{row}") for row in range(4)]
    answer_questions(model, same, replace(CONFIG, temperature=1.0), tmp_path / "answers.jsonl")
    assert len({row["text"] for row in rows(tmp_path / "answers.jsonl")}) == 4


def test_a_question_that_cannot_be_asked_is_reported_and_the_rest_answered(
    model: LoadedModel, tmp_path: Path
) -> None:
    long = Question("long", None, ({"role": "user", "content": "the " * 200},), ("the",))
    output = tmp_path / "answers.jsonl"
    answered = answer_questions(model, [*toy_questions(2), long], CONFIG, output)
    assert answered is not None
    assert answered.num_answers == 3
    first, second = answered.unanswered
    assert (first.question_id, first.turn) == ("long", 1)
    assert "longer than the" in first.error
    assert (second.turn, second.error) == (2, "the turn before has no answer")
    assert {row["id"] for row in rows(output)} == {"q0", "q1"}


def test_no_process_writes_the_output_before_all_are_done(
    model: LoadedModel, tmp_path: Path
) -> None:
    output = tmp_path / "answers.jsonl"
    assert answer_questions(model, toy_questions(4), CONFIG, output, shard=Shard(1, 2)) is None
    assert answer_questions(model, toy_questions(4), CONFIG, output, shard=Shard(1, 2)) is None
    assert not output.exists()
    assert answer_questions(model, toy_questions(4), CONFIG, output, shard=Shard(0, 2)) is not None
    assert len(rows(output)) == 6


def test_an_empty_first_answer_is_followed_by_the_second_turn(
    model: LoadedModel, tmp_path: Path
) -> None:
    # Everything is the end of the text: the canvas says nothing.
    silent = replace(model, eos_ids=tuple(range(len(model.tokenizer))))
    output = tmp_path / "answers.jsonl"
    answered = answer_questions(silent, toy_questions(2), CONFIG, output)
    assert answered is not None
    assert answered.unanswered == []
    assert [row["text"] for row in rows(output)] == ["", "", ""]


def test_the_model_s_hash_knows_the_adapter_from_the_base() -> None:
    plain, adapted = model_identity(toy_model()), model_identity(_adapted(seed=0))
    assert plain["adapter_sha256"] is None
    assert adapted["sha256"] == plain["sha256"]
    other = model_identity(_adapted(seed=1))
    assert other["sha256"] == plain["sha256"]
    assert len({adapted["adapter_sha256"], other["adapter_sha256"], None}) == 3
    assert model_identity(toy_model(seed=4))["sha256"] != plain["sha256"]


def _adapted(*, seed: int) -> LoadedModel:
    return new_adapter(toy_model(), rank=2, alpha=4, dropout=0.0, seed=seed)


@pytest.mark.parametrize(
    ("rank", "world_size"), [("2", "2"), ("-1", "2"), ("x", "1"), ("0", ""), ("0", "0")]
)
def test_a_rank_outside_the_world_is_an_error(rank: str, world_size: str) -> None:
    with pytest.raises(ConfigError, match="expected numbers with 0 <= RANK < WORLD_SIZE"):
        shard_from_environment({"RANK": rank, "WORLD_SIZE": world_size})


def test_without_a_launcher_a_process_takes_all() -> None:
    assert shard_from_environment({}) == Shard(0, 1)
    assert shard_from_environment({"RANK": "1", "WORLD_SIZE": "4"}) == Shard(1, 4)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("folder", "it is a folder"),
        ("file/answers.jsonl", "file is no folder"),
        ("answers.jsonl", r"answers\.jsonl\.journal is no folder"),
    ],
)
def test_an_output_that_cannot_be_written_is_an_error_before_any_work(
    model: LoadedModel, tmp_path: Path, place: str, reason: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "answers.jsonl.journal").write_text("")
    with pytest.raises(ConfigError, match=rf"cannot be written \(.*{reason}\)"):
        answer_questions(model, toy_questions(1), CONFIG, tmp_path / place)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"prompt": "caf\xe9"}\n', r"q\.jsonl: not UTF-8 text \(byte 15\)"),
        (b'{"messages": ["hi"]}\n', r"q\.jsonl:1: 'messages'\[0\]: expected .*, got 'hi'"),
        (b'{"messages": "hi"}\n', r"q\.jsonl:1: 'messages': expected a list of turns, got str"),
        (b'{"messages": []}\n', r"q\.jsonl:1: expected a question with words"),
        (b'{"prompt": " "}\n', r"q\.jsonl:1: expected a question with words"),
        (b'{"question": "x"}\n', r"q\.jsonl:1: expected a text in 'prompt', which is missing"),
        (b'{"prompt": 3}\n', r"q\.jsonl:1: expected a text in 'prompt', got 3"),
        (b'{"prompt": "x", "id": []}\n', r"q\.jsonl:1: expected an id"),
        (b'{"prompt": "x", "id": 1}\n{"prompt": "y", "id": "1"}', "two questions have the id '1'"),
        (b"[]\n", r"q\.jsonl: expected a list of questions, got \[\]"),
        (b"id,prompt\n1,x\n", r"q\.jsonl:1: not valid JSON"),
        (b'{"prompt": "x"\n', r"q\.jsonl:1: not valid JSON"),
        (b"\n", "holds no line"),
    ],
)
def test_a_bad_question_file_is_one_clear_error(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "q.jsonl"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_questions(file)


@pytest.mark.parametrize("key", ["id", "question_id", "uid"])
def test_a_question_keeps_its_id_by_any_of_its_names(tmp_path: Path, key: str) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(json.dumps({key: "q7", "prompt": "x"}) + '\n{"prompt": "y"}\n')
    assert [question.id for question in read_questions(file)] == ["q7", "1"]


def no_robots(number: int) -> dict[str, Any]:
    """A row as no_robots and UltraChat are published, with the reference answer behind the question."""
    said = [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": "a"}]
    return {"prompt": f"q{number}", "prompt_id": f"p{number}", "messages": said, "category": "QA"}


def test_messages_are_asked_up_to_the_last_user_turn_and_the_rest_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "q.jsonl"
    plain = {"messages": [{"role": "user", "content": "q2", "name": "Ann"}], "tools": None}
    file.write_text("".join(json.dumps(row) + "\n" for row in (no_robots(0), no_robots(1), plain)))
    questions = read_questions(file)
    asked = [({"role": "user", "content": f"q{number}"},) for number in range(3)]
    assert [question.messages for question in questions] == asked
    assert [question.category for question in questions] == ["QA", "QA", None]
    assert caplog.messages == [
        f"{file}: not used of its questions: turns behind the last user's (2 of 3 rows), prompt (2 of"
        " 3 rows), prompt_id (2 of 3 rows), name (of turns) (1 of 3 rows)"
    ]


def test_a_named_column_is_asked_even_beside_messages(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "q.jsonl"
    messages = [{"role": "user", "content": "Nenne eine Farbe."}]
    row = {"id": "a", "prompt_en": "Name a colour.", "messages": messages, "input": ""}
    file.write_text(json.dumps(row) + "\n")
    assert read_questions(file, column="prompt_en")[0].prompt == "Name a colour."
    assert caplog.messages == [f"{file}: not used of its questions: messages"]
    assert read_questions(file)[0].prompt == "Nenne eine Farbe."
    with pytest.raises(DataError, match="expected a text in 'prompt_fr', which is missing"):
        read_questions(file, column="prompt_fr")
    with pytest.raises(ConfigError, match="--column: has no effect beside --benchmark arena-hard"):
        read_benchmark_questions(file, "arena-hard", column="prompt_en")


def test_questions_of_other_files_are_those_of_jsonl(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    told = [{"messages": [{"from": "human", "value": f"q{number}"}]} for number in range(2)]
    lines = tmp_path / "q.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in told))
    (tmp_path / "q.json").write_text(json.dumps(told))
    pq.write_table(pa.Table.from_pylist(told), tmp_path / "q.parquet")
    expected = read_questions(lines)
    assert [(question.id, question.prompt) for question in expected] == [("0", "q0"), ("1", "q1")]
    assert read_questions(tmp_path / "q.json") == expected
    assert read_questions(tmp_path / "q.parquet") == expected


def test_fewer_than_one_question_cannot_be_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--first: expected at least 1, got 0"):
        read_questions(tmp_path / "any", first=0)


def test_benchmark_files_are_read_as_questions(excerpts: Path, tmp_path: Path) -> None:
    arena = read_benchmark_questions(
        excerpts / "arena_hard" / "v2.0_questions.jsonl", "arena-hard", first=2
    )
    assert len(arena) == 2
    (mt, *_) = read_benchmark_questions(excerpts / "mt_bench" / "questions.jsonl", "mt-bench")
    assert len(mt.later_turns) == 1
    told = {"category": "c", "writing_prompt": "Write. <SEED>", "seed_modifiers": ["one", "two"]}
    (tmp_path / "prompts.json").write_text(json.dumps({"9": told}))
    pieces = read_benchmark_questions(tmp_path / "prompts.json", "creative-writing")
    assert [(piece.id, piece.prompt) for piece in pieces] == [
        ("9#1", "Write. one"), ("9#2", "Write. two"), ("9#3", "Write. one"),
    ]  # fmt: skip
    (tmp_path / "alpaca.json").write_text(json.dumps([{"instruction": "Say.", "dataset": "d"}]))
    (said,) = read_benchmark_questions(tmp_path / "alpaca.json", "alpaca-eval")
    assert (said.prompt, said.category) == ("Say.", "d")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"id": 1, "system": "s", "text": "x"}, "expected a number from 1 in 'turn'"),
        ({"id": 1, "system": "s", "text": "x", "turn": 2}, "but not every turn before it"),
        ({"id": 1, "system": "s", "turn": 1}, "expected a text in 'text'"),
        ({"id": 1, "text": "x", "turn": 1}, "expected a text in 'system'"),
    ],
)
def test_a_bad_answer_file_is_one_clear_error(
    tmp_path: Path, line: dict[str, Any], message: str
) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text(json.dumps(line) + "\n")
    with pytest.raises(DataError, match=message):
        read_answers(file)
