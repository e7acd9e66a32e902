"""What do the figures say, in words? Sentences computed from them, the unwelcome ones included."""

from collections.abc import Sequence
from typing import Any

LABELS = {
    "base": "the base",
    "ce": "CE",
    "ce_slack": "CE on slack canvases",
    "slack_ctc": "slack-CTC",
}
LEVEL = 0.05
"""Adjusted p-value below which a difference is called one."""

BESIDE = {
    "words": ("words per answer", "{:.1f}"),
    "too_long": ("share of answers longer than any story", "{:.3f}"),
    "adjectives": ("share of adjectives", "{:.3f}"),
    "distinct_bigrams": ("distinct word pairs in the first 1,000 words", "{:.0f}"),
    "coverage": ("share of the requested words used", "{:.3f}"),
    "grammatical": ("share of grammatical sentences", "{:.3f}"),
}
"""What the quality score alone would hide."""

Row = dict[str, Any]


def findings(
    quality: Sequence[Row], win_rates: Sequence[Row], source: Row, *, num_seeds: int
) -> list[str]:
    """Plain sentences: who wins where, what a displaced token costs, and what the winner gives up."""
    sentences = [
        _against(win_rates, arm, rival)
        for arm, rival in (("slack_ctc", "ce"), ("ce_slack", "ce"), ("slack_ctc", "base"))
    ]
    for arm in ("ce", "ce_slack", "slack_ctc"):
        sentences += [_probe(win_rates, arm, kind) for kind in ("shift", "substitute")]
    sentences += _beside(quality, source)
    runs = "1 training run" if num_seeds == 1 else f"{num_seeds} training runs"
    sentences.append(
        f"Each arm stands for {runs}. Win rates count quality, question by question, ties half. p-values are "
        "two-sided sign-flip tests over questions for these models, Benjamini-Hochberg adjusted over all "
        f"{len(win_rates)} win rates here."
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
            "One training seed: intervals cover new questions, not new training runs. "
            "Run with --seeds 3 to see those."
        )
    elif num_seeds < 5:
        found.append(
            f"{num_seeds} training seeds: intervals cover new training runs too, and are wide for that reason."
        )
    return found


def _against(win_rates: Sequence[Row], arm: str, rival: str) -> str:
    rows = [
        row
        for row in win_rates
        if row["arm"] == arm and row["against"] == rival and row["kind"] == "none"
    ]
    parts = [f"{_verdict(row)} at {_decoding(row)} ({_figures(row)})" for row in _ordered(rows)]
    return f"{_capital(LABELS[arm])} against {LABELS[rival]}: {'; '.join(parts) or 'not measured'}."


def _probe(win_rates: Sequence[Row], arm: str, kind: str) -> str:
    verb = {"shift": "Displacing", "substitute": "Substituting"}[kind]
    rows = [
        row
        for row in win_rates
        if row["arm"] == arm and row["against"] == "self" and row["kind"] == kind
    ]
    settings = sorted({(row["temperature"], row["steps"]) for row in rows})
    parts = [
        f"at {_decoding(same[0])}: " + ", ".join(_dose(row) for row in _ordered(same))
        for same in (
            [row for row in rows if (row["temperature"], row["steps"]) == setting]
            for setting in settings
        )
    ]
    where = " by one position" if kind == "shift" else " in place"
    told = "; ".join(parts) or "not measured"
    legend = " (* significant)" if "*" in told else ""
    return (
        f"{verb} content tokens{where}, win rate of {LABELS[arm]} against itself undisturbed: "
        f"{told}{legend}."
    )


def _ordered(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["temperature"], row["steps"], row["rate"]))


def _significant(row: Row) -> bool:
    return row["p_adjusted"] is not None and row["p_adjusted"] < LEVEL


def _verdict(row: Row) -> str:
    if row["value"] is None:
        return "not scored"
    if not _significant(row):
        return "no significant difference"
    return "wins" if row["value"] > 0.5 else "LOSES"


def _dose(row: Row) -> str:
    if row["value"] is None:
        return f"{row['rate']:.0%}: not scored"
    return f"{row['rate']:.0%}: {row['value']:.3f}{'*' if _significant(row) else ''}"


def _figures(row: Row) -> str:
    if row["value"] is None:
        return f"n = 0/{row['num_total']}"
    text = f"{row['value']:.3f}"
    if row["low"] is not None:
        text += f" [{row['low']:.3f}, {row['high']:.3f}]"
    return f"{text}, p = {row['p_adjusted']:.2g}, n = {row['num_scored']}/{row['num_total']}"


def _decoding(row: Row) -> str:
    heat = "greedy" if row["temperature"] == 0 else f"temperature {row['temperature']:g}"
    return f"{row['steps']} steps {heat}"


def _beside(quality: Sequence[Row], source: Row) -> list[str]:
    plain = [row for row in quality if row["kind"] == "none"]
    sentences: list[str] = []
    for temperature, steps in sorted({(row["temperature"], row["steps"]) for row in plain}):
        rows = {
            row["arm"]: row
            for row in plain
            if (row["temperature"], row["steps"]) == (temperature, steps)
        }
        parts: list[str] = []
        for metric, (name, form) in BESIDE.items():
            values = [rows[arm]["metrics"][metric]["value"] for arm in ("slack_ctc", "ce")]
            values.append(source["metrics"][metric]["value"])
            shown = ["–" if value is None else form.format(value) for value in values]
            parts.append(f"{name} {shown[0]} (CE {shown[1]}, source {shown[2]})")
        sentences.append(
            f"Beside the score, slack-CTC at {_decoding(rows['slack_ctc'])}: {'; '.join(parts)}."
        )
    return sentences


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
