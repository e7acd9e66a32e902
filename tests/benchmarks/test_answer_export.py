"""Answers made here in the formats that the benchmarks' own tools read."""

import json
from pathlib import Path

import pytest
from toy_questions import toy_model, toy_questions

from slackdlm.benchmarks.answers import (
    read_answer_file,
    read_benchmark_questions,
    write_benchmark_answers,
)
from slackdlm.cli import main
from slackdlm.models.loading import save_model
from slackdlm.records import Answer

WILD = {
    "session_id": "s", "primary_tag": "Math", "checklist": [],
    "conversation_input": [{"role": "user", "content": "Add."}],
}  # fmt: skip
PIECE = {"category": "c", "writing_prompt": "Write. <SEED>", "seed_modifiers": ["rain"]}
KEYS = {
    "v2.0": {"uid", "model", "messages"},
    "v0.1": {"question_id", "model_id", "choices"},
    "mt-bench": {"question_id", "model_id", "choices"},
    "wildbench": {"session_id", "generator", "output"},
    "alpaca-eval": {"instruction", "generator", "output"},
    "creative-writing": {"slackdlm__ours"},
}


@pytest.mark.parametrize("kind", KEYS)
def test_answers_come_back_from_the_benchmark_s_format(
    kind: str, excerpts: Path, tmp_path: Path
) -> None:
    made = {
        "wildbench": [WILD],
        "alpaca-eval": [{"instruction": "Say.", "dataset": "d"}],
        "creative-writing": {"9": PIECE},
    }
    file = tmp_path / "questions.json"
    if kind in made:
        file.write_text(json.dumps(made[kind]))
    else:
        named = {"mt-bench": "mt_bench/questions.jsonl"}
        file = excerpts / named.get(kind, f"arena_hard/{kind}_questions.jsonl")
    benchmark = kind if kind in made or kind == "mt-bench" else "arena-hard"
    questions = read_benchmark_questions(file, benchmark)  # pyright: ignore[reportArgumentType]
    answers = [
        Answer(
            question_id=question.id,
            system="ours",
            turns=(f"é {question.id}", *("later" for _ in question.later_turns)),
            messages=question.messages,
        )
        for question in questions
    ]
    out = tmp_path / "out"
    write_benchmark_answers(out, answers, questions, benchmark)  # pyright: ignore[reportArgumentType]
    back = read_answer_file(out)
    assert [(a.question_id, a.system, a.turns) for a in back] == [
        (a.question_id, a.system, a.turns) for a in answers
    ]
    text = out.read_text(encoding="utf-8")
    entry = json.loads(text if kind in made else text.splitlines()[0])
    assert (entry[0] if isinstance(entry, list) else entry).keys() == KEYS[kind]


def test_answering_exports_behind_its_own_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(toy_model(), tmp_path / "model")
    told = [{"instruction": question.prompt} for question in toy_questions(2)]
    (tmp_path / "questions.json").write_text(json.dumps(told))
    flags = [
        "answer",
        tmp_path / "model",
        "--questions",
        tmp_path / "questions.json",
        "--name",
        "ours",
    ]
    flags += ["--output", tmp_path / "a.jsonl", "--export", tmp_path / "a.json"]
    flags += ["--canvas-length", 8, "--steps", 2]
    assert main([*map(str, flags)]) == 2
    assert "without --benchmark" in " ".join(capsys.readouterr().err.split())
    assert main([*map(str, flags), "--benchmark", "alpaca-eval"]) == 0
    assert "for alpaca-eval's own tools:" in " ".join(capsys.readouterr().out.split())
    rows = json.loads((tmp_path / "a.json").read_text())
    ours = read_answer_file(tmp_path / "a.jsonl")
    assert [row["output"] for row in rows] == [answer.text for answer in ours]
    assert [row["instruction"] for row in rows] == [row["instruction"] for row in told]
    assert {row["generator"] for row in rows} == {"ours"}
    again = [*map(str, flags), "--benchmark", "alpaca-eval", "--export", str(tmp_path / "a.jsonl")]
    assert main(again) == 2
    assert "would replace another of the files given" in " ".join(capsys.readouterr().err.split())
