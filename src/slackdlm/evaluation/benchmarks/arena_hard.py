"""Arena-Hard-Auto v2.0 and v0.1: two games per question against a baseline, five verdicts.

In the files, game 1 shows the baseline first and game 2 the model. Any model can be the baseline here.

References:
    Li et al., 2024 (arXiv 2406.11939); lmarena/arena-hard-auto at 196f6b82.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast

from slackdlm.errors import DataError
from slackdlm.evaluation.benchmarks.items import (
    Answer,
    Question,
    check_version,
    judge_name,
    rest,
    unique,
    unique_questions,
)
from slackdlm.evaluation.jsonl import (
    Row,
    as_object,
    get_id,
    get_list,
    get_object,
    get_text,
    read_rows,
    show,
    write_rows,
)
from slackdlm.evaluation.judgments import Game, Messages, as_messages

Version = Literal["v2.0", "v0.1"]

FIRST_WINS: Final[dict[str, float]] = {
    "A>>B": 1.0, "A>B": 1.0, "A=B": 0.5, "B>A": 0.0, "B>>A": 0.0,
    "B<<A": 1.0, "B<A": 1.0, "B=A": 0.5, "A<B": 0.0, "A<<B": 0.0,
}  # fmt: skip
"""Every verdict the benchmark knows -> points of the answer shown first."""

USER_PROMPT: Final = (
    "<|User Prompt|>\n{}\n\n<|The Start of Assistant A's Answer|>\n{}\n<|The End of Assistant A's Answer|>\n\n"
    "<|The Start of Assistant B's Answer|>\n{}\n<|The End of Assistant B's Answer|>"
)


class WeightedWinRate(NamedTuple):
    """The win rate Arena-Hard prints, before its bootstrap."""

    value: float | None
    """Mean over rows, a strong verdict being ``weight`` rows; None without a scored question."""
    num_questions: int
    """Questions with both games scored; the others are left out, as there."""
    num_total: int
    """Questions in the file."""


def read_questions(path: Path, *, version: str | None = None) -> list[Question]:
    """Questions of either version, also of the older v0.1 files with ``turns``.

    Args:
        path: ``question.jsonl``.
        version: If given, ``arena-hard-v2.0`` or ``arena-hard-v0.1``: the file's sha256 must be that one's.
    """
    if version is not None:
        check_version(path, version)
    questions: list[Question] = []
    for where, row in read_rows(path, what="Arena-Hard questions"):
        if "category" not in row or not {"uid", "question_id"} & row.keys():
            raise DataError(
                f"{where}: no question of Arena-Hard (it needs category and uid or question_id); questions of your "
                "own are answered without --benchmark and judged with --benchmark pairs"
            )
        if "turns" in row:
            turns = get_list(row, "turns", where=where)
            if len(turns) != 1:
                raise DataError(f"{where}: expected one turn in 'turns', got {len(turns)}")
            prompt = get_text(as_object(turns[0], where=where), "content", where=where)
        else:
            prompt = get_text(row, "prompt", where=where)
        questions.append(
            Question(
                id=get_id(row, _id_key(row), where=where),
                category=get_text(row, "category", where=where),
                messages=({"role": "user", "content": prompt},),
                extra=rest(row, "uid", "question_id", "category", "prompt", "turns"),
            )
        )
    return unique_questions(questions, path=path)


def read_answers(path: Path) -> list[Answer]:
    """Answers of one or more systems, v2.0 or v0.1 by what a line holds."""
    answers: list[Answer] = []
    for where, row in read_rows(path, what="Arena-Hard answers"):
        read = _answer_v01 if "choices" in row else _answer_v2
        answers.append(read(row, where=where))
    return unique(answers, path=path)


def write_answers(path: Path, answers: Sequence[Answer], *, version: Version = "v2.0") -> None:
    """Answers as the benchmark's own scripts read them.

    v2.0 repeats the prompt, so `Answer.messages` must hold it; its style control reads
    ``extra["metadata"]`` (`style_metadata`).
    """
    rows: list[Row] = []
    for answer in answers:
        where = f"answer to {show(answer.question_id)}"
        if len(answer.turns) != 1:
            raise DataError(f"{where}: Arena-Hard has one turn, got {len(answer.turns)}")
        extra = dict(answer.extra)
        if version == "v0.1":
            turn = {"content": answer.text} | extra.pop("turn", {})
            ids = {k: extra.pop(k) for k in ("answer_id",) if k in extra}
            choices = [{"index": 0, "turns": [turn]}]
            row: Row = {"question_id": answer.question_id, **ids, "model_id": answer.system}
            rows.append(row | {"choices": choices} | extra)
            continue
        if not answer.messages:
            raise DataError(f"{where}: the v2.0 format repeats the prompt; give it in messages")
        ids = {k: extra.pop(k) for k in ("ans_id",) if k in extra}
        content = {"answer": answer.text} | extra.pop("content", {})
        messages = [*answer.messages, {"role": "assistant", "content": content}]
        row = {"uid": answer.question_id, **ids, "model": answer.system}
        rows.append(row | {"messages": messages} | extra)
    write_rows(path, rows)


def read_judgments(path: Path, *, baseline: str | None = None) -> list[Game]:
    """Games of either version; ``a`` is the model and ``b`` the baseline.

    A null game is ``failed``. A null score beside a reply, or a label that is no verdict, is ``unparsable``.

    Args:
        path: One line per question with its games.
        baseline: Name of the baseline where the lines have none (v0.1); default ``baseline``.
    """
    games: list[Game] = []
    seen: set[tuple[str, str, str]] = set()
    for where, row in read_rows(path, what="Arena-Hard judgments"):
        question_id = get_id(row, _id_key(row), where=where)
        model, judge = (get_text(row, key, where=where) for key in ("model", "judge"))
        named = get_text(row, "baseline", where=where) if "baseline" in row else None
        against = named or baseline or "baseline"
        key = (question_id, model, judge)
        if key in seen:
            raise DataError(
                f"{where}: {model!a} on question {question_id!a} is judged twice by {judge!a}"
            )
        seen.add(key)
        if model == against:
            raise DataError(f"{where}: the model and the baseline are both {model!a}")
        played = get_list(row, "games", where=where)
        if len(played) != 2:
            raise DataError(f"{where}: expected two games, got {len(played)}")
        known = ("uid", "question_id", "category", "judge", "model", "baseline", "games")
        extra = rest(row, *known)
        category = get_text(row, "category", where=where) if "category" in row else None
        for order, game in zip((1, 0), played, strict=True):
            score, verdict, status, told = _played(game, order, where=f"{where}: game {2 - order}")
            games.append(
                Game(
                    question_id=question_id,
                    a=model,
                    b=against,
                    order=order,
                    score=score,
                    verdict=verdict,
                    status=status,
                    category=category,
                    judge_identity={"benchmark": "arena-hard", "judge": judge},
                    reply=told.pop("reply", None),
                    prompt=told.pop("prompt", None),
                    extra=told | ({"row": extra} if extra else {}),
                )
            )
    return games


def write_judgments(path: Path, games: Sequence[Game], *, version: Version = "v2.0") -> None:
    """Games as the benchmark's own scripts read them, one line per question and pair.

    A missing or failed game is null there, an unparsable one has a null score.
    """
    lines: dict[tuple[str, ...], dict[int, Game]] = {}
    for game in games:
        judge = judge_name(game.judge_identity, where=f"game {show(game.question_id)}")
        key = (game.question_id, game.a, game.b, judge)
        if lines.setdefault(key, {}).setdefault(game.order, game) is not game:
            raise DataError(
                f"game {show(game.question_id)}: two games in order {game.order}; keep one"
            )
    rows: list[Row] = []
    for (question_id, a, b, judge), pair in lines.items():
        any_game = next(iter(pair.values()))
        category = {} if any_game.category is None else {"category": any_game.category}
        if version == "v2.0":
            row: Row = {"uid": question_id, **category, "judge": judge, "model": a, "baseline": b}
        else:
            row = {"question_id": question_id, **category, "model": a, "judge": judge}
        row["games"] = [_written(pair.get(order), version) for order in (1, 0)]
        rows.append(row | any_game.extra.get("row", {}))
    write_rows(path, rows)


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


def parse_verdict(text: str) -> str | None:
    """The last verdict of a reply, such as ``A>>B``, about the answers as shown; None if there is none.

    As published: double brackets first, single brackets where there are none. Unlike there, a label outside
    `FIRST_WINS` counts as no verdict instead of breaking the table later.
    """
    text = text.upper()
    double = re.findall(r"\[\[([AB<>=]+)\]\]", text)
    if double:
        return double[-1] if double[-1] in FIRST_WINS else None
    single = [label for label in re.findall(r"\[([AB<>=]+)\]", text) if label in FIRST_WINS]
    return single[-1] if single else None


def score_of(verdict: str, order: int) -> float:
    """Points of system ``a`` for a verdict about the answers as shown."""
    first = FIRST_WINS[verdict]
    return first if order == 0 else 1.0 - first


def weight_of(game: Game, weight: int = 3) -> int:
    """Rows that a scored game makes in Arena-Hard's mean: ``weight`` for a strong verdict, else 1."""
    strong = game.verdict is not None and (">>" in game.verdict or "<<" in game.verdict)
    return weight if strong else 1


def weighted_win_rate(games: Sequence[Game], *, weight: int = 3) -> WeightedWinRate:
    """The published mean of one model's games against one baseline, `Game.a` being the model.

    Only questions with both games scored count. The published table shows the mean of 100 unseeded bootstrap
    rounds over rows around this value; for an interval use `statistics.weighted_win_rate`.
    """
    questions: dict[str, list[Game]] = {}
    for game in games:
        questions.setdefault(game.question_id, []).append(game)
    whole = [
        pair
        for pair in questions.values()
        if len(pair) == 2 and all(g.status == "ok" for g in pair)
    ]
    rows = [(cast("float", g.score), weight_of(g, weight)) for pair in whole for g in pair]
    total = sum(mass for _, mass in rows)
    value = sum(score * mass for score, mass in rows) / total if total else None
    return WeightedWinRate(value, len(whole), len(questions))


def style_metadata(text: str, *, num_tokens: int) -> dict[str, Any]:
    """Length and Markdown counts of an answer, as Arena-Hard's answer files hold them.

    Counted as its ``add_markdown_info.py`` does, which first removes what stands inside fenced code, wherever the
    same text occurs again too. ``num_tokens`` there is by the GPT-4o tokenizer.
    """
    for block in re.findall(r"```([^`]*)```", text):
        text = text.replace(block, "")
    return {
        "token_len": num_tokens,
        "header_count": {
            f"h{n}": len(re.findall(rf"^#{{{n}}}\s", text, re.M)) for n in range(1, 7)
        },
        "list_count": {
            # Only the line's own blanks: the original's \s* over blank lines counts the same, in quadratic time.
            "ordered": len(re.findall(r"^[^\S\n]*\d+\.\s", text, re.M)),
            "unordered": len(re.findall(r"^[^\S\n]*[-*+]\s", text, re.M)),
        },
        "bold_count": {
            "**": len(re.findall(r"\*\*[^*\n]+\*\*", text)),
            "__": len(re.findall(r"__[^_\n]+__", text)),
        },
    }


def prompts_sha256() -> str:
    """Hash of every judge prompt of this file: part of a judgment's identity."""
    text = json.dumps([_settings(), USER_PROMPT], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def published_baseline(category: str) -> str | None:
    """The baseline of the public leaderboard for a category; ours may be any model."""
    return _settings().get(category, {}).get("baseline")


@cache
def _settings() -> dict[str, dict[str, str]]:
    file = resources.files("slackdlm.evaluation.benchmarks") / "prompts" / "arena_hard.json"
    return json.loads(file.read_text(encoding="utf-8"))


def _id_key(row: Row) -> str:
    return "uid" if "uid" in row else "question_id"


def _answer_v2(row: Row, *, where: str) -> Answer:
    messages = get_list(row, "messages", where=where)
    if len(messages) < 2:
        raise DataError(f"{where}: expected the prompt and the answer in 'messages'")
    last = as_object(messages[-1], where=f"{where}: last message")
    content = last.get("content")
    if last.get("role") != "assistant":
        raise DataError(
            f"{where}: the last message must be the assistant's, got {show(last.get('role'))}"
        )
    told = content if isinstance(content, dict) else {"answer": content}
    told = cast("Row", told)
    extra = rest(row, "uid", "model", "messages")
    more = rest(told, "answer")
    return Answer(
        question_id=get_id(row, "uid", where=where),
        system=get_text(row, "model", where=where),
        turns=(get_text(told, "answer", where=f"{where}: last message"),),
        messages=as_messages(messages[:-1], where=where),
        extra=extra | ({"content": more} if more else {}),
    )


def _answer_v01(row: Row, *, where: str) -> Answer:
    choices = get_list(row, "choices", where=where)
    if len(choices) != 1:
        raise DataError(f"{where}: expected one choice, got {len(choices)}")
    turns = get_list(as_object(choices[0], where=where), "turns", where=where)
    if len(turns) != 1:
        raise DataError(f"{where}: expected one turn, got {len(turns)}")
    turn = as_object(turns[0], where=where)
    more = rest(turn, "content")
    return Answer(
        question_id=get_id(row, "question_id", where=where),
        system=get_text(row, "model_id", where=where),
        turns=(get_text(turn, "content", where=where),),
        extra=rest(row, "question_id", "model_id", "choices") | ({"turn": more} if more else {}),
    )


def _played(
    game: object, order: int, *, where: str
) -> tuple[float | None, str | None, Literal["ok", "failed", "unparsable"], Row]:
    if game is None:
        return None, None, "failed", {}
    row = as_object(game, where=where)
    label = row.get("score")
    if label is not None and not isinstance(label, str):
        raise DataError(f"{where}: expected a verdict or null in 'score', got {show(label)}")
    told = rest(row, "score", "judgment", "prompt", "user_prompt")
    judgment = row.get("judgment")
    if isinstance(judgment, dict):
        judgment = cast("Row", judgment)
        told["reply"] = get_text(judgment, "answer", where=where)
        more = rest(judgment, "answer")
        told |= {"judgment": more} if more else {}
    elif judgment is not None:
        told["reply"] = get_text(row, "judgment", where=where)
    if row.get("user_prompt") is not None:
        told["prompt"] = ({"role": "user", "content": get_text(row, "user_prompt", where=where)},)
    elif row.get("prompt") is not None:
        told["prompt"] = as_messages(row["prompt"], where=where)
    if label in FIRST_WINS:
        return score_of(label, order), label, "ok", told
    if label is None and "reply" not in told:
        return None, None, "failed", told
    return None, label, "unparsable", told


def _written(game: Game | None, version: Version) -> Row | None:
    if game is None or (game.status == "failed" and game.reply is None and game.prompt is None):
        return None
    extra = rest(dict(game.extra), "row", "judgment")
    if version == "v2.0":
        answer = (
            None if game.reply is None else {"answer": game.reply} | game.extra.get("judgment", {})
        )
        prompt = None if game.prompt is None else list(game.prompt)
        return {"score": game.verdict, "judgment": answer, "prompt": prompt} | extra
    prompt = game.prompt[-1]["content"] if game.prompt else None
    return {"user_prompt": prompt, "judgment": game.reply, "score": game.verdict} | extra


def get_metadata(answer: Answer) -> Row | None:
    """The style metadata of a v2.0 answer, ``token_len`` of a v0.1 one; None without."""
    if "metadata" in answer.extra:
        return get_object(
            dict(answer.extra), "metadata", where=f"answer to {show(answer.question_id)}"
        )
    turn = answer.extra.get("turn", {})
    return turn if "token_len" in turn else None
