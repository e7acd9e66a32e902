"""One line of a comparison: a figure on the judge's scale, as its benchmark shows it, and a verdict."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from slackdlm.statistics import (
    Estimate,
    minimum_detectable,
    standard_error,
)
from slackdlm.study.comparison import Kind, Line, Settings
from slackdlm.study.judge_report import Group
from slackdlm.study.published import (
    Figures,
)
from slackdlm.study.questions import (
    NullBounds,
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A figure on the judge's own scale."""

    system: str
    against: str | None
    scores: Float[np.ndarray, " Q"]
    """One per question."""
    estimate: Estimate
    """Their mean."""
    bounds: NullBounds
    test: str | None = None
    p_value: float | None = None
    figures: Figures = field(default_factory=lambda: Figures({}, {}))


def line_of(group: Group, settings: Settings, kind: Kind, measured: Measured) -> Line:
    """A figure as its benchmark shows it; verdict and adjusted p come when all lines are there."""
    scale = group.scale._replace(zero=0.0) if kind == "difference" else group.scale
    estimate, bounds = measured.estimate, measured.bounds
    error = standard_error(measured.scores)
    spread = detectable = None
    # Questions that are all alike say nothing about the spread.
    if error is not None and error > 1e-12 * scale.highest:
        spread = error * float(np.sqrt(estimate.num_scored))
        detectable = minimum_detectable(spread, estimate.num_scored, alpha=settings.alpha)

    def shown(value: float | None) -> float | None:
        return None if value is None else scale.shown(value)

    def scaled(width: float | None) -> float | None:
        return None if width is None else width * scale.factor

    return Line(
        benchmark=group.benchmark,
        judge=group.judge,
        kind=kind,
        system=measured.system,
        against=measured.against,
        unit="grade" if group.grades else "%" if kind == "win rate" else "points",
        estimate=estimate.mapped(scale.shown),
        standard_error=scaled(error),
        spread=scaled(spread),
        bounds=NullBounds(shown(bounds.low), shown(bounds.high), bounds.num_missing),
        test=measured.test,
        p_value=measured.p_value,
        p_adjusted=None,
        detectable=scaled(detectable),
        published=measured.figures.published,
        ours=measured.figures.ours,
        verdict="",
    )


def verdict_of(line: Line, p_adjusted: float | None, settings: Settings) -> str:
    """What a line says at the level of the settings, with the missing questions in mind."""
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
