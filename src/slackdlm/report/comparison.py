"""A comparison as a page, as Markdown and as JSON. Names of systems and judges are untrusted text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from slackdlm.atomic import write_text
from slackdlm.benchmarks.judgment_files import READING
from slackdlm.errors import counted
from slackdlm.report.page import rendered, style_sheet
from slackdlm.report.text import (
    MISSING,
    interval,
    markdown_row,
    markdown_text,
    number,
    p_text,
)
from slackdlm.statistics import Estimate
from slackdlm.study.comparison import Comparison, JudgeReport, Line
from slackdlm.study.result import drawable

HEAD = (
    "comparison",
    "value",
    "interval",
    "p",
    "adjusted p",
    "verdict",
    "n",
    "if all missing were worst / best",
)


class Cells(NamedTuple):
    """One line as text."""

    what: str
    value: str
    interval: str
    p_value: str
    p_adjusted: str
    verdict: str
    scored: str
    bounds: str

    @property
    def is_clear(self) -> bool:
        """Whether the line found a difference."""
        return self.verdict.startswith(("better", "worse"))


def write_comparison(comparison: Comparison, folder: Path) -> Path:
    """Write ``comparison.html``, ``.md`` and ``.json`` into a folder; returns the page.

    The same comparison gives the same bytes.
    """
    texts = {
        "comparison.html": page(comparison),
        "comparison.md": markdown(comparison),
        "comparison.json": json.dumps(asdict(comparison), indent=1, allow_nan=False) + "\n",
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return folder / "comparison.html"


def cells(line: Line) -> Cells:
    """One line as text; control characters replaced, nothing escaped yet."""
    system, against = drawable(line.system), drawable(line.against or "")
    joined = {"win rate": f"{system} over {against}", "difference": f"{system} − {against}"}
    digits, value = digits_of(line), line.estimate.value
    sign = "+" if line.kind == "difference" and value is not None and value > 0 else ""
    unit = " %" if line.unit == "%" and value is not None else ""
    bounds = f"{number(line.bounds.low, digits)} / {number(line.bounds.high, digits)}"
    return Cells(
        what=joined.get(line.kind, system),
        value=f"{sign}{number(value, digits)}{unit}",
        interval=interval(line.estimate, digits),
        p_value=p_text(line.p_value),
        p_adjusted=p_text(line.p_adjusted),
        verdict=line.verdict,
        scored=f"{line.estimate.num_scored} / {line.estimate.num_total}",
        bounds=bounds if line.bounds.num_missing else MISSING,
    )


def benchmarks(comparison: Comparison) -> dict[tuple[str, str], list[Line]]:
    """The lines of each benchmark and judge, in order."""
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in comparison.lines:
        groups.setdefault((drawable(line.benchmark), drawable(line.judge)), []).append(line)
    return groups


def notes(comparison: Comparison) -> list[str]:
    """What every figure rests on, in sentences."""
    family = "Benjamini-Hochberg" if comparison.adjustment == "bh" else "Holm"
    num_tests = sum(line.p_value is not None for line in comparison.lines)
    return [
        f"The question is the unit: {100 * comparison.confidence:g} % intervals are BCa bootstraps over questions "
        f"({comparison.num_resamples:,} resamples, seed {comparison.seed}).",
        f"p-values are two-sided, adjusted over the family of {counted(num_tests, 'test')} by {family}; verdicts are "
        f"at {comparison.alpha:g} on adjusted p-values.",
        "A question counts as scored only if all its judgments are; n is scored / asked. The last column says what "
        "the figure would be with every missing judgment the worst, or the best, for the first system.",
    ]


def judge_sentences(report: JudgeReport) -> list[str]:
    """How one judge behaved, in sentences."""
    counts = report.tally
    texts = [
        f"{counts.num_scored} of {counts.num_total} judgments scored; {counts.num_unparsable} unparsable, "
        f"{counts.num_failed} failed, {counts.num_out_of_range} out of range."
    ]
    position = report.position
    if position is not None and position.num_pairs:
        texts.append(
            f"Both orders give the mirrored verdict on {position.num_same} of {position.num_pairs} questions, the same "
            f"winner on {position.num_same_winner} (kappa {number(position.kappa, 2)}); the answer shown first gets "
            f"{_percent(position.first)}."
        )
    elif position is not None:
        texts.append(
            "Each question was judged in one order alone: position bias cannot be told from quality."
        )
    if report.length is not None:
        texts.append(
            f"The longer answer gets {_percent(report.length)}; longer may also be better."
        )
    if report.style is not None:
        texts += _style_sentences(report.style.win_rates, report.style.coefficients)
    return texts


def markdown(comparison: Comparison) -> str:
    """The whole comparison in Markdown."""
    warnings = [markdown_text(drawable(text)) for text in comparison.warnings]
    out = ["# Comparison", "", *(f"> **Before you read on:** {text}\n" for text in warnings)]
    for (benchmark, judge), lines in benchmarks(comparison).items():
        rule = ["---", "---:", "---:", "---:", "---:", "---", "---:", "---:"]
        out += [
            f"## {markdown_text(benchmark)}, judged by {markdown_text(judge)}",
            "",
            markdown_row(HEAD),
            markdown_row(rule),
            *(markdown_row(map(markdown_text, cells(line))) for line in lines),
            "",
            *(f"* {markdown_text(text)}" for text in remarks(lines)),
            "",
        ]
    out += ["## The judges", ""]
    for report in comparison.judges:
        sentences = markdown_text(" ".join(judge_sentences(report)))
        out.append(f"* **{markdown_text(judge_name(report))}**: {sentences}")
    return "\n".join([*out, "", *notes(comparison), ""])


def page(comparison: Comparison) -> str:
    """The whole comparison as one self-contained page without script."""
    groups = [
        {
            "benchmark": benchmark,
            "judge": judge,
            "rows": [(cells(line), _span(line)) for line in lines],
            "has_spans": any(_span(line) for line in lines),
            "remarks": remarks(lines),
        }
        for (benchmark, judge), lines in benchmarks(comparison).items()
    ]
    judges = [
        (judge_name(report), judge_sentences(report), drawable(report.identity))
        for report in comparison.judges
    ]
    return rendered(
        "comparison.html.jinja",
        groups=groups,
        warnings=[drawable(text) for text in comparison.warnings],
        judges=judges,
        notes=notes(comparison),
        style=Markup(style_sheet()),  # ours
    )


def judge_name(report: JudgeReport) -> str:
    """Benchmark and judge, safe to draw."""
    return drawable(f"{report.benchmark}, {report.judge}")


def _percent(estimate: Estimate) -> str:
    scored = f"n = {estimate.num_scored} / {estimate.num_total}"
    if estimate.value is None:
        return f"an unknown share ({scored})"
    percent = estimate.mapped(lambda share: 100 * share)
    ends = interval(percent)
    return f"{number(percent.value, 1)} % of the points{' ' if ends else ''}{ends} ({scored})"


def _style_sentences(rates: Mapping[str, Estimate], coefficients: Mapping[str, float]) -> list[str]:
    texts = [
        f"At equal style {drawable(system)} gets {_percent(estimate)}."
        for system, estimate in rates.items()
    ]
    if any(estimate.value is None and estimate.num_scored for estimate in rates.values()):
        texts.append(
            "Style control has no finite solution on these games: control for fewer covariates."
        )
    elif coefficients:
        effects = ", ".join(f"{name} {number(value, 2)}" for name, value in coefficients.items())
        texts.append(f"Log-odds per standard deviation: {effects}.")
    return texts


def digits_of(line: Line) -> int:
    """Points of 100 have one digit, grades two."""
    return 2 if line.unit == "grade" else 1


def remarks(lines: Sequence[Line], *, with_figures: bool = True) -> list[str]:
    """How to read a benchmark's lines, and its further figures unless they are columns of their own."""
    kind = "grades" if any(line.kind == "mean" for line in lines) else "games"
    reading = READING.get(f"{lines[0].benchmark.removesuffix('-pairs')} {kind}")
    texts = [] if reading is None else [reading]
    for line in lines if with_figures else []:
        published = [f"{name} {published_figure(value)}" for name, value in line.published.items()]
        if published:
            texts.append(f"As published, {cells(line).what}: {', '.join(published)}")
        ours = [f"{name} {_estimate(value, line)}" for name, value in line.ours.items()]
        if ours:
            texts.append(f"Ours, {cells(line).what}: {', '.join(ours)}")
    return texts


def _estimate(estimate: Estimate, line: Line) -> str:
    digits = digits_of(line)
    shown = f"{number(estimate.value, digits)} {interval(estimate, digits)}".strip()
    return f"{shown} (n = {estimate.num_scored} / {estimate.num_total})"


def published_figure(value: float | None) -> str:
    """A benchmark's own figure; counts are whole numbers."""
    return number(value, 0 if isinstance(value, int) else 2)


def _span(line: Line) -> tuple[float, float, float] | None:
    """Low, value and high as percentages of the range of a win rate; None for other lines."""
    ends = (line.estimate.low, line.estimate.value, line.estimate.high)
    if line.unit != "%" or any(end is None for end in ends):
        return None
    low, value, high = (min(100.0, max(0.0, end or 0.0)) for end in ends)
    return low, value, high
