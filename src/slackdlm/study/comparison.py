"""What a comparison says: plain values, ready to be shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from slackdlm.errors import ConfigError
from slackdlm.judgments import Tally
from slackdlm.statistics import Estimate, WinRate
from slackdlm.study.judge_bias import PositionBias
from slackdlm.study.questions import NullBounds
from slackdlm.study.style_control import StyleControlled

Kind = Literal["win rate", "mean", "difference"]
FEW = 4
"""Systems of a group that are compared two by two unasked; more make a leaderboard."""


@dataclass(frozen=True)
class Line:
    """One figure of a comparison. All numbers are as the benchmark shows them (`unit`)."""

    benchmark: str
    """Benchmark, and category where it has separate leaderboards."""
    judge: str
    """Name of the judge."""
    kind: Kind
    """``win rate`` of ``system`` over ``against``; ``mean`` grade; ``difference``: ``system`` minus ``against``."""
    system: str
    """Whose figure it is."""
    against: str | None
    """The rival; None for a mean."""
    unit: str
    """``%`` of points, ``points`` of them, or the benchmark's grade."""
    estimate: Estimate
    """Over questions, with its interval."""
    standard_error: float | None
    """Of the mean over questions; None below two."""
    spread: float | None
    """Standard deviation over questions; None below two, and where all score the same."""
    bounds: NullBounds
    """The same if all missing judgments had been the worst, or the best, for ``system``."""
    test: str | None
    """Name of the test; None for a mean."""
    p_value: float | None
    """Two-sided p of "no difference"; None if nothing is tested or scored."""
    p_adjusted: float | None
    """The same, adjusted for all tested lines of the comparison."""
    detectable: float | None
    """Smallest true effect this many questions would show with probability 0.8; None where ``spread`` is."""
    published: Mapping[str, float | None]
    """What the benchmark's own tool computes from all of the system's judgments, by name."""
    ours: Mapping[str, Estimate]
    """Further figures of ours; over all of the system's questions where the line is over those in common."""
    verdict: str
    """What follows, in words."""


@dataclass(frozen=True)
class JudgeReport:
    """How one judge behaved in one group."""

    benchmark: str
    """As in `Line`."""
    judge: str
    """Its name."""
    identity: str
    """All of its identity, as JSON."""
    tally: Tally
    """Its judgments by what became of them."""
    position: PositionBias | None
    """Dependence on the order shown; None for grades."""
    length: WinRate | None
    """Points of the longer answer; None without answers."""
    style: StyleControlled | None
    """Win rates at equal style; None unless asked for."""


@dataclass(frozen=True)
class Comparison:
    """All lines, and what stands behind them."""

    lines: tuple[Line, ...]
    """In the order of benchmarks and systems; those of a leaderboard (more than `FEW` systems) best first."""
    judges: tuple[JudgeReport, ...]
    """One per group."""
    warnings: tuple[str, ...]
    """What a reader must know first."""
    adjustment: Literal["bh", "holm"]
    """How p-values are adjusted."""
    alpha: float
    """Level of the verdicts."""
    confidence: float
    """Of the intervals."""
    seed: int
    """Of bootstrap and tests."""
    num_resamples: int
    """Of each bootstrap and test."""


@dataclass(frozen=True)
class Settings:
    """How a comparison is made."""

    adjustment: Literal["bh", "holm"] = "bh"
    """Benjamini-Hochberg (false discovery rate) or Holm (any false claim)."""
    alpha: float = 0.05
    """Level of the verdicts, on adjusted p-values."""
    confidence: float = 0.95
    """Of the intervals."""
    num_resamples: int = 10_000
    """Of each bootstrap and test."""
    seed: int = 0
    """Of both; every line starts from it, so adding a file changes no other line's numbers but the adjusted p."""
    max_missing: float = 0.05
    """Share of missing judgments in a group above which a warning is given."""
    differences: bool = False
    """Between every two systems, also of more than `FEW`."""
    covariates: tuple[str, ...] = ()
    """Style covariates to control for; none: no style control."""

    def __post_init__(self) -> None:
        """Refuses shares that are none."""
        for name in ("alpha", "confidence"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected a share in (0, 1), got {getattr(self, name)}")
        if self.adjustment not in ("bh", "holm"):
            raise ConfigError(f"adjustment: expected bh or holm, got {self.adjustment}")
