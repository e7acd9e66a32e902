"""How is a canvas decoded? Every choice that decides an output beside the model and the prompt."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Final, Literal, NamedTuple

from slackdlm.collapse import CollapseMode
from slackdlm.config import Count, Flag, NonNegative, Positive, Share, Whole, settings
from slackdlm.errors import ConfigError

Remasking = Literal["low_confidence", "random", "entropy", "margin", "threshold", "entropy_bound"]
CacheMode = Literal["none", "prefix", "dual"]
InterventionKind = Literal["shift", "substitute", "drop", "swap"]
Direction = Literal["left", "right", "both"]
Phase = Literal["always", "early", "late"]
BOUNDS: Final = {"threshold": "a confidence in (0, 1]", "entropy_bound": "nats above 0"}
"""What the bound is of the strategies that have one: they look at it and not at the schedule."""


@settings
class SamplerConfig:
    """Everything that decides an output beside the model and the prompt."""

    canvas_length: Count
    """Positions of the response canvas (``L``), slack and padding included; LLaDA's ``gen_length``."""
    steps: Count | None = None
    """Denoising steps (``T``) over all blocks; more are taken only if an intervention leaves masks behind.
    ``None``: one per position, or as many as a strategy with a ``bound`` takes."""
    block_length: Count | None = None
    """Positions decoded together before the next block starts (default: the whole canvas)."""
    temperature: NonNegative = 0.0
    """Temperature of the Gumbel noise; 0 is greedy."""
    remasking: Remasking = "low_confidence"
    """Strategy that decides which masked cells are decoded next, and how many."""
    bound: Positive | None = None
    """Confidence in (0, 1] of ``threshold``, or joint entropy in nats of ``entropy_bound``; for these alone."""
    guidance: NonNegative = 0.0
    """Scale of classifier-free guidance away from the prediction without the prompt; 0: none, 1 model pass a step
    instead of 2 (LLaDA's ``cfg_scale``)."""
    forbid_end_of_text: Flag = False
    """Never propose ``<|endoftext|>`` (LLaDA's ``logits_eos_inf``)."""
    delay_end: Flag = False
    """Cells that propose an end of text or of turn are decoded last, except with random remasking (LLaDA's
    ``confidence_eos_eot_inf``)."""
    delay_slack: Flag = False
    """Cells that propose ``<slack>`` are decoded last, and content is weighed without slack's share; except with random
    remasking. Ours: a cell undecided between several words has slack as its single likeliest token, and committing it
    early leaves no room for the words (docs/results/008-order-of-decoding.md)."""
    spacing: Count = 1
    """Cells nearer than this to a surer one wait for a later step, while there are enough others: neighbours decoded
    together do not know of each other. 1: none waits. Delayed cells come before those that wait. Not with a ``bound``;
    no effect at one cell a step."""
    early_stop: Flag = False
    """A row rests as soon as its text is settled: nothing is masked before its first end. The text does not change,
    unless ``refill`` then sees other cells behind the end: those that no step reached hold ``<|endoftext|>``."""
    refill: Whole = 0
    """After the last step, mask this many of the least certain ``<slack>`` cells before the end of the text again,
    with their neighbours, and decode them in as many further steps, or as a ``bound`` takes; 0: none. Certainty is
    the strategy's score."""
    cache: CacheMode = "none"
    """Keys and values kept within a block, an approximation: of the cells before it (``prefix``), or of all others
    (``dual``)."""
    collapse: CollapseMode = "slack"
    """How the canvas becomes text; ``graves`` only for models trained for it."""
    seed: Whole = 0
    """Seed of the noise, with each row's id; GPUs draw other noise from it than CPUs."""
    batch_size: Count = 32
    """Rows decoded together; does not change any output."""
    trace: Flag = False
    """Keep every step's commits in ``Generation.steps``."""

    def __post_init__(self) -> None:
        if self.block_length is not None and self.block_length > self.canvas_length:
            raise ConfigError(
                f"sampler.block_length: expected at most canvas_length={self.canvas_length}, "
                f"got {self.block_length}"
            )
        self._check_strategy()
        if self.steps is not None and self.steps < self.num_blocks:
            raise ConfigError(
                f"sampler: {self.num_blocks} blocks need at least as many steps, got {self.steps}; "
                "raise steps or block_length"
            )

    def _check_strategy(self) -> None:
        unit = BOUNDS.get(self.remasking)
        if unit is None:
            if self.bound is not None:
                raise ConfigError(
                    f"sampler: {self.remasking} has no bound, got {self.bound}; leave it out"
                )
            return
        if self.spacing > 1:
            raise ConfigError(
                f"sampler: {self.remasking} takes the surest cells wherever they are, got spacing={self.spacing}; "
                "leave spacing out or choose a remasking with steps"
            )
        if self.steps is not None:
            raise ConfigError(
                f"sampler: {self.remasking} takes as many steps as it needs, got steps={self.steps}; "
                "leave steps out"
            )
        highest = 1.0 if self.remasking == "threshold" else float("inf")
        if self.bound is None or not 0 < self.bound <= highest:
            raise ConfigError(
                f"sampler: {self.remasking} needs a bound ({unit}), got {self.bound}; set bound"
            )

    @property
    def num_blocks(self) -> int:
        """Blocks on the canvas; the last may be shorter."""
        return -(-self.canvas_length // (self.block_length or self.canvas_length))


@settings
class InterventionConfig:
    """What displaces tokens while a model decodes: the arguments of ``ShiftIntervention``."""

    kind: InterventionKind
    """``shift`` writes a token one place aside; the controls ``substitute`` another, ``drop`` the commit,
    or ``swap`` two."""
    rate: Share
    """Probability per content token; below 1 for ``drop``."""
    direction: Direction = "both"
    """Neighbours that ``shift`` and ``swap`` may use."""
    when: Phase = "always"
    """``early``: while more than half of the canvas is masked; ``late``: from then on."""

    def __post_init__(self) -> None:
        if self.kind == "drop" and self.rate == 1:
            raise ConfigError(
                "intervention.rate: drop needs a rate below 1, as it never ends otherwise; got 1"
            )


_WITHOUT_EFFECT = ("batch_size", "trace")


def recorded(config: SamplerConfig) -> dict[str, Any]:
    """Every setting that decides an output: what is kept beside answers."""
    return {name: value for name, value in asdict(config).items() if name not in _WITHOUT_EFFECT}


def deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What tells these settings from others: those that decide an output and are not at their default.

    So a setting that a later version adds makes no answer another one. The defaults themselves must stay as they are.

    Args:
        settings: Fields of :class:`SamplerConfig` by name, as :func:`recorded` gives them, of this version or an
            earlier one.
    """
    defaults = {field.name: field.default for field in fields(SamplerConfig)}
    return {
        name: value
        for name, value in settings.items()
        if name not in _WITHOUT_EFFECT and not (name in defaults and value == defaults[name])
    }


class Block(NamedTuple):
    """Canvas positions decoded together."""

    first: int
    end: int
    """One past the last position."""
    steps: int
    """Denoising steps of the block; strategies with a bound do not look at it."""


def schedule(config: SamplerConfig) -> list[Block]:
    """Blocks to decode, in order; earlier ones take the remainder of the steps."""
    length = config.block_length or config.canvas_length
    starts = range(0, config.canvas_length, length)
    ends = [min(first + length, config.canvas_length) for first in starts]
    if config.steps is None:
        return [Block(first, end, end - first) for first, end in zip(starts, ends, strict=True)]
    base, extra = divmod(config.steps, config.num_blocks)
    return [
        Block(first, end, base + (b < extra))
        for b, (first, end) in enumerate(zip(starts, ends, strict=True))
    ]
