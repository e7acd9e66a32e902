"""WildBench's leaderboard: WB-Score and WB-Reward by task group, to the digit.

Reference: allenai/WildBench at d6b8dcaf.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import numpy as np

from slackdlm.benchmarks.wildbench import TRUNCATED
from slackdlm.errors import DataError, show
from slackdlm.judgments import Game, Grade
from slackdlm.records import Question

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
REWARD_MARGIN: Final = 500
"""Characters by which a slight winner may be longer: one of the leaderboard's margins, beside none."""


def task_groups(questions: Sequence[Question]) -> dict[str, tuple[str, ...]]:
    """Task -> the groups of its tags, each once."""
    groups: dict[str, tuple[str, ...]] = {}
    for question in questions:
        tags = [question.category, *question.extra.get("secondary_tags", [])]
        for tag in tags:
            if tag not in TASK_GROUPS:
                raise DataError(f"task {show(question.id)}: unknown tag {show(tag)}")
        groups[question.id] = tuple(dict.fromkeys(TASK_GROUPS[str(tag)] for tag in tags))
    return groups


def task_scores(grades: Sequence[Grade], groups: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Adjusted score of each task group, ``(mean - 5) * 2``; a task counts once in each of its groups.

    As in the leaderboard's tables, grades of empty and of truncated outputs are left out here, though not in the
    overall score.
    """
    scores = [
        (grade.question_id, grade.score)
        for grade in grades
        if grade.score is not None and not _left_out(grade.extra)
    ]
    return {group: (mean - 5) * 2 for group, mean in _group_means(scores, groups).items()}


def task_rewards(
    games: Sequence[Game],
    groups: Mapping[str, Sequence[str]],
    *,
    length_margin: int | None = None,
) -> dict[str, float]:
    """WB-Reward of each task group, -100 to 100: here pairs left out of the sum are left out of n too, as published."""
    rewards = [(game.question_id, _reward(game, length_margin)) for game in games]
    counted = [(question_id, reward) for question_id, reward in rewards if reward is not None]
    return {group: 100 * mean for group, mean in _group_means(counted, groups).items()}


def _group_means(
    scores: Sequence[tuple[str, float]], groups: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    by_group: dict[str, list[float]] = {}
    for question_id, score in scores:
        if question_id not in groups:
            raise DataError(f"task {show(question_id)} was judged and is not among the tasks given")
        for group in groups[question_id]:
            by_group.setdefault(group, []).append(score)
    return {group: float(np.mean(values)) for group, values in by_group.items()}


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
    outputs = cast("Mapping[str, str]", game.extra["model_outputs"])
    shown = [outputs[game.a], outputs[game.b]]
    if game.score is None or any(text == EMPTY or text.endswith(TRUNCATED) for text in shown):
        return None
    reward = 2 * game.score - 1
    winner, loser = shown if reward > 0 else shown[::-1]
    is_slight = length_margin is not None and abs(reward) == 0.5
    return 0.0 if is_slight and len(winner) > len(loser) + (length_margin or 0) else reward


def _left_out(extra: Mapping[str, Any]) -> bool:
    output = extra.get("model_output")
    if isinstance(output, list):
        output = output[0] if output else ""
    if isinstance(output, str):
        return not output or output.endswith(TRUNCATED)
    return extra.get("model_output_len") == 0
