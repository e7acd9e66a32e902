"""From answers to scores: the demo's answers judged exactly, and every metric as an array."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from jaxtyping import Float

from slackdlm.benchmarks.answers import read_answers, read_turns
from slackdlm.journal import content_hash
from slackdlm.judging.judges import ExactJudge
from slackdlm.judging.plan import plan_judgments
from slackdlm.judging.protocols import JudgingProtocol
from slackdlm.judging.run import judge_answers
from slackdlm.judgments import Grade, Messages
from slackdlm.records import Question
from slackdlm.sampling.intervention import Dose
from slackdlm.study.grid import Condition, Grid
from slackdlm.study.toy_judge import judge


class Cell(NamedTuple):
    """One arm under one condition."""

    arm: str
    temperature: float
    steps: int
    kind: str
    rate: float


class Scored(NamedTuple):
    """One answer with everything that is measured of it."""

    training_seed: int
    decoding_seed: int
    question: int
    text: str
    dose: Dose
    metrics: dict[str, float | None]


class AnsweredArm(NamedTuple):
    """One training run whose answers are there."""

    output: Path
    """Folder of the study."""
    name: str
    """Of its files and systems."""
    arm: str
    training_seed: int
    grid: Grid

    def file(self, condition: Condition, seed: int) -> Path:
        """Where its answers under a condition are."""
        return self.grid.answer_file(self.output, self.name, condition, seed)


def _messages(question: Question, answer: str) -> Messages:
    return ({"role": "user", "content": question.prompt}, {"role": "assistant", "content": answer})


def _with_metrics(grade: Grade, question: Question) -> Grade:
    """The grade with the judge's other metrics in ``extra``."""
    if grade.reply is None:
        return grade
    verdict = json.loads(grade.reply)
    del verdict["quality"]
    return replace(grade, extra={**grade.extra, **verdict})


TOY_GRADES = JudgingProtocol(
    name="toy-grades",
    num_shown=1,
    prompt=_messages,
    parse=lambda reply: json.loads(reply)["quality"],
    prompts_sha256=lambda: content_hash([]),
    finish_grade=_with_metrics,
)
"""Grades single answers by their quality; the judge is sent nothing but question and answer."""

TOY_JUDGE = ExactJudge(
    "toy",
    lambda question, shown: json.dumps(judge(question.prompt, shown[0][0])._asdict()),
)
"""Says its whole verdict as JSON."""


def grade_arm(arm: AnsweredArm, questions: Sequence[Question]) -> list[Grade]:
    """Grades of all answers of one training run, in the order of its decodings and questions."""
    answers = [
        answer
        for condition, seed in arm.grid.decodings()
        for answer in read_answers(arm.file(condition, seed))
    ]
    plan = plan_judgments(TOY_GRADES, TOY_JUDGE, questions, answers)
    judged = judge_answers(plan, journal=None)
    return cast("list[Grade]", judged.judgments)


class Scores:
    """All scored answers, as arrays ``[training run, decoding seed, question]`` per cell and metric."""

    def __init__(self, *, num_questions: int) -> None:
        self.num_questions = num_questions
        self.rows: dict[Cell, list[Scored]] = {}

    def add(self, arm: AnsweredArm, grades: Sequence[Grade]) -> None:
        """Take in the grades of one training run, and what its answer files say beside the text.

        Raises:
            DataError: If an answer file cannot be used.
            KeyError: If an answer has no grade.
        """
        graded = {(grade.system, grade.question_id): grade for grade in grades}
        for condition, seed in arm.grid.decodings():
            rows = self.rows.setdefault(_cell(arm.arm, condition), [])
            for turn in read_turns(arm.file(condition, seed)):
                grade = graded[turn.system, turn.question_id]
                measured = {name: turn.rest[name] for name in ("slack_share", "forwards")}
                rows.append(
                    Scored(
                        training_seed=arm.training_seed,
                        decoding_seed=seed,
                        question=int(turn.question_id),
                        text=turn.text,
                        dose=Dose(**turn.rest["dose"]),
                        metrics={"quality": grade.score, **grade.extra, **measured},
                    )
                )

    def array(self, cell: Cell, metric: str) -> Float[np.ndarray, "N R Q"]:
        """One metric of one cell; NaN where there is no score."""
        rows = self.rows[cell]
        runs = sorted({row.training_seed for row in rows})
        seeds = sorted({row.decoding_seed for row in rows})
        scores = np.full((len(runs), len(seeds), self.num_questions), np.nan)
        for row in rows:
            value = row.metrics[metric]
            place = (runs.index(row.training_seed), seeds.index(row.decoding_seed), row.question)
            scores[place] = np.nan if value is None else value
        return scores

    def dose(self, cell: Cell) -> dict[str, int]:
        """Summed counts of the intervention."""
        doses = [row.dose for row in self.rows[cell]]
        return Dose(*(sum(counts) for counts in zip(*doses, strict=True)))._asdict()

    def distinct_bigrams(self, cell: Cell) -> list[float | None]:
        """`distinct_bigrams` of each training run, on its first decoding seed."""
        texts: dict[int, list[str]] = {}
        for row in self.rows[cell]:
            if row.decoding_seed == 0:
                texts.setdefault(row.training_seed, []).append(row.text)
        return [distinct_bigrams(texts[run]) for run in sorted(texts)]


def _cell(arm: str, condition: Condition) -> Cell:
    sampler = condition.sampler
    steps = sampler.canvas_length if sampler.steps is None else sampler.steps
    return Cell(arm, sampler.temperature, steps, condition.label, condition.rate)


def distinct_bigrams(texts: Sequence[str]) -> float | None:
    """Distinct word pairs among the first 1,000 words of a corpus; ``None`` if it has fewer.

    The more words, the rarer a new pair: counted over whole corpora, shorter answers would look more diverse.
    """
    pairs: set[tuple[str, str]] = set()
    num_left = 1000
    for text in texts:
        words = text.split()[:num_left]
        num_left -= len(words)
        pairs.update(pairwise(words))
    return None if num_left else float(len(pairs))
