"""Judgments of any benchmark's file, recognised by what its first entry holds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from slackdlm.benchmarks import alpaca_eval, arena_hard, creative_writing, mt_bench, wildbench
from slackdlm.benchmarks.creative_writing import Criteria
from slackdlm.benchmarks.file_kinds import (
    Kind,
    UnknownKindError,
    has,
    is_creative_writing_run,
    read_kind,
)
from slackdlm.errors import DataError
from slackdlm.jsonl import Row, add_once
from slackdlm.judgments import (
    Game,
    Grade,
    SelfPlayError,
    identity_text,
    read_games,
    read_grades,
    refuse_self_play,
)
from slackdlm.records import Answer


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
NAMED: Final = 5
"""Files that a note names."""
READING: dict[str, str] = {
    "mt-bench grades": "Grades are 1 to 10. n counts questions: each one's score is the mean of its turns that are "
    "compared, missing unless all are scored; FastChat averages the turns it could parse",
    "wildbench grades": "Grades of 1 to 10 are shown as WB-Score, (grade − 5) × 20: from −80 to 100",
    "wildbench games": "A clear win is a point, a slight one 0.75, a tie 0.5; WB-Reward is twice the win rate − 100, "
    "but pairs with a truncated or empty answer add nothing to it and count in its n",
    "creative-writing grades": "A piece's grade is the mean of its criteria (0 to 20, negative ones turned round), "
    "shown times five. n counts prompts: a prompt's score is the mean of its iterations, missing unless all are scored",
    "arena-hard-v0.1 games": "v0.1's files do not name the baseline, which is gpt-4-0314 in the benchmark itself; with "
    "its answers in --answers it has its name",
    "alpaca-eval games": "Points are the judge's probabilities of preferring an answer; the length-controlled "
    "win rate comes with --gamed df_gamed.csv alpaca-eval (the CSV of tatsu-lab/alpaca_eval on the hub) alone",
}
"""Benchmark, and whether it grades or compares -> what its figures and n mean."""


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
        return creative_writing.read_judgments(path, criteria)

    return read_kind(path, (*_KINDS, (is_creative_writing_run, run_file)), what="judgments")


class Collected(NamedTuple):
    """The judgments of several files."""

    judgments: list[Game | Grade]
    notes: list[str]
    """What was left out or renamed, and why."""


def read_judgment_files(
    paths: Sequence[Path],
    *,
    criteria: Criteria | None = None,
    answers: Sequence[Answer] = (),
) -> Collected:
    """All judgments of these files and folders; nothing twice.

    In a folder, files of another kind are named and not used, hidden ones and what lies in hidden folders too. A file
    of a system against itself is left out beside others. Two files that judge one system on the same questions are
    two systems, called by the files' names.

    Args:
        paths: Files, and folders searched to the bottom for ``.json``, ``.jsonl`` and ``.parquet``.
        criteria: As in `read_judgment_file`.
        answers: Those of Arena-Hard v0.1's baseline, if there, say who it is.

    Raises:
        DataError: If a file cannot be used, or two of one name hold the same judgments.
    """
    files, unread = _listed(paths)
    by_file: dict[Path, list[Game | Grade]] = {}
    notes: list[str] = []
    left_out: DataError | None = None
    for file, folder in files.items():
        try:
            read = read_judgment_file(file, criteria=criteria)
            by_file[file] = _named(file, read, answers, notes)
        except SelfPlayError as error:
            left_out = error
            notes.append(f"{error}; the file is left out")
        except UnknownKindError:
            if folder is None:
                raise
            unread.append(file.relative_to(folder))
    if unread:
        shown = ", ".join(map(str, unread[:NAMED])) + (" …" if len(unread) > NAMED else "")
        notes.append(f"not judgments, not used: {shown} ({len(unread)} in all)")
    if not by_file:
        raise left_out or DataError(f"{paths[0]}: no file of judgments in this folder")
    return Collected(_apart(by_file, notes), notes)


def _listed(paths: Sequence[Path]) -> tuple[dict[Path, Path | None], list[Path]]:
    """Each file once with the folder it was found in, if not named itself; and what else is there."""
    files: dict[Path, Path | None] = {}
    unread: list[Path] = []
    known: set[Path] = set()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_dir() or file.resolve() in known:
                continue
            known.add(file.resolve())
            inside = file.relative_to(path)
            hidden = any(part.startswith(".") or part.endswith(".journal") for part in inside.parts)
            if file != path and (hidden or file.suffix not in (".json", ".jsonl", ".parquet")):
                unread.append(inside)
            else:
                files[file] = None if file == path else path
    return files, unread


def _named(
    file: Path, judgments: Sequence[Game | Grade], answers: Sequence[Answer], notes: list[str]
) -> list[Game | Grade]:
    """The judgments with v0.1's baseline by its name, where an answer file says who it is."""
    games = [each for each in judgments if isinstance(each, Game) and each.b == arena_hard.UNNAMED]
    if not games or not answers or benchmark_of(games[0]) != arena_hard.V01:
        return [*judgments]
    name = arena_hard.baseline_of(games, answers)
    if name is None:
        notes.append(
            f"{file}: Arena-Hard v0.1 does not name its baseline, and no answer file holds all the answers that stand "
            f"in its prompts; it is called {arena_hard.UNNAMED}"
        )
        return [*judgments]
    refuse_self_play(games[0].a, name, where=str(file), is_first=True)
    return [replace(game, b=name) if isinstance(game, Game) else game for game in judgments]


def _apart(by_file: Mapping[Path, Sequence[Game | Grade]], notes: list[str]) -> list[Game | Grade]:
    """All judgments, systems that two files judge on the same being called by the files' names."""
    kept = _without_copies(by_file, notes)
    owners: dict[tuple[object, ...], Path] = {}
    clashing: dict[str, dict[Path, None]] = {}
    for file, judgments in kept.items():
        for judgment in judgments:
            other = owners.setdefault(_key(judgment), file)
            if other == file:
                continue
            if other.stem == file.stem:
                raise DataError(
                    f"{file}: {_system(judgment)!a} is judged on question {judgment.question_id!a} here and in "
                    f"{other}, otherwise; give one of them, or rename a file"
                )
            clashing.setdefault(_system(judgment), {}).update({other: None, file: None})
    for system, files in clashing.items():
        shown = ", ".join(str(file) for file in [*files][:NAMED])
        notes.append(
            f"{system}: judged on the same questions in {len(files)} files, and these are compared by their names: "
            + shown
        )
    judged: list[Game | Grade] = []
    for file, judgments in kept.items():
        alone = len({_system(judgment) for judgment in judgments}) == 1
        for judgment in judgments:
            name = file.stem if alone else f"{_system(judgment)} ({file.stem})"
            is_clashing = file in clashing.get(_system(judgment), ())
            judged.append(_renamed(judgment, name) if is_clashing else judgment)
    return judged


def _without_copies(
    by_file: Mapping[Path, Sequence[Game | Grade]], notes: list[str]
) -> dict[Path, Sequence[Game | Grade]]:
    """The files but those that say the same as another of their name; DataError if a file judges something twice."""
    kept: dict[Path, Sequence[Game | Grade]] = {}
    first_files: dict[tuple[str, frozenset[tuple[object, ...]]], Path] = {}
    for file, judgments in by_file.items():
        scores = frozenset((*_key(each), each.score, each.status) for each in judgments)
        seen: set[tuple[object, ...]] = set()
        for each in judgments:
            label = f"question {each.question_id!a}, turn or iteration {each.turn}"
            add_once(
                seen, _key(each), f"{file}: {_system(each)!a} is judged twice on {label}; keep one"
            )
        other = first_files.setdefault((file.stem, scores), file)
        if other == file:
            kept[file] = judgments
        else:
            notes.append(f"{file}: says the same as {other}, not used")
    return kept


def _key(judgment: Game | Grade) -> tuple[object, ...]:
    """What may be there once."""
    pair = (judgment.b, judgment.order) if isinstance(judgment, Game) else ()
    identity = (type(judgment), identity_text(judgment))
    return (*identity, judgment.question_id, judgment.turn, _system(judgment), *pair)


def _system(judgment: Game | Grade) -> str:
    return judgment.a if isinstance(judgment, Game) else judgment.system


def _renamed(judgment: Game | Grade, name: str) -> Game | Grade:
    if isinstance(judgment, Grade):
        return replace(judgment, system=name)
    outputs = judgment.extra.get("model_outputs")
    if isinstance(outputs, dict) and judgment.a in outputs:
        renamed = {
            name if key == judgment.a else key: text for key, text in cast("Row", outputs).items()
        }
        return replace(judgment, a=name, extra={**judgment.extra, "model_outputs": renamed})
    return replace(judgment, a=name)


def benchmark_of(judgment: Game | Grade) -> str:
    """Name of the benchmark a judgment belongs to, from its judge's identity; ``judgments`` if that is silent."""
    for key in ("benchmark", "protocol"):
        name = judgment.judge_identity.get(key)
        if isinstance(name, str) and name:
            return name
    return "judgments"


_KINDS: tuple[Kind[Any], ...] = (
    (has("question_id", "a", "b", "order", "judge_identity"), read_games),
    (has("question_id", "system", "turn", "judge_identity"), read_grades),
    (has("games", "model", "judge"), arena_hard.read_judgments),
    (has("g1_winner", "g2_winner"), mt_bench.read_pairs),
    (has("question_id", "model", "judge", "score", "turn"), mt_bench.read_judgments),
    (has("session_id", "model_A", "model_B"), wildbench.read_pairs),
    (has("session_id", "score"), wildbench.read_judgments),
    (has("session_id", "parsed_result"), wildbench.read_judgments),
    (has("instruction", "generator_2", "preference"), alpaca_eval.read_judgments),
)
