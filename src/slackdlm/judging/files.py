"""Answer files in, ``judgments.jsonl`` out: what ``slackdlm judge`` does between its flags and its table."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from slackdlm.benchmarks.answer_files import read_answer_file
from slackdlm.errors import DataError
from slackdlm.journal import journal_of
from slackdlm.judging.budget import Budget
from slackdlm.judging.judges import Judge
from slackdlm.judging.plan import DryRun, dry_run, plan_judgments, without_partner
from slackdlm.judging.protocols import JudgingProtocol, judging_protocol
from slackdlm.judging.run import Judged, judge_answers
from slackdlm.judgments import write_judgments
from slackdlm.records import Answer, Question

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class JudgingFiles:
    """Which files are judged, and where the judgments go."""

    benchmark: str
    """Name of the protocol."""
    questions: Path
    answers: Sequence[Path]
    """Ours or the benchmark's own format."""
    output: Path
    """Our ``judgments.jsonl``."""
    baseline: Path | None = None
    """Of the system compared to."""
    references: Path | None = None
    """MT-Bench's reference answers."""
    judge_prompt: Path | None = None
    """Creative-Writing-Bench's judge prompt, its criteria beside it."""
    journal: Path | None = None
    """Default: ``OUTPUT.journal``."""

    @property
    def journal_folder(self) -> Path:
        """Where the judgments are kept."""
        return self.journal or journal_of(self.output)


class _Read(NamedTuple):
    """The files, read."""

    protocol: JudgingProtocol
    questions: list[Question]
    answers: list[Answer]
    baseline: list[Answer] | None


def _read(files: JudgingFiles) -> _Read:
    protocol = judging_protocol(files.benchmark, judge_prompt=files.judge_prompt)
    questions = protocol.read_questions(files.questions, files.references)
    answers = [answer for file in files.answers for answer in read_answer_file(file)]
    baseline = None if files.baseline is None else read_answer_file(files.baseline)
    for line in without_partner(questions, [*answers, *(baseline or [])]):
        _LOG.warning(line)
    return _Read(protocol, questions, answers, baseline)


def count_calls(files: JudgingFiles, judge: Judge) -> DryRun:
    """What `judge_files` would ask; nothing is asked or written. Errors as there."""
    protocol, questions, answers, baseline = _read(files)
    planned = plan_judgments(protocol, judge, questions, answers, baseline)
    return dry_run(judge, planned, journal=files.journal_folder)


def judge_files(
    files: JudgingFiles,
    judge: Judge,
    *,
    budget: Budget | None = None,
    on_plan: Callable[[int], None] | None = None,
    on_judged: Callable[[int, float | None], None] | None = None,
) -> Judged:
    """Judge files of answers and write the judgments, those that are missing as missing.

    Args:
        files: What is read and written.
        judge: Whom to ask.
        budget: Limits of this run.
        on_plan: As in `judge_answers`.
        on_judged: As there.

    Raises:
        DataError: If a file cannot be used or the files do not fit together.
        ConfigError: If the benchmark is not known or the judge can never reply.
    """
    protocol, questions, answers, baseline = _read(files)
    judged = judge_answers(
        protocol,
        judge,
        questions,
        answers,
        baseline=baseline,
        journal=files.journal_folder,
        budget=budget,
        on_plan=on_plan,
        on_judged=on_judged,
    )
    write_judgments(files.output, judged.judgments)
    return judged


def check_missing(judged: Judged, *, max_missing: float) -> None:
    """DataError if the run was cut off, or more than that share of the judgments has no usable score."""
    counts = judged.tally
    if judged.stopped is not None:
        raise DataError(f"judge: {judged.stopped}; run it again to go on")
    missing = counts.num_total - counts.num_scored
    if missing > max_missing * counts.num_total:
        errors = [error for j in judged.judgments if (error := j.extra.get("error"))]
        told = f"; the first: {errors[0]}" if errors else ""
        raise DataError(
            f"judge: {missing} of {counts.num_total} judgments are missing, more than {max_missing:.1%} "
            f"({counts.num_failed} failed, {counts.num_unparsable} without a verdict, "
            f"{counts.num_out_of_range} off the scale{told}); {_way_on(judged)}"
        )


def _way_on(judged: Judged) -> str:
    """What helps against missing judgments: asking again only where a reply may be another."""
    settings = judged.judgments[0].judge_identity["settings"]
    if settings["kind"] == "replay":
        return "a replay says only what was recorded: record those too, or ask another --judge"
    if settings["kind"] == "endpoint":
        return "run it again to try those again, or accept them with a higher --max-missing"
    return "this judge says the same again: ask another --judge, or accept them with a higher --max-missing"
