"""MT-Bench: 80 two-turn questions, graded 1 to 10 per turn or compared in both orders.

Mathematics, reasoning and coding are judged beside a reference answer. A grade FastChat could not parse is -1 in its
files and silently left out of its mean; here it is ``unparsable`` and counted.

References:
    Zheng et al., 2023 (arXiv 2306.05685); lm-sys/FastChat at 0e6d3e4b, ``llm_judge``.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np

from slackdlm.benchmarks.templates import only, template
from slackdlm.errors import DataError
from slackdlm.jsonl import show
from slackdlm.judgments import Game, Messages
from slackdlm.records import Question

LOWEST, HIGHEST = 1, 10
_NUMBER: Final = r"([0-9]{1,9}(?:\.[0-9]{0,9})?)"
_RATING: Final = r"(?<![\"'“‘`\w])rating[*_]{0,2}:[\s*_$]{0,8}"
_OUT_OF_TEN: Final = re.compile(r"(?<=\]\])\s*(?:out of|/)\s*\[\[10\]\]")
"""Rating and scale: ``[[8]] out of [[10]]``."""
REFERENCE_CATEGORIES: Final = ("math", "reasoning", "coding")
"""Categories judged beside a reference answer."""


def judge_messages(question: Question, answer: Sequence[str], *, turn: int) -> Messages:
    """What the judge is sent to grade one turn of an answer; turn 2 shows both turns."""
    fields = _reference_fields(question, turn)
    if turn == 1:
        fields |= {"question": question.prompt, "answer": answer[0]}
    else:
        fields |= {"question_1": question.prompt, "question_2": question.later_turns[0]}
        fields |= {"answer_1": answer[0], "answer_2": answer[1]}
    return _filled(prompt_name(question, turn=turn, mode="single"), fields)


def pair_messages(
    question: Question, first: Sequence[str], second: Sequence[str], *, turn: int
) -> Messages:
    """What the judge is sent to compare two answers, ``first`` shown as assistant A."""
    fields = _reference_fields(question, turn)
    if turn == 1:
        fields |= {"question": question.prompt, "answer_a": first[0], "answer_b": second[0]}
    else:
        fields |= {"question_1": question.prompt, "question_2": question.later_turns[0]}
        fields |= {"answer_a_1": first[0], "answer_a_2": first[1]}
        fields |= {"answer_b_1": second[0], "answer_b_2": second[1]}
    return _filled(prompt_name(question, turn=turn, mode="pair"), fields)


def prompt_name(question: Question, *, turn: int, mode: Literal["single", "pair"]) -> str:
    """Which of the eight judge prompts a question's turn gets."""
    subject = "math-v1" if question.category in REFERENCE_CATEGORIES else _GENERAL[mode]
    return f"{mode}-{subject}" + ("-multi-turn" if turn == 2 else "")


def parse_verdict(text: str) -> float | None:
    """The ``[[rating]]`` of a reply, single brackets where there are none; None without one.

    The number is returned as said, also outside 1 to 10. FastChat takes the first match. So does this where all say the
    same; else the one that follows ``Rating:`` outside quotes counts, and if that is none or several, the reply
    contradicts itself and has no verdict. Of 160 published judgments two do, which also grade an improved answer.
    """
    text = _OUT_OF_TEN.sub("", text)
    double = [float(number) for number in re.findall(rf"\[\[{_NUMBER}\]\]", text)]
    if double:
        announced = re.findall(rf"{_RATING}\[\[{_NUMBER}\]\]", text, re.I)
        return only(double, [float(number) for number in announced])
    single = [float(number) for number in re.findall(rf"\[{_NUMBER}\]", text)]
    if not single:
        return None
    # [1] may be a citation: a rating that the words name counts against it.
    announced = [float(number) for number in re.findall(rf"{_RATING}\[?{_NUMBER}", text, re.I)]
    return only(announced if set(announced) & set(single) else single + announced)


def parse_winner(text: str) -> str | None:
    """The one of ``[[A]]``, ``[[B]]`` and ``[[C]]`` (a tie) in a reply; None without one.

    FastChat looks for A anywhere, then B, then C. Where a reply holds several, the one behind the word verdict or alone
    on its line counts; if those differ too, the reply contradicts itself and has no verdict.
    """
    announced = re.findall(
        r"^(?:[^\[\]\n\"“]*\bverdict\b[^\[\]\n\"“]*|\W*)\[\[([ABC])\]\]", text, re.I | re.M
    )
    return only(re.findall(r"\[\[([ABC])\]\]", text), announced)


def winner_score(winner: str, order: int) -> float:
    """Points of system ``a`` for `parse_winner`'s letter about the answers as shown."""
    if winner == "C":
        return 0.5
    return 1.0 if (winner == "A") == (order == 0) else 0.0


def published_win_rate(games: Sequence[Game]) -> float | None:
    """FastChat's ``win_rate_adjusted`` of system ``a``: a win is both orders', all else is a tie, ties half.

    Lines with an ``error`` in either order are left out, as there; None if nothing is left.
    """
    lines: dict[tuple[str, int], list[Game]] = {}
    for game in games:
        lines.setdefault((game.question_id, game.turn), []).append(game)
    points: list[float] = []
    for pair in lines.values():
        scores = [game.score for game in pair if game.score is not None]
        if len(scores) == 2:
            points.append(scores[0] if scores[0] == scores[1] else 0.5)
    return float(np.mean(points)) if points else None


def prompts_sha256() -> str:
    """Hash of every judge prompt of this file: part of a judgment's identity."""
    return hashlib.sha256(json.dumps(_prompts(), sort_keys=True).encode()).hexdigest()


_GENERAL: Final = {"single": "v1", "pair": "v2"}


def _prompts() -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in template("mt_bench.jsonl").splitlines()]
    return {row["name"]: row for row in rows}


def _filled(name: str, values: Mapping[str, str]) -> Messages:
    prompt = _prompts()[name]
    return (
        {"role": "system", "content": prompt["system_prompt"]},
        {"role": "user", "content": prompt["prompt_template"].format(**values)},
    )


def _reference_fields(question: Question, turn: int) -> dict[str, str]:
    if turn not in (1, 2) or (turn == 2 and not question.later_turns):
        raise DataError(f"question {show(question.id)}: it has no turn {turn}")
    if question.category not in REFERENCE_CATEGORIES:
        return {}
    if len(question.reference) < turn:
        raise DataError(
            f"question {show(question.id)}: category {question.category} is judged beside a reference answer, "
            "and there is none; give FastChat's reference_answer/gpt-4.jsonl with --references"
        )
    return {f"ref_answer_{n}": text for n, text in enumerate(question.reference[:turn], start=1)}
