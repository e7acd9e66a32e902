"""Can this batch be a loss at all? Every complaint about the inputs of the objectives.

Shapes and dtypes are looked at one by one; what depends on values is gathered into one tensor and
read once, so that a CUDA device is waited for a single time.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from slackdlm.errors import ConfigError


def check_ids(where: str, *, mask_id: int, slack_id: int, vocab_size: int) -> None:
    """Raise `ConfigError` unless the special ids differ and slack is in the vocabulary."""
    if mask_id == slack_id:
        raise ConfigError(f"{where}: mask_id and slack_id are both {mask_id}; they must differ")
    if mask_id < 0:
        raise ConfigError(f"{where}: mask_id must not be negative, got {mask_id}")
    if not 0 <= slack_id < vocab_size:
        raise ConfigError(
            f"{where}: slack_id {slack_id} lies outside the vocabulary of {vocab_size}; "
            "resize the embedding or use a reserved token"
        )


def check_scores(where: str, scores: Tensor, *, name: str, axes: str) -> None:
    """Raise `ConfigError` unless ``scores`` is floating point with the named axes."""
    if scores.ndim != len(axes.split()) or not scores.is_floating_point():
        raise ConfigError(
            f"{where}: {name} must be floating point [{axes}], "
            f"got {scores.dtype} of shape {tuple(scores.shape)}"
        )


def check_shape(where: str, tensor: Tensor, shape: tuple[int, ...], *, name: str) -> None:
    """Raise `ConfigError` unless ``tensor`` has exactly this shape."""
    if tuple(tensor.shape) != shape:
        raise ConfigError(f"{where}: {name} must have shape {shape}, got {tuple(tensor.shape)}")


def check_integers(where: str, tensor: Tensor, shape: tuple[int, ...], *, name: str) -> None:
    """Raise `ConfigError` unless ``tensor`` holds integers and has exactly this shape."""
    check_shape(where, tensor, shape, name=name)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise ConfigError(f"{where}: {name} must hold integers, got {tensor.dtype}")


def check_weights(where: str, weights: Tensor, shape: tuple[int, ...], *, name: str) -> None:
    """Raise `ConfigError` unless ``weights`` are constants of exactly this shape."""
    check_shape(where, weights, shape, name=name)
    if weights.requires_grad:
        raise ConfigError(f"{where}: {name} must be constants; detach them")


def check_batch_shapes(
    where: str,
    canvas: Tensor,
    targets: Tensor,
    canvas_lengths: Tensor,
    target_lengths: Tensor,
    *,
    shape: tuple[int, int],
) -> None:
    """Raise `ConfigError` unless canvas, targets and lengths are integers that fit ``(B, L)``."""
    check_integers(where, canvas, shape, name="canvas")
    if targets.ndim != 2:
        raise ConfigError(f"{where}: targets must be [B, S], got shape {tuple(targets.shape)}")
    check_integers(where, targets, (shape[0], targets.shape[1]), name="targets")
    check_integers(where, canvas_lengths, shape[:1], name="canvas_lengths")
    check_integers(where, target_lengths, shape[:1], name="target_lengths")


def batch_faults(
    canvas: Tensor,
    targets: Tensor,
    canvas_lengths: Tensor,
    target_lengths: Tensor,
    *,
    mask_id: int,
    slack_id: int,
    vocab_size: int,
) -> dict[str, Tensor]:
    """What may be wrong with the values of canvas, targets and lengths: message to 0-d flag."""
    return canvas_faults(
        canvas, canvas_lengths, mask_id=mask_id, vocab_size=vocab_size
    ) | target_faults(
        targets, target_lengths, mask_id=mask_id, slack_id=slack_id, vocab_size=vocab_size
    )


def canvas_faults(
    canvas: Tensor, canvas_lengths: Tensor, *, mask_id: int, vocab_size: int
) -> dict[str, Tensor]:
    """What may be wrong with the values of a canvas: message to 0-d flag."""
    num_positions = canvas.shape[1]
    known = (canvas == mask_id) | ((canvas >= 0) & (canvas < vocab_size))
    return {
        f"canvas_lengths must lie between 0 and L = {num_positions}": _outside(
            canvas_lengths, num_positions
        ),
        f"canvas holds an id outside the vocabulary of {vocab_size} that is not the mask id": (
            ~known & inside_lengths(canvas_lengths, num_positions)
        ).any(),
    }


def target_faults(
    targets: Tensor, target_lengths: Tensor, *, mask_id: int, slack_id: int, vocab_size: int
) -> dict[str, Tensor]:
    """What may be wrong with the values of the targets: message to 0-d flag."""
    num_tokens = targets.shape[1]
    real = inside_lengths(target_lengths, num_tokens)
    return {
        f"target_lengths must lie between 0 and S = {num_tokens}": _outside(
            target_lengths, num_tokens
        ),
        f"targets hold an id outside the vocabulary of {vocab_size}": (
            ((targets < 0) | (targets >= vocab_size)) & real
        ).any(),
        f"targets hold the slack id {slack_id}; slack belongs to the canvas alone": (
            (targets == slack_id) & real
        ).any(),
        f"targets hold the mask id {mask_id}; it is not a token a response can have": (
            (targets == mask_id) & real
        ).any(),
    }


def clean_faults(
    clean: Tensor, supervised: Tensor, *, mask_id: int, vocab_size: int
) -> dict[str, Tensor]:
    """What may be wrong with the clean canvas where it supervises: message to 0-d flag."""
    return {
        f"clean holds an id outside the vocabulary of {vocab_size} at a supervised position": (
            ((clean < 0) | (clean >= vocab_size)) & supervised
        ).any(),
        f"clean holds the mask id {mask_id} at a supervised position; pass it before noise": (
            (clean == mask_id) & supervised
        ).any(),
    }


def weight_faults(weights: Tensor, *, name: str) -> dict[str, Tensor]:
    """What may be wrong with loss weights: message to 0-d flag."""
    good = torch.isfinite(weights) & (weights >= 0)
    return {f"{name} must be finite and at least 0": ~good.all()}


def raise_first_fault(where: str, faults: Mapping[str, Tensor], measure: Tensor) -> int:
    """Raise `ConfigError` for the first flag that is up, else return the measure.

    Args:
        where: Name of the public function, for the message.
        faults: Message to 0-d boolean tensor.
        measure: A 0-d integer tensor wanted along with the flags.

    Returns:
        The measure as a Python integer.

    Raises:
        ConfigError: With the first message whose flag is True.
    """
    flags = [flag.to(torch.int64) for flag in faults.values()]
    *raised, value = torch.stack([*flags, measure.to(torch.int64)]).tolist()
    for message, is_raised in zip(faults, raised, strict=True):
        if is_raised:
            raise ConfigError(f"{where}: {message}")
    return value


def largest_budget(canvas_lengths: Tensor, target_lengths: Tensor) -> Tensor:
    """``K`` of the batch: the largest slack budget, at least 0, as a 0-d tensor."""
    budgets = canvas_lengths - target_lengths
    return torch.cat((budgets, budgets.new_zeros(1))).max()


def inside_lengths(lengths: Tensor, size: int) -> Tensor:
    """True at the first ``lengths[b]`` of ``size`` places; ``[B, size]``."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def _outside(lengths: Tensor, most: int) -> Tensor:
    return ((lengths < 0) | (lengths > most)).any()
