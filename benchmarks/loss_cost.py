"""What do the losses cost? Ours, the plain pieces and ``F.ctc_loss`` on the same rows, in one go."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from measurement import (
    check_benchmark,
    hardware,
    now,
    peak_memory,
    reset_peak_memory,
    spread,
)
from torch import Tensor

from slackdlm.canvas import insert_slack
from slackdlm.errors import ConfigError
from slackdlm.objectives.fused_linear import fused_linear_slack_ctc_loss
from slackdlm.objectives.masked_ce import masked_ce_loss
from slackdlm.objectives.slack_ctc import slack_ctc_loss

MODES = ("forward", "backward", "both")


@dataclass(frozen=True)
class Size:
    """The size of one benchmark batch."""

    num_samples: int
    """``B``."""
    num_positions: int
    """``L``."""
    num_slack: int
    """``K``; targets have ``L - K`` tokens."""
    hidden_size: int
    """``D``."""
    vocab_size: int
    """``V``."""

    def __post_init__(self) -> None:
        for name in ("num_samples", "num_positions", "hidden_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"bench: {name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.num_slack < self.num_positions:
            raise ConfigError(
                f"bench: num_slack must lie in [0, num_positions={self.num_positions}), "
                f"got {self.num_slack}"
            )
        if self.vocab_size < 3:
            raise ConfigError(f"bench: vocab_size must be at least 3, got {self.vocab_size}")


class Problem(NamedTuple):
    """One batch, in the order in which the losses take it."""

    hidden: Tensor
    """``[B, L, D]``, with a gradient."""
    head_weight: Tensor
    """``[V, D]``, with a gradient."""
    canvas: Tensor
    targets: Tensor
    canvas_lengths: Tensor
    target_lengths: Tensor
    clean: Tensor
    """The canvas without masks."""
    mask_id: int
    slack_id: int


Provider = Callable[[Problem], Tensor]
"""Loss per sample; what it costs is measured."""


@dataclass(frozen=True)
class Row:
    """One line of the results."""

    provider: str
    """Which implementation."""
    mode: str
    """``forward`` without gradients, ``backward`` alone, or ``both``."""
    num_samples: int
    num_positions: int
    num_slack: int
    hidden_size: int
    vocab_size: int
    dtype: str
    p20_ms: float
    """Quantiles of the wall time, in milliseconds."""
    p50_ms: float
    p80_ms: float
    cpu_p50_ms: float
    """Median CPU time of the process, which other jobs on the machine disturb less than wall time."""
    peak_extra_mib: float | None
    """Most memory in use above the inputs, gradients included; None where the system does not say."""
    repeats: int
    num_threads: int
    hardware: str
    torch_version: str
    timestamp: str
    note: str
    """Anything a reader of the numbers must know."""


def bench_loss(
    size: Size,
    *,
    providers: Mapping[str, Provider] | None = None,
    repeats: int = 5,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    note: str = "",
) -> Iterator[Row]:
    """Times every provider forward, backward and both, half of the positions masked.

    The providers take turns, run by run, so that a machine that slows down slows all of them.

    Args:
        size: Batch and layer.
        providers: What is timed, by name; None: `PROVIDERS`.
        repeats: Timed runs of each mode, at least 2, after one that is not.
        device: Where to run.
        dtype: Of hidden states and output layer.
        note: Copied into every row.

    Raises:
        ConfigError: If there are too few repeats, sizes make no problem, or the device is missing.

    Yields:
        Rows, mode by mode. ``torch_ctc`` has another collapse map and looks at all
        positions; it is the outside baseline for cost alone.
    """
    check_benchmark(repeats=repeats, device=device)
    problem = make_problem(size, device=device, dtype=dtype)
    providers = PROVIDERS if providers is None else providers
    for mode in MODES:
        runs: dict[str, list[_Run]] = {provider: [] for provider in providers}
        for _ in range(repeats + 1):
            for provider, loss in providers.items():
                runs[provider].append(_run(mode, problem, loss))
        for provider in providers:
            timed = runs[provider][1:]
            wall = spread([run.wall_ms for run in timed])
            peaks = [run.extra_bytes for run in timed if run.extra_bytes is not None]
            yield Row(
                provider=provider,
                mode=mode,
                **asdict(size),
                dtype=str(dtype).removeprefix("torch."),
                p20_ms=round(wall.p20, 3),
                p50_ms=round(wall.p50, 3),
                p80_ms=round(wall.p80, 3),
                cpu_p50_ms=round(statistics.median(run.cpu_ms for run in timed), 3),
                peak_extra_mib=round(max(peaks) / 2**20, 1) if peaks else None,
                repeats=repeats,
                num_threads=torch.get_num_threads(),
                hardware=hardware(device),
                torch_version=torch.__version__,
                timestamp=datetime.now(UTC).isoformat(timespec="seconds"),
                note=note,
            )


def make_problem(size: Size, *, device: str, dtype: torch.dtype) -> Problem:
    """Random hidden states and output layer, random targets on canvases of which half is masked."""
    generator = torch.Generator().manual_seed(0)
    num_tokens = size.num_positions - size.num_slack
    mask_id, slack_id = size.vocab_size - 1, size.vocab_size - 2
    shape = (size.num_samples, size.num_positions)
    targets = torch.randint(0, slack_id, (size.num_samples, num_tokens), generator=generator)
    clean = torch.stack(
        [insert_slack(y, size.num_slack, slack_id=slack_id, generator=generator) for y in targets]
    )
    masked = torch.rand(shape, generator=generator) < 0.5
    canvas_lengths = torch.full((size.num_samples,), size.num_positions)
    hidden = torch.randn(*shape, size.hidden_size, generator=generator)
    head_weight = torch.randn(size.vocab_size, size.hidden_size, generator=generator)
    head_weight /= size.hidden_size**0.5
    return Problem(
        hidden.to(device, dtype).requires_grad_(),
        head_weight.to(device, dtype).requires_grad_(),
        torch.where(masked, mask_id, clean).to(device),
        targets.to(device),
        canvas_lengths.to(device),
        (canvas_lengths - size.num_slack).to(device),
        clean.to(device),
        mask_id,
        slack_id,
    )


def ce_naive(problem: Problem) -> Tensor:
    """All logits, then `masked_ce_loss`."""
    return masked_ce_loss(
        problem.hidden @ problem.head_weight.T,
        problem.canvas,
        problem.clean,
        problem.canvas_lengths,
        mask_id=problem.mask_id,
    )


def slack_ctc_naive(problem: Problem) -> Tensor:
    """All logits, then `slack_ctc_loss`."""
    return slack_ctc_loss(
        problem.hidden @ problem.head_weight.T,
        *problem[2:6],
        mask_id=problem.mask_id,
        slack_id=problem.slack_id,
    )


def fused(problem: Problem, *, ctc_weight: float) -> Tensor:
    """The fused loss: cross-entropy at weight 0, slack-CTC at weight 1."""
    return fused_linear_slack_ctc_loss(
        *problem[:6],
        clean=problem.clean,
        ctc_weight=ctc_weight,
        mask_id=problem.mask_id,
        slack_id=problem.slack_id,
    )


def torch_ctc(problem: Problem) -> Tensor:
    """``F.ctc_loss`` over all positions: the outside baseline for cost, of another collapse map."""
    log_probs = (problem.hidden @ problem.head_weight.T).float().log_softmax(2).transpose(0, 1)
    lengths = problem.canvas_lengths, problem.target_lengths
    return F.ctc_loss(
        log_probs, problem.targets, *lengths, blank=problem.slack_id, reduction="none"
    )


PROVIDERS: Mapping[str, Provider] = {
    "ce_naive": ce_naive,
    "ce_fused": partial(fused, ctc_weight=0.0),
    "slack_ctc_naive": slack_ctc_naive,
    "slack_ctc_fused": partial(fused, ctc_weight=1.0),
    "torch_ctc": torch_ctc,
}


class _Run(NamedTuple):
    wall_ms: float
    cpu_ms: float
    extra_bytes: float | None


def _run(mode: str, problem: Problem, loss: Provider) -> _Run:
    """One timed run, with the peak of the memory it took beyond what there was."""
    hidden = problem.hidden
    hidden.grad = problem.head_weight.grad = None
    before = reset_peak_memory(hidden.device)
    start, cpu_start = now(hidden.device), time.process_time()
    if mode == "forward":
        with torch.no_grad():
            loss(problem)
    else:
        value = loss(problem).sum()
        if mode == "backward":
            start, cpu_start = now(hidden.device), time.process_time()
        value.backward()
        del value
    wall_ms = 1000 * (now(hidden.device) - start)
    cpu_ms = 1000 * (time.process_time() - cpu_start)
    peak = peak_memory(hidden.device)
    extra = None if peak is None or before is None else peak - before
    return _Run(wall_ms, cpu_ms, extra)
