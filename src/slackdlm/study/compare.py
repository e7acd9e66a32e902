"""Which system is better, on which benchmark, and how sure is that? Judgments in, one line per question asked of them.

Judgments of one benchmark and category by one judge form a group; groups are never merged. In a group, games give a
win rate per pair of systems and a paired difference for two systems with the same rival; grades give a mean per system
and a paired difference per two systems. All tested lines of a comparison are one family.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import cast

import numpy as np

from slackdlm.benchmarks.judgment_files import SCALES, Scale, benchmark_of
from slackdlm.errors import DataError
from slackdlm.judgments import Game, Grade, identity_text
from slackdlm.statistics import (
    Estimate,
    benjamini_hochberg,
    exact_mcnemar,
    holm,
    mean_interval,
    sign_flip_test,
    win_rate,
)
from slackdlm.study.comparison import FEW, Comparison, JudgeReport, Line, Settings
from slackdlm.study.coverage import in_common, size_warning, uneven_warning
from slackdlm.study.judge_report import Group, judge_report, warnings_of
from slackdlm.study.lines import Measured, line_of, verdict_of
from slackdlm.study.published import (
    SIZES,
    Extras,
    drawn,
    family_of,
    game_figures,
    grade_figures,
)
from slackdlm.study.questions import (
    NullBounds,
    QuestionScores,
    game_scores,
    grade_scores,
    null_bounds,
)
from slackdlm.study.style_control import StyleMetadata

ALL_OWN = "over all its own questions"
POINTS = Scale(0.0, 1.0, 0.0, 100.0)
"""Points of a game are shown in per cent."""


def compare(
    judgments: Sequence[Game | Grade],
    *,
    settings: Settings | None = None,
    style: StyleMetadata | None = None,
    lengths: Mapping[tuple[str, str], int] | None = None,
    extras: Extras | None = None,
    notes: Sequence[str] = (),
) -> Comparison:
    """Every win rate and mean that the judgments allow, and every paired difference where systems are few.

    Systems are compared on the questions and turns that all of them have.

    Args:
        judgments: Of any benchmarks, systems and judges.
        settings: How; default `Settings`.
        style: Of all answers, for ``settings.covariates``.
        lengths: (question id, system) -> length of the answer, for the judge's length bias.
        extras: What some benchmarks' own figures need.
        notes: What was to be said of the files, to stand among the warnings.

    Raises:
        DataError: If there is no judgment, or a group holds a judgment twice.
    """
    settings, extras = settings or Settings(), extras or Extras()
    if not judgments:
        raise DataError("compare: there is no judgment to compare")
    lines: list[Line] = []
    reports: list[JudgeReport] = []
    remarks: list[str] = [*notes]
    for group in _groups(judgments):
        if group.games:
            lines += _game_lines(group, settings, extras, remarks)
        else:
            lines += _grade_lines(group, settings, extras, remarks)
        reports.append(judge_report(group, settings, style=style, lengths=lengths))
    adjust = benjamini_hochberg if settings.adjustment == "bh" else holm
    adjusted = adjust([line.p_value for line in lines])
    lines = [
        replace(line, p_adjusted=p, verdict=verdict_of(line, p, settings))
        for line, p in zip(lines, adjusted, strict=True)
    ]
    return Comparison(
        lines=tuple(lines),
        judges=tuple(reports),
        warnings=(*remarks, *warnings_of(reports, settings)),
        adjustment=settings.adjustment,
        alpha=settings.alpha,
        confidence=settings.confidence,
        seed=settings.seed,
        num_resamples=settings.num_resamples,
    )


def _groups(judgments: Sequence[Game | Grade]) -> list[Group]:
    groups: dict[tuple[str, str, str, bool], list[Game | Grade]] = {}
    for judgment in judgments:
        base = benchmark_of(judgment)
        # Only Arena-Hard keeps a leaderboard, and a baseline, per category.
        category = judgment.category if base.startswith("arena-hard") else None
        identity = identity_text(judgment)
        key = (base, category or "", identity, isinstance(judgment, Game))
        groups.setdefault(key, []).append(judgment)
    return [
        _group(base, category, identity, members)
        for (base, category, identity, _), members in groups.items()
    ]


def _group(base: str, category: str, identity: str, members: Sequence[Game | Grade]) -> Group:
    games = tuple(member for member in members if isinstance(member, Game))
    grades = tuple(member for member in members if isinstance(member, Grade))
    scale = POINTS if games else SCALES.get(base) or _observed(grades)
    return Group(
        benchmark=f"{base}: {category}" if category else base,
        base=base,
        judge=str(members[0].judge_identity.get("judge", "unknown")),
        identity=identity,
        games=games,
        grades=grades,
        scale=scale,
        bounds=(scale.lowest, scale.highest) if games or base in SCALES else None,
    )


def _observed(grades: Sequence[Grade]) -> Scale:
    """The scale of grades whose benchmark we do not know: 0 to 1 if all lie there, else what was seen."""
    scores = [grade.score for grade in grades if grade.score is not None]
    if all(0 <= score <= 1 for score in scores):
        return Scale(0.0, 1.0, 0.0, 1.0)
    return Scale(min(scores), max(scores), 0.0, 1.0)


def _game_lines(group: Group, settings: Settings, extras: Extras, notes: list[str]) -> list[Line]:
    pairs: dict[tuple[str, str], list[Game]] = {}
    for game in group.games:
        pairs.setdefault((game.a, game.b), []).append(game)
    for a, b in pairs:
        if (b, a) in pairs:
            raise DataError(
                f"{group.benchmark}: games of {a!a} against {b!a} are there from both sides; "
                "give each pair from one side"
            )
    lines: list[Line] = []
    for rival in dict.fromkeys(rival for _, rival in pairs):
        judged = {system: games for (system, against), games in pairs.items() if against == rival}
        notes += _coverage(group, judged)
        common = in_common(judged)
        for system, games in judged.items():
            scores = game_scores(common[system])
            rate = win_rate(scores.scores, **drawn(settings))
            figures = game_figures(group.benchmark, games, extras=extras, settings=settings)
            if len(common[system]) < len(games):
                all_own = win_rate(game_scores(games).scores, **drawn(settings))
                figures.ours[ALL_OWN] = all_own.mapped(group.scale.shown)
            measured = Measured(
                system=system,
                against=rival,
                scores=scores.scores,
                estimate=rate,
                bounds=null_bounds(scores),
                test="sign flips",
                p_value=rate.p_value,
                figures=figures,
            )
            lines.append(line_of(group, settings, "win rate", measured))
        lines += _differences(group, settings, common)
    return _ranked(lines)


def _grade_lines(group: Group, settings: Settings, extras: Extras, notes: list[str]) -> list[Line]:
    judged: dict[str, list[Grade]] = {}
    for grade in group.grades:
        judged.setdefault(grade.system, []).append(grade)
    notes += _coverage(group, judged)
    common = in_common(judged)

    def mean_of(scores: QuestionScores) -> Estimate:
        return mean_interval(scores.scores, bounds=group.bounds, **drawn(settings))

    lines: list[Line] = []
    for system, grades in judged.items():
        scores = _scores(group, common[system])
        figures = grade_figures(group.base, grades, extras=extras)
        if len(common[system]) < len(grades):
            figures.ours[ALL_OWN] = mean_of(_scores(group, grades)).mapped(group.scale.shown)
        measured = Measured(
            system=system,
            against=None,
            scores=scores.scores,
            estimate=mean_of(scores),
            bounds=null_bounds(scores),
            figures=figures,
        )
        lines.append(line_of(group, settings, "mean", measured))
    return _ranked([*lines, *_differences(group, settings, common)])


def _coverage(group: Group, judged: Mapping[str, Sequence[Game | Grade]]) -> list[str]:
    """Warnings about questions that only some systems have, or that none has."""
    size = SIZES.get(family_of(group.benchmark))
    warnings = [
        uneven_warning(group.benchmark, judged),
        None if size is None else size_warning(group.benchmark, size, judged),
    ]
    return [text for text in warnings if text is not None]


def _scores(group: Group, judgments: Sequence[Game | Grade]) -> QuestionScores:
    if group.games:
        return game_scores(cast("Sequence[Game]", judgments))
    ends = (group.scale.lowest, group.scale.highest)
    return grade_scores(cast("Sequence[Grade]", judgments), bounds=ends)


def _differences(
    group: Group, settings: Settings, judged: Mapping[str, Sequence[Game | Grade]]
) -> list[Line]:
    """Paired differences of every two systems; only on request where systems are many."""
    if len(judged) > FEW and not settings.differences:
        return []
    lines: list[Line] = []
    for a, b in combinations(judged, 2):
        # Each pair is compared on all that these two have, not on what every system has.
        common = in_common({a: judged[a], b: judged[b]})
        ours, theirs = _scores(group, common[a]), _scores(group, common[b])
        if ours.ids == theirs.ids:
            measured = _difference(group, settings, (a, ours), (b, theirs))
            lines.append(line_of(group, settings, "difference", measured))
    return lines


def _ranked(lines: Sequence[Line]) -> list[Line]:
    """Best first where systems are many, differences behind them."""
    standing = [line for line in lines if line.kind != "difference"]
    if len(standing) <= FEW:
        return [*lines]
    standing.sort(key=lambda line: np.inf if line.estimate.value is None else -line.estimate.value)
    return [*standing, *(line for line in lines if line.kind == "difference")]


def _difference(
    group: Group,
    settings: Settings,
    first: tuple[str, QuestionScores],
    second: tuple[str, QuestionScores],
) -> Measured:
    (system, ours), (against, theirs) = first, second
    differences = ours.scores - theirs.scores
    width = None if group.bounds is None else group.bounds[1] - group.bounds[0]
    bounds = None if width is None else (-width, width)
    scored = ~np.isnan(differences)
    values = np.stack([ours.scores[scored], theirs.scores[scored]])
    if values.size and np.isin(values, (0.0, 1.0)).all() and group.grades:
        test, p_value = "exact McNemar", exact_mcnemar(ours.scores, theirs.scores)
    else:
        test = "sign flips"
        rng = np.random.default_rng(settings.seed)
        p_value = sign_flip_test(differences, rng=rng, num_resamples=settings.num_resamples)
    return Measured(
        system=system,
        against=against,
        scores=differences,
        estimate=mean_interval(differences, bounds=bounds, **drawn(settings)),
        bounds=NullBounds(
            float((ours.lowest - theirs.highest).mean()),
            float((ours.highest - theirs.lowest).mean()),
            int((~scored).sum()),
        ),
        test=test,
        p_value=p_value,
    )
