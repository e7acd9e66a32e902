"""Judgments of any benchmark's file, recognised by what its first entry holds."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from slackdlm.errors import DataError
from slackdlm.evaluation.benchmarks import alpaca_eval, arena_hard, mt_bench, wildbench
from slackdlm.evaluation.jsonl import Row, read_items
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
    "creative-writing-bench-v3": Scale(0.0, 20.0, 0.0, 5.0),
}
"""Benchmark -> scale of its grades; WildBench is shown as ``(grade - 5) * 20``, Creative-Writing-Bench times five."""

_Reader = Callable[[Path], Sequence[Game] | Sequence[Grade]]
_FORMATS: tuple[tuple[frozenset[str], _Reader], ...] = (
    (frozenset({"question_id", "a", "b", "order", "judge_identity"}), read_games),
    (frozenset({"question_id", "system", "turn", "judge_identity"}), read_grades),
    (frozenset({"games", "model", "judge"}), arena_hard.read_judgments),
    (frozenset({"g1_winner", "g2_winner"}), mt_bench.read_pairs),
    (frozenset({"question_id", "model", "judge", "score", "turn"}), mt_bench.read_judgments),
    (frozenset({"session_id", "model_A", "model_B"}), wildbench.read_pairs),
    (frozenset({"session_id", "score"}), wildbench.read_judgments),
    (frozenset({"session_id", "parsed_result"}), wildbench.read_judgments),
    (frozenset({"instruction", "generator_2", "preference"}), alpaca_eval.read_judgments),
)


def read_judgment_file(path: Path) -> list[Game] | list[Grade]:
    """All judgments of one file: ours, or those of Arena-Hard, MT-Bench, WildBench or AlpacaEval.

    A WildBench file that does not name the model gets the file's stem as its system; Arena-Hard v0.1 does not name
    its baseline, which is then called ``baseline``. Creative-Writing-Bench needs its criteria and has its own reader.

    Raises:
        DataError: If the file is of no known kind or one of its entries cannot be used.
    """
    _, first = next(iter(read_items(path, what="judgments")))
    reader = _reader(first)
    if reader is None:
        keys = ", ".join(map(ascii, list(first)[:12])) or "none"
        raise DataError(
            f"{path}: not a judgment file of a known kind (first entry has the keys {keys}); expected our "
            "judgments.jsonl or a file of Arena-Hard, MT-Bench, WildBench or AlpacaEval"
        )
    if reader is wildbench.read_judgments:
        return wildbench.read_judgments(path, system=path.stem)
    found = reader(path)
    return [one for one in found if isinstance(one, Game)] or [
        one for one in found if isinstance(one, Grade)
    ]


def benchmark_of(judgment: Game | Grade) -> str:
    """Name of the benchmark a judgment belongs to, from its judge's identity; ``judgments`` if that is silent."""
    for key in ("benchmark", "protocol"):
        name = judgment.judge_identity.get(key)
        if isinstance(name, str) and name:
            return name
    return "judgments"


def _reader(first: Row) -> _Reader | None:
    return next((reader for keys, reader in _FORMATS if keys <= first.keys()), None)
