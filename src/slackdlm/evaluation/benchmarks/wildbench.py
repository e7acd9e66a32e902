"""WildBench v2: real users' hard tasks, graded 1 to 10 beside a checklist (WB-Score) or compared (WB-Reward).

The tasks may not be shipped: read them from a file of ``allenai/WildBench``. Scores are texts in its files, and what
its judge could not say is dropped before they are written, so read ``n`` with every mean.

References:
    Lin et al., 2024 (arXiv 2406.04770); allenai/WildBench at d6b8dcaf.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final, cast

from slackdlm.evaluation.benchmarks.items import Question
from slackdlm.evaluation.benchmarks.templates import filled, template
from slackdlm.evaluation.judgments import Messages

LOWEST, HIGHEST = 1, 10
CHOICES: Final[dict[str, float]] = {"A++": 1.0, "A+": 0.75, "A=B": 0.5, "B+": 0.25, "B++": 0.0}
"""A verdict -> points of the response shown as A; WB-Reward is 200 times the mean minus 100."""


def judge_messages(question: Question, answer: str, *, max_words: int | None = None) -> Messages:
    """What the judge is sent to grade an answer; ask `verdict_without_judge` first."""
    return _filled(
        "wildbench_score.v2.md",
        question,
        {"model_output": shortened(answer, max_words)},
        max_words=max_words,
    )


def pair_messages(
    question: Question, first: str, second: str, *, max_words: int | None = 1000
) -> Messages:
    """What the judge is sent to compare two answers; cut to 1,000 words, as published."""
    texts = {
        "candidate_A": shortened(first, max_words),
        "candidate_B": shortened(second, max_words),
    }
    return _filled("wildbench_pairwise.v2.md", question, texts, max_words=max_words)


def verdict_without_judge(*answers: str) -> str | None:
    """The verdict on empty answers, which WildBench gives without a call; None if the judge must decide.

    For one answer ``"1"`` if it is empty; for two, first shown first, one of `CHOICES`.
    """
    empty = [not answer.strip() for answer in answers]
    if not any(empty):
        return None
    if len(answers) == 1:
        return "1"
    return "A=B" if all(empty) else "B++" if empty[0] else "A++"


def parse_verdict(text: str) -> float | None:
    """The grade in a reply: of its JSON object, else the last ``"score": "7"`` in it; None without one.

    The number is returned as said, also outside 1 to 10.
    """
    told = reply_object(text)
    if told is not None and "score" in told:
        return number_of(told["score"])
    found = re.findall(r'"score"\s*:\s*"?\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*"?\s*[,}\n]', text)
    return float(found[-1]) if found else None


def parse_choice(text: str) -> str | None:
    """The choice in a reply, one of `CHOICES`, about the answers as shown; None without one."""
    told = reply_object(text)
    if told is not None and "choice" in told:
        choice = told["choice"]
        return choice if isinstance(choice, str) and choice in CHOICES else None
    found = re.findall(r'"choice"\s*:\s*"\s*([^"\n]{1,5}?)\s*"', text)
    return found[-1] if found and found[-1] in CHOICES else None


def choice_score(choice: str, order: int) -> float:
    """Points of system ``a`` for a choice about the answers as shown."""
    return CHOICES[choice] if order == 0 else 1.0 - CHOICES[choice]


def shortened(text: str, max_words: int | None) -> str:
    """The first so many words between single spaces, marked as truncated; the whole text if None."""
    words = text.split(" ")
    if max_words is None or len(words) <= max_words:
        return text
    return " ".join(words[:max_words]) + "... (truncated)"


def number_of(value: object) -> float | None:
    """A score written as text or number; None unless it is a plain decimal number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if abs(value) < 1e9 else None
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,9}(\.[0-9]{1,9})?\s*", value):
        return float(value)
    return None


def prompts_sha256() -> str:
    """Hash of both judge templates: part of a judgment's identity."""
    return hashlib.sha256(
        json.dumps([template(f"wildbench_{n}.v2.md") for n in ("score", "pairwise")]).encode()
    ).hexdigest()


def _filled(
    prompt: str, question: Question, texts: Mapping[str, str], *, max_words: int | None
) -> Messages:
    history = "".join(
        f"{turn['role'].upper()}: {turn['content']}\n\n"
        for turn in question.messages[:-1]
        if turn["role"] in ("user", "assistant")
    )
    values = {
        "$history": shortened(history, max_words),
        "$user_query": shortened(question.prompt, max_words),
        "$checklist": "".join(f"- {item}\n" for item in question.checklist),
        **{
            f"${key}": text if text.strip() else "[This model response is empty.]"
            for key, text in texts.items()
        },
    }
    return ({"role": "user", "content": filled(template(prompt), values)},)


def reply_object(text: str) -> dict[str, Any] | None:
    """The JSON object that a reply is, fenced or not; None if it is none."""
    body = re.sub(r"^\s*```(?:json)?\s*|\s*```\s*$", "", text)
    try:
        told: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", told) if isinstance(told, dict) else None
