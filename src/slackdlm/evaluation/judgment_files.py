"""Judgments of any benchmark's file, recognised by what its first entry holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from slackdlm.errors import DataError
from slackdlm.evaluation.benchmarks import (
    alpaca_eval,
    arena_hard_files,
    creative_writing,
    creative_writing_files,
    mt_bench,
    mt_bench_files,
    wildbench,
    wildbench_files,
)
from slackdlm.evaluation.benchmarks.creative_writing import Criteria
from slackdlm.evaluation.file_kinds import FileKind, has, is_creative_writing_run, read_kind
from slackdlm.evaluation.judgments import Game, Grade, read_games, read_grades


class Scale(NamedTuple):
    """How a benchmark's grades are read and shown: ``shown = (grade - zero) * factor``."""

    lowest: float
    highest: float
    zero: float
    factor: float

    def shown(self, grade: float) -> float:
        """A grade as the benchmark shows it."""
        return (grade - self.zero) * self.factor


SCALES: dict[str, Scale] = {
    "mt-bench": Scale(mt_bench.LOWEST, mt_bench.HIGHEST, 0.0, 1.0),
    "wildbench": Scale(wildbench.LOWEST, wildbench.HIGHEST, 5.0, 20.0),
    "creative-writing": Scale(creative_writing.LOWEST, creative_writing.HIGHEST, 0.0, 5.0),
}
"""Benchmark -> scale of its grades; WildBench is shown as ``(grade - 5) * 20``, Creative-Writing-Bench times five."""
READING: dict[str, str] = {
    "mt-bench": "Grades are 1 to 10. n counts questions: each has two turns, its score is the mean of both and missing "
    "unless both are scored; FastChat averages the turns it could parse",
    "wildbench": "Grades of 1 to 10 are shown as WB-Score, (grade − 5) × 20: from −80 to 100",
    "creative-writing": "A piece's grade is the mean of its criteria (0 to 20, negative ones turned round), shown "
    "times five. n counts prompts: a prompt's score is the mean of its iterations, missing unless all are scored",
    "alpaca-eval": "Points are the judge's probabilities of preferring an answer",
}
"""Benchmark -> what its figures and n mean."""


def read_judgment_file(path: Path, *, criteria: Criteria | None = None) -> Sequence[Game | Grade]:
    """All judgments of one file: ours, or those of a benchmark.

    A WildBench file that does not name the model gets the file's stem as its system; Arena-Hard v0.1 does not name
    its baseline, which is then called ``baseline``.

    Args:
        path: The file.
        criteria: What a run file of Creative-Writing-Bench is read by.

    Raises:
        DataError: If the file is of no known kind or one of its entries cannot be used.
    """

    def run_file(path: Path) -> list[Grade]:
        if criteria is None:
            raise DataError(
                f"{path}: a run of Creative-Writing-Bench is read by its criteria; give the data folder of your copy "
                "with --criteria"
            )
        return creative_writing_files.read_judgments(path, criteria)

    found = read_kind(
        path, (*_KINDS, FileKind(is_creative_writing_run, run_file)), what="judgments"
    )
    return cast("Sequence[Game | Grade]", found)


def benchmark_of(judgment: Game | Grade) -> str:
    """Name of the benchmark a judgment belongs to, from its judge's identity; ``judgments`` if that is silent."""
    for key in ("benchmark", "protocol"):
        name = judgment.judge_identity.get(key)
        if isinstance(name, str) and name:
            return name
    return "judgments"


_KINDS: tuple[FileKind[Any], ...] = (
    FileKind(has("question_id", "a", "b", "order", "judge_identity"), read_games),
    FileKind(has("question_id", "system", "turn", "judge_identity"), read_grades),
    FileKind(has("games", "model", "judge"), arena_hard_files.read_judgments),
    FileKind(has("g1_winner", "g2_winner"), mt_bench_files.read_pairs),
    FileKind(has("question_id", "model", "judge", "score", "turn"), mt_bench_files.read_judgments),
    FileKind(has("session_id", "model_A", "model_B"), wildbench_files.read_pairs),
    FileKind(has("session_id", "score"), wildbench_files.read_judgments),
    FileKind(has("session_id", "parsed_result"), wildbench_files.read_judgments),
    FileKind(has("instruction", "generator_2", "preference"), alpaca_eval.read_judgments),
)
