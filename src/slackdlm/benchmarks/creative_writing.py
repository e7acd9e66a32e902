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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BeforeValidator, Field

from slackdlm.atomic import write_json
from slackdlm.benchmarks.templates import filled
from slackdlm.errors import DataError, show
from slackdlm.jsonl import FileRow, Object, Row, Text, Texts, check, read_json, read_text
from slackdlm.judgments import Grade, GradeStatus, Messages
from slackdlm.records import Answer, Question, unique

LOWEST, HIGHEST = 0.0, 20.0
SEED = "<SEED>"
"""Where a prompt's seed modifier goes."""
ITERATIONS = 3
"""Pieces per prompt."""
PLACES = (
    "writing_prompt", "test_model_response", "creative_writing_criteria", "lower_is_better_criteria",
)  # fmt: skip
"""What is filled into the judge prompt."""
PUBLISHED = "published_piece"
"""Where a grade read from a run file keeps `published_piece`."""

# Questions and answers


class _Prompt(FileRow):
    writing_prompt: Text
    seed_modifiers: Texts
    category: Text


def read_questions(path: Path) -> list[Question]:
    """One question per prompt and iteration, with the seed modifier of that iteration in its place.

    The id is ``PROMPT#ITERATION``, iterations counting from 1.
    """
    content = read_json(path, what="Creative-Writing-Bench prompts")
    prompts = check(dict[Text, _Prompt], content, where=str(path))
    questions: list[Question] = []
    for prompt_id, prompt in prompts.items():
        for iteration in range(1, ITERATIONS + 1):
            seed = prompt.seed_modifiers[(iteration - 1) % len(prompt.seed_modifiers)]
            text = prompt.writing_prompt.replace(SEED, seed)
            questions.append(
                Question(
                    id=f"{prompt_id}#{iteration}",
                    category=prompt.category,
                    messages=({"role": "user", "content": text},),
                    extra={
                        "prompt_id": prompt_id,
                        "iteration": iteration,
                        "seed_modifier": seed,
                        "base_prompt": prompt.writing_prompt,
                    },
                )
            )
    if not questions:
        raise DataError(f"{path}: the file holds no prompt")
    return questions


class _Block(FileRow):
    model_response: Text | None = None
    judge_scores: Annotated[Object, BeforeValidator(lambda scores: scores or {})] = Field({})
    raw_judge_text: Any = None
    generation_failed: Any = False


class _Task(FileRow):
    test_model: Text | None = None
    judge_model: Text | None = None
    base_prompt: Any = None
    status: Any = None
    results_by_modifier: dict[Text, _Block]


class _Run(FileRow):
    test_model: Text | None = None
    judge_model: Text | None = None
    creative_tasks: dict[Text, dict[Text, _Task]]


class _Piece(NamedTuple):
    prompt_id: str
    system: str
    judge: str
    repeat: int
    """Iteration, from 1."""
    modifier: str
    task: _Task
    block: _Block


def _pieces(path: Path) -> Iterator[_Piece]:
    """Every piece of every run in a run file."""
    content = read_json(path, what="a Creative-Writing-Bench run file")
    runs = check(dict[Text, _Run], content, where=str(path))
    repeats: dict[tuple[str, str], int] = {}
    for run_key, run in runs.items():
        for iteration, tasks in run.creative_tasks.items():
            for prompt_id, task in tasks.items():
                system = run.test_model if task.test_model is None else task.test_model
                judge = run.judge_model if task.judge_model is None else task.judge_model
                if system is None or judge is None:
                    where = f"{path}: {run_key!a}, iteration {iteration!a}, prompt {prompt_id!a}"
                    raise DataError(f"{where}: expected test_model and judge_model, got none")
                for modifier, block in task.results_by_modifier.items():
                    repeat = repeats[run_key, prompt_id] = repeats.get((run_key, prompt_id), 0) + 1
                    yield _Piece(prompt_id, system, judge, repeat, modifier, task, block)
    if not repeats:
        raise DataError(f"{path}: the file holds no piece")


def read_answers(path: Path) -> list[Answer]:
    """Pieces of every run in a run file; one that was never generated has none."""
    answers: list[Answer] = []
    for piece in _pieces(path):
        text, prompt = piece.block.model_response, piece.task.base_prompt
        if text is None:
            continue
        chat: Messages = ()
        if isinstance(prompt, str):
            chat = ({"role": "user", "content": prompt.replace(SEED, piece.modifier)},)
        number = f"{piece.prompt_id}#{piece.repeat}"
        answers.append(Answer(number, piece.system, (text,), chat, extra=piece.block.rest))
    return unique(answers, path=path)


def write_answers(path: Path, answers: Sequence[Answer], questions: Sequence[Question]) -> None:
    """A run file whose pieces are generated and not yet judged, as the benchmark continues it."""
    known = {question.id: question.extra for question in questions}
    runs: Row = {}
    for answer in answers:
        if answer.question_id not in known:
            raise DataError(f"answer to {show(answer.question_id)}: there is no such question")
        extra, names = known[answer.question_id], {"test_model": answer.system, "judge_model": ""}
        key = f"slackdlm__{answer.system.replace('/', '__')}"
        tasks = runs.setdefault(key, {**names, "creative_tasks": {}})["creative_tasks"]
        tasks = tasks.setdefault(str(extra["iteration"]), {})
        tasks[extra["prompt_id"]] = {
            "prompt_id": extra["prompt_id"],
            "base_prompt": extra["base_prompt"],
            "seed_modifiers": [extra["seed_modifier"]],
            "iteration_index": extra["iteration"],
            **names,
            "status": "generated",
            "results_by_modifier": {
                extra["seed_modifier"]: {
                    "model_response": answer.text,
                    "generation_failed": not answer.text.strip(),
                }
            },
        }
    write_json(path, runs)


# The judge


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


def read_criteria(folder: Path) -> Criteria:
    """Criteria of a copy's ``data`` folder; DataError if a file is missing or a negative one is no criterion."""
    files = ("creative_writing_criteria.txt", "negative_criteria.txt")
    lines = [read_text(folder / name, what="criteria").split("\n") for name in files]
    names, negative = (tuple(line.strip() for line in part if line.strip()) for part in lines)
    unknown = [name for name in negative if name not in names]
    if unknown or not names:
        raise DataError(f"{folder}: negative criteria that are no criteria: {unknown!a}")
    return Criteria(names, negative)


def read_rubric(prompt_file: Path) -> Rubric:
    """Judge prompt of the user's copy and, from the files beside it, the criteria; DataError if one is no such file."""
    prompt = read_text(prompt_file, what="Creative-Writing-Bench's judge prompt")
    missing = [f"{{{name}}}" for name in PLACES if f"{{{name}}}" not in prompt]
    if missing:
        raise DataError(
            f"{prompt_file}: expected Creative-Writing-Bench's creative_writing_judging_prompt.txt, but there is no "
            f"{', '.join(missing)} in it"
        )
    return Rubric(prompt, read_criteria(prompt_file.parent))


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
    return ({"role": "user", "content": filled(rubric.prompt, values)},)


_CRITERION_GRADE = r"[\s*\[]*(?:score\s+)?[\s\[]*(-?[0-9]{1,6}(?:\.[0-9]{1,6})?)"


def parse_verdict(text: str, criteria: Criteria) -> dict[str, float]:
    """The grade of each known criterion in a reply, the last where several are given; as said, unchecked.

    A line counts only if it begins with a criterion's name and a colon. The benchmark takes any "words: number up
    to 20" for a criterion, prose included.
    """
    body = text.rsplit("[Scores]", 1)[-1]
    known = {name.casefold(): name for name in criteria.names}
    grades: dict[str, float] = {}
    for line in body.split("\n"):
        name, colon, value = line[:400].strip(" *-#\t\r").partition(":")
        number = re.match(_CRITERION_GRADE, value, re.I)
        if colon and number and name.strip(" *").casefold() in known:
            grades[known[name.strip(" *").casefold()]] = float(number[1])
    return grades


def parse_grade(text: str, criteria: Criteria) -> float | None:
    """`piece_score` of a reply: the mean over its criteria, those left out being left out of it; None without any."""
    return piece_score(parse_verdict(text, criteria), criteria)[0]


# Judgments of others


def read_judgments(path: Path, criteria: Criteria) -> list[Grade]:
    """The grade of every piece, 0 to 20, negative criteria inverted, over the known criteria alone.

    ``failed``: not generated or not judged; ``unparsable``: no known criterion graded; ``out_of_range``: one of
    them lies outside 0 to 20.
    """
    grades: list[Grade] = []
    for piece in _pieces(path):
        block = piece.block
        score, status = piece_score(block.judge_scores, criteria)
        reply = block.raw_judge_text
        is_written = block.model_response and not block.generation_failed
        is_judged = reply and not str(reply).startswith("[ERROR")
        if score is None and not (is_written and is_judged):
            status = "failed"
        published = published_piece(piece.task.status, block.judge_scores, criteria)
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
                extra={**block.rest, PUBLISHED: published},
            )
        )
    return grades


def judged_grade(grade: Grade, question: Question, criteria: Criteria) -> Grade:
    """A grade of our judging as `read_judgments` reads one: the question is the prompt, the turn its iteration."""
    # A reply without a grade, such as one that was cut off, has none for a criterion either.
    scores = {} if grade.score is None else parse_verdict(grade.reply or "", criteria)
    score, status = piece_score(scores, criteria)
    return replace(
        grade,
        question_id=question.extra["prompt_id"],
        turn=question.extra["iteration"],
        score=score,
        status=grade.status if score is None else status,
    )


# Scores


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


def published_piece(status: object, scores: Mapping[str, Any], criteria: Criteria) -> float | None:
    """The benchmark's own grade of a piece, all that its judge named being criteria; None where it leaves it out."""
    if status not in ("completed", "judged"):
        return None
    values = [
        HIGHEST - value if name in criteria.negative else float(value)
        for name, value in scores.items()
        if isinstance(value, int | float)
    ]
    kept = [value for value in values if value <= HIGHEST]
    return sum(kept) / len(kept) if kept else None


def published_score(grades: Sequence[Grade]) -> float | None:
    """The benchmark's ``eqbench_creative_score``, 0 to 100, of one run; None unless all are from a run file."""
    if any(PUBLISHED not in grade.extra for grade in grades):
        return None
    pieces = [piece for grade in grades if (piece := grade.extra[PUBLISHED]) is not None]
    return round(5 * sum(pieces) / len(pieces), 2) if pieces else None
