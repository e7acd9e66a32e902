"""A comparison as a page, as Markdown and as JSON. Names of systems and judges are untrusted text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup
from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from slackdlm.atomic import write_text
from slackdlm.benchmarks.judgment_files import READING
from slackdlm.errors import counted
from slackdlm.report.page import environment, style_sheet
from slackdlm.report.results import drawable
from slackdlm.report.tables import (
    MISSING,
    count,
    interval,
    markdown_row,
    markdown_text,
    number,
    p_text,
)
from slackdlm.statistics import Estimate, minimum_detectable, questions_needed
from slackdlm.study.comparison import FEW, Comparison, JudgeReport, Line
from slackdlm.terminal import table

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
    digits = _digits(line)
    bounds = f"{number(line.bounds.low, digits)} / {number(line.bounds.high, digits)}"
    return Cells(
        what=joined.get(line.kind, system),
        value=_signed(line)
        + (" %" if line.unit == "%" and line.estimate.value is not None else ""),
        interval=_interval(line.estimate, digits),
        p_value=p_text(line.p_value),
        p_adjusted=p_text(line.p_adjusted),
        verdict=line.verdict,
        scored=f"{line.estimate.num_scored} / {line.estimate.num_total}",
        bounds=bounds if line.bounds.num_missing else MISSING,
    )


def benchmarks(comparison: Comparison) -> dict[tuple[str, str], list[Line]]:
    """The lines of each benchmark and judge, in order."""
    found: dict[tuple[str, str], list[Line]] = {}
    for line in comparison.lines:
        found.setdefault((drawable(line.benchmark), drawable(line.judge)), []).append(line)
    return found


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
    told = report.tally
    found = [
        f"{told.num_scored} of {told.num_total} judgments scored; {told.num_unparsable} unparsable, "
        f"{told.num_failed} failed, {told.num_out_of_range} out of range."
    ]
    position = report.position
    if position is not None and position.num_pairs:
        found.append(
            f"Both orders give the mirrored verdict on {position.num_same} of {position.num_pairs} questions, the same "
            f"winner on {position.num_same_winner} (kappa {number(position.kappa, 2)}); the answer shown first gets "
            f"{_percent(position.first)}."
        )
    elif position is not None:
        found.append(
            "Each question was judged in one order alone: position bias cannot be told from quality."
        )
    if report.length is not None:
        found.append(
            f"The longer answer gets {_percent(report.length)}; longer may also be better."
        )
    if report.style is not None:
        found += _style_sentences(report.style.win_rates, report.style.coefficients)
    return found


def markdown(comparison: Comparison) -> str:
    """The whole comparison in Markdown."""
    out = ["# Comparison", ""]
    out += [
        f"> **Before you read on:** {markdown_text(drawable(text))}\n"
        for text in comparison.warnings
    ]
    for (benchmark, judge), lines in benchmarks(comparison).items():
        out += [f"## {markdown_text(benchmark)}, judged by {markdown_text(judge)}", ""]
        out += [
            markdown_row(HEAD),
            markdown_row(["---", "---:", "---:", "---:", "---:", "---", "---:", "---:"]),
        ]
        for line in lines:
            out.append(markdown_row([markdown_text(text) for text in cells(line)]))
        out.append("")
        out += [f"* {markdown_text(text)}" for text in _remarks(lines)]
        out.append("")
    out += ["## The judges", ""]
    for report in comparison.judges:
        out.append(
            f"* **{markdown_text(_named(report))}**: {markdown_text(' '.join(judge_sentences(report)))}"
        )
    out += ["", *notes(comparison), ""]
    return "\n".join(out)


def page(comparison: Comparison) -> str:
    """The whole comparison as one self-contained page without script."""
    template = environment().get_template("comparison.html.jinja")
    return template.render(
        groups=[
            {
                "benchmark": benchmark,
                "judge": judge,
                "rows": [cells(line) for line in lines],
                "places": [_place(line) for line in lines],
                "published": _remarks(lines),
            }
            for (benchmark, judge), lines in benchmarks(comparison).items()
        ],
        warnings=[drawable(text) for text in comparison.warnings],
        judges=[(_named(r), judge_sentences(r), drawable(r.identity)) for r in comparison.judges],
        notes=notes(comparison),
        style=Markup(style_sheet()),  # ours
    )


def rich_tables(comparison: Comparison, *, width: int) -> list[Group | Text]:
    """One table per benchmark with its remarks, then the judges, for a terminal of this width."""
    found: list[Group | Text] = []
    for (benchmark, judge), lines in benchmarks(comparison).items():
        title, words = f"{benchmark}, judged by {judge}", ("comparison", "verdict")
        shown = lines
        if _is_leaderboard(lines):
            standing = [line for line in lines if line.kind != "difference"]
            shown = [line for line in lines if line.kind == "difference"]
            found.append(_leaderboard(title, standing, width=width))
            title += ", differences"
        if shown:
            rows = [cells(line)[:-1] for line in shown]
            found.append(table(title, HEAD[:-1], rows, words=words, width=width))
        found += [Text(f"• {text}") for text in _remarks(lines, with_figures=False)]
        if _is_leaderboard(lines) and shown is not lines and not shown:
            found.append(Text("• --differences compares every two systems"))
    found += [
        Text(f"• {_named(report)}: {' '.join(judge_sentences(report))}")
        for report in comparison.judges
    ]
    return found


def power_table(
    rows: Sequence[tuple[str, int, float | None]], *, alpha: float, width: int
) -> Group:
    """What so many questions of such a spread can show, and how many smaller effects need.

    Args:
        rows: What, questions, and standard deviation per question in the unit of the score; None where it is unknown.
        alpha: Two-sided level.
        width: Of the terminal, in characters.
    """
    headings = ("what", "questions", "spread", "effect", "questions for half of it", "for a fifth")
    lines: list[list[str]] = []
    for what, num_questions, spread in rows:
        effect = None
        if spread is not None:
            effect = minimum_detectable(spread, num_questions, alpha=alpha)
        needed = [
            count(questions_needed(spread, effect / part, alpha=alpha))
            if spread and effect
            else MISSING
            for part in (2, 5)
        ]
        figures = [count(num_questions), number(spread), number(effect), *needed]
        lines.append([drawable(what), *figures])
    title = f"power: smallest true effect found at {alpha:g} with probability 0.8"
    shown = table(title, headings, lines, words=("what",), width=width)
    if all(spread is not None for _, _, spread in rows):
        return shown
    unknown = "no spread: fewer than two questions, or all alike, say nothing of others"
    return Group(shown, Text(f"• {unknown}"))


def _named(report: JudgeReport) -> str:
    return drawable(f"{report.benchmark}, {report.judge}")


def _percent(estimate: Estimate) -> str:
    scored = f"n = {estimate.num_scored} / {estimate.num_total}"
    if estimate.value is None:
        return f"an unknown share ({scored})"
    shown = f"{number(100 * estimate.value, 1)} % of the points"
    if estimate.low is not None and estimate.high is not None:
        shown += " " + interval({"low": 100 * estimate.low, "high": 100 * estimate.high})
    return f"{shown} ({scored})"


def _style_sentences(rates: Mapping[str, Estimate], coefficients: Mapping[str, float]) -> list[str]:
    effects = ", ".join(f"{name} {number(value, 2)}" for name, value in coefficients.items())
    found = [
        f"At equal style {drawable(system)} gets {_percent(estimate)}."
        for system, estimate in rates.items()
    ]
    if any(estimate.value is None and estimate.num_scored for estimate in rates.values()):
        found.append(
            "Style control has no finite solution on these games: control for fewer covariates."
        )
    elif effects:
        found.append(f"Log-odds per standard deviation: {effects}.")
    return found


def _digits(line: Line) -> int:
    """Points of 100 have one digit, grades two."""
    return 2 if line.unit == "grade" else 1


def _signed(line: Line) -> str:
    value = line.estimate.value
    sign = "+" if line.kind == "difference" and value is not None and value > 0 else ""
    return sign + number(value, _digits(line))


def _interval(estimate: Estimate, digits: int) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"[{number(estimate.low, digits)}, {number(estimate.high, digits)}]"


def _remarks(lines: Sequence[Line], *, with_figures: bool = True) -> list[str]:
    """How to read a benchmark's lines, and its own figures; those of a leaderboard may stand in its columns."""
    kind = "grades" if any(line.kind == "mean" for line in lines) else "games"
    reading = READING.get(f"{lines[0].benchmark.removesuffix('-pairs')} {kind}")
    found = [] if reading is None else [reading]
    for line in [] if _is_leaderboard(lines) and not with_figures else lines:
        figures = [f"{name} {_figure(value)}" for name, value in line.published.items()]
        if figures:
            found.append(f"As published, {cells(line).what}: {', '.join(figures)}")
        figures = [f"{name} {_estimate(value, line)}" for name, value in line.ours.items()]
        if figures:
            found.append(f"Ours, {cells(line).what}: {', '.join(figures)}")
    return found


def _estimate(estimate: Estimate, line: Line) -> str:
    digits = _digits(line)
    shown = f"{number(estimate.value, digits)} {_interval(estimate, digits)}".strip()
    return f"{shown} (n = {estimate.num_scored} / {estimate.num_total})"


def _figure(value: float | None) -> str:
    """A benchmark's own figure; counts are whole numbers."""
    return number(value, 0 if isinstance(value, int) else 2)


def _is_leaderboard(lines: Sequence[Line]) -> bool:
    return sum(line.kind != "difference" for line in lines) > FEW


def _leaderboard(title: str, lines: Sequence[Line], *, width: int) -> Group:
    """One row a system, with as many of the further figures as columns as leave it one."""
    rivals = {line.against for line in lines}
    one_rival = len(rivals) == 1 and None not in rivals
    digits = _digits(lines[0])
    columns: dict[str, list[str]] = {
        "system": [drawable(line.system) if one_rival else cells(line).what for line in lines],
        lines[0].kind: [number(line.estimate.value, digits) for line in lines],
        "interval": [_interval(line.estimate, digits) for line in lines],
        "SE": [number(line.standard_error, 2) for line in lines],
        "n": [_scored(line.estimate) for line in lines],
    }
    for name in dict.fromkeys(name for line in lines for name in line.published):
        columns[f"published {name}"] = [_figure(line.published.get(name)) for line in lines]
    for name in dict.fromkeys(name for line in lines for name in line.ours):
        found = [line.ours[name].value if name in line.ours else None for line in lines]
        # WB-Score and WB-Reward are what the benchmark has too.
        theirs = [[line.published.get(other) for line in lines] for other in lines[0].published]
        if [_figure(value) for value in found] not in [[*map(_figure, told)] for told in theirs]:
            columns[name] = [number(value, digits) for value in found]
    left_out: list[str] = []
    while len(columns) > 5 and _width(columns) > width:
        left_out.insert(0, columns.popitem()[0])
    over = f", over {drawable(lines[0].against or '')}" if one_rival else ""
    rows = list(zip(*columns.values(), strict=True))
    shown = table(title + over, list(columns), rows, words=("system",), width=width)
    if not left_out:
        return shown
    return Group(shown, Text(f"• a wider terminal, or --output, also has: {'; '.join(left_out)}"))


def _width(columns: Mapping[str, Sequence[str]]) -> int:
    """Of a table whose cells stay on one line each, headings aside."""
    words = [max(map(cell_len, [*cells, *name.split()])) for name, cells in columns.items()]
    return sum(words) + 2 * len(words)


def _scored(estimate: Estimate) -> str:
    whole = estimate.num_scored == estimate.num_total
    return count(estimate.num_scored) if whole else f"{estimate.num_scored}/{estimate.num_total}"


def _place(line: Line) -> tuple[float, float, float] | None:
    """Low, value and high as percentages of the range of a win rate; None for other lines."""
    ends = (line.estimate.low, line.estimate.value, line.estimate.high)
    if line.unit != "%" or any(end is None for end in ends):
        return None
    low, value, high = (min(100.0, max(0.0, end or 0.0)) for end in ends)
    return low, value, high
