"""The tables of a report: numbers as text, rows for the page, and the main table for terminal and Markdown."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from slackdlm.report.results import METRICS, Results, arm_labels, plain_rows, temperatures

MISSING = "–"
"""What a missing value prints as; never 0."""

MAIN_METRICS = (
    "quality",
    "grammatical",
    "coverage",
    "words",
    "too_long",
    "adjectives",
    "distinct_bigrams",
)
MORE_METRICS = ("right_count", "log_likelihood", "slack_share", "forwards")
"""Columns of the main table and of the one behind it; one without any value is left out."""

DOSE = ("asked", "displaced", "impossible", "lost", "committed")


def number(value: float | None, digits: int | None = None) -> str:
    """A number for readers: fixed digits, a true minus, thin thousands; a dash if missing."""
    if value is None:
        return MISSING
    if digits is None:
        size = abs(value)
        digits = 3 if size < 2 else 2 if size < 10 else 1 if size < 1000 else 0
    return f"{value:,.{digits}f}".replace(",", "\u2009").replace("-", "−")


def count(value: int | None) -> str:
    """A whole number for readers; a dash if missing."""
    return MISSING if value is None else number(value, 0)


def percent(rate: float | None) -> str:
    """A share as a percentage without needless zeros."""
    return MISSING if rate is None else f"{100 * rate:.3g} %"


def p_text(p_value: float | None) -> str:
    """A p-value for readers; a dash if missing."""
    if p_value is None:
        return MISSING
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def interval(estimate: Mapping[str, Any]) -> str:
    """An estimate's interval in brackets; empty where it has none."""
    if estimate["low"] is None or estimate["high"] is None:
        return ""
    size = max(abs(estimate["low"]), abs(estimate["high"]))
    digits = 3 if size < 2 else 2 if size < 10 else 1
    return f"[{number(estimate['low'], digits)}, {number(estimate['high'], digits)}]"


class Entry(NamedTuple):
    """One cell of the main table."""

    value: str
    interval: str
    scored: str
    """Questions scored out of asked."""
    place: tuple[float, float, float] | None
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


def columns_with_values(results: Results, metrics: Sequence[str] = MAIN_METRICS) -> list[str]:
    """Those of some metrics that have a value anywhere un-intervened."""
    rows = [row for t in temperatures(results) for row in plain_rows(results, t)]
    return [
        name
        for name in metrics
        if any(row["metrics"].get(name, {}).get("value") is not None for row in rows)
    ]


def plain_table(results: Results, metrics: Sequence[str] = MAIN_METRICS) -> list[Group]:
    """The un-intervened results: arms by steps by temperature, every metric with its interval."""
    columns, labels = columns_with_values(results, metrics), arm_labels(results)
    return [
        Group(
            temperature,
            tuple(
                _row(row, labels[row["arm"]], columns) for row in plain_rows(results, temperature)
            ),
        )
        for temperature in temperatures(results)
        if plain_rows(results, temperature)
    ]


def source_row(results: Results) -> Row | None:
    """The held-out source texts as a row of the main table; None if nothing was measured on them."""
    if not results["source"]["metrics"]:
        return None
    return _row(
        {"arm": "", "steps": 0, "metrics": results["source"]["metrics"]},
        "source texts",
        columns_with_values(results),
    )


def _row(row: Mapping[str, Any], label: str, columns: list[str]) -> Row:
    metrics = row["metrics"]
    entries = tuple(_entry(metrics.get(name)) for name in columns)
    return Row(
        arm=row["arm"],
        label=label,
        steps=row["steps"],
        tokens_per_step=number(row.get("tokens_per_step"), 1),
        entries=entries,
        scored=next((entry.scored for entry in entries if entry.scored), MISSING),
    )


def _entry(estimate: Mapping[str, Any] | None) -> Entry:
    if estimate is None:
        return Entry(MISSING, "", "", None)
    scored = f"{estimate['num_scored']} / {estimate['num_total']}"
    if estimate["value"] is None:
        return Entry(MISSING, "", scored, None)
    ends = (estimate["low"], estimate["value"], estimate["high"])
    place = None
    if all(end is not None and 0 <= end <= 1 for end in ends):
        place = (100 * ends[0], 100 * ends[1], 100 * ends[2])
    return Entry(number(estimate["value"]), interval(estimate), scored, place)


def win_rows(results: Results, *, against_self: bool, intervened: bool) -> list[dict[str, Any]]:
    """Win rates as text: against the own un-intervened answers or other arms, intervened or not."""
    labels = arm_labels(results)
    order = list(labels)
    rows = [
        row
        for row in results["win_rates"]
        if (row["against"] == "self") == against_self and (row["kind"] != "none") == intervened
    ]
    rows.sort(
        key=lambda r: (r["temperature"], r["steps"], r["kind"], r["rate"], order.index(r["arm"]))
    )
    return [
        {
            "label": labels[row["arm"]],
            "against": labels.get(row["against"], row["against"]),
            "temperature": f"{row['temperature']:g}",
            "steps": str(row["steps"]),
            "kind": row["kind"],
            "rate": percent(row["rate"]),
            "value": number(row["value"], 3),
            "interval": interval(row),
            "p_value": p_text(row["p_value"]),
            "p_adjusted": p_text(row["p_adjusted"]),
            "is_clear": row["p_adjusted"] is not None and row["p_adjusted"] < 0.05,
            "scored": f"{row['num_scored']} / {row['num_total']}",
        }
        for row in rows
    ]


def dose_rows(results: Results) -> list[dict[str, str]]:
    """What each intervention did: tokens asked for, displaced, impossible, lost and committed."""
    labels = arm_labels(results)
    rows: list[dict[str, str]] = []
    for row in results["quality"]:
        if row["kind"] == "none" or not row.get("dose"):
            continue
        dose = row["dose"]
        rows.append(
            {
                "label": labels[row["arm"]],
                "temperature": f"{row['temperature']:g}",
                "steps": str(row["steps"]),
                "kind": row["kind"],
                "rate": percent(row["rate"]),
                "share": percent(_share(row["kind"], dose)),
                **{name: count(dose[name]) for name in DOSE},
            }
        )
    return rows


def realised(kind: str, dose: Mapping[str, int]) -> str:
    """How many content tokens were disturbed, of how many decided on, and what share that is."""
    share, decided = _share(kind, dose), _decided(kind, dose)
    return f"{count(dose['displaced'])} of {count(decided)} ({percent(share)})"


def _share(kind: str, dose: Mapping[str, int]) -> float | None:
    """Content tokens disturbed, as a share of those decided on; None where there are none."""
    decided = _decided(kind, dose)
    return dose["displaced"] / decided if decided else None


def _decided(kind: str, dose: Mapping[str, int]) -> int:
    """Content tokens whose commit was disturbed or not: those committed, and those dropped, which are not."""
    return dose["committed"] + (dose["displaced"] if kind == "drop" else 0)


def markdown_table(results: Results) -> str:
    """The main table in Markdown; pipes, line breaks and markup in labels are escaped."""
    head = [
        "temperature",
        "steps",
        "arm",
        *(METRICS[m][0] for m in columns_with_values(results)),
        "n",
    ]
    lines = [head, ["---:", "---:", "---", *["---:"] * (len(head) - 3)]]
    for group in plain_table(results):
        for row in group.rows:
            cells = [f"{entry.value} {entry.interval}".strip() for entry in row.entries]
            lines.append(
                [
                    f"{group.temperature:g}",
                    str(row.steps),
                    markdown_text(row.label),
                    *cells,
                    row.scored,
                ]
            )
    return "".join(markdown_row(line) + "\n" for line in lines)


def markdown_row(texts: Sequence[str]) -> str:
    """One row of a Markdown table; the texts are escaped already."""
    return "| " + " | ".join(texts) + " |"


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|#&!$~])", r"\\\1", " ".join(text.split()))
