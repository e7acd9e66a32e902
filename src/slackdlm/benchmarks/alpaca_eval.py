"""AlpacaEval 2: one comparison per instruction with a baseline, a preference between 1 (baseline) and 2.

The order in which its judge saw the two outputs is not in the file, so its games say nothing about position. Its own
judge sees one order, drawn at random; judging here asks both and averages them. The length-controlled win rate is
`study.length_control`.

References:
    Dubois et al., 2024 (arXiv 2404.04475); tatsu-lab/alpaca_eval at cd543a14. Its data are CC BY-NC 4.0.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.special import expit

from slackdlm.benchmarks.first_token import read_first_token
from slackdlm.benchmarks.templates import filled, template
from slackdlm.errors import DataError
from slackdlm.jsonl import (
    Row,
    add_once,
    get_number,
    get_optional_text,
    get_text,
    read_items,
    show,
    write_items,
)
from slackdlm.judgments import Game, Messages, refuse_self_play
from slackdlm.records import (
    Answer,
    Question,
    rest,
    unique,
    unique_questions,
)

PROMPT = "alpaca_eval_clf.txt"


def question_id(instruction: str) -> str:
    """Id of an instruction, which the files do not have: the start of its sha256."""
    return hashlib.sha256(instruction.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def read_questions(path: Path) -> list[Question]:
    """Instructions; the category is the data set an instruction came from."""
    questions = [
        Question(
            id=question_id(get_text(row, "instruction", where=where)),
            category=get_optional_text(row, "dataset", where=where),
            messages=({"role": "user", "content": row["instruction"]},),
            extra=rest(row, "instruction", "dataset"),
        )
        for where, row in read_items(path, what="AlpacaEval instructions")
    ]
    return unique_questions(questions, path=path)


def read_answers(path: Path) -> list[Answer]:
    """Outputs of one or more systems (``model_outputs.json``)."""
    answers = [
        Answer(
            question_id=question_id(get_text(row, "instruction", where=where)),
            system=get_text(row, "generator", where=where),
            turns=(get_text(row, "output", where=where),),
            messages=({"role": "user", "content": row["instruction"]},),
            extra=rest(row, "instruction", "generator", "output"),
        )
        for where, row in read_items(path, what="AlpacaEval outputs")
    ]
    return unique(answers, path=path)


def write_answers(path: Path, answers: Sequence[Answer]) -> None:
    """Outputs as AlpacaEval reads them; `Answer.messages` must hold the instruction."""
    rows: list[Row] = []
    for answer in answers:
        if len(answer.messages) != 1:
            raise DataError(
                f"answer to {show(answer.question_id)}: AlpacaEval's format repeats the one instruction; "
                "give it in messages"
            )
        row: Row = {"instruction": answer.messages[0]["content"], "output": answer.text}
        rows.append(row | {"generator": answer.system} | dict(answer.extra))
    write_items(path, rows)


def read_judgments(path: Path) -> list[Game]:
    """One game per annotation: ``a`` is the model (``generator_2``), ``b`` the baseline.

    A null preference is ``unparsable``; 0 is a draw, as AlpacaEval reads it. ``order`` is how the file lists the
    two, not how the judge saw them.
    """
    games: list[Game] = []
    seen: set[tuple[str, str]] = set()
    for where, row in read_items(path, what="AlpacaEval annotations"):
        instruction = get_text(row, "instruction", where=where)
        preference = (
            None if row.get("preference") is None else get_number(row, "preference", where=where)
        )
        if preference is not None and preference != 0 and not 1 <= preference <= 2:
            raise DataError(
                f"{where}: expected a preference in [1, 2] or 0 for a draw, got {preference}"
            )
        model = get_text(row, "generator_2", where=where)
        refuse_self_play(model, row.get("generator_1"), where=where, is_first=not games)
        add_once(
            seen, (instruction, model), f"{where}: {model!a} is judged twice on one instruction"
        )
        games.append(
            Game(
                question_id=question_id(instruction),
                a=model,
                b=get_text(row, "generator_1", where=where),
                order=1,
                score=None if preference is None else (0.5 if preference == 0 else preference - 1),
                verdict=None,
                status="unparsable" if preference is None else "ok",
                category=get_optional_text(row, "dataset", where=where),
                judge_identity={
                    "benchmark": "alpaca-eval",
                    "judge": row.get("annotator", "unknown"),
                },
                extra=rest(row, "generator_1", "generator_2", "dataset"),
            )
        )
    return games


def judge_messages(question: Question, first: str, second: str) -> Messages:
    """What the judge is sent, in both variants: which of ``m`` (shown first) and ``M`` is better?

    As published but for texts that hold the template's own marks, which there cut the prompt short.
    """
    values = {"instruction": question.prompt, "output_1": first, "output_2": second}
    turns = re.findall(r"<\|im_start\|>(\w+)\n\s*(.*?)\s*<\|im_end\|>", template(PROMPT), re.S)
    return tuple({"role": role, "content": filled(content, values)} for role, content in turns)


def parse_preference(reply: str) -> float | None:
    """Probability of ``m``, the output shown first, among ``m`` and ``M``, from a reply's first token.

    The published ``logprob_parser`` with ``is_binarize: false``: one of the two that is not among the likeliest
    tokens counts as impossible; None where neither is.
    """
    said = read_first_token(reply)
    if said is None:
        return None
    found = [said.log_probs.get(name, float("-inf")) for name in ("m", "M")]
    if max(found) == float("-inf"):
        return None
    return (
        float(expit(found[0] - found[1]))
        if min(found) > float("-inf")
        else float(found[0] > found[1])
    )


def parse_choice(reply: str) -> float | None:
    """1 for a reply of ``m`` alone, 0 for ``M``, quotes and stops aside; None for any other."""
    return {"m": 1.0, "M": 0.0}.get(reply.strip(" \t\r\n\"'`*."))


def preference_score(first: float, order: int) -> float:
    """Points of system ``a`` for a preference for the output shown first."""
    return first if order == 0 else 1.0 - first


def judged_game(game: Game, question: Question, answers: Sequence[str | None]) -> Game:
    """A game of our judging with what AlpacaEval's files hold beside it."""
    told: Row = {"instruction": question.prompt}
    for name, text in zip(("output_2", "output_1"), answers, strict=True):
        told |= {} if text is None else {name: text}
    return replace(game, extra={**game.extra, **told})


def prompts_sha256() -> str:
    """Hash of the judge prompt: part of a judgment's identity."""
    return hashlib.sha256(template(PROMPT).encode()).hexdigest()


def published_win_rate(games: Sequence[Game]) -> float | None:
    """The leaderboard's win rate of one system over its questions, in per cent; None without a preference.

    A question judged in both orders has the mean of both; one that lacks either counts as not scored, as in
    `write_judgments`.
    """
    told: dict[str, list[float]] = {}
    for game in games:
        score = np.nan if game.score is None else game.score
        told.setdefault(game.question_id, []).append(score)
    means = np.array([np.mean(orders) for orders in told.values()], dtype=np.float64)
    scores = means[~np.isnan(means)]
    return 100 * float(scores.mean()) if scores.size else None
