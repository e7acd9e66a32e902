"""``compare`` and ``report`` as a user runs them: judgment files in, tables, reports and exit codes out."""

import json
import re
from pathlib import Path

import pytest

from slackdlm.cli import main


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_compare_writes_tables_and_refuses_half_a_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judgments = Path(__file__).parent / "data" / "arena_hard" / "v0.1_judgments.jsonl"
    report = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    assert run("compare", judgments, "--output", report, "--resamples", 200, "--power") == 0
    shown = capsys.readouterr().out
    assert "arena-hard" in shown
    assert "power" in shown
    assert sorted(file.name for file in report.iterdir()) == [
        f"comparison.{kind}" for kind in ("html", "json", "md")
    ]
    assert run("compare", "--power", "--questions", 500, "--spread", 0.4) == 0
    assert "0.050" in capsys.readouterr().out
    for flags, message in (
        (["--power", "--questions", 500], "give both"),
        (["--power", "--questions", 500, "--spread", 0.4, "--output", report], "has no effect"),
        ([], "give judgment files"),
        ([judgments, "--style-control"], "give --answers"),
        (["--style-control", judgments], "there is no covariate"),
        ([judgments, "--style-control", "bold", "bold"], "bold is named twice"),
        ([judgments, "--alpha", 2], "alpha"),
        ([judgments, "--resamples", 1], "num_resamples"),
        ([tmp_path / "none.jsonl"], "no such file"),
        ([tmp_path / "empty"], "no file of judgments in this folder"),
    ):
        assert run("compare", *flags) == 2
        assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("scores", [[1.0], [1.0] * 6, [None, None]], ids=["one", "alike", "none"])
def test_power_of_a_pilot_without_spread_is_said_to_be_unknown(
    scores: list[float | None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from slackdlm.judgments import Game, write_judgments

    file = tmp_path / "j.jsonl"
    write_judgments(
        file,
        [Game(f"q{n}", "a", "b", 0, s, None, "failed" if s is None else "ok", None, {"judge": "m"})
         for n, s in enumerate(scores)],
    )  # fmt: skip
    assert run("compare", file, "--power", "--resamples", 200) == (2 if None in scores else 0)
    shown = capsys.readouterr()
    assert "no spread: fewer than two questions, or all alike" in shown.out
    assert ("no judgment has a score" in shown.err) == (None in scores)


def test_report_of_another_command_s_results_says_whose_they_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "comparison.json").write_text('{"lines": [], "judges": []}')
    assert run("report", tmp_path / "comparison.json") == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "holds no result of slackdlm demo or probe; compare writes its pages beside" in error


def test_compare_shows_scales_style_and_the_judge_in_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(__file__).parent / "data"
    assert run("compare", data / "mt_bench" / "judgments.jsonl", "--resamples", 200) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "n counts questions: each one's score is the mean of its turns" in shown
    assert "judgments scored;" in shown
    grades = tmp_path / "wb.json"
    grades.write_text(json.dumps([{"session_id": "s", "score": "7", "model_test": "m"}]))
    assert run("compare", grades, "--resamples", 200) == 0
    assert "(grade − 5) × 20: from −80 to 100" in " ".join(capsys.readouterr().out.split())
    games = data / "arena_hard" / "v0.1_judgments.jsonl"
    rows = [json.loads(line) for line in games.read_text().splitlines()]
    answers = tmp_path / "answers.jsonl"
    shown_answer = re.compile(
        r"<\|The Start of Assistant [AB]'s Answer\|>\n(.*?)\n<\|The End", re.S
    )
    answers.write_text(
        "".join(
            json.dumps({"id": row["question_id"], "turn": 1, "system": system, "text": text}) + "\n"
            for row in rows
            for system, text in zip(
                ("baseline", row["model"]),
                shown_answer.findall(row["games"][0]["user_prompt"]),
                strict=True,
            )
        )
    )
    flags = ["--answers", answers, "--style-control", "length", "--resamples", 200]
    assert run("compare", games, *flags) == 0
    assert "At equal style" in " ".join(capsys.readouterr().out.split())
