"""Published layouts at the door of ``slackdlm compare``: what a file says is used, named or refused."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from slackdlm.benchmarks.answers import read_answer_file
from slackdlm.benchmarks.judgment_files import read_judgment_files
from slackdlm.benchmarks.wildbench import read_questions
from slackdlm.benchmarks.wildbench_scores import task_groups
from slackdlm.cli import main
from slackdlm.errors import DataError
from slackdlm.study.compare import compare
from slackdlm.study.comparison import Comparison, Settings
from slackdlm.study.published import Extras

FEW = Settings(num_resamples=200)
EMPTY = "[This model response is empty.]"
CUT = "words... (truncated)"


def put(file: Path, rows: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    as_lines = file.suffix == ".jsonl" and isinstance(rows, list)
    text = "".join(json.dumps(row) + "\n" for row in rows) if as_lines else json.dumps(rows)
    file.write_text(text, encoding="utf-8")
    return file


def compared(*paths: Path, settings: Settings = FEW, **more: Any) -> Comparison:
    found = read_judgment_files(paths, **more)
    return compare(found.judgments, settings=settings, notes=found.notes)


def reward_row(task: str, choice: str, outputs: tuple[str, str], *, model_first: bool) -> Any:
    names = ["org/m", "org/ref"] if model_first else ["org/ref", "org/m"]
    winner = "tie" if choice == "A=B" else names["AB".index(choice[0])]
    told = {"model_A": names[0], "model_B": names[1], "winner": winner, "extent": choice.count("+")}
    shown = dict(zip(("org/m", "org/ref"), outputs, strict=True))
    return {"session_id": task, "parsed_result": {"choice": choice}, "model_outputs": shown} | told


REWARDS = [
    reward_row("s1", "A++", ("a", "b"), model_first=True),  # a clear win
    reward_row("s2", "A+", ("a", "b"), model_first=False),  # a slight loss
    reward_row("s3", "B+", ("a" * 600, "b"), model_first=False),  # a slight win, too long by 500
    reward_row("s4", "A++", (CUT, "b"), model_first=True),  # left out of the sum, kept in n
    reward_row("s5", "B++", (EMPTY, "b"), model_first=True),  # the same
]
"""Figures worked out by running WildBench's own ``_create_tables.py`` on these rows and the tasks below."""
TAGS = {
    "s1": ["Math", "Data Analysis"],  # one group twice: counted once
    "s2": ["Coding & Debugging", "Creative Writing"],
    "s3": ["Planning", "Advice seeking"],
    "s4": ["Math"],
    "s5": ["Editing"],
}


def tasks(folder: Path) -> Path:
    rows = [
        {
            "session_id": task,
            "conversation_input": [{"role": "user", "content": "q"}],
            "checklist": [],
            "primary_tag": tags[0],
            "secondary_tags": tags[1:],
        }
        for task, tags in TAGS.items()
    ]
    return put(folder / "tasks.json", rows)


def test_wb_reward_is_scored_in_the_one_order_it_is_published_in(tmp_path: Path) -> None:
    file = put(tmp_path / "eval=gpt-4" / "ref=ref" / "m.json", REWARDS)
    groups = task_groups(read_questions(tasks(tmp_path)))
    judgments = read_judgment_files([file]).judgments
    found = compare(judgments, settings=FEW, extras=Extras(task_groups=groups))
    (line,) = found.lines
    assert (line.estimate.num_scored, line.estimate.num_total) == (5, 5)
    assert line.estimate.value == pytest.approx(100 * (1 + 0.25 + 0.75 + 1 + 0) / 5)
    assert line.published == {
        "WB-Reward": pytest.approx(100 * (1 - 0.5 + 0.5) / 5),
        # Math 1, Coding -0.5, Creative -0.5, Planning 0.5, Information 0.5: each over what is left in.
        "task macro": pytest.approx(100 * (1 - 0.625 - 0.25 + 0.625 + 0.375) / 4.75),
        "WB-Reward, K=500": pytest.approx(100 * (1 - 0.5) / 5),
        "task macro, K=500": pytest.approx(100 * (1 - 0.625 - 0.25) / 4.75),
        "pairs left out of the sum": 2,
    }
    assert line.ours["WB-Reward"].num_total == 5
    assert line.ours["WB-Reward"].value == pytest.approx(20.0)


def test_wb_score_s_task_macro_leaves_truncated_and_empty_outputs_out(tmp_path: Path) -> None:
    outputs = {"s1": "a", "s2": "b", "s3": "c", "s4": CUT, "s5": ""}
    rows = [
        {"session_id": task, "score": str(n + 3), "model_test": "m", "model_output": output}
        for n, (task, output) in enumerate(outputs.items())
    ]
    groups = task_groups(read_questions(tasks(tmp_path)))
    judgments = read_judgment_files([put(tmp_path / "m.json", rows)]).judgments
    (line,) = compare(judgments, settings=FEW, extras=Extras(task_groups=groups)).lines
    # Math 3, Coding and Creative 4, Planning and Information 5; (mean - 5) * 2, shown times ten.
    macro = (1.0 * -4 + (1.25 + 0.5) * -2 + 0) / 4.75 * 10
    assert line.published == {"WB-Score": pytest.approx(0.0), "task macro": pytest.approx(macro)}


def test_one_order_is_said_and_half_of_two_stays_missing(tmp_path: Path) -> None:
    rows = [
        {"question_id": f"q{n}", "a": "m", "b": "base", "order": n % 2, "score": 1.0,
         "verdict": None, "status": "ok", "category": None, "judge_identity": {"judge": "j"}}
        for n in range(4)
    ]  # fmt: skip
    (line,) = compared(put(tmp_path / "one.jsonl", rows)).lines
    assert (line.estimate.num_scored, line.estimate.num_total) == (4, 4)
    both = [*rows, rows[0] | {"order": 1}]
    (line,) = compared(put(tmp_path / "both.jsonl", both)).lines
    assert (line.estimate.num_scored, line.estimate.num_total) == (1, 4)


def test_arena_hard_v01_s_score_counts_lone_games(excerpts: Path) -> None:
    """11 games: a tie of weight 1, losses of weight 14; one question has a lone game (its own script: 3.3333)."""
    (line,) = compared(excerpts / "arena_hard" / "v0.1_judgments.jsonl").lines
    assert line.published == {"score": pytest.approx(100 * 0.5 / 15)}
    assert line.ours["strong verdicts three times"].value == pytest.approx(100 * 0.5 / 14)


def v01_row(number: int, model: str, texts: tuple[str, str]) -> dict[str, Any]:
    def prompt(first: str, second: str) -> str:
        return (
            f"<|User Prompt|>\nq\n\n<|The Start of Assistant A's Answer|>\n{first}\n<|The End of Assistant A's "
            f"Answer|>\n\n<|The Start of Assistant B's Answer|>\n{second}\n<|The End of Assistant B's Answer|>"
        )

    own, base = texts
    games = [
        {"user_prompt": prompt(*shown), "judgment": "[[A>B]]", "score": "A>B"}
        for shown in ((base, own), (own, base))
    ]
    return {"question_id": f"q{number}", "model": model, "judge": "j", "games": games}


def v01_answers(file: Path, system: str, texts: list[str]) -> Path:
    rows = [
        {"question_id": f"q{n}", "model_id": system, "choices": [{"turns": [{"content": text}]}]}
        for n, text in enumerate(texts)
    ]
    return put(file, rows)


def test_v01_s_baseline_is_whose_answers_stand_in_its_prompts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, base = [f"mine {'long ' * n}{n}" for n in range(9)], [f"theirs {n}" for n in range(9)]
    rows = [v01_row(n, "m", texts) for n, texts in enumerate(zip(own, base, strict=True))]
    judgments = put(tmp_path / "j.jsonl", rows)
    files = [
        v01_answers(tmp_path / "answers" / "m.jsonl", "m", own),
        v01_answers(tmp_path / "answers" / "other.jsonl", "other", [*base[:-1], "else"]),
        v01_answers(tmp_path / "answers" / "base.jsonl", "gpt-4-0314", base),
    ]
    answers = [answer for file in files for answer in read_answer_file(file)]
    assert compared(judgments, answers=answers).lines[0].against == "gpt-4-0314"
    without = compared(judgments, answers=read_answer_file(files[1]))
    assert without.lines[0].against == "baseline"
    assert "v0.1 does not name its baseline" in without.warnings[0]
    flags = ["--style-control", "length", "--resamples", "200", "--answers", *map(str, files)]
    assert main(["compare", str(judgments), *flags]) == 0
    assert "m over gpt-4-0314" in " ".join(capsys.readouterr().out.split())


SELF: dict[str, list[dict[str, Any]]] = {
    "alpaca.json": [
        {"instruction": "i", "generator_1": "m", "generator_2": "m", "preference": 1.5, "output_1": "x"}
    ],
    "arena.jsonl": [
        {"uid": "u", "category": "hard_prompt", "judge": "j", "model": "m", "baseline": "m", "games": [None, None]}
    ],
    "v01.jsonl": [v01_row(n, "m", (f"{n}", f"{n}")) for n in range(2)],
    "mt.jsonl": [
        {"question_id": 81, "model_1": "m", "model_2": "m", "g1_winner": "tie", "g2_winner": "tie", "turn": 1,
         "judge": ["j", "pair-v2"], "g1_judgment": "", "g2_judgment": "", "g1_user_prompt": "", "g2_user_prompt": ""}
    ],
    "ref=m/wildbench.json": [
        {"session_id": "s", "model_A": "m", "model_B": "m", "winner": "tie", "extent": 0}
    ],
    "own.jsonl": [
        {"question_id": "q", "a": "m", "b": "m", "order": 0, "score": 0.5, "verdict": None, "status": "ok",
         "category": None, "judge_identity": {"judge": "j"}}
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", SELF)
def test_a_system_against_itself_is_named_with_its_file(tmp_path: Path, name: str) -> None:
    file = put(tmp_path / name, SELF[name])
    with pytest.raises(DataError, match="compared with itself") as caught:
        compared(file)
    assert str(caught.value).startswith(str(file))
    other = put(tmp_path / "other.json", [{"session_id": "s", "score": "7"}])
    found = compared(file, other)
    assert [line.system for line in found.lines] == ["other"]
    assert "the file is left out" in found.warnings[0]


def score_file(file: Path, system: str, scores: list[float]) -> Path:
    rows = [
        {"session_id": f"s{n}", "score": f"{score:g}", "model_test": system, "model_output": "x"}
        for n, score in enumerate(scores)
    ]
    return put(file, rows)


def test_two_files_of_one_model_are_compared_by_their_names(tmp_path: Path) -> None:
    files = [
        score_file(tmp_path / "m-greedy.json", "org/m", [5, 6, 7]),
        score_file(tmp_path / "m.json", "org/m", [6, 8, 7]),
    ]
    found = compared(*files)
    assert [line.system for line in found.lines] == ["m-greedy", "m", "m-greedy"]
    assert "org/m: judged on the same questions in 2 files" in found.warnings[0]
    for file in REWARDS, [REWARDS[0] | {"winner": "org/ref"}, *REWARDS[1:]]:
        put(tmp_path / "ref=ref" / f"run{len(file[0]['winner'])}.json", file)
    rewards = compared(*sorted((tmp_path / "ref=ref").iterdir()))
    assert [line.system for line in rewards.lines] == ["run5", "run7", "run5"]
    assert rewards.lines[0].published["WB-Reward"] == pytest.approx(20.0)


def test_the_same_twice_is_used_once_and_another_of_its_name_refused(tmp_path: Path) -> None:
    one = score_file(tmp_path / "a" / "m.json", "m", [5, 6])
    score_file(tmp_path / "b" / "m.json", "m", [5, 6])
    found = compared(tmp_path, one)
    assert [line.system for line in found.lines] == ["m"]
    assert f"b/m.json: says the same as {one}, not used" in found.warnings[0]
    score_file(tmp_path / "b" / "m.json", "m", [5, 7])
    with pytest.raises(DataError, match=r"b/m\.json: 'm' is judged on question 's0' here and in"):
        compared(tmp_path)


def test_a_judgment_that_is_there_twice_is_named_by_its_line(tmp_path: Path) -> None:
    (row,) = SELF["own.jsonl"]
    file = put(tmp_path / "g.jsonl", [row | {"b": "n"}, row | {"b": "n"}])
    with pytest.raises(DataError, match=r"g\.jsonl:2: 'm' over 'n', order 0 of turn 1 is judged"):
        compared(file)


def test_a_folder_is_a_leaderboard_and_names_what_it_does_not_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "judged"
    for n in range(76):
        score_file(
            folder / f"m{n:02}.json", f"org/m{n:02}", [1 + (n * 7 + q) % 10 for q in range(6)]
        )
    for name in (".DS_Store", "README.md", "more.jsonl.gz"):
        (folder / name).write_bytes(b"\x1f\x8b\x00")
    put(folder / "tasks.json", [{"session_id": "s0", "conversation_input": []}])
    output = tmp_path / "out"
    flags = ["--resamples", "200", "--output", str(output)]
    assert main(["compare", str(folder), *flags]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) < 110
    for name in (".DS_Store", "README.md", "more.jsonl.gz", "tasks.json"):
        assert name in shown
    lines = json.loads((output / "comparison.json").read_text())["lines"]
    assert len(lines) == 76
    values = [line["estimate"]["value"] for line in lines]
    assert values == sorted(values, reverse=True)
    rows = [row for row in shown.splitlines() if row.startswith("org/m")]
    assert [row.split()[0] for row in rows] == [line["system"] for line in lines]
    assert {"interval", "SE", "n"} <= set(" ".join(shown.split()).split())


def test_a_compressed_file_is_refused_as_one(tmp_path: Path) -> None:
    file = tmp_path / "m.json.gz"
    file.write_bytes(gzip.compress(b"[]"))
    with pytest.raises(DataError, match="compressed with gzip; unpack it"):
        compared(file)


def test_differences_of_many_systems_come_when_asked_for(tmp_path: Path) -> None:
    for n in range(5):
        score_file(tmp_path / f"m{n}.json", f"m{n}", [1.0 + n, 2.0 + n, 4.0])
    many = compared(tmp_path)
    assert [line.kind for line in many.lines] == ["mean"] * 5
    asked = compared(tmp_path, settings=Settings(num_resamples=200, differences=True))
    assert [line.kind for line in asked.lines] == ["mean"] * 5 + ["difference"] * 10
    (tmp_path / "m4.json").unlink()
    few = compared(tmp_path)
    assert [line.kind for line in few.lines] == ["mean"] * 4 + ["difference"] * 6


def mt_rows(model: str, turns: tuple[int, ...], score: float, questions: int = 80) -> list[Any]:
    return [
        {"question_id": 81 + n, "model": model, "judge": ["gpt-4", "single-v1"], "user_prompt": "",
         "judgment": "", "score": score + turn, "turn": turn}
        for n in range(questions)
        for turn in turns
    ]  # fmt: skip


def test_models_without_second_turns_are_compared_on_first_turns(tmp_path: Path) -> None:
    rows = [
        *mt_rows("first", (1,), 4.0),
        *mt_rows("both", (1, 2), 4.0),
        *mt_rows("half", (1, 2), 3.0),
    ]
    found = compared(put(tmp_path / "gpt-4_single.jsonl", rows))
    first, both, half, *gaps = found.lines
    assert [line.estimate.value for line in (first, both, half)] == [5.0, 5.0, 4.0]
    assert both.published == {"average": 5.5, "first turn": 5.0, "second turn": 6.0}
    assert both.ours["over all its own questions"].value == 5.5
    assert [gap.estimate.value for gap in gaps] == [0.0, 1.0, 1.0]
    uneven, size = found.warnings
    assert "not judged on the same turns (first 80, both 160, half 160)" in uneven
    assert "over the 80 turns of 80 questions that all have" in uneven
    assert "80 questions of 2 turns, the files hold judgments of first 80;" in size


def test_what_a_file_lacks_of_its_benchmark_is_said(tmp_path: Path) -> None:
    found = compared(put(tmp_path / "j.jsonl", mt_rows("m", (1, 2), 4.0, questions=40)))
    (warning,) = found.warnings
    assert "the benchmark has 80 questions of 2 turns, the files hold judgments of m 80" in warning
    assert compared(put(tmp_path / "j.jsonl", mt_rows("m", (1, 2), 4.0))).warnings == ()


def test_remarks_of_grades_do_not_stand_below_games(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = put(tmp_path / "eval=gpt-4" / "ref=ref" / "m.json", REWARDS)
    assert main(["compare", str(file), "--resamples", "200"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Grades of 1 to 10" not in shown
    assert "WB-Reward is twice the win rate − 100, but pairs with a truncated" in shown
    assert "Each question was judged in one order alone" in shown
    assert "WB-Reward 20.00" in shown


def test_creative_writing_s_score_counts_whatever_its_judge_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Worked out by the benchmark's own ``compute_single_benchmark_score_creative`` on these pieces: 56.25."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "creative_writing_criteria.txt").write_text("Clear\nDull")
    (tmp_path / "data" / "negative_criteria.txt").write_text("Dull")
    scores = [
        ("completed", {"Clear": 12.0, "Dull": 5.0, "Overall": 3.0}),  # 12, 15 and 3: 10
        (
            "judged",
            {"Clear": 10.0, "Dull": -5.0, "x": 15.0},
        ),  # 10 and 15; 25 is above the scale: 12.5
        ("generated", {"Clear": 20.0}),  # not yet judged there
    ]
    told = {
        str(n): {
            "status": status,
            "results_by_modifier": {"s": {"model_response": "t", "judge_scores": s}},
        }
        for n, (status, s) in enumerate(scores)
    }
    run = {"r": {"test_model": "m", "judge_model": "j", "creative_tasks": {"1": told}}}
    flags = ["--criteria", str(tmp_path / "data"), "--resamples", "200", "--output", str(tmp_path)]
    flags += ["--tasks", str(tasks(tmp_path))]
    assert main(["compare", str(put(tmp_path / "run.json", run)), *flags]) == 0
    assert "--tasks: there is no judgment of wildbench to use it for" in capsys.readouterr().out
    (line,) = json.loads((tmp_path / "comparison.json").read_text())["lines"]
    assert line["published"] == {"eqbench_creative_score": 56.25}


def test_alpaca_eval_s_own_columns_alone_are_called_published(tmp_path: Path) -> None:
    rows = [
        {"instruction": f"i{n}", "generator_1": "gpt4_1106_preview", "generator_2": "m", "output_1": "x" * n,
         "output_2": "y", "annotator": "weighted_alpaca_eval_gpt4_turbo", "preference": p}
        for n, p in enumerate([1.25, 1.5, 0, 2.0, None])
    ]  # fmt: skip
    (line,) = compared(put(tmp_path / "annotations.json", rows)).lines
    assert line.published == {"win rate": pytest.approx(100 * (0.25 + 0.5 + 0.5 + 1) / 4)}
    assert line.ours == {}


def test_whole_published_files_give_their_leaderboards_figures(published: Path) -> None:
    """WildBench's score.json, and Arena-Hard v0.1's own Bradley-Terry fit of these games, which stops at 1e-8."""
    (line,) = compared(
        published / "wildbench" / "gemma-2b-it_score_v2.0625_gpt-4o_trimmed.json"
    ).lines
    assert line.published["WB-Score"] == pytest.approx(-5.249755142017631, abs=1e-12)
    file = published / "arena_hard" / "v0.1_judgment_bagel-8b_by_R1-Distill-70B.jsonl"
    assert compared(file).lines[0].published["score"] == pytest.approx(6.270903, abs=1e-6)
