"""The tables of a report: rows of text for page, terminal and Markdown."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from slackdlm.report.text import (
    MISSING,
    count,
    interval,
    markdown_row,
    markdown_text,
    number,
    p_text,
    percent,
)
from slackdlm.study.result import Dose, Figure, QualityRow, Result, WinRow

METRICS: Final[dict[str, tuple[str, str]]] = {
    "quality": ("quality", "grammatical sentences, as many as asked for × coverage, 0 to 1"),
    "grammatical": ("grammatical", "share of sentences that parse, 0 to 1"),
    "coverage": ("coverage", "share of the words asked for that occur, 0 to 1"),
    "right_count": ("right count", "share of answers with as many sentences as asked for"),
    "words": ("words", "words per answer"),
    "too_long": ("too long", "share of answers with more words than any source text"),
    "adjectives": ("adjectives", "share of the words, 0 to 1"),
    "distinct_bigrams": ("distinct bigrams", "distinct word pairs in the first 1,000 words"),
    "log_likelihood": (
        "log-likelihood",
        "nats per word under the grammar, grammatical answers only",
    ),
    "slack_share": ("slack share", "share of the content canvas that is slack, 0 to 1"),
    "forwards": ("forwards", "model forwards per answer"),
}
"""Name of each metric in words, and its unit."""
MORE_METRICS: Final = ("right_count", "log_likelihood", "slack_share", "forwards")
MAIN_METRICS: Final = tuple(name for name in METRICS if name not in MORE_METRICS)
"""Columns of the main table and of the one behind it; one without any value is left out."""
PROBE_HEAD: Final = tuple("arm;kind;rate;win rate;95 % interval;p;adjusted p;done;n".split(";"))


class Panel(NamedTuple):
    """A decoding setting, apart from its intervention."""

    temperature: float
    steps: int


class Entry(NamedTuple):
    """One cell of the main table."""

    value: str
    interval: str
    scored: str
    """Questions scored out of asked."""
    span: tuple[float, float, float] | None
    """Low, value and high as percentages of the range 0 to 1; None outside it or without an interval."""


class Row(NamedTuple):
    """One row of the main table."""

    arm: str
    label: str
    steps: int
    tokens_per_step: str
    entries: tuple[Entry, ...]
    scored: str
    """Questions scored out of asked for the first metric; an entry that differs says so itself."""


class Group(NamedTuple):
    """The rows of one temperature."""

    temperature: float
    rows: tuple[Row, ...]


class Wins(NamedTuple):
    """Win rates of one kind of comparison, in reading order."""

    rivals: list[WinRow]
    """Between arms, without an intervention."""
    probed_rivals: list[WinRow]
    """Between arms under the same intervention."""
    probes: list[WinRow]
    """Of each arm under an intervention against its own baseline answers."""


def arm_labels(result: Result) -> dict[str, str]:
    """Each arm's label by name, in the order of the file; arms met only in rows come last."""
    labels = {arm.name: arm.label for arm in result.arms}
    rows = [*result.quality, *result.win_rates, *result.training, *result.replays, *result.samples]
    return labels | {row.arm: row.arm for row in rows if row.arm not in labels}


def temperatures(result: Result) -> list[float]:
    """The decoding temperatures, rising."""
    return sorted({row.temperature for row in result.quality})


def baseline_rows(result: Result, temperature: float) -> list[QualityRow]:
    """The quality rows without an intervention at one temperature, by steps and then by arm."""
    order = list(arm_labels(result))
    rows = [r for r in result.quality if r.kind == "none" and r.temperature == temperature]
    return sorted(rows, key=lambda row: (row.steps, order.index(row.arm)))


def probed_panels(result: Result) -> list[Panel]:
    """The settings in which an intervention was measured, by temperature and then by steps."""
    rows = [*result.quality, *result.win_rates]
    return sorted({Panel(row.temperature, row.steps) for row in rows if row.kind != "none"})


def scored_range(estimates: Iterable[Figure | WinRow]) -> str:
    """The questions scored behind some estimates, such as ``n = 256`` or ``n = 250 to 256``."""
    counts = {row.num_scored for row in estimates if row.value is not None} or {0}
    low, high = min(counts), max(counts)
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def columns_with_values(result: Result, metrics: Sequence[str] = MAIN_METRICS) -> list[str]:
    """Those of some metrics that have a value anywhere without an intervention."""
    scored = {
        name
        for row in result.quality
        if row.kind == "none"
        for name, figure in row.metrics.items()
        if figure.value is not None
    }
    return [name for name in metrics if name in scored]


def baseline_table(result: Result, metrics: Sequence[str] = MAIN_METRICS) -> list[Group]:
    """The results without an intervention: arms by steps by temperature, metrics with intervals."""
    columns, labels = columns_with_values(result, metrics), arm_labels(result)

    def row_of(row: QualityRow) -> Row:
        entries = tuple(_entry(row.metrics.get(name)) for name in columns)
        return Row(
            arm=row.arm,
            label=labels[row.arm],
            steps=row.steps,
            tokens_per_step=number(row.tokens_per_step, 1),
            entries=entries,
            scored=_first_scored(entries),
        )

    groups = {t: tuple(map(row_of, baseline_rows(result, t))) for t in temperatures(result)}
    return [Group(temperature, rows) for temperature, rows in groups.items() if rows]


def source_row(result: Result) -> Row | None:
    """The source texts as a row of the main table; None if they were not measured."""
    metrics = result.source.metrics
    if not metrics:
        return None
    entries = tuple(_entry(metrics.get(name)) for name in columns_with_values(result))
    return Row("source", "source texts", 0, MISSING, entries, _first_scored(entries))


def _first_scored(entries: Sequence[Entry]) -> str:
    return next((entry.scored for entry in entries if entry.scored), MISSING)


def _entry(figure: Figure | None) -> Entry:
    if figure is None:
        return Entry(MISSING, "", "", None)
    scored = f"{figure.num_scored} / {figure.num_total}"
    span = None
    if figure.value is not None and figure.low is not None and figure.high is not None:
        ends = (figure.low, figure.value, figure.high)
        if all(0 <= end <= 1 for end in ends):
            span = (100 * ends[0], 100 * ends[1], 100 * ends[2])
    shown = "" if figure.value is None else interval(figure)
    return Entry(number(figure.value), shown, scored, span)


def win_tables(result: Result) -> Wins:
    """The win rates by what they compare, sorted by setting and arm."""
    order = list(arm_labels(result))
    rows = sorted(
        result.win_rates,
        key=lambda r: (r.temperature, r.steps, r.kind, r.rate, order.index(r.arm)),
    )
    rivals = [row for row in rows if row.against != "self"]
    return Wins(
        rivals=[row for row in rivals if row.kind == "none"],
        probed_rivals=[row for row in rivals if row.kind != "none"],
        probes=[row for row in rows if row.against == "self" and row.kind != "none"],
    )


def dose_rows(result: Result) -> list[tuple[QualityRow | WinRow, Dose]]:
    """The rows that say what their intervention did."""
    rows = [*result.quality, *result.win_rates]
    return [(row, row.dose) for row in rows if row.kind != "none" and row.dose is not None]


def realised(kind: str, dose: Dose) -> tuple[int, int, float | None]:
    """Content tokens intervened on, those decided on, and their ratio; None where none was decided on.

    Decided on are those committed, and those dropped, which are not committed.
    """
    decided = dose.committed + (dose.displaced if kind == "drop" else 0)
    return dose.displaced, decided, dose.displaced / decided if decided else None


def probe_rows(result: Result) -> list[list[str]]:
    """The win rates against baseline answers as text, in the file's order; columns `PROBE_HEAD`."""
    rows: list[list[str]] = []
    for row in result.win_rates:
        if row.against != "self":
            continue
        done = MISSING
        if row.dose is not None:
            displaced, decided, share = realised(row.kind, row.dose)
            done = f"{count(displaced)} of {count(decided)} ({percent(share)})"
        figures = [number(row.value, 3), interval(row), p_text(row.p_value), p_text(row.p_adjusted)]
        scored = f"{row.num_scored} / {row.num_total}"
        rows.append([row.arm, row.kind, percent(row.rate), *figures, done, scored])
    return rows


def markdown(result: Result) -> str:
    """The main table, or the probe's, with warnings before it and the findings behind it."""
    lines = [f"> **Before you read on:** {markdown_text(text)}\n" for text in result.warnings]
    groups = baseline_table(result)
    if groups:
        columns = columns_with_values(result)
        head = ["temperature", "steps", "arm", *(METRICS[name][0] for name in columns), "n"]
        rule = ["---:", "---:", "---", *["---:"] * (len(head) - 3)]
        rows = [
            [
                f"{group.temperature:g}",
                str(row.steps),
                markdown_text(row.label),
                *(f"{entry.value} {entry.interval}".strip() for entry in row.entries),
                row.scored,
            ]
            for group in groups
            for row in group.rows
        ]
    else:
        head, rule = list(PROBE_HEAD), ["---", "---", *["---:"] * (len(PROBE_HEAD) - 2)]
        rows = [[markdown_text(text) for text in row] for row in probe_rows(result)]
    lines += [markdown_row(row) for row in (head, rule, *rows)]
    lines += ["", *(f"* {markdown_text(text)}" for text in result.summary), ""]
    return "\n".join(lines)
