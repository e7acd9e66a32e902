"""Under which conditions is a model asked the same questions? The grid of a study, and its answers.

A question's random numbers depend on its own place and the decoding seed alone, so conditions can be compared question
by question. Rates draw the same numbers too, but once two of them have displaced different tokens they decode
different canvases: the tokens displaced at a low rate need not be among those displaced at a higher one.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from slackdlm.errors import ConfigError, DataError
from slackdlm.models.loaded import LoadedModel
from slackdlm.records import Question
from slackdlm.sampling.answering import answer_questions
from slackdlm.sampling.intervention import InterventionKind, ShiftIntervention
from slackdlm.sampling.sampler import Sampler, SamplerConfig


class Condition(NamedTuple):
    """One way to decode all questions."""

    sampler: SamplerConfig
    """Its seed is that of the grid; every decoding sets its own."""
    kind: InterventionKind | None = None
    """``None``: no intervention."""
    rate: float = 0.0
    """Share of content tokens; 0 without an intervention."""

    @property
    def label(self) -> str:
        """The kind as reports write it."""
        return self.kind or "none"

    @property
    def is_deterministic(self) -> bool:
        """Whether every decoding seed would give the same answers, so that one is enough."""
        return self.sampler.temperature == 0 and self.kind is None

    def intervention(self, seed: int) -> ShiftIntervention | None:
        """The intervention, if there is one; ConfigError if its rate is out of range."""
        if self.kind is None:
            return None
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


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Which conditions a study decodes: each setting without intervention, and with every kind and rate."""

    sampler: SamplerConfig
    """How to decode; its ``seed`` is the first decoding seed."""
    rates: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1)
    """Shares of content tokens, above 0."""
    kinds: tuple[InterventionKind, ...] = ("shift", "substitute", "drop")
    """The probe itself and its controls at the same rates."""
    num_seeds: int = 1
    """Decoding seeds of every condition that has randomness, averaged within a question."""
    temperatures: tuple[float, ...] = ()
    """Temperatures to decode at; empty: the sampler's. They are part of the names if given."""
    steps: tuple[int, ...] = ()
    """Step counts to decode with; empty: the sampler's. They are part of the names if given."""
    probed_steps: tuple[int, ...] | None = None
    """Step counts at which interventions are tried; ``None``: all."""

    def __post_init__(self) -> None:
        """Refuses what cannot be decoded, before anything is."""
        if not self.rates or not self.kinds:
            raise ConfigError("probe: expected at least one rate and one kind")
        for name in ("rates", "kinds", "temperatures", "steps"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ConfigError(f"probe: {name} holds a value twice: {list(values)}")
        if min(self.rates) <= 0:
            raise ConfigError(f"probe: rates must be above 0, got {min(self.rates)}")
        if self.num_seeds < 1:
            raise ConfigError(f"probe: expected at least 1 decoding seed, got {self.num_seeds}")
        unknown = [steps for steps in self.probed_steps or () if steps not in self.steps]
        if unknown:
            raise ConfigError(f"probe: probed_steps {unknown} are not among steps {self.steps}")
        for condition in self.interventions():
            condition.intervention(0)

    def plain(self) -> list[Condition]:
        """Decoding without intervention, at every temperature and step count."""
        return [
            Condition(replace(self.sampler, temperature=temperature, steps=steps))
            for temperature in self.temperatures or (self.sampler.temperature,)
            for steps in self.steps or (self.sampler.steps,)
        ]

    def interventions(self) -> list[Condition]:
        """Every kind at every rate, wherever interventions are tried."""
        return [
            Condition(plain.sampler, kind, rate)
            for plain in self.plain()
            if self.probed_steps is None or plain.sampler.steps in self.probed_steps
            for kind in self.kinds
            for rate in self.rates
        ]

    def conditions(self) -> list[Condition]:
        """All of them, those without intervention first."""
        return self.plain() + self.interventions()

    def seeds(self, condition: Condition) -> list[int]:
        """Its decoding seeds; one where all would give the same answers."""
        num_seeds = 1 if condition.is_deterministic else self.num_seeds
        return [self.sampler.seed + n for n in range(num_seeds)]

    def decodings(self) -> list[tuple[Condition, int]]:
        """Every run over the questions that one arm takes, as condition and seed."""
        conditions = self.conditions()
        return [(condition, seed) for condition in conditions for seed in self.seeds(condition)]

    def name(self, condition: Condition, seed: int, *, joint: str = "-") -> str:
        """Name of a decoding among those of its arm."""
        settings = {"temperature": self.temperatures, "steps": self.steps}
        parts = [
            f"{name}-{getattr(condition.sampler, name):g}"
            for name, values in settings.items()
            if values
        ]
        rate = "" if condition.kind is None else f"-{condition.rate:g}"
        parts.append(f"{condition.label}{rate}")
        return "-".join(parts) + f"{joint}seed-{seed}"

    def system(self, arm: str, condition: Condition, seed: int) -> str:
        """Name of an arm's answers under a condition, as answer and judgment files give it."""
        return f"{arm}/{self.name(condition, seed, joint='/')}"

    def answer_file(self, output: Path, arm: str, condition: Condition, seed: int) -> Path:
        """Where the answers of an arm under a condition are."""
        return output / "answers" / arm / f"{self.name(condition, seed)}.jsonl"


def answer_arm(
    arm: Arm,
    questions: Sequence[Question],
    grid: Grid,
    output: Path,
    *,
    on_load: Callable[[LoadedModel], None] | None = None,
    on_answers: Callable[[int], None] | None = None,
) -> None:
    """Answer all questions under every condition; what is there already is not decoded again.

    Args:
        arm: The model; loaded once, if any of its answers are missing.
        questions: What to ask; a question's place seeds its noise.
        grid: The conditions.
        output: Folder of the study; a decoding's answers go to `Grid.answer_file`.
        on_load: Called with the model before it answers anything; may refuse it.
        on_answers: Called with the number of answers just finished, those found included.

    Raises:
        DataError: If a question cannot be put to the model.
    """
    loaded: LoadedModel | None = None
    for condition, seed in grid.decodings():
        file = grid.answer_file(output, arm.name, condition, seed)
        if not file.exists():
            if loaded is None:
                loaded = arm.load()
                if on_load is not None:
                    on_load(loaded)
            file.parent.mkdir(parents=True, exist_ok=True)
            config = replace(condition.sampler, seed=seed)
            answered = answer_questions(
                Sampler(loaded, config, condition.intervention(seed)),
                questions,
                file,
                system=grid.system(arm.name, condition, seed),
            )
            if answered is not None and answered.unanswered:
                first = answered.unanswered[0]
                file.unlink()
                raise DataError(
                    f"{len(answered.unanswered)} questions cannot be put to {arm.name}, the first is "
                    f"{first.question_id!a}: {first.error}"
                )
        if on_answers is not None:
            on_answers(len(questions))
