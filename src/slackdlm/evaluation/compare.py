"""Which system is better, on which benchmark, and how sure is that? Judgments in, one line per question asked of them.

Judgments of one benchmark and category by one judge form a group; groups are never merged. In a group, games give a
win rate per pair of systems and a paired difference for two systems with the same rival; grades give a mean per system
and a paired difference per two systems. All tested lines of a comparison are one family.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float

from slackdlm.errors import DataError
from slackdlm.evaluation.benchmarks.alpaca_eval import published_win_rate as alpaca_win_rate
from slackdlm.evaluation.benchmarks.mt_bench import published_win_rate as mt_bench_win_rate
from slackdlm.evaluation.benchmarks.wildbench import REWARD_MARGIN, published_reward
from slackdlm.evaluation.comparison import Comparison, JudgeReport, Kind, Line, Settings
from slackdlm.evaluation.judge_report import Group, judge_report, warnings_of
from slackdlm.evaluation.judgment_files import SCALES, Scale, benchmark_of
from slackdlm.evaluation.judgments import Game, Grade, mean_score
from slackdlm.evaluation.statistics import (
    Estimate,
    NullBounds,
    QuestionScores,
    benjamini_hochberg,
    common_ids,
    exact_mcnemar,
    game_scores,
    grade_scores,
    holm,
    mean_interval,
    minimum_detectable,
    null_bounds,
    paired_difference,
    sign_flip_test,
    standard_error,
    weighted_win_rate,
    win_rate,
)
from slackdlm.evaluation.statistics.length_control import Gamed, length_controlled_win_rate
from slackdlm.evaluation.statistics.style_control import StyleMetadata

POINTS = Scale(0.0, 1.0, 0.0, 100.0)
"""Points of a game are shown in per cent."""


def compare(
    judgments: Sequence[Game | Grade],
    *,
    settings: Settings | None = None,
    style: StyleMetadata | None = None,
    lengths: Mapping[tuple[str, str], int] | None = None,
    gamed: Gamed | None = None,
) -> Comparison:
    """Every win rate, mean and paired difference that the judgments allow.

    Args:
        judgments: Of any benchmarks, systems and judges.
        settings: How; default `Settings`.
        style: Of all answers, for ``settings.covariates``.
        lengths: (question id, system) -> length of the answer, for the judge's length bias.
        gamed: For AlpacaEval's length-controlled win rate; without it its minimal variant is given.

    Raises:
        DataError: If there is no judgment, or a group holds a judgment twice.
    """
    settings = settings or Settings()
    if not judgments:
        raise DataError("compare: there is no judgment to compare")
    lines: list[Line] = []
    reports: list[JudgeReport] = []
    for group in _groups(judgments):
        if group.games:
            lines += _game_lines(group, settings, gamed)
        else:
            lines += _grade_lines(group, settings)
        reports.append(judge_report(group, settings, style=style, lengths=lengths))
    adjust = benjamini_hochberg if settings.adjustment == "bh" else holm
    adjusted = adjust([line.p_value for line in lines])
    lines = [
        replace(line, p_adjusted=p, verdict=_verdict(line, p, settings))
        for line, p in zip(lines, adjusted, strict=True)
    ]
    return Comparison(
        lines=tuple(lines),
        judges=tuple(reports),
        warnings=tuple(warnings_of(reports, settings)),
        adjustment=settings.adjustment,
        alpha=settings.alpha,
        confidence=settings.confidence,
        seed=settings.seed,
        num_resamples=settings.num_resamples,
    )


def _groups(judgments: Sequence[Game | Grade]) -> list[Group]:
    found: dict[tuple[str, str, str, bool], list[Game | Grade]] = {}
    for judgment in judgments:
        base = benchmark_of(judgment)
        # Only Arena-Hard keeps a leaderboard, and a baseline, per category.
        category = judgment.category if base.startswith("arena-hard") else None
        identity = json.dumps(dict(judgment.judge_identity), sort_keys=True, default=str)
        key = (base, category or "", identity, isinstance(judgment, Game))
        found.setdefault(key, []).append(judgment)
    return [
        _group(base, category, identity, members)
        for (base, category, identity, _), members in found.items()
    ]


def _group(base: str, category: str, identity: str, members: Sequence[Game | Grade]) -> Group:
    games = tuple(one for one in members if isinstance(one, Game))
    grades = tuple(one for one in members if isinstance(one, Grade))
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
    said = [grade.score for grade in grades if grade.score is not None]
    if all(0 <= score <= 1 for score in said):
        return Scale(0.0, 1.0, 0.0, 1.0)
    return Scale(min(said), max(said), 0.0, 1.0)


def _game_lines(group: Group, settings: Settings, gamed: Gamed | None) -> list[Line]:
    pairs: dict[tuple[str, str], list[Game]] = {}
    for game in group.games:
        pairs.setdefault((game.a, game.b), []).append(game)
    for one, other in pairs:
        if (other, one) in pairs:
            raise DataError(
                f"{group.benchmark}: games of {one!a} against {other!a} are there from both sides; "
                "give each pair from one side"
            )
    scores = {pair: game_scores(games) for pair, games in pairs.items()}
    lines: list[Line] = []
    for (system, rival), games in pairs.items():
        own = scores[system, rival]
        rate = win_rate(own.scores, **_drawn(settings))
        lines.append(
            _line(
                group, settings, "win rate", system, rival, own.scores, rate, null_bounds(own),
                test="sign flips", p_value=rate.p_value,
                published=_published(group, games, settings, gamed),
            )
        )  # fmt: skip
    for (system, rival), (other, same) in combinations(pairs, 2):
        if rival == same:
            told = (scores[system, rival], scores[other, same])
            lines.append(_difference(group, settings, system, other, told))
    return lines


def _grade_lines(group: Group, settings: Settings) -> list[Line]:
    systems: dict[str, list[Grade]] = {}
    for grade in group.grades:
        systems.setdefault(grade.system, []).append(grade)
    ends = (group.scale.lowest, group.scale.highest)
    scores = {system: grade_scores(grades, bounds=ends) for system, grades in systems.items()}
    lines: list[Line] = []
    for system, own in scores.items():
        mean = mean_interval(own.scores, bounds=group.bounds, **_drawn(settings))
        published: dict[str, float | None] = {}
        if group.base in SCALES:
            published = {
                name: None if said is None else group.scale.shown(said)
                for name, said in _published_means(group, systems[system]).items()
            }
        lines.append(
            _line(
                group, settings, "mean", system, None, own.scores, mean, null_bounds(own),
                published=published,
            )
        )  # fmt: skip
    for system, other in combinations(scores, 2):
        told = (scores[system], scores[other])
        lines.append(_difference(group, settings, system, other, told))
    return lines


def _difference(
    group: Group,
    settings: Settings,
    system: str,
    other: str,
    told: tuple[QuestionScores, QuestionScores],
) -> Line:
    ids = common_ids(*told)
    one, two = (scores.at(ids) for scores in told)
    differences = one - two
    width = None if group.bounds is None else group.bounds[1] - group.bounds[0]
    bounds = None if width is None else (-width, width)
    estimate = paired_difference(one, two, bounds=bounds, **_drawn(settings))
    both = ~np.isnan(differences)
    test = "sign flips"
    if both.any() and np.isin([one[both], two[both]], (0.0, 1.0)).all() and group.grades:
        test, p_value = "exact McNemar", exact_mcnemar(one, two)
    else:
        p_value = sign_flip_test(
            differences, rng=_rng(settings), num_resamples=settings.num_resamples
        )
    (low, high), (other_low, other_high) = (_ends(scores, ids, group.scale) for scores in told)
    missing = NullBounds(
        float((low - other_high).mean()), float((high - other_low).mean()), int((~both).sum())
    )
    return _line(
        group, settings, "difference", system, other, differences, estimate, missing,
        test=test, p_value=p_value,
    )  # fmt: skip


def _ends(scores: QuestionScores, ids: Sequence[str], scale: Scale) -> Float[np.ndarray, "2 Q"]:
    """Worst and best score of these questions if what is missing were there."""
    ends = zip(scores.lowest.tolist(), scores.highest.tolist(), strict=True)
    known = dict(zip(scores.ids, ends, strict=True))
    return np.array([known.get(one, (scale.lowest, scale.highest)) for one in ids]).T


def _line(
    group: Group,
    settings: Settings,
    kind: Kind,
    system: str,
    against: str | None,
    scores: Float[np.ndarray, " Q"],
    estimate: Estimate,
    bounds: NullBounds,
    *,
    test: str | None = None,
    p_value: float | None = None,
    published: Mapping[str, float | None] | None = None,
) -> Line:
    """A figure as its benchmark shows it; verdict and adjusted p come when all lines are there."""
    scale = group.scale._replace(zero=0.0) if kind == "difference" else group.scale
    error = standard_error(scores)
    spread = detectable = None
    # Questions that are all alike say nothing about the spread.
    if error is not None and error > 1e-12 * scale.highest:
        spread = error * float(np.sqrt(estimate.num_scored))
        detectable = minimum_detectable(spread, estimate.num_scored, alpha=settings.alpha)

    def shown(value: float | None) -> float | None:
        return None if value is None else scale.shown(value)

    return Line(
        benchmark=group.benchmark,
        judge=group.judge,
        kind=kind,
        system=system,
        against=against,
        unit="grade" if group.grades else "%" if kind == "win rate" else "points",
        estimate=Estimate(
            shown(estimate.value), shown(estimate.low), shown(estimate.high),
            estimate.num_scored, estimate.num_total,
        ),
        standard_error=None if error is None else error * scale.factor,
        spread=None if spread is None else spread * scale.factor,
        bounds=NullBounds(shown(bounds.low), shown(bounds.high), bounds.num_missing),
        test=test,
        p_value=p_value,
        p_adjusted=None,
        detectable=None if detectable is None else detectable * scale.factor,
        published=published or {},
        verdict="",
    )  # fmt: skip


def _published(
    group: Group, games: Sequence[Game], settings: Settings, gamed: Gamed | None
) -> dict[str, float | None]:
    if group.base.startswith("alpaca-eval"):
        return _alpaca(games, settings, gamed)
    if group.base == "mt-bench":
        rate = mt_bench_win_rate(games)
        return {"FastChat's adjusted win rate": None if rate is None else 100 * rate}
    if group.base == "wildbench":
        found = {"WB-Reward": published_reward(games)}
        if all("model_outputs" in game.extra for game in games):
            name = f"slight wins by over {REWARD_MARGIN} characters as ties"
            found[name] = published_reward(games, length_margin=REWARD_MARGIN)
        return found
    if group.base.startswith("arena-hard"):
        return _per_cent("Arena-Hard's weighted mean", weighted_win_rate(games, **_drawn(settings)))
    return {}


def _published_means(group: Group, grades: Sequence[Grade]) -> dict[str, float | None]:
    """What a benchmark's own tool prints for the grades of a system, those out of range included."""
    found = {"mean of all grades said": mean_score(grades)}
    if group.base == "mt-bench":
        for name, turn in (("first turn", 1), ("second turn", 2)):
            found[name] = mean_score([grade for grade in grades if grade.turn == turn])
    return found


def _alpaca(
    games: Sequence[Game], settings: Settings, gamed: Gamed | None
) -> dict[str, float | None]:
    found = {"leaderboard's win rate": alpaca_win_rate(games)}
    told = all({"output_1", "output_2"} <= g.extra.keys() for g in games if g.score is not None)
    if gamed is None and not told:
        return found
    controlled = length_controlled_win_rate(games, gamed=gamed, confidence=settings.confidence)
    kind = "" if gamed is not None else ", minimal variant without instruction difficulty"
    return found | _per_cent(f"length-controlled win rate{kind}", controlled.estimate)


def _per_cent(name: str, estimate: Estimate) -> dict[str, float | None]:
    ends = {name: estimate.value, "its low": estimate.low, "its high": estimate.high}
    return {key: None if value is None else 100 * value for key, value in ends.items()}


def _verdict(line: Line, p_adjusted: float | None, settings: Settings) -> str:
    if line.kind == "mean":
        return "" if line.estimate.value is not None else "nothing scored"
    value, centre = line.estimate.value, 50.0 if line.kind == "win rate" else 0.0
    if value is None or p_adjusted is None:
        return "nothing scored in both"
    if p_adjusted > settings.alpha:
        if line.detectable is None:
            num = line.estimate.num_scored
            few = "one question" if num == 1 else f"{num} questions, all alike"
            return f"no difference shown: {few}"
        return f"no difference shown; one below {line.detectable:.2g} would often be missed"
    direction = "better" if value > centre else "worse"
    if value == centre:
        return "no difference shown"
    worst = line.bounds.low if value > centre else line.bounds.high
    turned = worst is not None and (worst <= centre if value > centre else worst >= centre)
    if line.bounds.num_missing and turned:
        return f"{direction}, unless the {line.bounds.num_missing} missing questions say otherwise"
    return direction


def _rng(settings: Settings) -> np.random.Generator:
    return np.random.default_rng(settings.seed)


def _drawn(settings: Settings) -> dict[str, Any]:
    """How every bootstrap is drawn: anew from the seed."""
    told = {"num_resamples": settings.num_resamples, "confidence": settings.confidence}
    return {"rng": _rng(settings), **told}
