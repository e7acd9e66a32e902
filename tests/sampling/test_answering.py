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

from slackdlm.benchmarks.answers import read_answers
from slackdlm.errors import ConfigError
from slackdlm.models.adapter import new_adapter
from slackdlm.models.identity import model_identity
from slackdlm.models.loaded import LoadedModel
from slackdlm.records import Question
from slackdlm.sampling.answering import Answered, Shard, answer_questions, shard_from_environment
from slackdlm.sampling.sampler import Sampler, SamplerConfig

CONFIG = SamplerConfig(canvas_length=8, steps=2, batch_size=4)
SCRIPT = Path(__file__).parents[1] / "support" / "answering_process.py"


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return toy_model()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


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


def test_a_row_says_all_that_decided_it(model: LoadedModel, output: Path) -> None:
    answered = answer_questions(Sampler(model, CONFIG), toy_questions(2), output, system="mine")
    assert answered == Answered(output, 2, 3, [])
    first, second, second_turn = rows(output)
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
        {"role": "assistant", "content": second["text"]},
        {"role": "user", "content": question.later_turns[0]},
    ]
    answer = read_answers(output)[1]
    assert answer.turns == (second["text"], second_turn["text"])
    assert (answer.question_id, answer.system) == ("q1", "mine")


def test_a_second_run_decodes_nothing(model: LoadedModel, output: Path) -> None:
    answer_questions(Sampler(model, CONFIG), toy_questions(4), output)
    before = output.read_bytes()
    counts: list[int] = []
    other = replace(CONFIG, batch_size=1)
    answer_questions(Sampler(model, other), toy_questions(4), output, on_answers=counts.append)
    assert output.read_bytes() == before, "the recorded seconds show that nothing ran again"
    assert counts == [4, 2]


def test_a_setting_added_later_makes_no_answer_another_one(
    model: LoadedModel, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_questions(Sampler(model, CONFIG), toy_questions(4), output)
    before = [row["seconds"] for row in rows(output)]
    later = make_dataclass(
        "Later", [("added", int, 3)], bases=(SamplerConfig,), frozen=True, kw_only=True
    )
    monkeypatch.setattr("slackdlm.sampling.config.SamplerConfig", later)
    config = later(canvas_length=8, steps=2)
    answer_questions(Sampler(model, config), toy_questions(4), output)
    assert [row["seconds"] for row in rows(output)] == before
    assert {row["settings"]["added"] for row in rows(output)} == {3}, "rows hold every setting"
    answer_questions(Sampler(model, replace(config, added=4)), toy_questions(4), output)
    assert [row["seconds"] for row in rows(output)] != before


def test_other_settings_weights_or_devices_are_other_answers(
    model: LoadedModel, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_questions(Sampler(model, CONFIG), toy_questions(2), output)
    answer_questions(Sampler(model, replace(CONFIG, steps=4)), toy_questions(2), output)
    assert {row["settings"]["steps"] for row in rows(output)} == {4}
    answer_questions(Sampler(toy_model(seed=4), CONFIG), toy_questions(2), output)
    answer = Sampler(model, CONFIG).generate(["tell cat"])[0]
    monkeypatch.setattr(LoadedModel, "device", property(lambda _: torch.device("cuda:1")))
    monkeypatch.setattr(Sampler, "generate", lambda _, prompts, row_ids: [answer] * len(prompts))
    answer_questions(Sampler(model, CONFIG), toy_questions(2), output)
    assert [(row["device"], row["text"]) for row in rows(output)] == [("cuda", answer.text)] * 3
    files = output.with_name("answers.jsonl.journal").iterdir()
    assert len({row["key"] for file in files for row in rows(file)}) == 4 * 3


def test_a_question_s_place_decides_its_noise(model: LoadedModel, output: Path) -> None:
    same = [replace(toy_questions(1)[0], id=f"q{row}") for row in range(4)]
    answer_questions(Sampler(model, replace(CONFIG, temperature=1.0)), same, output)
    assert len({row["text"] for row in rows(output)}) == 4


def test_a_question_that_cannot_be_asked_is_reported_and_the_rest_answered(
    model: LoadedModel, output: Path
) -> None:
    long = Question("long", None, ({"role": "user", "content": "the " * 200},), ("the",))
    answered = answer_questions(Sampler(model, CONFIG), [*toy_questions(2), long], output)
    assert answered is not None
    assert answered.num_answers == 3
    first, second = answered.unanswered
    assert (first.question_id, first.turn) == ("long", 1)
    assert "longer than the" in first.error
    assert (second.turn, second.error) == (2, "the turn before has no answer")
    assert {row["id"] for row in rows(output)} == {"q0", "q1"}


def test_no_process_writes_the_output_before_all_are_done(model: LoadedModel, output: Path) -> None:
    for _ in range(2):
        assert (
            answer_questions(Sampler(model, CONFIG), toy_questions(4), output, shard=Shard(1, 2))
            is None
        )
        assert not output.exists()
    assert (
        answer_questions(Sampler(model, CONFIG), toy_questions(4), output, shard=Shard(0, 2))
        is not None
    )
    assert len(rows(output)) == 6


def test_an_empty_first_answer_is_followed_by_the_second_turn(
    model: LoadedModel, output: Path
) -> None:
    # Everything is the end of the text: the canvas says nothing.
    silent = replace(model, eos_ids=tuple(range(len(model.tokenizer))))
    answered = answer_questions(Sampler(silent, CONFIG), toy_questions(2), output)
    assert answered is not None
    assert answered.unanswered == []
    assert [row["text"] for row in rows(output)] == ["", "", ""]


def test_the_model_s_hash_knows_the_adapter_from_the_base() -> None:
    plain, *adapted = (
        model_identity(loaded)
        for loaded in (
            toy_model(),
            *(new_adapter(toy_model(), rank=2, alpha=4, dropout=0.0, seed=n) for n in range(2)),
        )
    )
    assert [identity["sha256"] for identity in adapted] == [plain["sha256"]] * 2
    assert len({identity["adapter_sha256"] for identity in (plain, *adapted)}) == 3
    assert plain["adapter_sha256"] is None
    assert model_identity(toy_model(seed=4))["sha256"] != plain["sha256"]


@pytest.mark.parametrize(
    ("rank", "world_size"), [("2", "2"), ("-1", "2"), ("x", "1"), ("0", ""), ("0", "0")]
)
def test_a_rank_outside_the_world_is_an_error(rank: str, world_size: str) -> None:
    with pytest.raises(ConfigError, match="expected numbers with 0 <= RANK < WORLD_SIZE"):
        shard_from_environment({"RANK": rank, "WORLD_SIZE": world_size})
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
        answer_questions(Sampler(model, CONFIG), toy_questions(1), tmp_path / place)
