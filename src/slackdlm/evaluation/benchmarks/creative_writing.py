"""Creative-Writing-Bench v3: 32 prompts in 3 iterations, each piece graded 0 to 20 on 22 criteria.

It has no licence, so nothing of it is here: prompts, criteria and judge prompt come from the user's copy. The unit of
analysis is the prompt; its iterations are repeats (`Grade.turn`). A piece that could not be generated stays in the
count as ``failed``: the benchmark leaves it out of the mean, which flatters models that write little.

References:
    EQ-bench/creative-writing-bench at e7ab0091.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slackdlm.atomic import write_text
from slackdlm.errors import DataError
from slackdlm.evaluation.benchmarks.items import Answer, Question, judge_name, rest, unique
from slackdlm.evaluation.jsonl import (
    Row,
    as_object,
    dump,
    get_object,
    get_text,
    get_texts,
    read_json,
    read_text,
    show,
)
from slackdlm.evaluation.judgments import Grade, GradeStatus, Messages

LOWEST, HIGHEST = 0.0, 20.0
SEED = "<SEED>"
"""Where a prompt's seed modifier goes."""
PLACES = (
    "writing_prompt", "test_model_response", "creative_writing_criteria", "lower_is_better_criteria",
)  # fmt: skip
"""What is filled into the judge prompt."""


class Criteria(NamedTuple):
    """What a piece is graded on."""

    names: tuple[str, ...]
    """All criteria."""
    negative: tuple[str, ...]
    """Those where lower is better; their grade counts as 20 minus it."""


class Rubric(NamedTuple):
    """What the judge is told."""

    prompt: str
    """With the places `PLACES` to fill in."""
    criteria: Criteria

    def sha256(self) -> str:
        """Hash of all of it: part of a judgment's identity."""
        return hashlib.sha256(json.dumps(self).encode()).hexdigest()


@dataclass(frozen=True)
class PublishedScore:
    """The rubric score of one run, 0 to 100."""

    score: float | None
    """Five times the mean over pieces of the mean over everything its parser took for a criterion."""
    num_scored: int
    """Pieces in that mean."""
    num_total: int
    """Pieces asked for."""


def read_criteria(folder: Path) -> Criteria:
    """Criteria of a copy's ``data`` folder.

    Raises:
        DataError: If a file is missing or a negative criterion is no criterion.
    """
    names, negative = (
        tuple(
            line.strip()
            for line in read_text(folder / name, what="criteria").split("\n")
            if line.strip()
        )
        for name in ("creative_writing_criteria.txt", "negative_criteria.txt")
    )
    unknown = [name for name in negative if name not in names]
    if unknown or not names:
        raise DataError(f"{folder}: negative criteria that are no criteria: {unknown!a}")
    return Criteria(names, negative)


def read_rubric(prompt_file: Path) -> Rubric:
    """Judge prompt of the user's copy and, from the files beside it, the criteria.

    Raises:
        DataError: If a file is missing or the prompt lacks a place to fill in.
    """
    prompt = read_text(prompt_file, what="Creative-Writing-Bench's judge prompt")
    missing = [f"{{{name}}}" for name in PLACES if f"{{{name}}}" not in prompt]
    if missing:
        raise DataError(
            f"{prompt_file}: expected Creative-Writing-Bench's creative_writing_judging_prompt.txt, but there is no "
            f"{', '.join(missing)} in it"
        )
    return Rubric(prompt, read_criteria(prompt_file.parent))


def read_questions(path: Path, *, iterations: int = 3) -> list[Question]:
    """One question per prompt and iteration, with the seed modifier of that iteration in its place.

    The id is ``PROMPT#ITERATION``, iterations counting from 1.
    """
    prompts = as_object(read_json(path, what="Creative-Writing-Bench prompts"), where=str(path))
    questions: list[Question] = []
    for prompt_id, value in prompts.items():
        where = f"{path}: prompt {prompt_id!a}"
        row = as_object(value, where=where)
        text = get_text(row, "writing_prompt", where=where)
        seeds = get_texts(row, "seed_modifiers", where=where)
        for iteration in range(1, iterations + 1):
            seed = seeds[(iteration - 1) % len(seeds)]
            content = text.replace(SEED, seed)
            questions.append(
                Question(
                    id=f"{prompt_id}#{iteration}",
                    category=get_text(row, "category", where=where),
                    messages=({"role": "user", "content": content},),
                    extra={
                        "prompt_id": prompt_id,
                        "iteration": iteration,
                        "seed_modifier": seed,
                        "base_prompt": text,
                    },
                )
            )
    if not questions:
        raise DataError(f"{path}: the file holds no prompt")
    return questions


def read_answers(path: Path) -> list[Answer]:
    """Pieces of every run in a run file; one that was never generated has none."""
    answers: list[Answer] = []
    for piece in _pieces(path):
        if "model_response" not in piece.block:
            continue
        answers.append(
            Answer(
                question_id=f"{piece.prompt_id}#{piece.repeat}",
                system=piece.system,
                turns=(get_text(piece.block, "model_response", where=piece.where),),
                extra={"piece": piece.origin(), "block": rest(piece.block, "model_response")},
            )
        )
    return unique(answers, path=path)


def write_answers(
    path: Path, answers: Sequence[Answer], questions: Sequence[Question], *, judge: str = ""
) -> None:
    """A run file whose pieces are generated and not yet judged, as the benchmark continues it."""
    asked = {question.id: question for question in questions}
    runs: Row = {}
    for answer in answers:
        question = asked.get(answer.question_id)
        if question is None:
            raise DataError(f"answer to {show(answer.question_id)}: there is no such question")
        block = {"model_response": answer.text, "generation_failed": not answer.text.strip()}
        _put(runs, _task_of(question.extra, answer.system, judge, status="generated"), block)
    write_text(path, dump(runs, indent=2) + "\n")


def read_judgments(path: Path, criteria: Criteria) -> list[Grade]:
    """The grade of every piece, 0 to 20, negative criteria inverted, over the known criteria alone.

    ``failed``: not generated or not judged; ``unparsable``: no known criterion graded; ``out_of_range``: one of
    them lies outside 0 to 20.
    """
    grades: list[Grade] = []
    for piece in _pieces(path):
        told = piece.block.get("judge_scores") or {}
        told = as_object(told, where=f"{piece.where}: 'judge_scores'")
        score, status = piece_score(told, criteria)
        failed = bool(piece.block.get("generation_failed")) or not piece.block.get("model_response")
        reply = piece.block.get("raw_judge_text")
        if score is None and (failed or not reply or str(reply).startswith("[ERROR")):
            status = "failed"
        grades.append(
            Grade(
                question_id=piece.prompt_id,
                system=piece.system,
                turn=piece.repeat,
                score=score,
                status=status,
                category=None,
                judge_identity={"benchmark": "creative-writing", "judge": piece.judge},
                reply=reply if isinstance(reply, str) else None,
                extra={"piece": piece.origin(), "block": rest(piece.block, "raw_judge_text")},
            )
        )
    return grades


def write_judgments(path: Path, grades: Sequence[Grade]) -> None:
    """A run file as the benchmark scores it; needs what `read_judgments` or a judge put in ``extra``.

    ``extra["piece"]`` says which prompt, iteration and modifier; ``extra["block"]`` holds ``model_response`` and
    ``judge_scores``.
    """
    runs: Row = {}
    for grade in grades:
        where = f"grade {show(grade.question_id)}"
        judge_name(grade.judge_identity, where=where)
        piece = get_object(dict(grade.extra), "piece", where=where)
        block = dict(get_object(dict(grade.extra), "block", where=where))
        if grade.reply is not None:
            block["raw_judge_text"] = grade.reply
        _put(runs, piece, block)
    write_text(path, dump(runs, indent=2) + "\n")


def judge_messages(question: Question, answer: str, rubric: Rubric) -> Messages:
    """What the judge is sent.

    As published the judge sees the prompt with its seed's placeholder, not the seed. Unlike there a short or empty
    piece is judged too.
    """
    values = {
        "writing_prompt": str(question.extra.get("base_prompt", question.prompt)),
        "test_model_response": answer,
        "creative_writing_criteria": "\n".join(f"- {name}" for name in rubric.criteria.names),
        "lower_is_better_criteria": ", ".join(rubric.criteria.negative),
    }
    # In one pass: a placeholder inside a piece stays what it is.
    places = re.compile("|".join(f"{{{name}}}" for name in PLACES))
    filled = places.sub(lambda found: values[found[0][1:-1]], rubric.prompt)
    return ({"role": "user", "content": filled},)


def judged_grade(grade: Grade, question: Question, answer: str | None, criteria: Criteria) -> Grade:
    """A grade of our judging as `read_judgments` would read it from a run file, with all that such a file holds.

    The question is the prompt and the turn its iteration.
    """
    scores = {} if grade.reply is None else parse_verdict(grade.reply, criteria)
    score, status = piece_score(scores, criteria)
    block: Row = {} if answer is None else {"model_response": answer}
    block |= {"generation_failed": answer is None, "judge_scores": scores}
    judge = judge_name(grade.judge_identity, where=f"grade {show(question.id)}")
    told = "generated" if score is None else "completed"
    return replace(
        grade,
        question_id=question.extra["prompt_id"],
        turn=question.extra["iteration"],
        score=score,
        status=grade.status if score is None else status,
        extra={
            **grade.extra,
            "piece": _task_of(question.extra, grade.system, judge, status=told),
            "block": block,
        },
    )


def parse_verdict(text: str, criteria: Criteria) -> dict[str, float]:
    """The grade of each known criterion in a reply, the last where several are given; as said, unchecked.

    A line counts only if it begins with a criterion's name and a colon. The benchmark takes any "words: number up
    to 20" for a criterion, prose included.
    """
    body = text.rsplit("[Scores]", 1)[-1]
    known = {name.casefold(): name for name in criteria.names}
    found: dict[str, float] = {}
    for line in body.split("\n"):
        name, colon, value = line[:400].strip(" *-#\t\r").partition(":")
        number = re.match(
            r"[\s*\[]*(?:score\s+)?[\s\[]*(-?[0-9]{1,6}(?:\.[0-9]{1,6})?)", value, re.I
        )
        if colon and number and name.strip(" *").casefold() in known:
            found[known[name.strip(" *").casefold()]] = float(number[1])
    return found


def piece_score(scores: Mapping[str, Any], criteria: Criteria) -> tuple[float | None, GradeStatus]:
    """Mean over the known criteria that are graded within 0 to 20, negative ones inverted, and its status."""
    values: list[float] = []
    status: GradeStatus = "ok"
    for name in criteria.names:
        value = scores.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if not LOWEST <= value <= HIGHEST:
            status = "out_of_range"
        else:
            values.append(HIGHEST - value if name in criteria.negative else float(value))
    return (float(np.mean(values)), status) if values else (None, "unparsable")


def parse_grade(text: str, criteria: Criteria) -> float | None:
    """`piece_score` of a reply: the mean over its criteria, those left out being left out of it; None without any."""
    return piece_score(parse_verdict(text, criteria), criteria)[0]


def published_score(grades: Sequence[Grade], criteria: Criteria) -> PublishedScore:
    """The figure the benchmark prints for one run, from what its parser stored, whatever that is."""
    pieces: list[float] = []
    for grade in grades:
        told = grade.extra.get("block", {}).get("judge_scores") or {}
        numbers = {
            name: value
            for name, value in told.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        turned = [HIGHEST - v if n in criteria.negative else float(v) for n, v in numbers.items()]
        kept = [value for value in turned if value <= HIGHEST]
        if kept:
            pieces.append(float(np.mean(kept)))
    score = round(5 * float(np.mean(pieces)), 2) if pieces else None
    return PublishedScore(score, len(pieces), len(grades))


class _Piece(NamedTuple):
    where: str
    run_key: str
    run: Row
    iteration: str
    prompt_id: str
    task: Row
    modifier: str
    block: Row
    repeat: int

    @property
    def system(self) -> str:
        """Whose piece it is."""
        return get_text(
            self.task if "test_model" in self.task else self.run, "test_model", where=self.where
        )

    @property
    def judge(self) -> str:
        """Who graded it."""
        return get_text(
            self.task if "judge_model" in self.task else self.run, "judge_model", where=self.where
        )

    def origin(self) -> Row:
        """Everything about the piece but its block, to write it back to its place."""
        keys = ("run_key", "run", "iteration", "prompt_id", "task", "modifier")
        return {key: getattr(self, key) for key in keys}


def _pieces(path: Path) -> list[_Piece]:
    runs = as_object(read_json(path, what="a Creative-Writing-Bench run file"), where=str(path))
    pieces: list[_Piece] = []
    repeats: dict[tuple[str, str], int] = {}
    for run_key, run in runs.items():
        where = f"{path}: run {run_key!a}"
        run = as_object(run, where=where)
        for iteration, tasks in get_object(run, "creative_tasks", where=where).items():
            for prompt_id, task in as_object(
                tasks, where=f"{where}: iteration {iteration!a}"
            ).items():
                place = f"{where}: iteration {iteration!a}: prompt {prompt_id!a}"
                task = as_object(task, where=place)
                for modifier, block in get_object(task, "results_by_modifier", where=place).items():
                    repeat = repeats[run_key, prompt_id] = repeats.get((run_key, prompt_id), 0) + 1
                    pieces.append(
                        _Piece(
                            place, run_key, rest(run, "creative_tasks"), iteration, prompt_id,
                            rest(task, "results_by_modifier"), modifier, as_object(block, where=place),
                            repeat,
                        )
                    )  # fmt: skip
    if not pieces:
        raise DataError(f"{path}: the file holds no piece")
    return pieces


def _task_of(extra: Mapping[str, Any], system: str, judge: str, *, status: str) -> Row:
    seed, iteration = extra["seed_modifier"], extra["iteration"]
    task = {
        "prompt_id": extra["prompt_id"],
        "base_prompt": extra["base_prompt"],
        "seed_modifiers": [seed],
        "iteration_index": iteration,
        "test_model": system,
        "judge_model": judge,
        "status": status,
    }
    return {
        "run_key": f"slackdlm__{system.replace('/', '__')}",
        "run": {"test_model": system, "judge_model": judge},
        "iteration": str(iteration),
        "prompt_id": extra["prompt_id"],
        "task": task,
        "modifier": seed,
    }


def _put(runs: Row, piece: Row, block: Row) -> None:
    run = runs.setdefault(piece["run_key"], {**piece["run"], "creative_tasks": {}})
    tasks = run["creative_tasks"].setdefault(piece["iteration"], {})
    task = tasks.setdefault(piece["prompt_id"], {**piece["task"], "results_by_modifier": {}})
    task["results_by_modifier"][piece["modifier"]] = block
