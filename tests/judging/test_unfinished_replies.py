"""A verdict belongs to a finished reply: what was cut off has none, whatever stands in it, under every protocol."""

from pathlib import Path
from typing import Any

import pytest
from judge_server import serving

from slackdlm.errors import DataError
from slackdlm.judging.config import JudgeConfig
from slackdlm.judging.endpoint import EndpointJudge
from slackdlm.judging.judges import CUT_OFF, ReplayJudge
from slackdlm.judging.plan import plan_judgments
from slackdlm.judging.protocols import judging_protocol, protocol_names
from slackdlm.judging.run import Judged, check_missing, judge_answers
from slackdlm.judgments import Game
from slackdlm.records import Answer, Question

QUESTION = Question(
    "q", "arena-hard-v0.1", ({"role": "user", "content": "What?"},), checklist=("?",)
)
SAID = {
    "pairs": "[[A>B]]",
    "arena-hard": "[[A>B]]",
    "mt-bench": "Rating: [[7]]",
    "mt-bench-pairs": "[[A]]",
    "wildbench": '{"score": "7"}',
    "wildbench-pairs": '{"choice": "A+"}',
    "creative-writing": "Clear: 7\nDull: 7\nDeep: 7",
    "alpaca-eval-unweighted": "m",
}


def judged(
    folder: Path, name: str, choice: dict[str, Any], rubric: Path, *, max_tokens: int = 5
) -> tuple[Judged, int]:
    """What becomes of judging one answer where the server replies so, and in how many calls."""
    prompt = rubric if name == "creative-writing" else None
    protocol = judging_protocol(name, judge_prompt=prompt)
    extra = {"prompt_id": "q", "iteration": 1, "seed_modifier": "", "base_prompt": "What?"}
    question = Question(
        QUESTION.id, QUESTION.category, QUESTION.messages, checklist=QUESTION.checklist, extra=extra
    )
    with serving(reply=lambda messages: choice) as server:
        config = JudgeConfig(kind="openai", model="m", base_url=server.url, max_tokens=max_tokens)
        judge = EndpointJudge(config)
        server.clients.append(judge)
        base = [Answer("q", "base", ("y",))] if protocol.num_shown == 2 else None
        plan = plan_judgments(protocol, judge, [question], [Answer("q", "ours", ("x",))], base)
        return judge_answers(plan, journal=folder / "j.journal"), len(server.requests)


def said(content: object, finish_reason: str | None = "stop", **message: object) -> dict[str, Any]:
    told = {"role": "assistant", "content": content, **message}
    return {"finish_reason": finish_reason, "message": told}


def test_every_protocol_is_tried() -> None:
    assert {*SAID, "alpaca-eval"} == set(protocol_names())


@pytest.mark.parametrize("name", list(SAID))
@pytest.mark.parametrize("reason", ["length", "max_tokens", "content_filter", "abort", "error"])
def test_a_reply_that_was_not_finished_has_no_verdict(
    tmp_path: Path, rubric: Path, name: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    found, calls = judged(tmp_path, name, said(SAID[name] + "\nBut wait", reason), rubric)
    assert {(j.score, j.status) for j in found.judgments} == {(None, "unparsable")}
    assert calls == len(found.judgments), "the same limit cuts the same reply off again"
    told = {j.extra["error"] for j in found.judgments}
    assert told == {CUT_OFF} if reason in ("length", "max_tokens") else "not finished" in min(told)
    if CUT_OFF in told:
        count = len(found.judgments)
        assert f"{count} of {count} judgments have no verdict: cut off" in caplog.text
        with pytest.raises(DataError, match=r"cut off.*raise judge.max_tokens"):
            check_missing(found, max_missing=0.5)
    finished, _ = judged(tmp_path, name, said(SAID[name]), rubric, max_tokens=9)
    assert {j.status for j in finished.judgments} == {"ok"}, "only these are asked for again"
    _, calls = judged(tmp_path, name, said("nothing"), rubric)
    assert calls == 0, "finished under whatever limit"


def test_the_first_token_is_all_of_a_reply_that_has_one(tmp_path: Path, rubric: Path) -> None:
    top = [{"token": "m", "logprob": -0.5}, {"token": "M", "logprob": -1.5}]
    choice = said("m", "length") | {"logprobs": {"content": [top[0] | {"top_logprobs": top}]}}
    found, _ = judged(tmp_path, "alpaca-eval", choice, rubric)
    # By hand: 1 / (1 + e^-1) for the output shown first.
    assert [j.score for j in found.judgments] == pytest.approx([0.7310585786, 0.2689414214])
    filtered = said(None, "content_filter") | {"logprobs": None}
    (tmp_path / "other").mkdir()
    found, _ = judged(tmp_path / "other", "alpaca-eval", filtered, rubric)
    assert {j.status for j in found.judgments} == {"unparsable"}


@pytest.mark.parametrize(
    ("choice", "reply"),
    [
        (said([{"type": "text", "text": "[[A"}, {"type": "text", "text": ">B]]"}]), "[[A>B]]"),
        (
            said(
                [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "[[B>A]]"}]},
                    {"type": "reasoning", "text": "[[B>A]]"},
                    {"type": "text", "text": "[[A>B]]"},
                ]
            ),
            "[[A>B]]",
        ),
        (said("[[A>B]]", reasoning_content="[[B>A]]", reasoning="[[B>A]]"), "[[A>B]]"),
        (said("[[A>B]]", refusal=None), "[[A>B]]"),
        (said("[[A>B]]", None), "[[A>B]]"),
        (said("[[A>B]]", "eos") | {"stop_reason": "length"}, "[[A>B]]"),
    ],
)
def test_the_text_of_a_message_is_read_and_its_thoughts_are_not(
    tmp_path: Path, rubric: Path, choice: dict[str, Any], reply: str
) -> None:
    found, _ = judged(tmp_path, "pairs", choice, rubric)
    assert {j.reply for j in found.judgments} == {reply}
    assert [j.score for j in found.judgments] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("choice", "error"),
    [
        (said(None, refusal="No: [[A>B]] is all I say."), "not finished: the judge refuses"),
        (said(None), "the reply holds no verdict"),
        (said(None, reasoning_content="[[B>A]]"), "the reply holds no verdict"),
        (said([{"type": "thinking", "thinking": "[[B>A]]"}]), "the reply holds no verdict"),
        (said("[[A>B]]", None) | {"stop_reason": "max_tokens"}, CUT_OFF),
    ],
)
def test_what_is_no_reply_has_no_verdict(
    tmp_path: Path, rubric: Path, choice: dict[str, Any], error: str
) -> None:
    found, _ = judged(tmp_path, "pairs", choice, rubric)
    assert {(j.status, j.extra["error"]) for j in found.judgments} == {("unparsable", error)}


def test_a_replay_keeps_what_was_cut_off_without_a_verdict(tmp_path: Path, rubric: Path) -> None:
    found, _ = judged(tmp_path, "pairs", said("[[A>B]]", "length"), rubric)
    games = [game for game in found.judgments if isinstance(game, Game)]
    plan = plan_judgments(
        judging_protocol("pairs"), ReplayJudge("m", games), [QUESTION],
        [Answer("q", "ours", ("x",))], [Answer("q", "base", ("y",))],
    )  # fmt: skip
    again = judge_answers(plan, journal=tmp_path / "again.journal").judgments
    assert [(j.score, j.reply) for j in again] == [(None, "[[A>B]]")] * 2
