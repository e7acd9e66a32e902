"""What do the figures say, in words? Sentences computed from them, the unwelcome ones included."""

from collections.abc import Sequence
from typing import Any

LABELS = {"base": "base", "ce": "CE", "ce_slack": "CE on slack canvases", "slack_ctc": "slack-CTC"}
LEVEL = 0.05
"""Adjusted p-value below which a difference is called one."""

PLAINNESS = {
    "words": ("words per answer", "{:.1f}"),
    "adjectives": ("share of adjectives", "{:.3f}"),
    "distinct_bigrams": ("distinct word pairs per 1,000 words", "{:.0f}"),
    "coverage": ("share of the requested words used", "{:.3f}"),
}
"""What a grammar score alone would hide."""


def findings(
    quality: Sequence[dict[str, Any]],
    win_rates: Sequence[dict[str, Any]],
    source: dict[str, Any],
    *,
    num_seeds: int,
) -> list[str]:
    """Plain sentences: who wins where, what a displaced token costs, and what the winner gives up."""
    sentences = [_objective(row) for row in win_rates if _is(row, "slack_ctc", "ce", kind="none")]
    sentences += [_objective(row) for row in win_rates if _is(row, "ce_slack", "ce", kind="none")]
    for arm in ("ce", "slack_ctc"):
        for rate in sorted({row["rate"] for row in win_rates}):
            sentences += [
                _probe(row) for row in win_rates if _is(row, arm, "self", kind="shift", rate=rate)
            ]
    sentences += _plainness(quality, source)
    runs = "1 training run" if num_seeds == 1 else f"{num_seeds} training runs"
    sentences.append(
        f"Each arm stands for {runs}; p-values are two-sided sign-flip tests over questions for these models, "
        "Benjamini-Hochberg adjusted over every win rate in this report."
    )
    return sentences


def warnings(*, num_seeds: int, quick: bool) -> list[str]:
    """What a reader must know before believing a figure."""
    found: list[str] = []
    if quick:
        found.append(
            "Quick run: the models are barely trained. It shows that the path works; its figures mean nothing."
        )
    if num_seeds == 1:
        found.append(
            "One training seed: intervals cover new questions, not new training runs. Run with --seeds 3 to see those."
        )
    elif num_seeds < 5:
        found.append(
            f"{num_seeds} training seeds: intervals cover new training runs too, and are wide for that reason."
        )
    return found


def _is(row: dict[str, Any], arm: str, against: str, **where: object) -> bool:
    return (
        row["arm"] == arm
        and row["against"] == against
        and all(row[k] == v for k, v in where.items())
    )


def _verdict(row: dict[str, Any]) -> str:
    if row["value"] is None or row["p_adjusted"] is None:
        return "was not scored"
    if row["p_adjusted"] >= LEVEL:
        return "does not differ significantly"
    return "wins" if row["value"] > 0.5 else "loses"


def _rate(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return "no question scored"
    text = f"win rate {row['value']:.3f}"
    if row["low"] is not None:
        text += f" [{row['low']:.3f}, {row['high']:.3f}]"
    return (
        f"{text}, adjusted p = {row['p_adjusted']:.2g}, n = {row['num_scored']}/{row['num_total']}"
    )


def _decoding(row: dict[str, Any]) -> str:
    return f"{row['steps']} steps, " + (
        "greedy" if row["temperature"] == 0 else f"temperature {row['temperature']:g}"
    )


def _objective(row: dict[str, Any]) -> str:
    return f"{LABELS[row['arm']]} {_verdict(row)} against {LABELS[row['against']]} at {_decoding(row)}: {_rate(row)}."


def _probe(row: dict[str, Any]) -> str:
    verdict = {"loses": "lowers the quality", "wins": "raises the quality"}.get(
        _verdict(row), "does not change the quality significantly"
    )
    return (
        f"Displacing {row['rate']:.0%} of the content tokens by one position {verdict} of {LABELS[row['arm']]} at "
        f"{_decoding(row)} against itself undisturbed: {_rate(row)}."
    )


def _plainness(quality: Sequence[dict[str, Any]], source: dict[str, Any]) -> list[str]:
    plain = [row for row in quality if row["kind"] == "none"]
    sentences: list[str] = []
    for temperature in sorted({row["temperature"] for row in plain}):
        most = max(row["steps"] for row in plain)
        rows = {
            r["arm"]: r for r in plain if r["temperature"] == temperature and r["steps"] == most
        }
        if not {"ce", "slack_ctc"} <= rows.keys():
            continue
        parts: list[str] = []
        for metric, (name, form) in PLAINNESS.items():
            values = [rows[arm]["metrics"][metric]["value"] for arm in ("slack_ctc", "ce")]
            values.append(source["metrics"][metric]["value"])
            shown = ["–" if value is None else form.format(value) for value in values]
            parts.append(f"{name} {shown[0]} (CE {shown[1]}, source {shown[2]})")
        sentences.append(
            f"What grammar alone would hide, slack-CTC at {_decoding(rows['slack_ctc'])}: {'; '.join(parts)}."
        )
    return sentences
