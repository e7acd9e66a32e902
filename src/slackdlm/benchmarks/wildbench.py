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
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

from pydantic import AliasChoices, BeforeValidator, Field

from slackdlm import strict_json
from slackdlm.atomic import write_json
from slackdlm.benchmarks.templates import filled, only, template
from slackdlm.errors import DataError, show
from slackdlm.jsonl import FileRow, Id, Row, Text, Texts, add_once, check, one_of, read_as
from slackdlm.judgments import (
    Game,
    Grade,
    GradeStatus,
    Messages,
    as_messages,
    is_chat,
    refuse_self_play,
)
from slackdlm.records import Answer, Question, unique, unique_questions

LOWEST, HIGHEST = 1, 10
TRUNCATED: Final = "... (truncated)"
"""How an answer cut to `MAX_WORDS` ends."""
MAX_WORDS = 1000
"""Of each text shown where two answers are compared."""
CHOICES: Final[dict[str, float]] = {"A++": 1.0, "A+": 0.75, "A=B": 0.5, "B+": 0.25, "B++": 0.0}
"""A verdict -> points of the response shown as A; WB-Reward is 200 times the mean minus 100."""

# Questions and answers


class _Turn(FileRow):
    role: Text
    content: Text


class _Task(FileRow):
    id: Id = Field(validation_alias=AliasChoices("session_id", "id"))
    conversation_input: Annotated[tuple[_Turn, ...], Field(min_length=1)]
    checklist: tuple[Text, ...]
    primary_tag: Text


def read_questions(path: Path) -> list[Question]:
    """Tasks of configuration v2, from JSON, JSONL or Parquet."""
    questions: list[Question] = []
    for where, task in read_as(_Task, path, what="WildBench tasks"):
        turns = task.conversation_input
        if turns[-1].role != "user":
            raise DataError(f"{where}: expected a conversation that ends with the user's turn")
        questions.append(
            Question(
                id=task.id,
                category=task.primary_tag,
                messages=tuple({"role": turn.role, "content": turn.content} for turn in turns),
                checklist=task.checklist,
                extra=task.rest,
            )
        )
    return unique_questions(questions, path=path)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class _Answer(FileRow):
    session_id: Id
    generator: Text
    output: Annotated[Texts, BeforeValidator(_as_list)]
    chat_history: Any = None


def read_answers(path: Path) -> list[Answer]:
    """Outputs of one or more systems; of several samples the first, as its judge does."""
    answers: list[Answer] = []
    for where, row in read_as(_Answer, path, what="WildBench outputs"):
        conversation = _conversation(row.chat_history, where=where)
        answers.append(
            Answer(
                row.session_id, row.generator, row.output[:1], messages=conversation, extra=row.rest
            )
        )
    return unique(answers, path=path)


def _conversation(history: object, *, where: str) -> Messages:
    """What an output answers: turns, or their texts, the user's first; empty where it is not there."""
    turns = cast("list[object]", history) if isinstance(history, list) else []
    if is_chat(turns):
        return as_messages(turns, where=where)
    texts = check(_Texts, {"chat_history": turns}, where=where).chat_history
    roles = ("user", "assistant")
    return tuple({"role": roles[n % 2], "content": text} for n, text in enumerate(texts))


class _Texts(FileRow):
    chat_history: Texts


def write_answers(path: Path, answers: Sequence[Answer]) -> None:
    """Outputs as WildBench's own ``eval.py`` reads them."""
    rows: list[Row] = [
        {"session_id": answer.question_id, "output": [answer.text], "generator": answer.system}
        for answer in answers
    ]
    write_json(path, rows)


# The judge


def judge_messages(question: Question, answer: str) -> Messages:
    """What the judge is sent to grade an answer that is not empty."""
    return _filled("wildbench_score.v2.md", question, {"$model_output": answer}, lambda text: text)


def pair_messages(question: Question, first: str, second: str) -> Messages:
    """What the judge is sent to compare two answers, none of them empty; cut to 1,000 words, as published."""
    answers = {"$candidate_A": shortened(first), "$candidate_B": shortened(second)}
    return _filled("wildbench_pairwise.v2.md", question, answers, shortened)


def grade_without_judge(answer: str) -> float | None:
    """The grade that WildBench gives an empty answer without a call; None if the judge must decide."""
    return None if answer.strip() else 1.0


def verdict_without_judge(first: str, second: str) -> str | None:
    """The verdict that WildBench gives without a call where an answer is empty; None if the judge must decide."""
    if first.strip() and second.strip():
        return None
    if not first.strip() and not second.strip():
        return "A=B"
    return "A++" if first.strip() else "B++"


def shortened(text: str, max_words: int = MAX_WORDS) -> str:
    """The first so many words between single spaces, marked as truncated where there are more."""
    words = text.split(" ")
    if len(words) <= max_words:
        return text
    return " ".join(words[:max_words]) + TRUNCATED


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


def parse_verdict(text: str) -> float | None:
    """The grade in a reply: of its JSON object, else the one ``"score": "7"`` in it; None without one.

    The number is returned as said, also outside 1 to 10. WildBench takes the first where the reply is no JSON; a reply
    that gives several contradicts itself and has no verdict; the template's own ``[1~10]`` is none.
    """
    reply = reply_object(text)
    if reply is not None and "score" in reply:
        return number_of(reply["score"])
    matches = re.findall(r'"score"\s*:\s*(?:"([^"]*)"|([^\s,}]+))', text)
    scores = [quoted or plain for quoted, plain in matches]
    return number_of(only([value for value in scores if not value.startswith("[")]))


def parse_choice(text: str) -> str | None:
    """The choice in a reply, one of `CHOICES`, about the answers as shown; None without one, or with several."""
    reply = reply_object(text)
    if reply is not None and "choice" in reply:
        choice = reply["choice"]
    else:
        choice = only(re.findall(r'"choice"\s*:\s*"\s*([^"\n]{1,5}?)\s*"', text))
    return choice if isinstance(choice, str) and choice in CHOICES else None


def reply_object(text: str) -> dict[str, Any] | None:
    """The JSON object that a reply is, fenced or not; None if it is none, or one that gives a key twice."""
    try:
        reply = strict_json.parse(re.sub(r"^\s*```(?:json)?\s*|\s*```\s*$", "", text))
    except ValueError:
        return None
    return cast("dict[str, Any]", reply) if isinstance(reply, dict) else None


def number_of(value: object) -> float | None:
    """A score written as text or number; None unless it is a plain decimal number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if abs(value) < 1e9 else None
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,9}(\.[0-9]{1,9})?\s*", value):
        return float(value)
    return None


# Judgments of others


class _Grade(FileRow):
    session_id: Id
    model_test: Text = ""
    generator: Text = ""
    score: Any = None
    parsed_result: Any = None
    error: Any = None


def read_judgments(path: Path) -> list[Grade]:
    """WB-Score grades. A score that is no plain number is ``unparsable``, 0 or 11 ``out_of_range``.

    Each row holds ``session_id`` and ``score`` (or ``parsed_result.score``). Where it does not say whose answer it is
    (``model_test`` or ``generator``), the file's stem is the system. The judge's name is that of a folder
    ``eval=NAME`` on the path, else ``unknown``.
    """
    judge = _from_folders(path, "eval=") or "unknown"
    grades: list[Grade] = []
    seen: set[tuple[str, str]] = set()
    for where, row in read_as(_Grade, path, what="WildBench judgments"):
        system = row.model_test or row.generator or path.stem
        problem = f"{where}: {system!a} is graded twice on {row.session_id!a}"
        add_once(seen, (row.session_id, system), problem)
        parsed = cast("Row", row.parsed_result) if isinstance(row.parsed_result, dict) else {}
        score = number_of(row.score if "score" in row.model_fields_set else parsed.get("score"))
        status: GradeStatus = "unparsable"
        if score is not None:
            status = "ok" if LOWEST <= score <= HIGHEST else "out_of_range"
        elif row.error not in (None, "N/A"):
            status = "failed"
        grades.append(
            Grade(
                question_id=row.session_id,
                system=system,
                turn=1,
                score=score,
                status=status,
                category=None,
                judge_identity={"benchmark": "wildbench", "judge": judge},
                reply=json.dumps(parsed, ensure_ascii=False)
                if row.parsed_result == parsed
                else None,
                extra=row.rest if row.error is None else {**row.rest, "error": row.error},
            )
        )
    return grades


class _Pair(FileRow):
    session_id: Id
    model_A: Text  # noqa: N815 - as in the files
    model_B: Text  # noqa: N815
    winner: Text
    extent: Annotated[Literal[0, 1, 2], one_of(0, 1, 2)]


def read_pairs(path: Path) -> list[Game]:
    """WB-Reward comparisons, one order each; ``b`` is the reference.

    Each row holds ``model_A``, ``model_B``, ``winner`` and ``extent``. The reference's name is that of a folder
    ``ref=NAME`` on the path, the judge's as in `read_judgments`.
    """
    judge = _from_folders(path, "eval=") or "unknown"
    reference = _from_folders(path, "ref=")
    if reference is None:
        raise DataError(
            f"{path}: which of the two models is the reference? put the file into a folder ref=NAME, as WildBench does"
        )
    games: list[Game] = []
    seen: set[tuple[str, str, str]] = set()
    for where, row in read_as(_Pair, path, what="WildBench comparisons"):
        shown = (row.model_A, row.model_B)
        refuse_self_play(*shown, where=where, is_first=not games)
        is_reference = [reference in (name, name.split("/")[-1]) for name in shown]
        if sum(is_reference) != 1:
            raise DataError(f"{where}: expected {reference!a} once among {list(shown)!a}")
        verdict = _verdict(row, where=where)
        problem = f"{where}: {shown[0]!a} and {shown[1]!a} in this order are judged twice on {row.session_id!a}"
        add_once(seen, (row.session_id, *shown), problem)
        a, b, order = (*shown, 0) if is_reference[1] else (*shown[::-1], 1)
        games.append(
            Game(
                question_id=row.session_id,
                a=a,
                b=b,
                order=order,
                score=choice_score(verdict, order),
                verdict=verdict,
                status="ok",
                category=None,
                judge_identity={"benchmark": "wildbench", "judge": judge},
                extra=row.rest,
            )
        )
    return games


def _verdict(row: _Pair, *, where: str) -> str:
    """One of `CHOICES`, about the answers as shown."""
    shown = (row.model_A, row.model_B)
    if row.winner not in (*shown, "tie"):
        raise DataError(f"{where}: expected a winner among the two or tie, got {show(row.winner)}")
    if (row.winner == "tie") != (row.extent == 0):
        raise DataError(
            f"{where}: winner {show(row.winner)} and extent {row.extent} contradict each other"
        )
    return "A=B" if row.winner == "tie" else "AB"[shown.index(row.winner)] + "+" * row.extent


def _from_folders(path: Path, prefix: str) -> str | None:
    named = [part.removeprefix(prefix) for part in path.parts[:-1] if part.startswith(prefix)]
    return named[-1] if named else None


def choice_score(choice: str, order: int) -> float:
    """Points of system ``a`` for a choice about the answers as shown."""
    return CHOICES[choice] if order == 0 else 1.0 - CHOICES[choice]
