"""The lattice on CUDA: one Triton program per sample walks the canvas with all states in registers.

The neighbour state comes from ``tl.gather``, for which the compiler places the barriers; the gaps written on the
way forward are read on the way back behind a barrier of ours. States are float64; the correction
``log1p(exp(-gap))`` is at most ``log 2`` and is computed in the dtype of the scores. What a position needs of memory
is asked for two positions ahead, since a program has nothing else to do while it waits.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl

from slackdlm.errors import ConfigError
from slackdlm.lattice.band import Columns
from slackdlm.lattice.posteriors import Posteriors

MAX_BLOCK = 8192  # states that fit the registers of one program


def posteriors(columns: Columns, *, needs_posteriors: bool = True) -> Posteriors:
    """`slackdlm.lattice.band_posteriors` of CUDA tensors; no wait for the device.

    Raises:
        ConfigError: If the slack budget is beyond ``MAX_BLOCK - 1``.
    """
    token_scores, slack_scores, canvas_lengths, target_lengths = columns
    num_samples, num_positions, band = token_scores.shape
    block = max(16, triton.next_power_of_2(band))
    if block > MAX_BLOCK:
        raise ConfigError(
            f"lattice: a slack budget of {band - 1} exceeds the {MAX_BLOCK - 1} states of the CUDA kernel; "
            "lower slack_ratio or shorten the canvas"
        )
    log_likelihood = token_scores.new_full((num_samples,), -torch.inf, dtype=torch.float64)
    token_posterior = torch.zeros_like(token_scores, memory_format=torch.contiguous_format)
    slack_posterior = torch.zeros_like(slack_scores, memory_format=torch.contiguous_format)
    if num_samples > 0:
        # Triton launches on the current device, which need not be theirs.
        with torch.cuda.device_of(token_scores):
            lattice_kernel[(num_samples,)](
                token_scores.contiguous(),
                slack_scores.contiguous(),
                canvas_lengths.to(torch.int32).contiguous(),
                target_lengths.to(torch.int32).contiguous(),
                log_likelihood,
                token_posterior,
                slack_posterior,
                num_positions,
                band,
                BLOCK=block,
                NEEDS_POSTERIORS=needs_posteriors,
                num_warps=num_warps_for(block),  # pyright: ignore[reportCallIssue]
            )
    return Posteriors(log_likelihood, token_posterior, slack_posterior)


def num_warps_for(block: int) -> int:
    """Warps per program: at most 16 states a thread, at most 16 warps."""
    return min(16, max(1, block // 128))


@triton.jit
@no_type_check
def lattice_kernel(
    token_ptr,  # [B, L, band] scores
    slack_ptr,  # [B, L] scores
    canvas_lengths_ptr,  # [B] int32
    target_lengths_ptr,  # [B] int32
    log_likelihood_ptr,  # [B] float64, written where the budget is not negative
    token_posterior_ptr,  # [B, L, band], zero; holds the gaps on the way, the posteriors in the end
    slack_posterior_ptr,  # [B, L], zero; written
    num_positions,
    band,
    BLOCK: tl.constexpr,
    NEEDS_POSTERIORS: tl.constexpr,
):
    """One sample: forward over the canvas, then backward."""
    b = tl.program_id(0).to(tl.int64)
    canvas_length = tl.load(canvas_lengths_ptr + b)
    budget = canvas_length - tl.load(target_lengths_ptr + b)
    k = tl.arange(0, BLOCK)
    in_band = k < band
    before = tl.maximum(k - 1, 0)
    behind = tl.minimum(k + 1, BLOCK - 1)
    token_row = token_ptr + b * num_positions * band + k
    gap_row = token_posterior_ptr + b * num_positions * band + k
    slack_row = slack_ptr + b * num_positions
    slack_posterior_row = slack_posterior_ptr + b * num_positions
    nothing = float("-inf")
    if budget >= 0:
        state = tl.where(k == 0, 0.0, nothing).to(tl.float64)
        token = tl.load(token_row, mask=k < tl.where(canvas_length > 0, band, 0), other=nothing)
        slack = tl.load(slack_row, mask=canvas_length > 0, other=nothing)
        token_row += band
        next_token = tl.load(
            token_row, mask=k < tl.where(canvas_length > 1, band, 0), other=nothing
        )
        next_slack = tl.load(slack_row + 1, mask=canvas_length > 1, other=nothing)
        for i in range(canvas_length):
            token_row += band
            is_there = i + 2 < canvas_length
            later_token = tl.load(token_row, mask=k < tl.where(is_there, band, 0), other=nothing)
            later_slack = tl.load(slack_row + i + 2, mask=is_there, other=nothing)
            by_slack = tl.where(k == 0, nothing, tl.gather(state, before, 0))
            left = state + token.to(tl.float64)
            right = by_slack + slack.to(tl.float64)
            top = tl.maximum(left, right, propagate_nan=tl.PropagateNan.ALL)
            gap = tl.where(top == nothing, 0.0, left - right).to(token.dtype)
            state = top + tl.log(1.0 + tl.exp(-tl.abs(gap))).to(tl.float64)
            if NEEDS_POSTERIORS:
                tl.store(gap_row, gap, mask=in_band)
            gap_row += band
            token, next_token = next_token, later_token
            slack, next_slack = next_slack, later_slack
        log_likelihood = tl.sum(tl.where(k == budget, state, 0.0), 0)
        tl.store(log_likelihood_ptr + b, log_likelihood)
        if NEEDS_POSTERIORS:
            tl.debug_barrier()  # a band narrower than a warp is read by more threads than wrote it
            is_possible = tl.where(log_likelihood == nothing, 0.0, 1.0)
            start = tl.where(log_likelihood == log_likelihood, is_possible, float("nan"))
            mass = tl.where(k == budget, start, 0.0).to(tl.float64)
            gap_row -= band
            gap = tl.load(gap_row, mask=k < tl.where(canvas_length > 0, band, 0), other=0.0)
            next_gap = tl.load(
                gap_row - band, mask=k < tl.where(canvas_length > 1, band, 0), other=0.0
            )
            for j in range(canvas_length):
                is_there = j + 2 < canvas_length
                later_gap = tl.load(
                    gap_row - 2 * band, mask=k < tl.where(is_there, band, 0), other=0.0
                )
                ratio = tl.exp(-tl.abs(gap))
                smaller = mass * (ratio / (1.0 + ratio)).to(tl.float64)
                larger = mass - smaller  # no mass is lost on the way
                moved = tl.where(gap > 0, smaller, larger)  # by slack
                stayed = tl.where(gap > 0, larger, smaller)  # by a token
                tl.store(gap_row, stayed, mask=in_band)
                tl.store(slack_posterior_row + canvas_length - 1 - j, tl.sum(moved, 0))
                mass = stayed + tl.where(k == BLOCK - 1, 0.0, tl.gather(moved, behind, 0))
                gap_row -= band
                gap, next_gap = next_gap, later_gap
