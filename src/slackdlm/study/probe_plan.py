"""Which models are disturbed, how and how much? The plan of a probe."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from slackdlm.errors import ConfigError
from slackdlm.models.loaded import LoadedModel
from slackdlm.sampling.intervention import InterventionKind, ShiftIntervention
from slackdlm.sampling.sampler import SamplerConfig

PLAIN = "none"
"""Kind of the undisturbed answers."""


@dataclass(frozen=True, kw_only=True)
class ProbePlan:
    """Which disturbances are tried."""

    sampler: SamplerConfig
    """How every arm decodes; its ``seed`` is the first decoding seed."""
    rates: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1)
    """Shares of content tokens, above 0."""
    kinds: tuple[InterventionKind, ...] = ("shift", "substitute", "drop")
    """The probe itself and its controls at the same rates."""
    num_seeds: int = 1
    """Decoding seeds of every disturbance, averaged within a question."""

    def __post_init__(self) -> None:
        """Refuses what cannot be decoded, before anything is."""
        if not self.rates or not self.kinds:
            raise ConfigError("probe: expected at least one rate and one kind")
        for name, values in (("rates", self.rates), ("kinds", self.kinds)):
            if len(set(values)) < len(values):
                raise ConfigError(f"probe: {name} holds a value twice: {list(values)}")
        if min(self.rates) <= 0:
            raise ConfigError(f"probe: rates must be above 0, got {min(self.rates)}")
        if self.num_seeds < 1:
            raise ConfigError(f"probe: expected at least 1 decoding seed, got {self.num_seeds}")
        for condition in self.conditions():
            condition.intervention(0)

    def conditions(self) -> list["Condition"]:
        """Every kind at every rate."""
        return [Condition(kind, rate) for kind in self.kinds for rate in self.rates]

    def seeds(self, condition: "Condition | None") -> list[int]:
        """Decoding seeds; one where all would give the same answers. ``None``: undisturbed."""
        once = condition is None and self.sampler.temperature == 0
        return [self.sampler.seed + n for n in range(1 if once else self.num_seeds)]


class Condition(NamedTuple):
    """One disturbance."""

    kind: InterventionKind
    rate: float

    def intervention(self, seed: int) -> ShiftIntervention:
        """The intervention; ConfigError if its rate is out of range."""
        return ShiftIntervention(self.rate, kind=self.kind, seed=seed)


class Arm(NamedTuple):
    """One model under study."""

    name: str
    """Letters, digits, ``.``, ``_`` and ``-``; names files and systems."""
    model: str
    """Which model it is, for the record; a folder of answers keeps to it."""
    load: Callable[[], LoadedModel]
    """Loads it; called only if answers are missing."""


def check_arms(arms: Sequence[Arm]) -> None:
    """ConfigError unless there is an arm and all names are different and fit for files."""
    names = [arm.name for arm in arms]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"probe: expected arms with names of their own, got {names}")
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", name) or set(name) == {"."}:
            raise ConfigError(f"probe: arm name {name!a}: use letters, digits, '.', '_' and '-'")


def system_name(arm: str, condition: Condition | None, seed: int) -> str:
    """Name of an arm's answers under a condition; ``None``: undisturbed."""
    label = PLAIN if condition is None else f"{condition.kind}-{condition.rate:g}"
    return f"{arm}/{label}/seed-{seed}"
