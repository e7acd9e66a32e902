"""Writes the tables of docs/measured.md from the committed CSVs: python benchmarks/measured_tables.py.

The text between each pair of markers is replaced. Nothing is measured here.
"""

import csv
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
BEGIN, END = "<!-- made by benchmarks/measured_tables.py -->", "<!-- end -->"
BEGIN_GPU = "<!-- made by benchmarks/measured_tables.py, GPU -->"

Rows = list[dict[str, str]]


def table() -> str:
    """The table in Markdown, one line a claim, with the bar it is held to."""
    losses, costs = read("loss_cpu"), read("lattice_costs_cpu")
    growth, errors = read("lattice_growth_cpu"), read("lattice_gradient_error_cpu")
    fused, ce = both(losses, "slack_ctc_fused", "1"), both(losses, "ce_fused", "1")
    batch, outside = both(losses, "slack_ctc_fused", "4"), both(losses, "torch_ctc", "4")
    long, short = costs
    exponents = {row["varied"]: row["exponent"] for row in growth}
    ours = max(float(row["ours"]) for row in errors)
    theirs = max(float(row["torch_ctc"]) for row in errors if row["torch_ctc"])
    lines = [
        ("What, on the CPU", "Measured", "Bar"),
        ("---", "---", "---"),
        (
            "fused slack-CTC beside fused CE, V = 126,464, L = 1,024, K = 64: time",
            f"{spread(fused)} against {spread(ce)} ms, ratio {ratio(fused, ce, 'p50_ms'):.3f}",
            "at most 1.05",
        ),
        (
            "the same: extra memory",
            f"{mib(fused)} against {mib(ce)}, ratio {ratio(fused, ce, 'peak_extra_mib'):.3f}",
            "at most 1.10",
        ),
        (
            "head, `log_softmax`, `F.ctc_loss` beside fused slack-CTC, B = 4, L = 1,024, S = 256: time",
            f"{spread(outside)} against {spread(batch)} ms, {ratio(outside, batch, 'p50_ms'):.1f} times",
            "at least 3 times",
        ),
        (
            "the same: extra memory",
            f"{mib(outside)} against {mib(batch)}, {ratio(outside, batch, 'peak_extra_mib'):.1f} times",
            "at least 5 times",
        ),
        (
            "`F.ctc_loss` on 64 columns beside the lattice, L = 4,096, K = 512: time",
            f"{spread(long, 'torch_ctc_')} against {spread(long, 'ours_')} ms, {long['ratio_p50']} times",
            "at least 40 times",
        ),
        (
            "lattice, B = 8, L = 1,024, K = 64, beside 8 fused CE passes of one sample",
            f"{float(short['ours_p50_ms']) / (8 * float(ce['p50_ms'])):.2%} of the time",
            "at most 0.5 %",
        ),
        (
            "growth of the lattice's time with L and with K",
            f"exponents {exponents['L']} and {exponents['K']}",
            "at most 1.1",
        ),
        (
            "largest gradient error of the float32 loss, L = 4,096, 18 cases",
            f"{ours:.1e} (`F.ctc_loss`: {theirs:.1e})",
            "at most 1e-5",
        ),
    ]
    return as_markdown(lines)


def gpu_table() -> str:
    """What gpu_check.sh measured, with its bars."""
    losses, decoding = read("loss_gpu"), read("decode_gpu")
    errors, lattice = read("gpu_gradient_error"), read("lattice_gpu")
    arms = {row["arm"]: row for row in read("training_gpu")}
    ce, ctc, plain = arms["ce_fused"], arms["slack_ctc_fused"], arms["ce_plain"]
    loss = {r["provider"]: r for r in losses if (r["mode"], r["num_positions"]) == ("both", "2048")}
    decoded = {row["provider"]: row for row in decoding}
    published, exact = decoded["published"], decoded["exact"]
    cached, shifted = decoded["threshold, dual cache"], decoded["exact, shift 1 %"]
    singly, batch = decoded["exact, 8 singly"], decoded["exact, batch of 8"]
    (longest,) = [
        row
        for row in lattice
        if (row["num_positions"], row["recursions"]) == ("4096", "forward and backward")
    ]
    largest = max(float(row["gradient_error"]) for row in errors)
    lines = [
        (
            f"What, on an {ce['hardware']}, LLaDA-8B's shapes, bfloat16, random weights",
            "Measured",
            "Bar",
        ),
        ("---", "---", "---"),
        (
            f"lattice: largest gradient error against float64, {len(errors)} cases up to L = 4,096",
            f"{largest:.1e}",
            "at most 1e-5",
        ),
        ("lattice, B = 1, L = 4,096, K = 512, both recursions", f"{spread(longest)} ms", ""),
        (
            "loss and gradients, L = 2,048, half masked: slack-CTC / CE fused; CE plain, Liger",
            f"{loss['slack_ctc_fused']['p50_ms']} / {loss['ce_fused']['p50_ms']};"
            f" {loss['ce_naive']['p50_ms']}, {loss['liger_ce']['p50_ms']} ms",
            "",
        ),
        (
            "LoRA step, one sequence of 2,048: slack-CTC beside CE, time",
            f"{spread(ctc)} against {spread(ce)} ms",
            "at most 1.03: not decided",
        ),
        (
            "the same: peak memory; a plain loop over all logits",
            f"{ctc['peak_gib']} against {ce['peak_gib']} GiB; {plain['peak_gib']} GiB, {spread(plain)} ms",
            "at most 1.03",
        ),
        (
            "decoding, prompt 64, canvas 64: the published algorithm beside exact mode",
            f"{ratio(published, exact, 'p50_ms'):.2f} times the speed,"
            f" {ratio(exact, published, 'peak_tensor_mib'):.2f} of the extra memory",
            "at least 1.5 times",
        ),
        (
            "the same beside threshold and dual cache, which change answers",
            f"{ratio(published, cached, 'p50_ms'):.1f} times the speed",
            "at least 8 times",
        ),
        (
            "an installed intervention: a step's time",
            f"{float(shifted['step_ratio']):.3f} of one without",
            "at most 1.02",
        ),
        (
            "8 prompts in one batch beside one by one",
            f"{ratio(singly, batch, 'p50_ms'):.2f} times the speed",
            "at least 3 times: **missed**",
        ),
    ]
    return as_markdown(lines)


def as_markdown(lines: list[tuple[str, str, str]]) -> str:
    """Rows of a table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def read(name: str) -> Rows:
    """The rows of one CSV of the results folder."""
    with (RESULTS / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def both(rows: Rows, provider: str, num_samples: str) -> dict[str, str]:
    """Forward and backward together at LLaDA's vocabulary."""
    (found,) = [
        row
        for row in rows
        if (row["provider"], row["mode"], row["num_samples"], row["vocab_size"])
        == (provider, "both", num_samples, "126464")
    ]
    return found


def spread(row: dict[str, str], prefix: str = "") -> str:
    """Median with the 20 % and 80 % quantiles."""
    low, middle, high = (float(row[f"{prefix}p{q}_ms"]) for q in (20, 50, 80))
    digits = 0 if middle >= 100 else 1
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def ratio(above: dict[str, str], below: dict[str, str], column: str) -> float:
    """One column of one row over that of another."""
    return float(above[column]) / float(below[column])


def mib(row: dict[str, str]) -> str:
    """Peak extra memory."""
    return f"{float(row['peak_extra_mib']):,.0f} MiB"


if __name__ == "__main__":
    page = ROOT / "docs" / "measured.md"
    text = page.read_text(encoding="utf-8")
    for begin, made in ((BEGIN, table()), (BEGIN_GPU, gpu_table())):
        head, rest = text.split(begin)
        tail = rest.split(END, 1)[1]
        text = f"{head}{begin}\n{made}\n{END}{tail}"
    page.write_text(text, encoding="utf-8")
