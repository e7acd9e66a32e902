"""Does the CUDA path hold on real hardware, and what does it cost at the size of LLaDA-8B? Random weights, no download.

Run by gpu_check.sh in parts, each in a process of its own: the kernel against float64 and its time, the losses,
decoding, training steps. Prints one line per figure and writes a CSV per part; exits 1 if a correctness check fails.
``--rehearse`` runs every line of it on a CPU at toy size, where the figures mean nothing.
"""

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import decode_cost
import torch
from gpu_scale import LLADA_8B, REHEARSAL, Scale, random_model, timed, write
from gpu_training import check_training
from loss_cost import (
    PROVIDERS,
    Problem,
    Row,
    Size,
    bench_loss,
)
from measurement import hardware, write_rows
from torch import Tensor

from slackdlm.lattice import band_posteriors, cpu
from slackdlm.lattice.band import Batch, Columns, clamp_columns, target_band
from slackdlm.models.loaded import LoadedModel

MASK_ID, SLACK_ID = 1001, 1000
GRADIENT_TOLERANCE = 1e-5
# A power of two, so that bfloat16 weights come back as they were.
SHARPNESS = 16.0
PARTS = ("lattice", "lattice_time", "loss", "decoding", "training")
DECODED_SHORT = (
    "published",
    "exact",
    "exact, shift 1 %",
    "threshold, dual cache",
    "exact, 8 singly",
    "exact, batch of 8",
)
DECODED_LONG = ("published", "exact", "threshold, dual cache")


def gradient_error(
    num_positions: int, num_tokens: int, *, kind: str, visible: float, device: str
) -> float:
    """Largest difference between the device's float32 posteriors and the float64 kernel on the CPU."""
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
    batch = Batch(canvas, targets, *lengths, MASK_ID, SLACK_ID, num_slack)
    columns = clamp_columns(token, slack, target_band(batch), batch)
    exact = cpu.posteriors(columns.in_float64())
    ours = band_posteriors(Columns(*(x.to(device) for x in columns)))
    errors = [
        (ours.token.cpu().double() - exact.token).abs().max(),
        (ours.slack.cpu().double() - exact.slack).abs().max(),
    ]
    return float(torch.stack(errors).nan_to_num(torch.inf).max())


def check_correctness(scale: Scale, output: Path) -> bool:
    """Every case against the tolerance; True if all pass."""
    rows: list[dict[str, object]] = []
    for num_positions, num_tokens in scale.lattices:
        for kind in ("random", "cold", "peaky"):
            for visible in (0.0, 0.5):
                error = gradient_error(
                    num_positions, num_tokens, kind=kind, visible=visible, device=scale.device
                )
                case = {
                    "num_positions": num_positions,
                    "num_tokens": num_tokens,
                    "kind": kind,
                    "visible": visible,
                    "gradient_error": f"{error:.2e}",
                    "passed": error <= GRADIENT_TOLERANCE,
                }
                rows.append(case)
                write(rows, output / "gpu_gradient_error.csv", scale)
    return all(row["passed"] for row in rows)


def time_lattice(scale: Scale, output: Path) -> None:
    """Forward and backward recursions of a batch whose canvases are all masked, an eighth of them slack."""
    rows: list[dict[str, object]] = []
    for num_samples, num_positions in scale.lattice_batches:
        num_slack = num_positions // 8
        generator = torch.Generator(scale.device).manual_seed(0)
        shape = (num_samples, num_positions)
        token = torch.randn(*shape, num_slack + 1, generator=generator, device=scale.device)
        slack = torch.randn(shape, generator=generator, device=scale.device)
        lengths = torch.full((num_samples,), num_positions, device=scale.device)
        for needs_posteriors in (False, True):
            p20, p50, p80 = timed(
                partial(
                    band_posteriors,
                    Columns(token, slack, lengths, lengths - num_slack),
                    needs_posteriors=needs_posteriors,
                ),
                scale,
            )
            rows.append(
                {
                    "num_samples": num_samples,
                    "num_positions": num_positions,
                    "num_slack": num_slack,
                    "recursions": "forward and backward" if needs_posteriors else "forward",
                    "p20_ms": round(p20, 3),
                    "p50_ms": round(p50, 3),
                    "p80_ms": round(p80, 3),
                    "repeats": scale.repeats,
                }
            )
            write(rows, output / "lattice_gpu.csv", scale)


def matmul_ceiling(scale: Scale, num_rows: int) -> float:
    """TFLOP/s of one product of the size of a chunk's logits, the most any fused loss could reach."""
    hidden = torch.randn(num_rows, scale.model.d_model, device=scale.device, dtype=scale.dtype)
    weight = torch.randn(
        scale.model.vocab_size, scale.model.d_model, device=scale.device, dtype=scale.dtype
    )
    seconds = timed(lambda: hidden @ weight.T, scale).p50 / 1000
    return 2 * hidden.numel() * scale.model.vocab_size / seconds / 1e12


def liger_ce(problem: Problem) -> Tensor:
    """Liger's fused linear cross-entropy on the masked rows, summed: the outside baseline."""
    from liger_kernel.transformers import (  # pyright: ignore[reportMissingImports]
        LigerFusedLinearCrossEntropyLoss,
    )

    masked = problem.canvas == problem.mask_id
    loss: Any = LigerFusedLinearCrossEntropyLoss(reduction="sum")
    return loss(problem.head_weight, problem.hidden[masked], problem.clean[masked])[None]


def check_losses(scale: Scale, output: Path) -> None:
    """Fused slack-CTC beside fused and naive CE and Liger, with the share of the ceiling it reaches."""
    providers: Mapping[str, Any] = {k: v for k, v in PROVIDERS.items() if k != "torch_ctc"}
    try:
        import liger_kernel  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        print("liger_kernel is not installed: no outside baseline in this run")
    else:
        providers = {**providers, "liger_ce": liger_ce}
    rows: list[Row] = []
    for num_positions in scale.positions:
        size = Size(
            num_samples=1,
            num_positions=num_positions,
            num_slack=num_positions // 8,
            hidden_size=scale.model.d_model,
            vocab_size=scale.model.vocab_size,
        )
        ceiling = matmul_ceiling(scale, num_positions // 2)
        for row in bench_loss(
            size,
            providers=providers,
            repeats=scale.repeats,
            device=scale.device,
            dtype=scale.dtype,
            note=f"one product of this size runs at {ceiling:.1f} TFLOP/s",
        ):
            rows.append(row)
            write_rows(rows, output / "loss_gpu.csv")
            products = {"both": 6, "forward": 2}.get(row.mode)
            share = ""
            if products and "naive" not in row.provider:
                flops = products * (num_positions / 2) * size.vocab_size * size.hidden_size
                share = f", {flops / (row.p50_ms / 1000) / 1e12 / ceiling:.0%} of the ceiling"
            print(
                f"L={num_positions} {row.provider} {row.mode}: {row.p50_ms} ms, "
                f"{row.peak_extra_mib} MiB{share}",
                flush=True,
            )


def check_decoding(loaded: LoadedModel, scale: Scale, output: Path) -> None:
    """LLaDA's algorithm as published and ours, one prompt and eight, greedy and sampled."""
    head: Any = loaded.model.get_output_embeddings()
    with torch.no_grad():
        head.weight *= SHARPNESS
    rows: list[decode_cost.Row] = []
    for (prompt, canvas, block), names in zip(
        scale.decoded, (DECODED_SHORT, DECODED_LONG), strict=True
    ):
        size = decode_cost.Size(
            prompt_length=prompt,
            canvas_length=canvas,
            block_length=block,
            hidden_size=scale.model.d_model,
            num_layers=scale.model.n_layers,
            vocab_size=scale.model.vocab_size,
            sharpness=SHARPNESS,
        )
        for row in decode_cost.bench_decode(
            size,
            cases={name: decode_cost.CASES[name] for name in names},
            loaded=loaded,
            repeats=2,
            paired_steps=scale.paired_steps,
            device=scale.device,
            dtype=scale.dtype,
            note="random weights",
        ):
            rows.append(row)
            write_rows(rows, output / "decode_gpu.csv")
            print(
                f"prompt {prompt}, canvas {canvas}, {row.provider}: {row.p50_ms} ms, {row.tokens_per_second}"
                f" tokens/s, {row.forwards_per_token} passes/token, {row.peak_tensor_mib} MiB,"
                f" same tokens {row.same_tokens}, a step {row.step_ratio} times as long",
                flush=True,
            )
    with torch.no_grad():
        head.weight /= SHARPNESS


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the CSVs")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU at toy size")
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all, in order")
    arguments = parser.parse_args()
    chosen = REHEARSAL if arguments.rehearse else LLADA_8B
    parts = arguments.part or PARTS
    arguments.output.mkdir(parents=True, exist_ok=True)
    print(hardware(chosen.device), "torch", torch.__version__, *parts, flush=True)
    is_correct = "lattice" not in parts or check_correctness(chosen, arguments.output)
    if "lattice_time" in parts:
        time_lattice(chosen, arguments.output)
    if "loss" in parts:
        check_losses(chosen, arguments.output)
    if "decoding" in parts or "training" in parts:
        model = random_model(chosen)
        if "decoding" in parts:
            check_decoding(model, chosen, arguments.output)
        if "training" in parts:  # last: it changes the model
            check_training(model, chosen, arguments.output)
    sys.exit(0 if is_correct else 1)
