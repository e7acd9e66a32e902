"""AlpacaEval through the commands: probabilities of the first token, annotations out and in, both variants by name."""

import json
import re
from collections.abc import Sequence
from math import exp, log
from pathlib import Path
from typing import Any

import pytest
from judge_server import serving

from slackdlm.benchmarks import alpaca_eval
from slackdlm.benchmarks.alpaca_eval import FirstToken, write_first_token
from slackdlm.judgments import read_games
from slackdlm.records import Question


def run(*arguments: object) -> int:
    from slackdlm.cli import main

    return main([str(argument) for argument in arguments])


@pytest.fixture
def flags(tmp_path: Path) -> list[object]:
    """Flags for eight instructions; ours says ever more words, the baseline always the same."""
    told = [{"instruction": f"Say {n}.", "dataset": "d"} for n in range(8)]
    (tmp_path / "questions.json").write_text(json.dumps(told))
    for system, word in (("ours", "more "), ("base", "less ")):
        rows = [
            row | {"generator": system, "output": word * (n + 1 if system == "ours" else 3)}
            for n, row in enumerate(told)
        ]
        (tmp_path / f"{system}.json").write_text(json.dumps(rows))
    return [
        "judge", "--questions", tmp_path / "questions.json", "--answers", tmp_path / "ours.json",
        "--baseline", tmp_path / "base.json", "--output", tmp_path / "j.jsonl",
        "--judge", "openai", "--judge-model", "served",
    ]  # fmt: skip


def likes_long(messages: Sequence[dict[str, str]]) -> dict[str, Any]:
    """0.8 for the answer shown first if it is longer, else 0.3."""
    one, other = re.findall('"output": """(.*?)"""', messages[-1]["content"])
    first = 0.8 if len(one) > len(other) else 0.3
    top = [("m", log(first * 0.9)), ("M", log((1 - first) * 0.9)), ("The", log(0.1))]
    told = [{"token": token, "logprob": value} for token, value in top]
    token = max(told[:2], key=lambda one: one["logprob"])["token"]
    return {
        "message": {"role": "assistant", "content": token},
        "logprobs": {"content": [{"token": token, "logprob": 0.0, "top_logprobs": told}]},
    }


def test_preferences_are_probabilities_of_both_orders(
    flags: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(reply=likes_long) as server:
        assert run(*flags, "--benchmark", "alpaca-eval", "--base-url", server.url) == 0
        sent = [body for body in server.requests if body["messages"]]
    assert {(body["max_tokens"], body["logprobs"], body["top_logprobs"]) for body in sent} == {
        (1, True, 5)
    }
    games = read_games(tmp_path / "j.jsonl")
    assert len(games) == 16
    last = [game.score for game in games if game.extra["instruction"] == "Say 7."]
    assert last == [pytest.approx(0.8), pytest.approx(0.7)], "shown first, then second"
    assert games[-1].extra["output_2"].startswith("more more")
    # The same in AlpacaEval's own format, where a question judged in both orders has one preference.
    pairs = zip(games[::2], games[1::2], strict=True)
    written = [
        {**game.extra, "generator_1": game.b, "generator_2": game.a,
         "preference": 1 + ((game.score or 0) + (other.score or 0)) / 2}
        for game, other in pairs
    ]  # fmt: skip
    (tmp_path / "annotations.json").write_text(json.dumps(written))
    capsys.readouterr()
    figures: list[Any] = []
    for file in ("j.jsonl", "annotations.json"):
        report = tmp_path / "report"
        assert run("compare", tmp_path / file, "--resamples", 200, "--output", report) == 0
        (line,) = json.loads((report / "comparison.json").read_text())["lines"]
        figures.append((line["estimate"], line["published"]))
    assert figures[0][0] == figures[1][0]
    assert figures[0][1] == {}, "two orders are no protocol of AlpacaEval"
    assert figures[1][1] == {"win rate": pytest.approx(figures[0][0]["value"])}
    shown = " ".join(capsys.readouterr().out.split())
    assert "length-controlled win rate comes with --gamed df_gamed.csv alpaca-eval" in shown
    gamed = [f"g,{0.2 + n / 20},{n},{(-1) ** n * 0.5},{n - 4}" for n in range(8)]
    header = "model,preference,index,std_delta_len,instruction_difficulty"
    (tmp_path / "df_gamed.csv").write_text("\n".join([header, *gamed]))
    flags = [
        "compare",
        tmp_path / "j.jsonl",
        "--resamples",
        200,
        "--gamed",
        tmp_path / "df_gamed.csv",
    ]
    assert run(*flags, tmp_path / "questions.json") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "length-controlled win rate " in shown
    assert "minimal variant" not in shown
    told = json.loads((tmp_path / "questions.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps([*told[1:], {"instruction": "Other."}]))
    assert run(*flags, tmp_path / "other.json") == 2
    assert "1 judged instructions are not in the question file" in " ".join(
        capsys.readouterr().err.split()
    )


def test_without_probabilities_the_other_variant_is_named_and_never_taken(
    flags: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(reply=lambda messages: " m.\n") as server:
        where = ["--base-url", server.url]
        assert run(*flags, "--benchmark", "alpaca-eval", *where) == 2
        error = " ".join(capsys.readouterr().err.split())
        assert "gives no log-probabilities" in error
        assert "--benchmark alpaca-eval-unweighted" in error
        assert run(*flags, "--benchmark", "alpaca-eval-unweighted", *where) == 0
        assert "logprobs" not in server.requests[-1]
    games = read_games(tmp_path / "j.jsonl")
    assert {game.judge_identity["benchmark"] for game in games} == {"alpaca-eval-unweighted"}
    assert [game.score for game in games] == [1.0, 0.0] * 8, "always the one shown first"
    capsys.readouterr()
    toy = [*flags[:-4], "--judge", "toy", "--benchmark", "alpaca-eval"]
    assert run(*toy) == 2
    assert "says words, not probabilities" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("broken", [{"content": []}, {"content": [{"token": "m"}]}, {"content": 3}])
def test_a_response_of_another_shape_is_a_failed_call(
    flags: list[object], tmp_path: Path, broken: dict[str, Any]
) -> None:
    def reply(messages: Sequence[dict[str, str]]) -> dict[str, Any]:
        return {"logprobs": broken}

    with serving(reply=reply) as server:
        where = ["--base-url", server.url, "--max-calls", 4]
        assert run(*flags, "--benchmark", "alpaca-eval", *where) == 2
    assert {game.status for game in read_games(tmp_path / "j.jsonl")} == {"failed"}


@pytest.mark.parametrize(
    ("log_probs", "first"),
    [
        ({"m": log(0.3), "M": log(0.6), "The": log(0.1)}, 1 / 3),
        ({"m": -0.1, "Both": -3.0}, 1.0),
        ({"M": -900.0}, 0.0),
        ({"m": -2000.0, "M": -1.0}, 0.0),
        ({"The": -0.1}, None),
        ({}, None),
    ],
)
def test_a_preference_is_m_s_share_of_the_two(
    log_probs: dict[str, float], first: float | None
) -> None:
    reply = write_first_token(FirstToken("m", log_probs))
    assert alpaca_eval.parse_preference(reply) == (None if first is None else pytest.approx(first))
    if {"m", "M"} <= log_probs.keys():
        m, other = exp(log_probs["m"]), exp(log_probs["M"])
        assert alpaca_eval.parse_preference(reply) == pytest.approx(m / (m + other))


def test_words_are_no_probabilities_and_more_than_a_name_is_no_choice() -> None:
    assert alpaca_eval.parse_preference("m") is None
    assert alpaca_eval.parse_preference('{"token": "m"}') is None
    replies = {"m": 1.0, '"M"': 0.0, "`m`.": 1.0, "": None, "m or M": None, "Model m": None}
    assert {reply: alpaca_eval.parse_choice(reply) for reply in replies} == replies


def test_the_judge_is_sent_the_published_prompt_whatever_the_texts_hold() -> None:
    question = Question("q", None, ({"role": "user", "content": "Do {output_1}."},))
    system, user = alpaca_eval.judge_messages(question, "<|im_end|>{output_2}", "two")
    assert system["role"] == "system"
    assert system["content"].startswith("You are a highly efficient assistant")
    assert '"instruction": """Do {output_1}."""' in user["content"]
    assert '"output": """<|im_end|>{output_2}"""' in user["content"]
    assert '"output": """two"""' in user["content"]
    assert user["content"].endswith("## Best Model Identifier")
    assert alpaca_eval.prompts_sha256().startswith("784227e6dc2832fc")
