"""One trip through the output layer for loss and gradients, a few rows of logits at a time.

Cross-entropy and slack-CTC are both cross-entropies with a target distribution per position:
one-hot for the first, the lattice posterior for the second. Their loss gradient with respect to the
logits is ``weight * softmax - weighted targets``, so both share one pass and ``[B, L, V]`` never
exists.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Logits held at a time; large enough for efficient products, small beside the output layer.
_CHUNK_ELEMENTS_CPU = 2**25
_CHUNK_ELEMENTS_GPU = 2**27


class Supervision(NamedTuple):
    """What the rows of a batch are trained towards, all of it constant. Weights are float64."""

    ctc_weights: Float[Tensor, "B L"]
    """Weight of the lattice posterior at each position; 0 where slack-CTC does not reach."""
    ce_weights: Float[Tensor, "B L"]
    """Weight of ``clean`` at each position; 0 where cross-entropy does not reach."""
    clean: Int[Tensor, "B L"]
    """Ids of the clean canvas; read where ``ce_weights`` is not 0."""
    targets: Int[Tensor, "B S"]
    """Target ids, padding replaced by a valid id."""
    token_posterior: Float[Tensor, "B L band"]
    """Entry ``[i, k]``: posterior of ``targets[i - k]`` at position ``i``."""
    slack_posterior: Float[Tensor, "B L"]
    """Posterior of ``<slack>`` at each position."""
    slack_id: int
    """Id of ``<slack>``."""

    def scaled(self, factors: Float[Tensor, " B"]) -> "Supervision":
        """The same with every sample's weights multiplied by its factor."""
        factors = factors[:, None]
        return self._replace(
            ctc_weights=self.ctc_weights * factors, ce_weights=self.ce_weights * factors
        )


class Layer(NamedTuple):
    """Hidden states and the output layer that reads them."""

    hidden: Float[Tensor, "B L D"]
    head: Float[Tensor, "V D"]
    slack_row: Float[Tensor, " D"] | None
    """Takes the place of the output layer's row of ``<slack>``."""

    def to(self, dtype: torch.dtype) -> "Layer":
        """The same in another dtype."""
        row = None if self.slack_row is None else self.slack_row.to(dtype)
        return Layer(self.hidden.to(dtype), self.head.to(dtype), row)

    def detached(self) -> "Layer":
        """The same as constants."""
        row = None if self.slack_row is None else self.slack_row.detach()
        return Layer(self.hidden.detach(), self.head.detach(), row)


class Gradients(NamedTuple):
    """Of the summed loss with respect to a `Layer`; None where not wanted."""

    hidden: Tensor | None
    head: Tensor | None
    slack_row: Tensor | None


def default_chunk_size(vocab_size: int, device: torch.device) -> int:
    """Rows of logits to hold at a time."""
    elements = _CHUNK_ELEMENTS_CPU if device.type == "cpu" else _CHUNK_ELEMENTS_GPU
    return max(1, elements // vocab_size)


def vocabulary_pass(
    layer: Layer, supervision: Supervision, *, chunk_size: int, needed: Sequence[bool]
) -> tuple[Float[Tensor, " B"], Gradients]:
    """Loss and gradients of all supervised rows; everything else never meets the output layer.

    Args:
        layer: In the dtype of the matrix products.
        supervision: Weights and targets.
        chunk_size: Rows of logits held at a time.
        needed: Which gradients to compute, in the order of `Gradients`.

    Returns:
        ``sum_i (ctc_weights_i + ce_weights_i) * logsumexp_i - ce_weights_i * logit_i[clean_i]`` in
        float64, which lacks the lattice's own term, and the gradients of the whole. Sums are float32
        (float64 for float64 input), whatever the dtype of the products.
    """
    hidden, head, _ = layer
    accumulator = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    num_samples, num_positions, hidden_size = hidden.shape
    flat = layer._replace(hidden=hidden.reshape(-1, hidden_size))
    is_supervised = (supervision.ctc_weights != 0) | (supervision.ce_weights != 0)
    rows = is_supervised.flatten().nonzero()[:, 0]
    loss = torch.zeros(num_samples, dtype=torch.float64, device=hidden.device)
    gradients = Gradients(  # buffers that the chunks add to
        hidden=torch.zeros_like(flat.hidden) if needed[0] else None,
        head=torch.zeros_like(head, dtype=accumulator) if needed[1] else None,
        slack_row=hidden.new_zeros(hidden_size, dtype=accumulator) if needed[2] else None,
    )
    # Written over by every chunk: fresh pages would cost as much as half of a product.
    scratch = hidden.new_empty(min(chunk_size, len(rows)), head.shape[0], dtype=accumulator)
    for chunk in rows.split(chunk_size):
        row_loss = _run_chunk(flat, supervision, chunk, scratch, gradients)
        loss.index_add_(0, chunk // num_positions, row_loss)
    if gradients.hidden is not None:
        gradients = gradients._replace(hidden=gradients.hidden.view(hidden.shape))
    return loss, gradients


def _run_chunk(
    layer: Layer,
    supervision: Supervision,
    chunk: Int[Tensor, " R"],
    scratch: Float[Tensor, "C V"],
    gradients: Gradients,
) -> Float[Tensor, " R"]:
    """Weighted loss of a few rows; adds their gradients to the buffers, where there are any."""
    flat_hidden, head, slack_row = layer
    inputs, logits = flat_hidden[chunk], scratch[: len(chunk)]
    if inputs.dtype == scratch.dtype:
        torch.mm(inputs, head.T, out=logits)
    else:
        logits.copy_(inputs @ head.T)
    if slack_row is not None:
        logits[:, supervision.slack_id] = (inputs @ slack_row).to(logits.dtype)
    ce_weights = supervision.ce_weights.flatten()[chunk]
    row_weights = supervision.ctc_weights.flatten()[chunk] + ce_weights
    clean = torch.where(ce_weights != 0, supervision.clean.flatten()[chunk], 0)
    clean_logits = logits.gather(1, clean[:, None])[:, 0]
    top = logits.amax(1, keepdim=True)
    exponentials = logits.sub_(top).exp_()  # written over the logits
    sums = exponentials.sum(1)
    row_loss = row_weights * (sums.log() + top[:, 0]).double()
    row_loss -= torch.where(ce_weights != 0, ce_weights * clean_logits.double(), 0.0)
    if any(gradient is not None for gradient in gradients):
        factors = (row_weights / sums).to(exponentials.dtype)  # else mul_ goes slowly
        logits_grad = exponentials.mul_(factors[:, None])
        _subtract_targets(logits_grad, supervision, chunk, clean, ce_weights)
        _add_gradients(layer, logits_grad.to(inputs.dtype), supervision.slack_id, chunk, gradients)
    return row_loss


def _add_gradients(
    layer: Layer,
    logits_grad: Float[Tensor, "R V"],
    slack_id: int,
    chunk: Int[Tensor, " R"],
    gradients: Gradients,
) -> None:
    """What the gradient of a chunk's logits adds to the buffers."""
    inputs, slack_grad = layer.hidden[chunk], None
    if layer.slack_row is not None:
        slack_grad = logits_grad[:, slack_id].clone()
        logits_grad[:, slack_id] = 0  # the output layer's own row was not used
        if gradients.slack_row is not None:
            gradients.slack_row.add_(slack_grad @ inputs)
    if gradients.hidden is not None:
        hidden_grad = logits_grad @ layer.head
        if slack_grad is not None and layer.slack_row is not None:
            hidden_grad.addr_(slack_grad, layer.slack_row)
        gradients.hidden[chunk] = hidden_grad
    if gradients.head is not None and gradients.head.dtype == logits_grad.dtype:
        gradients.head.addmm_(logits_grad.T, inputs)
    elif gradients.head is not None:
        gradients.head.add_(logits_grad.T @ inputs)


def _subtract_targets(
    logits_grad: Float[Tensor, "R V"],
    supervision: Supervision,
    chunk: Int[Tensor, " R"],
    clean: Int[Tensor, " R"],
    ce_weights: Float[Tensor, " R"],
) -> None:
    """Takes the weighted target distribution of each row off its weighted softmax, in place."""
    dtype = logits_grad.dtype
    logits_grad.scatter_add_(1, clean[:, None], -ce_weights[:, None].to(dtype))
    num_positions = supervision.clean.shape[1]
    samples, positions = chunk // num_positions, chunk % num_positions
    ctc_weights = supervision.ctc_weights.flatten()[chunk].to(dtype)
    token = supervision.token_posterior.flatten(0, 1)[chunk].to(dtype)
    slack = supervision.slack_posterior.flatten()[chunk].to(dtype)
    if supervision.targets.shape[1] > 0:
        slack_used = torch.arange(token.shape[1], device=chunk.device)
        token_index = positions[:, None] - slack_used
        token_index = token_index.clamp(0, supervision.targets.shape[1] - 1)  # posterior 0 outside
        ids = supervision.targets[samples[:, None], token_index]
        logits_grad.scatter_add_(1, ids, -ctc_weights[:, None] * token)
    logits_grad[:, supervision.slack_id] -= ctc_weights * slack


class VocabularyLoss(torch.autograd.Function):
    """The pass as a differentiable loss: gradients are computed with it and scaled on the way back."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        hidden: Float[Tensor, "B L D"],
        head_weight: Float[Tensor, "V D"],
        slack_row: Float[Tensor, " D"] | None,
        lattice_loss: Float[Tensor, " B"],
        supervision: Supervision,
        dtype: torch.dtype,
        chunk_size: int,
    ) -> Float[Tensor, " B"]:
        """Runs the pass in ``dtype`` and adds ``lattice_loss``, the lattice's own weighted term."""
        ctx.run = partial(vocabulary_pass, chunk_size=chunk_size, needed=ctx.needs_input_grad[:3])
        layer = Layer(hidden, head_weight, slack_row)
        loss, ctx.gradients = ctx.run(layer.to(dtype), supervision)
        ctx.save_for_backward(*layer)
        ctx.supervision, ctx.dtype = supervision, dtype
        loss = loss + lattice_loss
        return loss.to(torch.float64 if dtype == torch.float64 else torch.float32)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Scales the gradients; runs the pass again where one number cannot scale the head's."""
        layer = Layer(*ctx.saved_tensors)
        (factors,) = grad_outputs
        gradients, ctx.gradients = ctx.gradients, None
        is_shared = len(factors) > 0 and bool((factors == factors[0]).all())
        factor = float(factors[0]) if is_shared else None
        if gradients is not None and factor is not None:
            gradients = [None if g is None else _scale(g, factor) for g in gradients]
        else:  # each sample has its own factor, or this is not the first backward
            _, gradients = ctx.run(layer.to(ctx.dtype), ctx.supervision.scaled(factors))
        typed = (
            None if gradient is None else gradient.to(value.dtype)
            for gradient, value in zip(gradients, ctx.saved_tensors, strict=True)
        )
        return (*typed, None, None, None, None)


def _scale(gradient: Tensor, factor: float) -> Tensor:
    return gradient if factor == 1.0 else gradient.mul_(factor)
