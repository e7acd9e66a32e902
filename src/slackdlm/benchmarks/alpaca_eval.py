"""AlpacaEval 2: one comparison per instruction with a baseline, a preference between 1 (baseline) and 2.

The order in which its judge saw the two outputs is not in the file, so its games say nothing about position. Its own
judge sees one order, drawn at random; judging here asks both and averages them. The length-controlled win rate is
`study.length_control`.

References:
    Dubois et al., 2024 (arXiv 2404.04475); tatsu-lab/alpaca_eval at cd543a14. Its data are CC BY-NC 4.0.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from slackdlm.atomic import write_json
from slackdlm.benchmarks.templates import filled, template
from slackdlm.errors import DataError, show
from slackdlm.jsonl import FileRow, Number, Row, Text, add_once, check, dump, parse, read_as
from slackdlm.judgments import Game, Messages, refuse_self_play
from slackdlm.records import Answer, Question, unique, unique_questions

PROMPT = "alpaca_eval_clf.txt"

# Questions and answers


def question_id(instruction: str) -> str:
    """Id of an instruction, which the files do not have: the start of its sha256."""
    return hashlib.sha256(instruction.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class _Instruction(FileRow):
    instruction: Text
    dataset: Text | None = None

    @property
    def messages(self) -> Messages:
        return ({"role": "user", "content": self.instruction},)


def read_questions(path: Path) -> list[Question]:
    """Instructions; the category is the data set an instruction came from."""
    questions = [
        Question(question_id(row.instruction), row.dataset, row.messages, extra=row.rest)
        for _, row in read_as(_Instruction, path, what="AlpacaEval instructions")
    ]
    return unique_questions(questions, path=path)


class _Output(_Instruction):
    generator: Text
    output: Text


def read_answers(path: Path) -> list[Answer]:
    """Outputs of one or more systems (``model_outputs.json``)."""
    answers = [
        Answer(
            question_id(row.instruction), row.generator, (row.output,), row.messages, extra=row.rest
        )
        for _, row in read_as(_Output, path, what="AlpacaEval outputs")
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
        rows.append({**row, "generator": answer.system})
    write_json(path, rows)


# The judge


def judge_messages(question: Question, first: str, second: str) -> Messages:
    """What the judge is sent, in both variants: which of ``m`` (shown first) and ``M`` is better?

    As published but for texts that hold the template's own marks, which there cut the prompt short.
    """
    values = {"instruction": question.prompt, "output_1": first, "output_2": second}
    turns = re.findall(r"<\|im_start\|>(\w+)\n\s*(.*?)\s*<\|im_end\|>", template(PROMPT), re.S)
    return tuple({"role": role, "content": filled(content, values)} for role, content in turns)


def prompts_sha256() -> str:
    """Hash of the judge prompt: part of a judgment's identity."""
    return hashlib.sha256(template(PROMPT).encode()).hexdigest()


NUM_ALTERNATIVES = 5
"""Likeliest tokens that are asked for, as AlpacaEval does."""


class FirstToken(NamedTuple):
    """What a judge said first."""

    token: str
    log_probs: Mapping[str, float]
    """Of the likeliest tokens, that one as a rule among them; natural logarithms."""


def write_first_token(first: FirstToken) -> str:
    """The text that journals and judgment files keep as the reply."""
    return dump({"token": first.token, "log_probs": dict(first.log_probs)})


class _FirstToken(FileRow):
    token: Text
    log_probs: dict[Text, Number]


def parse_preference(reply: str) -> float | None:
    """Probability of ``m``, the output shown first, among ``m`` and ``M``, from a reply's first token.

    The published ``logprob_parser`` with ``is_binarize: false``: one of the two that is not among the likeliest
    tokens counts as impossible; None where neither is, and for what `write_first_token` did not write.
    """
    try:
        log_probs = check(_FirstToken, parse(reply, where="reply"), where="reply").log_probs
    except DataError:
        return None
    first, second = (log_probs.get(name, float("-inf")) for name in ("m", "M"))
    if max(first, second) == float("-inf"):
        return None
    if min(first, second) == float("-inf"):
        return float(first > second)
    return float(expit(first - second))


def parse_choice(reply: str) -> float | None:
    """1 for a reply of ``m`` alone, 0 for ``M``, quotes and stops aside; None for any other."""
    return {"m": 1.0, "M": 0.0}.get(reply.strip(" \t\r\n\"'`*."))


# Judgments of others


class _Annotation(FileRow):
    instruction: Text
    generator_1: Text
    generator_2: Text
    preference: Number | None = None
    dataset: Text | None = None
    annotator: Text | None = None


def read_judgments(path: Path) -> list[Game]:
    """One game per annotation: ``a`` is the model (``generator_2``), ``b`` the baseline.

    A null preference is ``unparsable``; 0 is a draw, as AlpacaEval reads it. ``order`` is how the file lists the
    two, not how the judge saw them.
    """
    games: list[Game] = []
    seen: set[tuple[str, str]] = set()
    for where, row in read_as(_Annotation, path, what="AlpacaEval annotations"):
        score = None
        if row.preference is not None:
            score = 0.5 if row.preference == 0 else row.preference - 1
            if not 0 <= score <= 1:
                raise DataError(
                    f"{where}: expected a preference in [1, 2] or 0 for a draw, got {row.preference}"
                )
        refuse_self_play(row.generator_2, row.generator_1, where=where, is_first=not games)
        problem = f"{where}: {row.generator_2!a} is judged twice on one instruction"
        add_once(seen, (row.instruction, row.generator_2), problem)
        games.append(
            Game(
                question_id=question_id(row.instruction),
                a=row.generator_2,
                b=row.generator_1,
                order=1,
                score=score,
                verdict=None,
                status="unparsable" if score is None else "ok",
                category=row.dataset,
                judge_identity={"benchmark": "alpaca-eval", "judge": row.annotator or "unknown"},
                extra={"instruction": row.instruction, **row.rest},
            )
        )
    return games


def judged_game(game: Game, question: Question, answers: Sequence[Sequence[str] | None]) -> Game:
    """A game of our judging with what AlpacaEval's files hold beside it."""
    outputs = dict(zip(("output_2", "output_1"), answers, strict=True))
    given = {name: turns[0] for name, turns in outputs.items() if turns is not None}
    return replace(game, extra={**game.extra, "instruction": question.prompt, **given})


# Scores


def preference_score(first: float, order: int) -> float:
    """Points of system ``a`` for a preference for the output shown first."""
    return first if order == 0 else 1.0 - first


def published_win_rate(games: Sequence[Game]) -> float | None:
    """The leaderboard's win rate of one system over its questions, in per cent; None without a preference.

    A question judged in both orders has the mean of both; one that lacks either counts as not scored.
    """
    by_question: dict[str, list[float]] = {}
    for game in games:
        score = np.nan if game.score is None else game.score
        by_question.setdefault(game.question_id, []).append(score)
    means = np.array([np.mean(orders) for orders in by_question.values()], dtype=np.float64)
    scores = means[~np.isnan(means)]
    return 100 * float(scores.mean()) if scores.size else None
