"""Creative-Writing-Bench's own files: questions, answers and judgments, read and written."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from slackdlm.atomic import write_text
from slackdlm.benchmarks.creative_writing import (
    PUBLISHED,
    Criteria,
    parse_verdict,
    piece_score,
    published_piece,
)
from slackdlm.errors import DataError
from slackdlm.jsonl import (
    Row,
    as_object,
    dump,
    get_object,
    get_text,
    get_texts,
    read_json,
    show,
)
from slackdlm.judgments import Grade, Messages
from slackdlm.records import Answer, Question, rest, unique

SEED = "<SEED>"
"""Where a prompt's seed modifier goes."""
ITERATIONS = 3
"""Pieces per prompt."""


def read_questions(path: Path) -> list[Question]:
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
        for iteration in range(1, ITERATIONS + 1):
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
                messages=piece.asked,
                extra=rest(piece.block, "model_response"),
            )
        )
    return unique(answers, path=path)


def write_answers(path: Path, answers: Sequence[Answer], questions: Sequence[Question]) -> None:
    """A run file whose pieces are generated and not yet judged, as the benchmark continues it."""
    asked = {question.id: question for question in questions}
    runs: Row = {}
    for answer in answers:
        question = asked.get(answer.question_id)
        if question is None:
            raise DataError(f"answer to {show(answer.question_id)}: there is no such question")
        block = {"model_response": answer.text, "generation_failed": not answer.text.strip()}
        _put(runs, _task_of(question.extra, answer.system), block)
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
                extra={
                    **rest(piece.block, "raw_judge_text"),
                    PUBLISHED: published_piece(piece.task, piece.block, criteria),
                },
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

    @property
    def asked(self) -> Messages:
        """The prompt with its seed; empty where the run does not repeat it."""
        prompt = self.task.get("base_prompt")
        if not isinstance(prompt, str):
            return ()
        return ({"role": "user", "content": prompt.replace(SEED, self.modifier)},)


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


def _task_of(extra: Mapping[str, Any], system: str) -> Row:
    seed, iteration = extra["seed_modifier"], extra["iteration"]
    task = {
        "prompt_id": extra["prompt_id"],
        "base_prompt": extra["base_prompt"],
        "seed_modifiers": [seed],
        "iteration_index": iteration,
        "test_model": system,
        "judge_model": "",
        "status": "generated",
    }
    return {
        "run_key": f"slackdlm__{system.replace('/', '__')}",
        "run": {"test_model": system, "judge_model": ""},
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
