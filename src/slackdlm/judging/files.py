"""Which files does ``slackdlm judge`` read, and what do they ask for?"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slackdlm.benchmarks.answers import read_answer_file
from slackdlm.journal import journal_of
from slackdlm.judging.judges import Judge
from slackdlm.judging.plan import Plan, plan_judgments, without_partner
from slackdlm.judging.protocols import judging_protocol

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


def plan_files(files: JudgingFiles, judge: Judge) -> Plan:
    """What is to be judged; answers and questions without a partner are named in a warning.

    Raises:
        DataError: If a file cannot be used or the files do not fit together.
        ConfigError: If the benchmark is not known.
    """
    protocol = judging_protocol(files.benchmark, judge_prompt=files.judge_prompt)
    questions = protocol.read_questions(files.questions, files.references)
    answers = [answer for file in files.answers for answer in read_answer_file(file)]
    baseline = None if files.baseline is None else read_answer_file(files.baseline)
    for line in without_partner(questions, [*answers, *(baseline or [])]):
        _LOG.warning(line)
    return plan_judgments(protocol, judge, questions, answers, baseline)
