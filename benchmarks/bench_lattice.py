"""The lattice alone on the CPU: python benchmarks/bench_lattice.py. Writes benchmarks/results/lattice_*.csv.

Three questions, a file each: how wrong are float32 gradients, what does the lattice cost beside
``F.ctc_loss``, and how does its time grow with ``L`` and with ``K``? Minutes on an idle machine.
"""

import platform
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from measurement import hardware, spread, write_csv
from torch import Tensor

from slackdlm.lattice import band_posteriors, reference
from slackdlm.lattice.band import Batch, Columns, gather_columns
from slackdlm.objectives.slack_ctc import slack_ctc_loss

RESULTS = Path(__file__).parent / "results"
VOCAB_SIZE, SLACK_ID, MASK_ID = 300, 298, 299  # of the gradient cases


def gradient_errors() -> Iterator[dict[str, object]]:
    """Largest absolute error of float32 gradients against float64, ours and ``F.ctc_loss``.

    Ours against the plain recursion under autograd in float64; ``F.ctc_loss``, which sums over another
    set of paths, against itself in float64, without visible positions, which it does not know.
    """
    for num_tokens in (512, 2048, 3900):
        for kind in ("random", "cold slack", "peaky"):
            for visible in (0.0, 0.5):
                logits, targets, canvas = _case(4096, num_tokens, kind=kind, visible=visible)
                exact = _gradient(logits.double(), targets, canvas, _plain_loss)
                ours = _gradient(logits, targets, canvas, slack_ctc_loss)
                largest = float((ours.double() - exact).abs().max())
                outside = None if visible else _torch_ctc_error(logits, targets)
                row: dict[str, object] = {
                    "num_positions": 4096,
                    "num_tokens": num_tokens,
                    "logits": kind,
                    "visible": visible,
                    "ours": f"{largest:.2e}",
                    "torch_ctc": "" if outside is None else f"{outside:.2e}",
                }
                yield row


def _case(
    num_positions: int, num_tokens: int, *, kind: str, visible: float
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(num_tokens)
    targets = torch.randint(0, SLACK_ID, (1, num_tokens), generator=generator)
    canvas = torch.full((1, num_positions), SLACK_ID)
    places = torch.randperm(num_positions, generator=generator)[:num_tokens].sort().values
    canvas[0, places] = targets[0]
    logits = torch.randn(1, num_positions, VOCAB_SIZE, generator=generator)
    if kind == "cold slack":
        logits[..., SLACK_ID] -= 14.0
    if kind == "peaky":
        logits *= 10.0
    is_visible = torch.rand(canvas.shape, generator=generator) < visible
    return logits, targets, torch.where(is_visible, canvas, MASK_ID)


def _gradient(
    logits: Tensor, targets: Tensor, canvas: Tensor, loss: Callable[..., Tensor]
) -> Tensor:
    scores = logits.clone().requires_grad_()
    lengths = torch.tensor([canvas.shape[1]]), torch.tensor([targets.shape[1]])
    losses = loss(scores, canvas, targets, *lengths, mask_id=MASK_ID, slack_id=SLACK_ID)
    return torch.autograd.grad(losses.sum(), scores)[0]


def _plain_loss(
    logits: Tensor, canvas: Tensor, targets: Tensor, *lengths: Tensor, **ids: int
) -> Tensor:
    """The plain recursion under autograd: none of the kernels, and no formula for the gradient."""
    num_slack = canvas.shape[1] - targets.shape[1]
    batch = Batch(canvas, targets, *lengths, **ids, num_slack=num_slack)
    return -reference.band_log_likelihood(gather_columns(logits.log_softmax(2), batch))


def _torch_ctc_error(logits: Tensor, targets: Tensor) -> float:
    gradients = []
    for dtype in (torch.float32, torch.float64):
        scores = logits.to(dtype, copy=True).requires_grad_()
        lengths = torch.tensor([logits.shape[1]]), torch.tensor([targets.shape[1]])
        log_probs = scores.log_softmax(2).transpose(0, 1)
        loss = F.ctc_loss(log_probs, targets, *lengths, blank=SLACK_ID, reduction="sum")
        gradients.append(torch.autograd.grad(loss, scores)[0].double())
    return float((gradients[0] - gradients[1]).abs().max())


def costs(repeats: int) -> Iterator[dict[str, object]]:
    """Forward and backward of the lattice and of ``F.ctc_loss`` on 64 columns with the same ``S``."""
    for num_samples, num_positions, num_slack in ((1, 4096, 512), (8, 1024, 64)):
        num_tokens = num_positions - num_slack
        columns = _columns(num_samples, num_positions, num_slack)
        scores = torch.randn(num_positions, num_samples, 64).log_softmax(2).requires_grad_()
        targets = torch.randint(1, 64, (num_samples, num_tokens))
        ours, outside = _times(
            partial(band_posteriors, columns),
            partial(_torch_ctc, scores, targets, columns.canvas_lengths, columns.target_lengths),
            repeats=repeats,
        )
        yield {
            "num_samples": num_samples,
            "num_positions": num_positions,
            "num_slack": num_slack,
            **{f"ours_{name}_ms": value for name, value in ours.items()},
            **{f"torch_ctc_{name}_ms": value for name, value in outside.items()},
            "ratio_p50": round(outside["p50"] / ours["p50"], 1),
        }


def _torch_ctc(scores: Tensor, *batch: Tensor) -> None:
    F.ctc_loss(scores, *batch, reduction="sum").backward()


def growth(repeats: int) -> Iterator[dict[str, object]]:
    """Exponents of the time in ``L`` at fixed ``K`` and in ``K`` at fixed ``L``, fitted on 5 points.

    All sizes stay below 32 MiB of working memory a sample. Above it glibc maps fresh pages for every call, and
    touching them doubles the time (docs/results/019-lattice-growth.md).
    """
    for varied, sizes in (
        ("L", [(length, 256) for length in (512, 1024, 2048, 4096, 8192)]),
        ("K", [(4096, slack) for slack in (48, 96, 192, 384, 768)]),
    ):
        problems = [_columns(1, *size) for size in sizes]
        runs = [partial(band_posteriors, columns) for columns in problems]
        medians = [times["p50"] for times in _times(*runs, repeats=repeats)]
        points = [length if varied == "L" else slack for length, slack in sizes]
        exponent = float(np.polyfit(np.log(points), np.log(medians), 1)[0])
        for (length, slack), median in zip(sizes, medians, strict=True):
            yield {
                "varied": varied,
                "num_positions": length,
                "num_slack": slack,
                "p50_ms": median,
                "exponent": round(exponent, 3),
            }


def _columns(num_samples: int, num_positions: int, num_slack: int) -> Columns:
    generator = torch.Generator().manual_seed(0)
    token = torch.randn(num_samples, num_positions, num_slack + 1, generator=generator)
    slack = torch.randn(num_samples, num_positions, generator=generator)
    position, used = torch.arange(num_positions)[:, None], torch.arange(num_slack + 1)
    outside = (position < used) | (position - used >= num_positions - num_slack)
    token = token.masked_fill(outside, -torch.inf)
    canvas_lengths = torch.full((num_samples,), num_positions)
    return Columns(token, slack, canvas_lengths, canvas_lengths - num_slack)


def _times(*runs: Callable[[], object], repeats: int) -> list[dict[str, float]]:
    """Quantiles of the wall time in milliseconds; the runs take turns."""
    timings: list[list[float]] = [[] for _ in runs]
    for turn in range(repeats + 1):
        for run, kept in zip(runs, timings, strict=True):
            start = time.perf_counter()
            run()
            if turn > 0:
                kept.append(1000 * (time.perf_counter() - start))
    found = []
    for kept in timings:
        found.append({name: round(value, 3) for name, value in spread(kept)._asdict().items()})
    return found


def write(name: str, rows: Iterator[dict[str, object]], repeats: int | str) -> None:
    """Writes one CSV with the machine and the versions in every row, and shows the rows."""
    machine = {
        "repeats": repeats,
        "num_threads": torch.get_num_threads(),
        "hardware": hardware("cpu"),
        "python": platform.python_version(),
        "torch_version": torch.__version__,
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    done = []
    for row in rows:
        print(name, *(f"{key}={value}" for key, value in row.items()), flush=True)
        done.append({**row, **machine})
    write_csv(RESULTS / f"{name}.csv", done)


if __name__ == "__main__":
    write("lattice_costs_cpu", costs(15), 15)
    write("lattice_growth_cpu", growth(15), 15)
    write("lattice_gradient_error_cpu", gradient_errors(), "")
