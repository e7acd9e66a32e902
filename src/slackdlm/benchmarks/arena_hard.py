"""Arena-Hard-Auto v2.0 and v0.1: two games per question against a baseline, five verdicts.

In the files, game 1 shows the baseline first and game 2 the model. Any model can be the baseline here.

References:
    Li et al., 2024 (arXiv 2406.11939); lmarena/arena-hard-auto at 196f6b82.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import AliasChoices, BeforeValidator, Field

from slackdlm.benchmarks.templates import template
from slackdlm.errors import DataError, show
from slackdlm.jsonl import FileRow, Id, Row, Text, add_once, check, read_rows, write_rows
from slackdlm.judgments import (
    Game,
    GameStatus,
    Messages,
    Order,
    SelfPlayError,
    as_messages,
    refuse_self_play,
)
from slackdlm.records import Answer, Question, unique, unique_questions

Version = Literal["v2.0", "v0.1"]
UNNAMED = "baseline"
"""What the baseline is called in v0.1's judgments, which do not name it (`baseline_of` finds it)."""
V01 = "arena-hard-v0.1"

FIRST_WINS: Final[dict[str, float]] = {
    "A>>B": 1.0, "A>B": 1.0, "A=B": 0.5, "B>A": 0.0, "B>>A": 0.0,
    "B<<A": 1.0, "B<A": 1.0, "B=A": 0.5, "A<B": 0.0, "A<<B": 0.0,
}  # fmt: skip
"""Every verdict the benchmark knows -> points of the answer shown first."""

VERDICTS: Final = tuple(FIRST_WINS)[:5]
"""Those that v0.1's script counts."""
_ANNOUNCED: Final = re.compile(r"\bVERDICT\b[^\[\]\n]{0,120}\[\[([AB<>=]+)\]\]")

USER_PROMPT: Final = (
    "<|User Prompt|>\n{}\n\n<|The Start of Assistant A's Answer|>\n{}\n<|The End of Assistant A's Answer|>\n\n"
    "<|The Start of Assistant B's Answer|>\n{}\n<|The End of Assistant B's Answer|>"
)


# Questions and answers


class _Content(FileRow):
    content: Text


class _Question(FileRow):
    id: Id = Field(validation_alias=AliasChoices("uid", "question_id"))
    category: Text
    prompt: Text | None = None
    turns: Annotated[tuple[_Content, ...], Field(min_length=1, max_length=1)] | None = None


def read_questions(path: Path) -> list[Question]:
    """Questions of either version, also of the older v0.1 files with ``turns``."""
    questions: list[Question] = []
    for where, row in read_rows(path, what="Arena-Hard questions"):
        if "category" not in row or not {"uid", "question_id"} & row.keys():
            raise DataError(
                f"{where}: no question of Arena-Hard (it needs category and uid or question_id); questions of your "
                "own are answered without --benchmark and judged with --benchmark pairs"
            )
        question = check(_Question, row, where=where)
        prompt = question.turns[0].content if question.turns else question.prompt
        if prompt is None:
            raise DataError(f"{where}: expected the key 'prompt', which is missing")
        messages = ({"role": "user", "content": prompt},)
        questions.append(Question(question.id, question.category, messages, extra=question.rest))
    return unique_questions(questions, path=path)


def _answer_in(value: Any) -> Any:
    """v2.0 wraps what a model wrote in an object."""
    return value.get("answer") if isinstance(value, dict) else value


_Wrapped = Annotated[Text, BeforeValidator(_answer_in)]


class _LastTurn(FileRow):
    role: Literal["assistant"]
    content: _Wrapped


class _Answer(FileRow):
    """v2.0: the prompt and the answer as one chat."""

    uid: Id
    model: Text
    messages: Annotated[tuple[Any, ...], Field(min_length=2)]


class _Choice(FileRow):
    turns: Annotated[tuple[_Content, ...], Field(min_length=1, max_length=1)]


class _OldAnswer(FileRow):
    """v0.1: FastChat's choices."""

    question_id: Id
    model_id: Text
    choices: Annotated[tuple[_Choice, ...], Field(min_length=1, max_length=1)]


def read_answers(path: Path) -> list[Answer]:
    """Answers of one or more systems, v2.0 or v0.1 by what a line holds."""
    answers: list[Answer] = []
    for where, row in read_rows(path, what="Arena-Hard answers"):
        if "choices" in row:
            old = check(_OldAnswer, row, where=where)
            text = old.choices[0].turns[0].content
            answers.append(Answer(old.question_id, old.model_id, (text,), extra=old.rest))
        else:
            answers.append(_read_answer(row, where=where))
    return unique(answers, path=path)


def _read_answer(row: Row, *, where: str) -> Answer:
    answer = check(_Answer, row, where=where)
    chat = as_messages(answer.messages[:-1], where=f"{where}: 'messages'")
    last = check(_LastTurn, answer.messages[-1], where=f"{where}: last message")
    # A system prompt is the answering tool's, not the question's.
    prompt = tuple(turn for turn in chat if turn["role"] != "system")
    return Answer(answer.uid, answer.model, (last.content,), messages=prompt, extra=answer.rest)


def write_answers(path: Path, answers: Sequence[Answer], *, version: Version = "v2.0") -> None:
    """Answers as the benchmark's own scripts read them; v2.0 repeats the prompt, `Answer.messages`."""
    rows: list[Row] = []
    for answer in answers:
        where = f"answer to {show(answer.question_id)}"
        if len(answer.turns) != 1:
            raise DataError(f"{where}: Arena-Hard has one turn, got {len(answer.turns)}")
        if version == "v0.1":
            choices = [{"index": 0, "turns": [{"content": answer.text}]}]
            ids = {"question_id": answer.question_id, "model_id": answer.system}
            rows.append({**ids, "choices": choices})
            continue
        if not answer.messages:
            raise DataError(f"{where}: the v2.0 format repeats the prompt; give it in messages")
        reply = {"role": "assistant", "content": {"answer": answer.text}}
        ids = {"uid": answer.question_id, "model": answer.system}
        rows.append({**ids, "messages": [*answer.messages, reply]})
    write_rows(path, rows)


# The judge


def judge_messages(question: Question, first: str, second: str) -> Messages:
    """What the judge is sent: the system prompt of the question's category, then both answers."""
    settings = _settings().get(question.category or "")
    if settings is None:
        raise DataError(
            f"question {show(question.id)}: Arena-Hard has no judge prompt for category "
            f"{show(question.category)}; known: {', '.join(_settings())}. Judge questions of your own with "
            "--benchmark pairs"
        )
    return (
        {"role": "system", "content": settings["system_prompt"]},
        {"role": "user", "content": USER_PROMPT.format(question.prompt, first, second)},
    )


def plain_messages(question: Question, first: str, second: str) -> Messages:
    """The same of any question, whatever its category: by v0.1's prompt."""
    return judge_messages(replace(question, category=V01), first, second)


def parse_verdict(text: str) -> str | None:
    """The last verdict of a reply, such as ``A>>B``, about the answers as shown; None if there is none.

    As published: double brackets first, single brackets where there are none. Unlike there, a label outside
    `FIRST_WINS` counts as no verdict instead of breaking the table later, and so does a last label that contradicts
    one announced as the verdict and is not itself: a list of the options behind it is no verdict.
    """
    text = text.upper()
    double = re.findall(r"\[\[([AB<>=]+)\]\]", text)
    if double:
        announced = _ANNOUNCED.findall(text)
        contradicted = bool(announced) and announced[-1] != double[-1]
        return double[-1] if double[-1] in FIRST_WINS and not contradicted else None
    single = [label for label in re.findall(r"\[([AB<>=]+)\]", text) if label in FIRST_WINS]
    return single[-1] if single else None


# Judgments of others


class _Judgment(FileRow):
    """One game; v2.0 has the judge's whole prompt, v0.1 the user's turn."""

    score: Text | None = None
    judgment: _Wrapped | None = None
    prompt: Messages | None = None
    user_prompt: Text | None = None

    @property
    def messages(self) -> Messages | None:
        if self.user_prompt is None:
            return self.prompt
        return ({"role": "user", "content": self.user_prompt},)


class _Judged(FileRow):
    id: Id = Field(validation_alias=AliasChoices("uid", "question_id"))
    model: Text
    judge: Text
    baseline: Text = UNNAMED
    category: Text | None = None
    games: Annotated[tuple[_Judgment | None, ...], Field(min_length=2, max_length=2)]


def read_judgments(path: Path) -> list[Game]:
    """Games of either version; ``a`` is the model and ``b`` the baseline, `UNNAMED` where it has no name (v0.1).

    A null game is ``failed``. A null score beside a reply, or a label that is no verdict, is ``unparsable``.
    """
    games: list[Game] = []
    seen: set[tuple[str, str, str]] = set()
    for where, row in read_rows(path, what="Arena-Hard judgments"):
        judged = check(_Judged, row, where=where)
        problem = f"{where}: {judged.model!a} on question {judged.id!a} is judged twice by {judged.judge!a}"
        add_once(seen, (judged.id, judged.model, judged.judge), problem)
        refuse_self_play(judged.model, judged.baseline, where=where, is_first=not games)
        benchmark = "arena-hard" if "uid" in row else V01
        # The first game shows the baseline's answer first.
        first, second = (game or _Judgment() for game in judged.games)
        games += [_game(judged, first, 1, benchmark), _game(judged, second, 0, benchmark)]
    _refuse_equal_answers(games, path=path)
    return games


def _game(judged: _Judged, game: _Judgment, order: Order, benchmark: str) -> Game:
    status: GameStatus = "ok"
    if game.score not in FIRST_WINS:
        status = "failed" if game.score is None and game.judgment is None else "unparsable"
    return Game(
        question_id=judged.id,
        a=judged.model,
        b=judged.baseline,
        order=order,
        score=score_of(game.score, order) if game.score in FIRST_WINS else None,
        verdict=game.score,
        status=status,
        category=judged.category,
        judge_identity={"benchmark": benchmark, "judge": judged.judge},
        reply=game.judgment,
        prompt=game.messages,
        extra={**judged.rest, **game.rest},
    )


def shown_answers(game: Game) -> tuple[str, str] | None:
    """The answers of ``a`` and ``b`` as they stand in the judge's prompt; None without one."""
    text = game.prompt[-1]["content"] if game.prompt else ""
    match = re.search(
        r"<\|The Start of Assistant A's Answer\|>\n(.*?)\n<\|The End of Assistant A's Answer\|>\n\n"
        r"<\|The Start of Assistant B's Answer\|>\n(.*)\n<\|The End of Assistant B's Answer\|>",
        text,
        re.S,
    )
    if match is None:
        return None
    return (match[1], match[2]) if game.order == 0 else (match[2], match[1])


def baseline_of(games: Sequence[Game], answers: Sequence[Answer]) -> str | None:
    """Whose answers stand in the prompts of v0.1's unnamed baseline; None unless one system's do, and all of them."""
    texts = {(answer.question_id, answer.system): answer.text.strip() for answer in answers}
    shown = {game.question_id: both[1].strip() for game in games if (both := shown_answers(game))}
    systems = [
        system
        for system in dict.fromkeys(answer.system for answer in answers)
        if shown and all(texts.get((question, system)) == text for question, text in shown.items())
    ]
    return systems[0] if len(systems) == 1 else None


def _refuse_equal_answers(games: Sequence[Game], *, path: Path) -> None:
    """`SelfPlayError` where the baseline has no name and all its answers are the model's."""
    shown = [both for game in games if game.b == UNNAMED and (both := shown_answers(game))]
    if shown and all(answer == baseline for answer, baseline in shown):
        raise SelfPlayError(
            f"{path}: {games[0].a!a} and the baseline give the same {len({g.question_id for g in games})} answers: "
            "it is compared with itself, which is 50 % whatever the judge says; give a file of two systems"
        )


# Scores


def score_of(verdict: str, order: int) -> float:
    """Points of system ``a`` for a verdict about the answers as shown."""
    first = FIRST_WINS[verdict]
    return first if order == 0 else 1.0 - first


def weight_of(game: Game) -> int:
    """Rows that a scored game makes in Arena-Hard's mean: three for a strong verdict, else one."""
    strong = game.verdict is not None and (">>" in game.verdict or "<<" in game.verdict)
    return 3 if strong else 1


def published_v01(games: Sequence[Game]) -> float | None:
    """v0.1's score, the maximum of its Bradley-Terry likelihood: the mean over rows, lone games included.

    As there a verdict written from the other side, such as ``B<A``, does not count.
    """
    counted = [game for game in games if game.score is not None and game.verdict in VERDICTS]
    weights = [weight_of(game) for game in counted]
    scores = [game.score or 0.0 for game in counted]
    return float(np.average(scores, weights=weights)) if scores else None


def prompts_sha256() -> str:
    """Hash of every judge prompt of this file: part of a judgment's identity."""
    text = json.dumps([_settings(), USER_PROMPT], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _settings() -> dict[str, dict[str, str]]:
    return json.loads(template("arena_hard.json"))
