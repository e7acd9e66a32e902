"""Comparisons and power on a terminal."""

from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from slackdlm.report.comparison import (
    HEAD,
    benchmarks,
    cells,
    digits_of,
    judge_name,
    judge_sentences,
    published_figure,
    remarks,
)
from slackdlm.report.text import MISSING, count, interval, number
from slackdlm.statistics import Estimate, minimum_detectable, questions_needed
from slackdlm.study.comparison import FEW, Comparison, Line
from slackdlm.study.result import drawable
from slackdlm.terminal import table


def comparison_tables(comparison: Comparison, *, width: int) -> list[Group | Text]:
    """One table per benchmark with its remarks, then the judges, for a terminal of this width."""
    out: list[Group | Text] = []
    for (benchmark, judge), lines in benchmarks(comparison).items():
        title = f"{benchmark}, judged by {judge}"
        standing = [line for line in lines if line.kind != "difference"]
        is_leaderboard = len(standing) > FEW
        listed = lines
        if is_leaderboard:
            out.append(_leaderboard(title, standing, width=width))
            title += ", differences"
            listed = [line for line in lines if line.kind == "difference"]
        if listed:
            rows = [cells(line)[:-1] for line in listed]
            words = ("comparison", "verdict")
            out.append(table(title, HEAD[:-1], rows, words=words, width=width))
        out += [Text(f"• {text}") for text in remarks(lines, with_figures=not is_leaderboard)]
        if not listed:
            out.append(Text("• --differences compares every two systems"))
    for report in comparison.judges:
        out.append(Text(f"• {judge_name(report)}: {' '.join(judge_sentences(report))}"))
    return out


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


def _leaderboard(title: str, lines: Sequence[Line], *, width: int) -> Group:
    """One row a system, with as many of the further figures as columns as leave it one."""
    rivals = {line.against for line in lines}
    has_one_rival = len(rivals) == 1 and None not in rivals
    digits = digits_of(lines[0])
    columns: dict[str, list[str]] = {
        "system": [drawable(line.system) if has_one_rival else cells(line).what for line in lines],
        lines[0].kind: [number(line.estimate.value, digits) for line in lines],
        "interval": [interval(line.estimate, digits) for line in lines],
        "SE": [number(line.standard_error, 2) for line in lines],
        "n": [_scored(line.estimate) for line in lines],
    }
    num_needed = len(columns)
    columns |= _figure_columns(lines, digits)
    left_out: list[str] = []
    while len(columns) > num_needed and _width(columns) > width:
        left_out.insert(0, columns.popitem()[0])
    over = f", over {drawable(lines[0].against or '')}" if has_one_rival else ""
    rows = list(zip(*columns.values(), strict=True))
    shown = table(title + over, list(columns), rows, words=("system",), width=width)
    if not left_out:
        return shown
    return Group(shown, Text(f"• a wider terminal, or --output, also has: {'; '.join(left_out)}"))


def _figure_columns(lines: Sequence[Line], digits: int) -> dict[str, list[str]]:
    """The benchmark's own figures and ours of the same kind; ours only where they differ from all of its own."""
    published = {
        name: [line.published.get(name) for line in lines]
        for name in dict.fromkeys(name for line in lines for name in line.published)
    }
    texts = {name: [published_figure(value) for value in v] for name, v in published.items()}
    columns = {f"published {name}": values for name, values in texts.items()}
    for name in dict.fromkeys(name for line in lines for name in line.ours):
        values = [line.ours[name].value if name in line.ours else None for line in lines]
        # WB-Score and WB-Reward are what the benchmark has too.
        if [published_figure(value) for value in values] not in texts.values():
            columns[name] = [number(value, digits) for value in values]
    return columns


def _width(columns: Mapping[str, Sequence[str]]) -> int:
    """Of a table whose cells stay on one line each, headings aside."""
    words = [max(map(cell_len, [*cells, *name.split()])) for name, cells in columns.items()]
    return sum(words) + 2 * len(words)


def _scored(estimate: Estimate) -> str:
    whole = estimate.num_scored == estimate.num_total
    return count(estimate.num_scored) if whole else f"{estimate.num_scored}/{estimate.num_total}"
