"""Creative-Writing-Bench through the commands: pieces, grades, both file formats, the prompt as the unit."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from judge_server import serving

from slackdlm.benchmarks import creative_writing
from slackdlm.benchmarks.answers import read_answer_file
from slackdlm.judgments import read_grades
from slackdlm.records import Answer

REPLIES = {
    "good": "[Analysis]\nVivid: 3 images\n[Scores]\nClear: [18]\nVivid: 16\nDull: 2",
    "no dialogue": "[Scores]\nClear: 10\nDull: 10",
    "off": "[Scores]\nClear: 10\nVivid: 40",
    "prose": "I liked it.",
}


def run(*arguments: object) -> int:
    from slackdlm.cli import main

    return main([str(argument) for argument in arguments])


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    told = {
        str(n): {
            "category": "c",
            "title": "t",
            "writing_prompt": f"Write {n}. <SEED>",
            "seed_modifiers": ["rain", "sun"],
        }
        for n in range(1, 4)
    }
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps(told))
    return file


def pieces(system: str, texts: Sequence[str | None], prompts: Path, file: Path) -> Path:
    """A file of our own answers, three iterations of each prompt."""
    questions = creative_writing.read_questions(prompts)
    rows = [
        {"id": question.id, "turn": 1, "system": system, "text": text, "prompt": None}
        for question, text in zip(questions, texts, strict=True)
        if text is not None
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_pieces_are_judged_and_compared_with_the_prompt_as_the_unit(
    prompts: Path, rubric: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = ["good"] * 3 + ["good", "good", "no dialogue"] + ["off", "prose", None]
    ours = pieces("ours", ours, prompts, tmp_path / "ours.jsonl")
    base = pieces("base", ["no dialogue"] * 9, prompts, tmp_path / "base.jsonl")
    out = tmp_path / "j.jsonl"
    with serving(
        reply=lambda messages: REPLIES[messages[-1]["content"].split("[R]\n")[1].split("\n[C]")[0]]
    ) as server:
        flags = [
            "judge", "--benchmark", "creative-writing", "--questions", prompts, "--judge-prompt", rubric,
            "--answers", ours, base, "--output", out, "--judge", "openai",
            "--judge-model", "served", "--base-url", server.url, "--max-missing", 0.5,
        ]  # fmt: skip
        assert run(*flags) == 0
        sent = server.requests[0]["messages"]
        asked = len(server.requests)
    assert [turn["role"] for turn in sent] == ["user"]
    assert re.search(r"\[P\]\nWrite \d. <SEED>\n\[R\]", sent[0]["content"])
    # Ours: 3, 3, 1 and four tries for a grade; the other's 9 but for the one that both wrote.
    assert asked == 3 + 3 + 1 + 4 + 9 - 1
    grades = {(g.system, g.question_id, g.turn): g for g in read_grades(out)}
    assert len(grades) == 18
    assert grades["ours", "1", 1].score == pytest.approx((18 + 16 + 18) / 3)
    assert grades["ours", "2", 3].score == 10.0, "a criterion left out is missing, not 0"
    assert [grades["ours", "3", turn].status for turn in (1, 2, 3)] == [
        "out_of_range", "unparsable", "failed",
    ]  # fmt: skip
    capsys.readouterr()
    assert run("compare", out, "--resamples", 200, "--output", tmp_path / "report") == 0
    found = json.loads((tmp_path / "report" / "comparison.json").read_text())
    table = [(line["system"], line["kind"], line["estimate"]) for line in found["lines"]]
    (name, kind, mean), _, (_, _, difference) = table
    # Prompt 1: 52/3 in all iterations; prompt 2: (2 * 52/3 + 10) / 3; prompt 3 is missing. Shown times five.
    assert (name, kind, mean["num_scored"], mean["num_total"]) == ("ours", "mean", 2, 3)
    assert mean["value"] == pytest.approx(5 * (52 / 3 + (2 * 52 / 3 + 10) / 3) / 2)
    assert difference["value"] == pytest.approx(mean["value"] - 50)


def test_a_run_file_of_the_benchmark_is_judged_here(
    prompts: Path, rubric: Path, tmp_path: Path
) -> None:
    questions = creative_writing.read_questions(prompts)
    answers = [Answer(question.id, "org/m", ("good",)) for question in questions]
    creative_writing.write_answers(tmp_path / "run.json", answers, questions)
    assert [a.text for a in read_answer_file(tmp_path / "run.json")] == ["good"] * 9
    with serving(reply=lambda messages: REPLIES["good"]) as server:
        flags = ["--judge", "openai", "--judge-model", "served", "--base-url", server.url]
        assert run(
            "judge", "--benchmark", "creative-writing", "--questions", prompts, "--judge-prompt",
            rubric, "--answers", tmp_path / "run.json", "--output", tmp_path / "j.jsonl", *flags,
        ) == 0  # fmt: skip
    assert {grade.status for grade in read_grades(tmp_path / "j.jsonl")} == {"ok"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "its judge prompt has no licence to be shipped; give that of your copy"),
        (["--judge-prompt", "none.txt"], "none.txt: there is no such file"),
        (
            ["--benchmark", "wildbench", "--judge-prompt", "none.txt"],
            "--judge-prompt: only creative-writing takes one",
        ),
    ],
)
def test_a_judge_prompt_goes_with_its_benchmark_alone(
    prompts: Path,
    tmp_path: Path,
    flags: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers = pieces("m", ["x"] * 9, prompts, tmp_path / "a.jsonl")
    assert run(
        "judge", "--benchmark", "creative-writing", "--questions", prompts, "--answers", answers,
        "--output", tmp_path / "j.jsonl", "--judge", "toy", *flags,
    ) == 2  # fmt: skip
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_run_file_is_read_by_its_criteria_alone(
    prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = creative_writing.read_questions(prompts)
    creative_writing.write_answers(
        tmp_path / "run.json", [Answer(questions[0].id, "m", ("x",))], questions
    )
    assert run("compare", tmp_path / "run.json") == 2
    assert "with --criteria" in " ".join(capsys.readouterr().err.split())
