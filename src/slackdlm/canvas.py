"""How is a response written on a canvas, and how is the canvas noised? Pure functions, seeded generators.

Axis letters: ``S`` target tokens, ``K`` slack budget, ``L = S + K`` canvas positions. All tensors live on the CPU.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from slackdlm.errors import ConfigError


def draw_num_slack(
    target_length: int, *, slack_ratio: tuple[float, float], room: int, generator: torch.Generator
) -> int:
    """The slack budget ``K`` of one sample: a share of its target length, drawn uniformly from a range.

    Args:
        target_length: ``S``, in tokens.
        slack_ratio: Smallest and largest share, ``0 <= low <= high``.
        room: Most slack tokens that still fit on the canvas; the draw is cut there.
        generator: Source of randomness. One number is drawn whatever the range, so that arms with different
            ranges stay in step.

    Returns:
        ``round(ratio * S)``, between 0 and ``room``.

    Raises:
        ConfigError: If the range is not ``0 <= low <= high`` or ``room`` is negative.

    References:
        arXiv 2601.22947 does not give the distribution; this one is ours.
    """
    low, high = slack_ratio
    if not 0 <= low <= high:
        raise ConfigError(f"slack_ratio: expected 0 <= low <= high, got [{low}, {high}]")
    if room < 0:
        raise ConfigError(
            f"canvas: the target is {-room} tokens longer than the canvas; raise canvas_length"
        )
    share = low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))
    return min(round(share * target_length), room)


def insert_slack(
    target: Int[Tensor, " S"], num_slack: int, *, slack_id: int, generator: torch.Generator
) -> Int[Tensor, " L"]:
    """Write a target on a canvas with ``num_slack`` extra positions, every arrangement equally likely.

    Args:
        target: Token ids without ``<slack>``.
        num_slack: ``K``, at least 0. With 0 the canvas is the target.
        slack_id: Id of ``<slack>``.
        generator: Source of randomness.

    Returns:
        The clean canvas; dropping its slack gives the target back.

    Raises:
        ConfigError: If ``num_slack`` is negative or the target already holds ``slack_id``.
    """
    if num_slack < 0:
        raise ConfigError(f"insert_slack: num_slack must be at least 0, got {num_slack}")
    if bool((target == slack_id).any()):
        raise ConfigError(
            f"insert_slack: the target already holds the slack id {slack_id}; it is reserved"
        )
    length = target.numel() + num_slack
    canvas = torch.full((length,), slack_id, dtype=target.dtype)
    places = torch.randperm(length, generator=generator)[: target.numel()].sort().values
    canvas[places] = target
    return canvas


class Noise(NamedTuple):
    """What masks a canvas: the rate and the positions."""

    rate: float
    """``p``, the probability with which each position was masked, in ``[eps, 1]``."""
    masked: Bool[Tensor, " L"]
    """True where the canvas is masked."""


def draw_noise(
    length: int, *, eps: float, generator: torch.Generator, t: float | None = None
) -> Noise:
    """LLaDA's forward process: ``p = (1 - eps) t + eps``, each position masked independently with ``p``.

    Args:
        length: Canvas positions.
        eps: Smallest masking rate, in ``(0, 1]``; LLaDA uses 1e-3.
        generator: Source of randomness.
        t: Diffusion time in ``[0, 1]``; drawn uniformly if not given. A number is drawn either way.

    Returns:
        The rate and the mask.

    Raises:
        ConfigError: If ``eps`` or ``t`` is out of range.

    References:
        Nie et al., 2025 (LLaDA), Algorithm 2 and GUIDELINES.md of its repository.
    """
    if not 0 < eps <= 1:
        raise ConfigError(f"draw_noise: eps must lie in (0, 1], got {eps}")
    if t is not None and not 0 <= t <= 1:
        raise ConfigError(f"draw_noise: t must lie in [0, 1], got {t}")
    drawn = float(torch.rand((), generator=generator, dtype=torch.float64))
    rate = (1 - eps) * (drawn if t is None else t) + eps
    levels: Float[Tensor, " L"] = torch.rand(length, generator=generator, dtype=torch.float64)
    return Noise(rate=rate, masked=levels < rate)
