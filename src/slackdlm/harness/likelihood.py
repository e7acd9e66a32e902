"""How likely is a text under a masked diffusion model? LLaDA's Monte-Carlo bound, and whether it is decoded greedily.

For a target of ``S`` tokens behind a prompt, on a canvas of exactly ``S`` cells:

    log p(y) >= E over l ~ U{1..S} and l masked cells, drawn uniformly, of
                (S / l) * sum over masked i of log p_i(y_i | what is visible)

``<slack>`` and the mask are no part of ``y``: cells are normalised over everything else, as if the decoder were
forbidden to write them. The bound is therefore of ``log p(y | y has S tokens)`` for every model, whether slack was
trained or not. Without this a slack-trained model pays for every cell it would have left empty, and the more the
longer the target. The slack-CTC objective itself, weighted by ``1 / p``, is no bound of any likelihood we know of.

Axis letters: ``N`` masks of a target, ``S`` target tokens, ``B`` rows, ``L`` positions, ``M`` masked cells, ``V``
vocabulary.

References:
    Nie et al., 2025 (LLaDA), equation 6 and ``get_log_likelihood.py``. Ours differs: strata are exactly uniform (theirs
    rounds halves to even, so that even numbers of masked cells come up more often), every target has its own seed, and
    short targets, with no more masks than samples, are summed exactly.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from slackdlm.errors import DataError
from slackdlm.models.llada import attention_bias
from slackdlm.models.loaded import LoadedModel, in_evaluation_mode, logits_of, plain_head

_CHUNK_ELEMENTS = 2**23
"""Logits held at a time."""


class Target(NamedTuple):
    """What is to be rated."""

    prompt_ids: Sequence[int]
    target_ids: Sequence[int]
    seed: int
    """Decides the target's masks, and nothing else does: neither its batch-mates nor its place."""


class Masks(NamedTuple):
    """Masks of one target with their shares in the bound."""

    is_masked: Bool[np.ndarray, "N S"]
    """Distinct rows, each with at least one masked cell."""
    weights: Float64[np.ndarray, " N"]
    """Share of the draws times ``S / l``."""


class _Row(NamedTuple):
    """One evaluation of the model: a target with some of its cells masked."""

    target: Target
    is_masked: Bool[np.ndarray, " S"]


class _Cells(NamedTuple):
    """What the model says of a row's masked cells, from the left."""

    log_probs: list[float]
    """Of the target's tokens, in nats."""
    best: list[int]
    """The likeliest token."""
    confidence: list[float]
    """Its log-probability."""


def draw_masks(length: int, num_samples: int, seed: int) -> Masks:
    """Masks whose weighted sum of masked log-probabilities has the bound as its mean.

    Args:
        length: ``S``, at least 1.
        num_samples: Draws. The numbers of masked cells are spread evenly over ``1..S`` from one uniform offset
            (systematic sampling). If there are no more masks than draws, all of them come with their exact shares.
        seed: Of offset and places.
    """
    if 2**length - 1 <= num_samples:
        numbers = np.arange(1, 2**length)
        is_masked = (numbers[:, None] >> np.arange(length)) % 2 == 1
        sizes = is_masked.sum(axis=1).tolist()
        return Masks(is_masked, np.array([1 / (size * math.comb(length, size)) for size in sizes]))
    generator = np.random.Generator(np.random.PCG64(seed))
    places = (generator.random() + np.arange(num_samples)) / num_samples
    sizes = np.minimum((places * length).astype(np.int64) + 1, length)
    order = generator.random((num_samples, length)).argsort(axis=1).argsort(axis=1)
    drawn = order < sizes[:, None]
    is_masked, which = np.unique(drawn, axis=0, return_inverse=True)
    shares = np.bincount(which.ravel(), minlength=len(is_masked)) / num_samples
    return Masks(is_masked, shares * length / is_masked.sum(axis=1))


def num_masks(length: int, num_samples: int) -> int:
    """Most masks that :func:`draw_masks` gives a target of ``length`` tokens: draws that fall together count once."""
    return min(2**length - 1, num_samples)


def log_likelihood_bounds(
    loaded: LoadedModel,
    targets: Sequence[Target],
    *,
    num_samples: int,
    batch_size: int,
    guidance: float = 0.0,
) -> list[float]:
    """The bound of every target's log-probability.

    Args:
        loaded: The model.
        targets: What to rate. An empty target has log-probability 0.
        num_samples: Masks drawn for a target (LLaDA: 128, or 1 where targets have one token).
        batch_size: Canvases evaluated together; changes results by rounding alone.
        guidance: Scale of classifier-free guidance, as in decoding.

    Returns:
        Nats, in the order of the targets.

    Raises:
        DataError: If prompt and target are longer than the model's input.
    """
    check_lengths(loaded, targets)
    masks = [
        draw_masks(len(t.target_ids), num_samples, t.seed) if t.target_ids else None
        for t in targets
    ]
    rows = [
        _Row(target, is_masked)
        for target, mask in zip(targets, masks, strict=True)
        if mask is not None
        for is_masked in mask.is_masked
    ]
    sums = iter(
        math.fsum(cells.log_probs)
        for cells in _evaluate(loaded, rows, batch_size=batch_size, guidance=guidance)
    )
    return [
        0.0 if mask is None else math.fsum(weight * next(sums) for weight in mask.weights.tolist())
        for mask in masks
    ]


def are_greedy(
    loaded: LoadedModel, targets: Sequence[Target], *, batch_size: int, guidance: float = 0.0
) -> list[bool]:
    """Whether each target is what low-confidence decoding writes on a canvas of its length, one token a step.

    A target is given up at the first token that differs, so most cost one evaluation of the model. Arguments and
    errors as in :func:`log_likelihood_bounds`.
    """
    check_lengths(loaded, targets)
    is_greedy = [True] * len(targets)
    open_rows = {
        i: np.ones(len(target.target_ids), dtype=np.bool_)
        for i, target in enumerate(targets)
        if target.target_ids
    }
    while open_rows:
        rows = [_Row(targets[i], is_masked) for i, is_masked in open_rows.items()]
        predicted = _evaluate(loaded, rows, batch_size=batch_size, guidance=guidance)
        for i, cells in zip(list(open_rows), predicted, strict=True):
            surest = int(np.argmax(cells.confidence))
            position = int(np.nonzero(open_rows[i])[0][surest])
            is_greedy[i] = cells.best[surest] == targets[i].target_ids[position]
            open_rows[i][position] = False
            if not is_greedy[i] or not open_rows[i].any():
                del open_rows[i]
    return is_greedy


def check_lengths(loaded: LoadedModel, targets: Sequence[Target]) -> None:
    """Raise DataError if a target does not fit into the model's input."""
    lengths = [len(target.prompt_ids) + len(target.target_ids) for target in targets]
    too_long = [length for length in lengths if length > loaded.max_length]
    if too_long:
        raise DataError(
            f"likelihood: {len(too_long)} of {len(targets)} texts are longer than the model's {loaded.max_length} "
            f"tokens, the first has {too_long[0]}; use fewer examples in the prompt (--num-fewshot)"
        )


def _evaluate(
    loaded: LoadedModel, rows: Sequence[_Row], *, batch_size: int, guidance: float
) -> Iterator[_Cells]:
    """What the model says of every row's masked cells, in order."""
    with in_evaluation_mode(loaded.model):
        for start in range(0, len(rows), batch_size):
            yield from _evaluate_batch(loaded, rows[start : start + batch_size], guidance=guidance)


@torch.inference_mode()
def _evaluate_batch(loaded: LoadedModel, rows: Sequence[_Row], *, guidance: float) -> list[_Cells]:
    device = loaded.device
    longest = max(len(row.target.prompt_ids) + len(row.target.target_ids) for row in rows)
    # Padded on the left, as in decoding: relative positions do not notice.
    ids = torch.full((len(rows), longest), loaded.pad_id)
    attended = torch.zeros(ids.shape, dtype=torch.bool)
    is_prompt = torch.zeros_like(attended)
    wanted: list[int] = []
    cells: list[tuple[int, int]] = []
    for r, (target, is_masked) in enumerate(rows):
        canvas = [
            loaded.mask_id if masked else token
            for token, masked in zip(target.target_ids, is_masked.tolist(), strict=True)
        ]
        begin = longest - len(canvas)
        ids[r, begin - len(target.prompt_ids) :] = torch.tensor([*target.prompt_ids, *canvas])
        attended[r, begin - len(target.prompt_ids) :] = True
        is_prompt[r, begin - len(target.prompt_ids) : begin] = True
        cells += [(r, begin + i) for i in np.nonzero(is_masked)[0].tolist()]
        wanted += [target.target_ids[i] for i in np.nonzero(is_masked)[0].tolist()]
    bias = attention_bias(attended)
    bias = None if bias is None else bias.to(device)
    at = torch.tensor(cells, device=device).T
    inputs = ids.to(device)
    hidden = _hidden(loaded, inputs, bias)[at[0], at[1]]
    without = None
    if guidance > 0:
        unprompted = inputs.masked_fill(is_prompt.to(device), loaded.mask_id)
        without = _hidden(loaded, unprompted, bias)[at[0], at[1]]
    log_probs, confidence, best = _cell_log_probs(
        loaded, hidden, without, torch.tensor(wanted, device=device), guidance=guidance
    )
    counts = [int(row.is_masked.sum()) for row in rows]
    parts = (x.cpu().split(counts) for x in (log_probs, best, confidence))
    return [_Cells(*(part.tolist() for part in row)) for row in zip(*parts, strict=True)]


def _hidden(
    loaded: LoadedModel, inputs: Tensor, bias: Bool[Tensor, "B 1 1 L"] | None
) -> Float[Tensor, "B L D"]:
    return loaded.model(input_ids=inputs, attention_mask=bias, logits=False).last_hidden_state


def _cell_log_probs(
    loaded: LoadedModel,
    hidden: Float[Tensor, "M D"],
    without: Float[Tensor, "M D"] | None,
    wanted: Tensor,
    *,
    guidance: float,
) -> tuple[Float[Tensor, " M"], Float[Tensor, " M"], Tensor]:
    """Log-probability of the wanted tokens, of the likeliest, and which that is; float32, a few cells at a time."""
    forbidden = [loaded.mask_id, loaded.slack_id]
    head = plain_head(loaded.model.get_output_embeddings())
    size = max(1, _CHUNK_ELEMENTS // head.out_features)
    chunks: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(hidden), size):
        part = slice(start, start + size)
        logits = logits_of(loaded.model, hidden[part]).float()
        if without is not None:
            base = logits_of(loaded.model, without[part]).float()
            logits = base + (guidance + 1) * (logits - base)
        logits[:, forbidden] = -torch.inf
        log_probs = logits.log_softmax(dim=-1)
        top = log_probs.max(dim=-1)
        chunks.append((log_probs.gather(1, wanted[part, None])[:, 0], top.values, top.indices))
    of_wanted, confidence, best = (torch.cat(column) for column in zip(*chunks, strict=True))
    return of_wanted, confidence, best
