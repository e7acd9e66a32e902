"""WildBench v2: real users' hard tasks, graded 1 to 10 beside a checklist (WB-Score) or compared (WB-Reward).

The tasks may not be shipped: read them from a file of ``allenai/WildBench``. Scores are texts in its files, and what
its judge could not say is dropped before they are written, so read ``n`` with every mean.

References:
    Lin et al., 2024 (arXiv 2406.04770); allenai/WildBench at d6b8dcaf.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np

from slackdlm.errors import DataError
from slackdlm.evaluation.benchmarks.items import Answer, Question, rest, unique, unique_questions
from slackdlm.evaluation.jsonl import (
    Row,
    get_id,
    get_list,
    get_object,
    get_text,
    get_texts,
    read_items,
    show,
    write_items,
)
from slackdlm.evaluation.judgments import (
    Game,
    Grade,
    GradeStatus,
    Messages,
    Tally,
    as_messages,
    tally,
)

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
CHOICES: Final[dict[str, float]] = {"A++": 1.0, "A+": 0.75, "A=B": 0.5, "B+": 0.25, "B++": 0.0}
"""A verdict -> points of the response shown as A; WB-Reward is 200 times the mean minus 100."""


@dataclass(frozen=True)
class PublishedScore:
    """WB-Score of one system, in the three forms it is published in."""

    mean: float | None
    """Mean of all grades said, 1 to 10."""
    adjusted: float | None
    """``(mean - 5) * 2``."""
    shown: float | None
    """``adjusted * 10``, the leaderboard's column."""
    in_range: float | None
    """Mean of the grades within 1 to 10."""
    tally: Tally
    """How many of all grades there are of each kind."""


def read_questions(path: Path) -> list[Question]:
    """Tasks of configuration v2, from JSON, JSONL or Parquet."""
    questions: list[Question] = []
    for where, row in read_items(path, what="WildBench tasks"):
        turns = [
            {key: turn.get(key) for key in ("role", "content")} if isinstance(turn, dict) else turn
            for turn in get_list(row, "conversation_input", where=where)
        ]
        messages = as_messages(turns, where=where)
        if not messages or messages[-1]["role"] != "user":
            raise DataError(f"{where}: expected a conversation that ends with the user's turn")
        checklist = get_list(row, "checklist", where=where)
        used = ("session_id", "conversation_input", "checklist", "primary_tag")
        questions.append(
            Question(
                id=get_id(row, "session_id" if "session_id" in row else "id", where=where),
                category=get_text(row, "primary_tag", where=where),
                messages=messages,
                checklist=get_texts(row, "checklist", where=where) if checklist else (),
                extra=rest(row, *used),
            )
        )
    return unique_questions(questions, path=path)


def read_answers(path: Path) -> list[Answer]:
    """Outputs of one or more systems; of several samples the first, as its judge does."""
    answers: list[Answer] = []
    for where, row in read_items(path, what="WildBench outputs"):
        output = row.get("output")
        texts = [output] if isinstance(output, str) else [*get_texts(row, "output", where=where)]
        extra = rest(row, "session_id", "generator", "output")
        extra |= {"other_outputs": texts[1:]} if len(texts) > 1 else {}
        extra |= {"output_is_text": True} if isinstance(output, str) else {}
        answers.append(
            Answer(
                question_id=get_id(row, "session_id", where=where),
                system=get_text(row, "generator", where=where),
                turns=(texts[0],),
                extra=extra,
            )
        )
    return unique(answers, path=path)


def write_answers(path: Path, answers: Sequence[Answer]) -> None:
    """Outputs as WildBench's own ``eval.py`` reads them."""
    rows: list[Row] = []
    for answer in answers:
        extra = dict(answer.extra)
        output: object = [answer.text, *extra.pop("other_outputs", [])]
        if extra.pop("output_is_text", False):
            output = answer.text
        row: Row = {"session_id": answer.question_id, "output": output, "generator": answer.system}
        rows.append(row | extra)
    write_items(path, rows)


def read_judgments(
    path: Path, *, system: str | None = None, judge: str | None = None
) -> list[Grade]:
    """WB-Score grades. A score that is no plain number is ``unparsable``, 0 or 11 ``out_of_range``.

    Args:
        path: A list of objects with ``session_id`` and ``score`` (or ``parsed_result.score``).
        system: Whose answers they are, where the rows do not say (``model_test`` or ``generator``).
        judge: Name of the judge; default: from a folder ``eval=NAME`` on the path, else ``unknown``.
    """
    named_judge = judge or _from_folders(path, "eval=") or "unknown"
    grades: list[Grade] = []
    seen: set[tuple[str, str]] = set()
    for where, row in read_items(path, what="WildBench judgments"):
        question_id = get_id(row, "session_id", where=where)
        key = next((key for key in ("model_test", "generator") if key in row), None)
        if key is None and system is None:
            raise DataError(f"{where}: no 'model_test' says whose answer this is; give system=")
        name = system if key is None else get_text(row, key, where=where)
        if (question_id, str(name)) in seen:
            raise DataError(f"{where}: {name!a} is graded twice on {question_id!a}")
        seen.add((question_id, str(name)))
        parsed = row.get("parsed_result")
        told = row.get(
            "score", cast("Row", parsed).get("score") if isinstance(parsed, dict) else None
        )
        score = number_of(told)
        status: GradeStatus = "unparsable"
        if score is not None:
            status = "ok" if LOWEST <= score <= HIGHEST else "out_of_range"
        elif row.get("error") not in (None, "N/A"):
            status = "failed"
        grades.append(
            Grade(
                question_id=question_id,
                system=str(name),
                turn=1,
                score=score,
                status=status,
                category=None,
                judge_identity={"benchmark": "wildbench", "judge": named_judge},
                reply=json.dumps(parsed, ensure_ascii=False) if isinstance(parsed, dict) else None,
                extra=rest(row, "session_id", key or "") | ({"system_key": key} if key else {}),
            )
        )
    return grades


def write_judgments(path: Path, grades: Sequence[Grade]) -> None:
    """Grades as WildBench's tables read them: scores as text; what has no score is left out, as there.

    Leaving out is that format's only way to say "missing"; keep our own ``judgments.jsonl`` beside it.
    """
    rows: list[Row] = []
    for grade in grades:
        extra = dict(grade.extra)
        key = extra.pop("system_key", None if "score" in extra else "model_test")
        name: Row = {key: grade.system} if key else {}
        if "score" in extra or "parsed_result" in extra:
            rows.append({"session_id": grade.question_id} | name | extra)
        elif grade.score is not None:
            parsed = _reply_object(grade.reply or "") or {}
            score = f"{grade.score:g}"
            row: Row = {"session_id": grade.question_id, "parsed_result": parsed}
            rows.append(
                row | name | {"score": score, "model_output": extra.pop("model_output", "")} | extra
            )
    write_items(path, rows)


def read_pairs(path: Path, *, reference: str | None = None, judge: str | None = None) -> list[Game]:
    """WB-Reward comparisons, one order each; ``b`` is the reference.

    Args:
        path: A list of objects with ``model_A``, ``model_B``, ``winner`` and ``extent``.
        reference: Name of the reference; default: from a folder ``ref=NAME`` on the path.
        judge: As in `read_judgments`.
    """
    named_judge = judge or _from_folders(path, "eval=") or "unknown"
    against = reference or _from_folders(path, "ref=")
    if against is None:
        raise DataError(f"{path}: which of the two models is the reference? give reference=")
    games: list[Game] = []
    for where, row in read_items(path, what="WildBench comparisons"):
        shown = [get_text(row, key, where=where) for key in ("model_A", "model_B")]
        places = [
            n for n, name in enumerate(shown) if name == against or name.split("/")[-1] == against
        ]
        if len(places) != 1:
            raise DataError(f"{where}: expected {against!a} once among {shown!a}")
        winner, extent = row.get("winner"), row.get("extent")
        if winner not in (*shown, "tie") or type(extent) is not int or extent not in (0, 1, 2):
            raise DataError(
                f"{where}: expected a winner among the two or tie, and an extent of 0, 1 or 2, got "
                f"{show(winner)} and {show(extent)}"
            )
        if (winner == "tie") != (extent == 0):
            raise DataError(
                f"{where}: winner {show(winner)} and extent {extent} contradict each other"
            )
        verdict = "A=B" if winner == "tie" else "AB"[shown.index(winner)] + "+" * extent
        order: Literal[0, 1] = 1 if places[0] == 0 else 0
        games.append(
            Game(
                question_id=get_id(row, "session_id", where=where),
                a=shown[1 - places[0]],
                b=shown[places[0]],
                order=order,
                score=choice_score(verdict, order),
                verdict=verdict,
                status="ok",
                category=None,
                judge_identity={"benchmark": "wildbench", "judge": named_judge},
                extra=rest(row, "session_id", "model_A", "model_B", "winner", "extent"),
            )
        )
    return games


def write_pairs(path: Path, games: Sequence[Game]) -> None:
    """Comparisons as WildBench's tables read them; games without a verdict are left out, as there."""
    rows: list[Row] = []
    for game in games:
        if game.verdict is None or game.verdict not in CHOICES:
            continue
        shown = (game.a, game.b) if game.order == 0 else (game.b, game.a)
        winner = "tie" if game.verdict == "A=B" else shown["AB".index(game.verdict[0])]
        extra = dict(game.extra)
        row: Row = {
            "session_id": game.question_id,
            "parsed_result": extra.pop("parsed_result", {"choice": game.verdict}),
        }
        told = {"model_A": shown[0], "model_B": shown[1], "winner": winner}
        rows.append(row | told | {"extent": game.verdict.count("+")} | extra)
    write_items(path, rows)


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
    told = _reply_object(text)
    if told is not None and "score" in told:
        return number_of(told["score"])
    found = re.findall(r'"score"\s*:\s*"?\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*"?\s*[,}\n]', text)
    return float(found[-1]) if found else None


def parse_choice(text: str) -> str | None:
    """The choice in a reply, one of `CHOICES`, about the answers as shown; None without one."""
    told = _reply_object(text)
    if told is not None and "choice" in told:
        choice = told["choice"]
        return choice if isinstance(choice, str) and choice in CHOICES else None
    found = re.findall(r'"choice"\s*:\s*"\s*([^"\n]{1,5}?)\s*"', text)
    return found[-1] if found and found[-1] in CHOICES else None


def choice_score(choice: str, order: int) -> float:
    """Points of system ``a`` for a choice about the answers as shown."""
    return CHOICES[choice] if order == 0 else 1.0 - CHOICES[choice]


def published_score(grades: Sequence[Grade]) -> PublishedScore:
    """WB-Score of one system; DataError if the grades are of several systems or judges."""
    if len({(grade.system, str(grade.judge_identity)) for grade in grades}) > 1:
        raise DataError("published_score: expected the grades of one system by one judge")
    mean = _mean([grade.score for grade in grades])
    return PublishedScore(
        mean=mean,
        adjusted=None if mean is None else (mean - 5) * 2,
        shown=None if mean is None else (mean - 5) * 20,
        in_range=_mean([grade.score for grade in grades if grade.status == "ok"]),
        tally=tally(grades),
    )


def task_scores(grades: Sequence[Grade], questions: Sequence[Question]) -> dict[str, float]:
    """Adjusted score of each task group, ``(mean - 5) * 2``, a task counting in all groups of its tags.

    As in the leaderboard's tables, grades of empty and of truncated outputs are left out here, though not in the
    overall score.
    """
    tags = {q.id: [q.category, *q.extra.get("secondary_tags", [])] for q in questions}
    scores: dict[str, list[float]] = {}
    for grade in grades:
        if grade.question_id not in tags:
            raise DataError(
                f"grade {show(grade.question_id)}: there is no such task in the questions"
            )
        if grade.score is None or _left_out(grade.extra):
            continue
        for tag in tags[grade.question_id]:
            if tag not in TASK_GROUPS:
                raise DataError(f"task {show(grade.question_id)}: unknown tag {show(tag)}")
            scores.setdefault(TASK_GROUPS[tag], []).append(grade.score)
    return {group: (float(np.mean(found)) - 5) * 2 for group, found in scores.items()}


def task_macro(scores: Mapping[str, float], *, weighted: bool = True) -> float | None:
    """The mean over task groups: weighted as on the leaderboard, or plain as in ``view_wb_eval.py``.

    None unless every group has a score: the weights are for all five.
    """
    if set(scores) != set(GROUP_WEIGHTS):
        return None
    weights = [GROUP_WEIGHTS[group] if weighted else 1.0 for group in scores]
    return float(np.average(list(scores.values()), weights=weights))


def published_reward(games: Sequence[Game], *, length_margin: int | None = None) -> float | None:
    """WB-Reward of system ``a`` against one reference, -100 to 100; None without a game.

    Args:
        games: One game per task, as published; all need a verdict.
        length_margin: With it a slight win becomes a tie if the winner's answer is more than so many characters longer.
    """
    rewards: list[float] = []
    for game in games:
        if game.score is None:
            raise DataError(
                f"game {show(game.question_id)}: WB-Reward has no rule for a missing verdict"
            )
        reward = 2 * game.score - 1
        if length_margin is not None and abs(reward) == 0.5:
            outputs = get_object(
                dict(game.extra), "model_outputs", where=f"game {game.question_id!a}"
            )
            winner, loser = (game.a, game.b) if reward > 0 else (game.b, game.a)
            if len(outputs[winner]) > len(outputs[loser]) + length_margin:
                reward = 0.0
        rewards.append(reward)
    return 100 * float(np.mean(rewards)) if rewards else None


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
        json.dumps([_template(f"wildbench_{n}.v2.md") for n in ("score", "pairwise")]).encode()
    ).hexdigest()


@cache
def _template(name: str) -> str:
    file = resources.files("slackdlm.evaluation.benchmarks") / "prompts" / name
    return file.read_text(encoding="utf-8")


def _filled(
    template: str, question: Question, texts: Mapping[str, str], *, max_words: int | None
) -> Messages:
    history = "".join(
        f"{turn['role'].upper()}: {turn['content']}\n\n"
        for turn in question.messages[:-1]
        if turn["role"] in ("user", "assistant")
    )
    values = {
        "history": shortened(history, max_words),
        "user_query": shortened(question.prompt, max_words),
        "checklist": "".join(f"- {item}\n" for item in question.checklist),
        **{
            key: text if text.strip() else "[This model response is empty.]"
            for key, text in texts.items()
        },
    }
    # In one pass: a placeholder inside an answer stays what it is.
    filled = re.sub(r"\{\$(\w+)\}", lambda found: values[found[1]], _template(template))
    return ({"role": "user", "content": filled},)


def _reply_object(text: str) -> dict[str, Any] | None:
    body = re.sub(r"^\s*```(?:json)?\s*|\s*```\s*$", "", text)
    try:
        told: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", told) if isinstance(told, dict) else None


def _from_folders(path: Path, prefix: str) -> str | None:
    named = [part.removeprefix(prefix) for part in path.parts[:-1] if part.startswith(prefix)]
    return named[-1] if named else None


def _left_out(extra: Mapping[str, Any]) -> bool:
    output = extra.get("model_output")
    if isinstance(output, list):
        output = output[0] if output else ""
    if isinstance(output, str):
        return not output or output.endswith("... (truncated)")
    return extra.get("model_output_len") == 0


def _mean(scores: Sequence[float | None]) -> float | None:
    said = [score for score in scores if score is not None]
    return float(np.mean(said)) if said else None
