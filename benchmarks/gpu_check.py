"""Does the CUDA path hold on real hardware? Correctness first, then cost. Nothing is downloaded.

Run by gpu_check.sh. Prints one line per check and exits 1 if a correctness check fails; writes the timings
of the second part to the file named by --output. Under 8 minutes on an H100, by design; not yet run on one.
"""

import argparse
import sys
from pathlib import Path

import torch

from slackdlm.lattice import band_posteriors, cpu
from slackdlm.lattice.band import clamp_columns, target_band
from slackdlm.objectives.bench import Row, Size, bench_loss, write_rows

MASK_ID, SLACK_ID = 1001, 1000
GRADIENT_TOLERANCE = 1e-5


def gradient_error(num_positions: int, num_tokens: int, *, kind: str, visible: float) -> float:
    """Largest difference between CUDA float32 posteriors and the float64 kernel on the CPU."""
    generator = torch.Generator().manual_seed(num_tokens)
    num_samples, num_slack = 4, num_positions - num_tokens
    targets = torch.randint(0, 1000, (num_samples, num_tokens), generator=generator)
    canvas = torch.full((num_samples, num_positions), SLACK_ID)
    for b in range(num_samples):
        places = torch.randperm(num_positions, generator=generator)[:num_tokens].sort().values
        canvas[b, places] = targets[b]
    token = torch.randn(num_samples, num_positions, num_slack + 1, generator=generator)
    slack = torch.randn(num_samples, num_positions, generator=generator)
    if kind == "cold":
        slack -= 14.0
    if kind == "peaky":
        token, slack = 10.0 * token, 10.0 * slack
    is_visible = torch.rand(canvas.shape, generator=generator) < visible
    canvas = torch.where(is_visible, canvas, MASK_ID)
    lengths = torch.full((num_samples,), num_positions), torch.full((num_samples,), num_tokens)
    band = target_band(targets, *lengths, num_positions=num_positions, num_slack=num_slack)
    columns = clamp_columns(token, slack, band, canvas, mask_id=MASK_ID, slack_id=SLACK_ID)
    exact = cpu.posteriors(columns.token.double(), columns.slack.double(), *lengths)
    ours = band_posteriors(*(x.cuda() for x in (*columns, *lengths)))
    errors = [
        (ours.token.cpu().double() - exact.token).abs().max(),
        (ours.slack.cpu().double() - exact.slack).abs().max(),
    ]
    return float(torch.stack(errors).nan_to_num(torch.inf).max())


def check_correctness() -> bool:
    """Every case against the tolerance; True if all pass."""
    passed = True
    for num_positions, num_tokens in ((64, 40), (1024, 900), (4096, 2048), (4096, 3584)):
        for kind in ("random", "cold", "peaky"):
            for visible in (0.0, 0.5):
                error = gradient_error(num_positions, num_tokens, kind=kind, visible=visible)
                good = error <= GRADIENT_TOLERANCE
                passed &= good
                verdict = "ok" if good else "WRONG"
                name = f"L={num_positions} S={num_tokens} {kind} visible={visible}"
                print(f"{verdict} {name}: largest gradient error {error:.1e}", flush=True)
    return passed


def check_cost(output: Path) -> None:
    """Fused slack-CTC beside fused and naive CE at LLaDA's size, bfloat16."""
    rows: list[Row] = []
    for num_positions in (1024, 2048, 4096):
        size = Size(
            num_samples=1,
            num_positions=num_positions,
            num_slack=num_positions // 8,
            hidden_size=4096,
            vocab_size=126464,
        )
        providers = ("ce_naive", "ce_fused", "slack_ctc_naive", "slack_ctc_fused")
        for row in bench_loss(
            size, providers=providers, repeats=20, device="cuda", dtype=torch.bfloat16
        ):
            rows.append(row)
            write_rows(rows, output)
            print(
                f"L={num_positions} {row.provider} {row.mode}: {row.p50_ms} ms, "
                f"{row.peak_extra_mib} MiB",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="CSV of the timings")
    arguments = parser.parse_args()
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    is_correct = check_correctness()
    check_cost(arguments.output)
    sys.exit(0 if is_correct else 1)
