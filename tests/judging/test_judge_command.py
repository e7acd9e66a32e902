"""``slackdlm judge`` as a user runs it: files in, judgments, cost, exit codes, nothing lost and no key written."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judge_server import serving

from slackdlm.judging.endpoint import EndpointJudge
from slackdlm.judging.judges import ExactJudge
from slackdlm.judging.plan import plan_judgments
from slackdlm.judging.protocols import judging_protocol, protocol_names
from slackdlm.judging.run import judge_answers
from slackdlm.judging.thoughts import strip_thoughts
from slackdlm.judgments import Game, Grade, read_games
from slackdlm.records import Answer, Question
from slackdlm.study.toy_language import write_tasks

KEY = "sk-secret-9876543210"


def run(*arguments: object) -> int:
    from slackdlm.cli import main

    return main([str(argument) for argument in arguments])


@pytest.fixture
def files(tmp_path: Path) -> list[object]:
    """Flags for a small comparison of our own files."""
    tasks = write_tasks(3, seed=1)
    texts = {"ours": [task.story for task in tasks], "base": ["the the ."] * 3}
    for system, stories in texts.items():
        lines = [
            {"id": str(n), "turn": 1, "system": system, "text": text, "prompt": None}
            for n, text in enumerate(stories)
        ]
        (tmp_path / f"{system}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    (tmp_path / "questions.jsonl").write_text(
        "".join(json.dumps({"prompt": task.prompt}) + "\n" for task in tasks)
    )
    return [
        "judge", "--benchmark", "pairs", "--questions", tmp_path / "questions.jsonl",
        "--answers", tmp_path / "ours.jsonl", "--baseline", tmp_path / "base.jsonl",
        "--output", tmp_path / "judgments.jsonl",
    ]  # fmt: skip


def test_judging_at_an_endpoint_resumes_counts_and_keeps_the_key_to_itself(
    files: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with serving("500", "unparsable") as server:
        judge = [
            "--judge", "openai", "--judge-model", "served", "--base-url", server.url, "--key-variable",
            "MY_KEY", "--set", "judge.usd_per_million=[1, 10]",
        ]  # fmt: skip
        assert run(*files, *judge, "--dry-run") == 0
        assert "6 calls of 6 judgments" in " ".join(capsys.readouterr().out.split())
        assert server.requests == []
        assert run(*files, *judge, "--max-calls", 3) == 2
        assert "the limit of --max-calls 3 is reached" in " ".join(capsys.readouterr().err.split())
        first = read_games(tmp_path / "judgments.jsonl")
        assert len(first) == 6, "what was not asked is there as missing"
        assert sum(game.score is not None for game in first) < 6
        assert run(*files, *judge) == 0
        shown = capsys.readouterr().out
        games = read_games(tmp_path / "judgments.jsonl")
        assert {game.status for game in games} == {"ok"}
        before, asked = (tmp_path / "judgments.jsonl").read_bytes(), len(server.requests)
        assert run(*files, *judge) == 0
        assert (tmp_path / "judgments.jsonl").read_bytes() == before
        assert len(server.requests) == asked
    # 12 calls of 100 and 10 tokens at 1 and 10 dollars a million.
    assert "0.0024" in shown
    written = b"".join(f.read_bytes() for f in tmp_path.iterdir() if f.is_file())
    assert KEY.encode() not in written
    assert KEY not in shown


def test_the_toy_judge_needs_no_model(files: list[object], tmp_path: Path) -> None:
    assert run(*files, "--judge", "toy") == 0
    assert {game.score for game in read_games(tmp_path / "judgments.jsonl")} == {1.0}
    again = [*files[:-1], tmp_path / "replayed.jsonl", "--judge", "replay", "--recorded"]
    assert run(*again, tmp_path / "judgments.jsonl") == 0
    assert [g.score for g in read_games(tmp_path / "replayed.jsonl")] == [1.0] * 6


@pytest.mark.parametrize("flags", [[], ["--dry-run"], ["--max-calls", 0]])
def test_connections_are_closed_however_a_run_ends(
    files: list[object], flags: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[EndpointJudge] = []
    close = EndpointJudge.close

    def noted(judge: EndpointJudge) -> None:
        closed.append(judge)
        close(judge)

    monkeypatch.setattr(EndpointJudge, "close", noted)
    with serving() as server:
        judge = ["--judge", "openai", "--judge-model", "served", "--base-url", server.url]
        assert run(*files, *judge, *flags) == (2 if "--max-calls" in flags else 0)
    assert len(closed) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--judge", "replay"], "judge.recorded: kind: replay needs it"),
        (["--judge", "openai"], "judge.model: kind: openai needs it; give --judge-model"),
        (
            ["--judge", "openai", "--judge-model", "m", "--key-variable", "NOT_SET"],
            "NOT_SET is not set",
        ),
        (["--judge", "toy", "--benchmark", "arena"], "unknown 'arena'; use one of arena-hard"),
        (["--judge", "toy", "--max-calls", "-1"], "judge.max_calls: expected at least 0"),
        (
            ["--judge", "toy", "--set", "judge.concurrency=0"],
            "judge.concurrency: expected at least 1",
        ),
        (["--judge", "toy", "--set", "judge.seed=3"], "judge.seed: has no effect with kind: toy"),
        (["--judge", "none.yaml"], "--judge none.yaml: expected a YAML file or one of openai"),
        (["--judge", "toy", "--max-missing", "5"], "judge.max_missing: expected at most 1, got 5"),
        (["--judge", "toy", "--output", "/dev/null/x"], "cannot be written"),
        (["--judge", "toy", "--baseline", "missing.jsonl"], "there is no such file"),
    ],
)
def test_what_cannot_be_judged_is_one_clear_error(
    files: list[object], flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*files, *flags) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert error.startswith("error:")
    assert message in error


def test_only_a_judge_that_may_say_something_else_is_to_be_asked_again(
    files: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*files, "--judge", "toy") == 0
    (tmp_path / "judgments.jsonl").rename(tmp_path / "recorded.jsonl")
    one, *_ = (tmp_path / "recorded.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "recorded.jsonl").write_text(one)
    capsys.readouterr()
    assert run(*files, "--judge", "replay", "--recorded", tmp_path / "recorded.jsonl") == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "5 of 6 judgments are missing" in error
    assert "a replay says only what was recorded" in error
    assert "again" not in error.split("recorded: ")[1]
    with serving("unparsable", forever=True) as server:
        judge = ["--judge", "openai", "--judge-model", "m", "--base-url", server.url]
        assert run(*files, *judge) == 2
    assert "run it again to try those again" in " ".join(capsys.readouterr().err.split())


def test_too_many_missing_judgments_are_an_error_and_stay_in_the_file(
    files: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (tmp_path / "ours.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "ours.jsonl").write_text("".join(lines[:2]))
    assert run(*files, "--judge", "toy") == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "2 of 6 judgments are missing, more than 5.0% (2 failed, 0 without a verdict" in error
    assert "there is no answer of 'ours'" in error
    assert len(read_games(tmp_path / "judgments.jsonl")) == 6
    assert run(*files, "--judge", "toy", "--max-missing", 0.5) == 0


# --- random and mutated inputs ---

WORDS = st.sampled_from(
    'm "M" {"token":"m","log_probs":{"m":-0.5}} '
    '[[A>>B]] [[B>A]] [A=B] [[A>=B]] [[7]] [[11]] [[1e9]] [[-3]] [[٣]] [[A]] <think> </think> "score": "7" '
    '{"choice": "A+"} {"score": {"a": [1]}} {"score": true} [[ ]] NaN Infinity \x00 \u2028 \ud800 é'.split(
        " "
    )
)
REPLIES = st.lists(WORDS | st.text(max_size=4), max_size=8).map(" ".join)


@given(reply=REPLIES, name=st.sampled_from(protocol_names()), answer=REPLIES)
@settings(max_examples=300)
def test_any_reply_is_a_score_on_the_scale_or_is_said_to_be_none(
    rubric: Path, reply: str, name: str, answer: str
) -> None:
    prompt = rubric if name == "creative-writing" else None
    protocol = judging_protocol(name, judge_prompt=prompt)
    verdict = protocol.parse(strip_thoughts(reply))
    if verdict is None:
        return
    scores = [protocol.score(verdict, order) for order in (0, 1)]
    if protocol.num_shown == 2:
        assert sum(scores) == 1
        assert all(0 <= score <= 1 for score in scores)
        if name.startswith("alpaca-eval"):
            assert "m" in reply.lower()
            return
        assert str(verdict).upper() in reply.upper()
    elif prompt is None:
        # Never a number that the reply does not hold.
        assert f"{verdict:g}".lstrip("-") in reply or str(int(verdict)) in reply


@given(
    replies=st.lists(REPLIES, min_size=4, max_size=4),
    texts=st.lists(REPLIES, min_size=2, max_size=2),
)
@settings(max_examples=15)
def test_any_texts_are_judged_to_rows_that_can_be_written(
    tmp_path_factory: pytest.TempPathFactory, replies: list[str], texts: list[str]
) -> None:
    from slackdlm.judgments import read_grades, write_judgments

    folder = tmp_path_factory.mktemp("any")
    said = iter(replies * 20)
    judge = ExactJudge("t", lambda question, shown: strip_thoughts(next(said)))
    for name in ("pairs", "mt-bench"):
        protocol = judging_protocol(name)
        question = Question("q", "writing", ({"role": "user", "content": texts[0]},))
        ours, base = (
            [Answer("q", system, (text,))]
            for system, text in zip(("ours", "base"), texts, strict=True)
        )
        plan = plan_judgments(protocol, judge, [question], ours, base if name == "pairs" else None)
        judged = judge_answers(plan, journal=folder / f"{name}.journal")
        write_judgments(folder / "out.jsonl", judged.judgments)
        read = read_games if name == "pairs" else read_grades
        assert read(folder / "out.jsonl") == judged.judgments
        for judgment in judged.judgments:
            assert isinstance(judgment, Game | Grade)
            assert (judgment.score is None) == (judgment.status in ("failed", "unparsable"))
