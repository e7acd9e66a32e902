"""How the judge behaved: what is missing, and what its verdicts follow beside the answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slackdlm.benchmarks.judgment_files import Scale
from slackdlm.errors import DataError
from slackdlm.judgments import Game, Grade, tally
from slackdlm.study.comparison import JudgeReport, Settings
from slackdlm.study.judge_bias import length_bias, position_bias
from slackdlm.study.style_control import StyleControlled, StyleMetadata, style_control


@dataclass(frozen=True)
class Group:
    """Judgments that may be averaged: one benchmark and category, one judge identity, games or grades."""

    benchmark: str
    base: str
    judge: str
    identity: str
    games: tuple[Game, ...]
    grades: tuple[Grade, ...]
    scale: Scale
    """How its scores are shown."""
    bounds: tuple[float, float] | None
    """The range a score can have; None for grades of an unknown scale, of which only what was seen is known."""


def judge_report(
    group: Group,
    settings: Settings,
    *,
    style: StyleMetadata | None,
    lengths: Mapping[tuple[str, str], int] | None,
) -> JudgeReport:
    """Counts, position and length bias, and win rates at equal style of one group."""
    position = length = controlled = None
    if group.games:
        draws = settings.num_resamples
        position = position_bias(
            group.games, rng=np.random.default_rng(settings.seed), num_resamples=draws
        )
        if lengths is not None:
            length = length_bias(
                group.games, lengths, rng=np.random.default_rng(settings.seed), num_resamples=draws
            )
        if settings.covariates:
            controlled = _style(group, settings, style or {})
    return JudgeReport(
        benchmark=group.benchmark,
        judge=group.judge,
        identity=group.identity,
        tally=tally(group.games or group.grades),
        position=position,
        length=length,
        style=controlled,
    )


def _style(group: Group, settings: Settings, style: StyleMetadata) -> StyleControlled:
    rivals = {game.b for game in group.games}
    if len(rivals) > 1:
        raise DataError(
            f"{group.benchmark}: style control needs one common baseline, got {', '.join(sorted(map(ascii, rivals)))}"
        )
    games: dict[str, list[Game]] = {}
    for game in group.games:
        games.setdefault(game.a, []).append(game)
    return style_control(
        games, style, covariates=settings.covariates, confidence=settings.confidence
    )


def warnings_of(reports: Sequence[JudgeReport], settings: Settings) -> list[str]:
    """What is missing too often, and what was kept apart."""
    found: list[str] = []
    for report in reports:
        told = report.tally
        missing = told.num_total - told.num_scored
        if missing > settings.max_missing * told.num_total:
            found.append(
                f"{report.benchmark}, judge {report.judge}: {missing} of {told.num_total} judgments are missing "
                f"({told.num_unparsable} unparsable, {told.num_failed} failed, {told.num_out_of_range} out of "
                "range); a mean over the rest may say little"
            )
    # Grades and games of one benchmark are two things anyway.
    names = [(report.benchmark, report.position is None) for report in reports]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            found.append(
                f"{name[0]}: judged under {names.count(name)} identities; they are kept apart"
            )
    return found
