"""Which questions and turns were judged: what systems have in common, and what a benchmark's files lack."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from slackdlm.judgments import Game, Grade

J = TypeVar("J", bound=Game | Grade)
K = TypeVar("K")
NAMED = 3
"""Systems that a warning names."""


def in_common(judged: Mapping[K, Sequence[J]]) -> dict[K, list[J]]:
    """Each system's judgments of the questions and turns that all systems have; all of them where none is shared."""
    sets = [_places(judgments) for judgments in judged.values()]
    common: set[tuple[str, int]] = set.intersection(*sets) if sets else set()
    return {
        name: [one for one in judgments if not common or (one.question_id, one.turn) in common]
        for name, judgments in judged.items()
    }


def uneven_warning(benchmark: str, judged: Mapping[str, Sequence[Game | Grade]]) -> str | None:
    """That the systems were not judged on the same, and on what they are compared; None if they were."""
    sets = {name: _places(judgments) for name, judgments in judged.items()}
    common: set[tuple[str, int]] = set.intersection(*sets.values()) if sets else set()
    if all(places == common for places in sets.values()):
        return None
    has_turns = any(turn > 1 for places in sets.values() for _, turn in places)
    unit = "turns" if has_turns else "questions"
    told = _listed({name: len(places) for name, places in sets.items()})
    if not common:
        return (
            f"{benchmark}: the systems have no {unit[:-1]} in common ({told}); each figure is over its own, and "
            "nothing compares them"
        )
    num = len({question for question, _ in common})
    where = f"{len(common):,} turns of {num:,} questions" if has_turns else f"{num:,} questions"
    return (
        f"{benchmark}: the systems were not judged on the same {unit} ({told}); the table is over the {where} that "
        "all have, and the figures over each one's own are given too"
    )


def size_warning(
    benchmark: str,
    size: tuple[int, int],
    judged: Mapping[str, Sequence[Game | Grade]],
) -> str | None:
    """Which systems lack questions of the benchmark, or have more; None if none does."""
    num_questions, num_turns = size
    whole = num_questions * num_turns
    odd = {
        name: len(_places(judgments))
        for name, judgments in judged.items()
        if len(_places(judgments)) != whole
    }
    if not odd:
        return None
    unit = f"{num_questions:,} questions" + (f" of {num_turns} turns" if num_turns > 1 else "")
    return (
        f"{benchmark}: the benchmark has {unit}, the files hold judgments of {_listed(odd)}; n counts those in the "
        "files, what they leave out is in no figure"
    )


def _places(judgments: Sequence[Game | Grade]) -> set[tuple[str, int]]:
    return {(one.question_id, one.turn) for one in judgments}


def _listed(counts: Mapping[str, int]) -> str:
    """The smallest few by name."""
    ordered = sorted(counts.items(), key=lambda item: item[1])
    shown = ", ".join(f"{name} {num:,}" for name, num in ordered[:NAMED])
    left = ordered[NAMED:]
    if not left:
        return shown
    ends = sorted({left[0][1], left[-1][1]})
    return f"{shown}, {len(left)} others {' to '.join(f'{num:,}' for num in ends)}"
