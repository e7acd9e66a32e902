"""Can this batch be a loss at all? Every complaint about the inputs of the objectives.

Shapes and dtypes are looked at one by one; what depends on values is gathered into one tensor and
read once, so that a CUDA device is waited for a single time.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from slackdlm.errors import ConfigError
from slackdlm.lattice.band import Batch


class Terms(NamedTuple):
    """What a loss is told of a batch, unchecked; fields as in `fused_linear_slack_ctc_loss`."""

    canvas: Tensor
    targets: Tensor
    canvas_lengths: Tensor
    target_lengths: Tensor
    mask_id: int
    slack_id: int
    clean: Tensor | None = None
    ctc_weight: float = 1.0
    ce_weights: Tensor | None = None
    sample_weights: Tensor | None = None


class Problem(NamedTuple):
    """A batch that may be a loss, its defaults filled in."""

    batch: Batch
    """Its targets are padded with 0."""
    clean: Int[Tensor, "B L"]
    ctc_weight: float
    ce_weights: Float[Tensor, "B L"]
    """Float64; 0 at visible positions."""
    sample_weights: Float[Tensor, " B"]
    """Float64."""

    @property
    def masked(self) -> Bool[Tensor, "B L"]:
        """Masked positions of the content."""
        batch = self.batch
        inside = inside_lengths(batch.canvas_lengths, batch.canvas.shape[1])
        return inside & (batch.canvas == batch.mask_id)


def checked_problem(where: str, terms: Terms, shape: tuple[int, int, int]) -> Problem:
    """The batch of ``(B, L, V)`` with its defaults, if nothing is wrong with it.

    Args:
        where: Name of the public function, for messages.
        terms: The batch as it came.
        shape: ``B``, ``L`` and ``V``.

    Raises:
        ConfigError: If a shape, a dtype, an id or a weight is wrong.
    """
    num_samples, num_positions, vocab_size = shape
    _check_options(where, terms, vocab_size)
    _check_batch_shapes(where, terms, shape[:2])
    ce_weights, sample_weights = terms.ce_weights, terms.sample_weights
    if ce_weights is None:
        inside = inside_lengths(terms.canvas_lengths, num_positions)
        ce_weights = (1.0 - terms.ctc_weight) * inside.double()
    if sample_weights is None:
        sample_weights = terms.canvas.new_ones(num_samples, dtype=torch.float64)
    for name, weights, size in (
        ("ce_weights", ce_weights, shape[:2]),
        ("sample_weights", sample_weights, shape[:1]),
    ):
        check_shape(where, name, weights, size)
        if weights.requires_grad:
            raise ConfigError(f"{where}: {name} must be constants; detach them")
    supervised = (terms.canvas == terms.mask_id) & (ce_weights > 0)
    faults = canvas_faults(terms.canvas, terms.canvas_lengths, terms.mask_id, vocab_size)
    faults |= _target_faults(terms, vocab_size)
    faults |= _weight_faults("ce_weights", ce_weights)
    faults |= _weight_faults("sample_weights", sample_weights)
    if terms.clean is not None:
        check_integers(where, "clean", terms.clean, shape[:2])
        faults |= clean_faults(terms.clean, supervised, terms.mask_id, vocab_size)
    budgets = terms.canvas_lengths - terms.target_lengths
    largest = torch.cat((budgets, budgets.new_zeros(1))).max()
    is_token = inside_lengths(terms.target_lengths, terms.targets.shape[1])
    batch = Batch(
        *(terms.canvas, terms.targets.long() * is_token),
        *(terms.canvas_lengths, terms.target_lengths, terms.mask_id, terms.slack_id),
        num_slack=raise_first_fault(where, faults, largest),
    )
    return Problem(
        batch,
        clean=terms.canvas if terms.clean is None else terms.clean,
        ctc_weight=terms.ctc_weight,
        ce_weights=ce_weights.double() * supervised,
        sample_weights=sample_weights.double(),
    )


def check_floating(where: str, name: str, scores: Tensor, axes: str) -> None:
    """Raise `ConfigError` unless ``scores`` is floating point with the named axes."""
    if scores.ndim != len(axes.split()) or not scores.is_floating_point():
        raise ConfigError(
            f"{where}: {name} must be floating point [{axes}], "
            f"got {scores.dtype} of shape {tuple(scores.shape)}"
        )


def check_shape(where: str, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raise `ConfigError` unless ``tensor`` has exactly this shape."""
    if tuple(tensor.shape) != shape:
        raise ConfigError(f"{where}: {name} must have shape {shape}, got {tuple(tensor.shape)}")


def check_integers(where: str, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raise `ConfigError` unless ``tensor`` holds integers and has exactly this shape."""
    check_shape(where, name, tensor, shape)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise ConfigError(f"{where}: {name} must hold integers, got {tensor.dtype}")


def check_mask_id(where: str, mask_id: int) -> None:
    """Raise `ConfigError` if the id is negative."""
    if mask_id < 0:
        raise ConfigError(f"{where}: mask_id must not be negative, got {mask_id}")


def _check_options(where: str, terms: Terms, vocab_size: int) -> None:
    if not 0 <= terms.ctc_weight <= 1:
        raise ConfigError(f"{where}: ctc_weight must lie in [0, 1], got {terms.ctc_weight}")
    if terms.clean is None and (terms.ctc_weight < 1 or terms.ce_weights is not None):
        raise ConfigError(
            f"{where}: cross-entropy has weight (ctc_weight {terms.ctc_weight}, ce_weights "
            f"{'given' if terms.ce_weights is not None else 'not given'}) but clean is missing; pass it"
        )
    if terms.mask_id == terms.slack_id:
        raise ConfigError(
            f"{where}: mask_id and slack_id are both {terms.mask_id}; they must differ"
        )
    check_mask_id(where, terms.mask_id)
    if not 0 <= terms.slack_id < vocab_size:
        raise ConfigError(
            f"{where}: slack_id {terms.slack_id} lies outside the vocabulary of {vocab_size}; "
            "resize the embedding or use a reserved token"
        )


def _check_batch_shapes(where: str, terms: Terms, shape: tuple[int, int]) -> None:
    check_integers(where, "canvas", terms.canvas, shape)
    if terms.targets.ndim != 2:
        got = tuple(terms.targets.shape)
        raise ConfigError(f"{where}: targets must be [B, S], got shape {got}")
    check_integers(where, "targets", terms.targets, (shape[0], terms.targets.shape[1]))
    check_integers(where, "canvas_lengths", terms.canvas_lengths, shape[:1])
    check_integers(where, "target_lengths", terms.target_lengths, shape[:1])


Faults = dict[str, Tensor]
"""What may be wrong with the values of a batch: message to 0-d flag."""


def canvas_faults(canvas: Tensor, canvas_lengths: Tensor, mask_id: int, vocab_size: int) -> Faults:
    """Of a canvas and its lengths."""
    num_positions = canvas.shape[1]
    known = (canvas == mask_id) | ((canvas >= 0) & (canvas < vocab_size))
    inside = inside_lengths(canvas_lengths, num_positions)
    return {
        f"canvas_lengths must lie between 0 and L = {num_positions}": _outside(
            canvas_lengths, num_positions
        ),
        f"canvas holds an id outside the vocabulary of {vocab_size} that is not the mask id": (
            ~known & inside
        ).any(),
    }


def clean_faults(clean: Tensor, supervised: Tensor, mask_id: int, vocab_size: int) -> Faults:
    """Of the clean canvas where it supervises."""
    unknown = (clean < 0) | (clean >= vocab_size)
    return {
        f"clean holds an id outside the vocabulary of {vocab_size} at a supervised position": (
            unknown & supervised
        ).any(),
        f"clean holds the mask id {mask_id} at a supervised position; pass it before noise": (
            (clean == mask_id) & supervised
        ).any(),
    }


def _target_faults(terms: Terms, vocab_size: int) -> Faults:
    targets, num_tokens = terms.targets, terms.targets.shape[1]
    is_token = inside_lengths(terms.target_lengths, num_tokens)
    unknown = (targets < 0) | (targets >= vocab_size)
    is_slack, is_mask = targets == terms.slack_id, targets == terms.mask_id
    return {
        f"target_lengths must lie between 0 and S = {num_tokens}": _outside(
            terms.target_lengths, num_tokens
        ),
        f"targets hold an id outside the vocabulary of {vocab_size}": (unknown & is_token).any(),
        f"targets hold the slack id {terms.slack_id}; slack belongs to the canvas alone": (
            is_slack & is_token
        ).any(),
        f"targets hold the mask id {terms.mask_id}; it is not a token a response can have": (
            is_mask & is_token
        ).any(),
    }


def _weight_faults(name: str, weights: Tensor) -> Faults:
    good = torch.isfinite(weights) & (weights >= 0)
    return {f"{name} must be finite and at least 0": ~good.all()}


def raise_first_fault(where: str, faults: Mapping[str, Tensor], measure: Tensor) -> int:
    """Raise `ConfigError` with the first message whose flag is up, else return the measure.

    ``measure`` is a 0-d integer tensor wanted along with the flags.
    """
    flags = [flag.to(torch.int64) for flag in faults.values()]
    *raised, value = torch.stack([*flags, measure.to(torch.int64)]).tolist()
    for message, is_raised in zip(faults, raised, strict=True):
        if is_raised:
            raise ConfigError(f"{where}: {message}")
    return value


def inside_lengths(lengths: Tensor, size: int) -> Bool[Tensor, "B size"]:
    """True at the first ``lengths[b]`` of ``size`` places."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def _outside(lengths: Tensor, most: int) -> Tensor:
    return ((lengths < 0) | (lengths > most)).any()
