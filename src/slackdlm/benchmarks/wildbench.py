"""WildBench v2: real users' hard tasks, graded 1 to 10 beside a checklist (WB-Score) or compared (WB-Reward).

The tasks may not be shipped: read them from a file of ``allenai/WildBench``. Scores are texts in its files, and what
its judge could not say is dropped before they are written, so read ``n`` with every mean.

References:
    Lin et al., 2024 (arXiv 2406.04770); allenai/WildBench at d6b8dcaf.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import numpy as np

from slackdlm import strict_json
from slackdlm.benchmarks.templates import filled, only, template
from slackdlm.errors import DataError
from slackdlm.jsonl import get_object, show
from slackdlm.judgments import Game, Grade, Messages
from slackdlm.records import Question

LOWEST, HIGHEST = 1, 10
TASK_GROUPS: Final[dict[str, str]] = {
    "Information seeking": "Information/Advice seeking",
    "Advice seeking": "Information/Advice seeking",
    "Creative Writing": "Creative Tasks",
    "Editing": "Creative Tasks",
    "Brainstorming": "Creative Tasks",
    "Role playing": "Creative Tasks",
    "Others": "Creative Tasks",
    "Coding & Debugging": "Coding & Debugging",
    "Reasoning": "Planning & Reasoning",
    "Planning": "Planning & Reasoning",
    "Math": "Math & Data Analysis",
    "Data Analysis": "Math & Data Analysis",
}
"""A task's tag -> its group."""
GROUP_WEIGHTS: Final[dict[str, float]] = {
    "Creative Tasks": 0.5,
    "Planning & Reasoning": 1.25,
    "Math & Data Analysis": 1.0,
    "Information/Advice seeking": 0.75,
    "Coding & Debugging": 1.25,
}
"""Weights of the leaderboard's task-macro score."""
EMPTY: Final = "[This model response is empty.]"
"""What WildBench shows its judge, and keeps, in place of an empty answer of a pair."""
TRUNCATED: Final = "... (truncated)"
"""How an answer cut to `MAX_WORDS` ends."""
MAX_WORDS = 1000
"""Of each text shown where two answers are compared."""
CHOICES: Final[dict[str, float]] = {"A++": 1.0, "A+": 0.75, "A=B": 0.5, "B+": 0.25, "B++": 0.0}
"""A verdict -> points of the response shown as A; WB-Reward is 200 times the mean minus 100."""
REWARD_MARGIN: Final = 500
"""Characters by which a slight winner may be longer: one of the leaderboard's margins, beside none."""


def judge_messages(question: Question, answer: str) -> Messages:
    """What the judge is sent to grade an answer that is not empty."""
    return _filled("wildbench_score.v2.md", question, {"$model_output": answer}, lambda text: text)


def pair_messages(question: Question, first: str, second: str) -> Messages:
    """What the judge is sent to compare two answers, none of them empty; cut to 1,000 words, as published."""
    answers = {"$candidate_A": shortened(first), "$candidate_B": shortened(second)}
    return _filled("wildbench_pairwise.v2.md", question, answers, shortened)


def verdict_without_judge(first: str, second: str) -> str | None:
    """The verdict that WildBench gives without a call where an answer is empty; None if the judge must decide."""
    if first.strip() and second.strip():
        return None
    if not first.strip() and not second.strip():
        return "A=B"
    return "A++" if first.strip() else "B++"


def parse_verdict(text: str) -> float | None:
    """The grade in a reply: of its JSON object, else the one ``"score": "7"`` in it; None without one.

    The number is returned as said, also outside 1 to 10. WildBench takes the first where the reply is no JSON; a reply
    that gives several contradicts itself and has no verdict; the template's own ``[1~10]`` is none.
    """
    told = reply_object(text)
    if told is not None and "score" in told:
        return number_of(told["score"])
    found = re.findall(r'"score"\s*:\s*(?:"([^"]*)"|([^\s,}]+))', text)
    said = [quoted or plain for quoted, plain in found]
    return number_of(only([value for value in said if not value.startswith("[")]))


def parse_choice(text: str) -> str | None:
    """The choice in a reply, one of `CHOICES`, about the answers as shown; None without one, or with several."""
    told = reply_object(text)
    if told is not None and "choice" in told:
        choice = told["choice"]
    else:
        choice = only(re.findall(r'"choice"\s*:\s*"\s*([^"\n]{1,5}?)\s*"', text))
    return choice if isinstance(choice, str) and choice in CHOICES else None


def choice_score(choice: str, order: int) -> float:
    """Points of system ``a`` for a choice about the answers as shown."""
    return CHOICES[choice] if order == 0 else 1.0 - CHOICES[choice]


def task_groups(questions: Sequence[Question]) -> dict[str, tuple[str, ...]]:
    """Task -> the groups of its tags, each once."""
    found: dict[str, tuple[str, ...]] = {}
    for question in questions:
        tags = [question.category, *question.extra.get("secondary_tags", [])]
        for tag in tags:
            if tag not in TASK_GROUPS:
                raise DataError(f"task {show(question.id)}: unknown tag {show(tag)}")
        found[question.id] = tuple(dict.fromkeys(TASK_GROUPS[str(tag)] for tag in tags))
    return found


def task_scores(grades: Sequence[Grade], groups: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Adjusted score of each task group, ``(mean - 5) * 2``; a task counts once in each of its groups.

    As in the leaderboard's tables, grades of empty and of truncated outputs are left out here, though not in the
    overall score.
    """
    told = [
        (grade.question_id, grade.score)
        for grade in grades
        if grade.score is not None and not _left_out(grade.extra)
    ]
    return {group: (mean - 5) * 2 for group, mean in _group_means(told, groups).items()}


def task_rewards(
    games: Sequence[Game],
    groups: Mapping[str, Sequence[str]],
    *,
    length_margin: int | None = None,
) -> dict[str, float]:
    """WB-Reward of each task group, -100 to 100: here pairs left out of the sum are left out of n too, as published."""
    told = [(game.question_id, _reward(game, length_margin)) for game in games]
    scored = [(one, reward) for one, reward in told if reward is not None]
    return {group: 100 * mean for group, mean in _group_means(scored, groups).items()}


def _group_means(
    scores: Sequence[tuple[str, float]], groups: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for question_id, score in scores:
        if question_id not in groups:
            raise DataError(f"task {show(question_id)} was judged and is not among the tasks given")
        for group in groups[question_id]:
            found.setdefault(group, []).append(score)
    return {group: float(np.mean(told)) for group, told in found.items()}


def task_macro(scores: Mapping[str, float]) -> float | None:
    """The mean over task groups with the leaderboard's weights; ``view_wb_eval.py`` prints another, plain one.

    None unless every group has a score: the weights are for all five.
    """
    if set(scores) != set(GROUP_WEIGHTS):
        return None
    weights = [GROUP_WEIGHTS[group] for group in scores]
    return float(np.average(list(scores.values()), weights=weights))


def published_reward(games: Sequence[Game], *, length_margin: int | None = None) -> float | None:
    """WB-Reward of system ``a`` against one reference, -100 to 100; None without a game, or with a verdict missing.

    Pairs with an empty or truncated answer add nothing to the sum and count in n, as in the published tables.

    Args:
        games: One game per task, with both answers in ``extra["model_outputs"]`` (`holds_outputs`).
        length_margin: With it a slight win becomes a tie if the winner's answer is more than so many characters longer.
    """
    if not games or any(game.score is None for game in games):
        return None  # WB-Reward has no rule for it
    return float(np.mean(rewards(games, length_margin=length_margin)))


def rewards(games: Sequence[Game], *, length_margin: int | None = None) -> list[float]:
    """What each pair adds to `published_reward`, -100 to 100; 0 where an answer is empty or truncated."""
    return [100 * (_reward(game, length_margin) or 0.0) for game in games]


def holds_outputs(game: Game) -> bool:
    """Whether both answers stand beside the verdict, which WB-Reward asks for."""
    outputs = game.extra.get("model_outputs")
    return isinstance(outputs, dict) and all(
        isinstance(cast("dict[str, Any]", outputs).get(name), str) for name in (game.a, game.b)
    )


def num_left_out(games: Sequence[Game]) -> int:
    """Pairs that add nothing to WB-Reward, an answer being empty or truncated."""
    return sum(_reward(game, None) is None for game in games)


def _reward(game: Game, length_margin: int | None) -> float | None:
    """-1 to 1; None where an answer is empty or truncated, or nothing was said."""
    outputs = get_object(dict(game.extra), "model_outputs", where=f"game {game.question_id!a}")
    shown = [outputs[game.a], outputs[game.b]]
    if game.score is None or any(o == EMPTY or o.endswith(TRUNCATED) for o in shown):
        return None
    reward = 2 * game.score - 1
    winner, loser = shown if reward > 0 else shown[::-1]
    is_slight = length_margin is not None and abs(reward) == 0.5
    return 0.0 if is_slight and len(winner) > len(loser) + (length_margin or 0) else reward


def shortened(text: str, max_words: int = MAX_WORDS) -> str:
    """The first so many words between single spaces, marked as truncated where there are more."""
    words = text.split(" ")
    if len(words) <= max_words:
        return text
    return " ".join(words[:max_words]) + TRUNCATED


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
    prompt: str, question: Question, answers: Mapping[str, str], cut: Callable[[str], str]
) -> Messages:
    history = "".join(
        f"{turn['role'].upper()}: {turn['content']}\n\n"
        for turn in question.messages[:-1]
        if turn["role"] in ("user", "assistant")
    )
    values = {
        "$history": cut(history),
        "$user_query": cut(question.prompt),
        "$checklist": "".join(f"- {item}\n" for item in question.checklist),
        **answers,
    }
    return ({"role": "user", "content": filled(template(prompt), values)},)


def reply_object(text: str) -> dict[str, Any] | None:
    """The JSON object that a reply is, fenced or not; None if it is none, or one that gives a key twice."""
    try:
        told = strict_json.parse(re.sub(r"^\s*```(?:json)?\s*|\s*```\s*$", "", text))
    except ValueError:
        return None
    return cast("dict[str, Any]", told) if isinstance(told, dict) else None


def _left_out(extra: Mapping[str, Any]) -> bool:
    output = extra.get("model_output")
    if isinstance(output, list):
        output = output[0] if output else ""
    if isinstance(output, str):
        return not output or output.endswith(TRUNCATED)
    return extra.get("model_output_len") == 0
