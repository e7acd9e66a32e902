"""What do the figures say, in words? Sentences computed from them, the unwelcome ones included."""

from collections.abc import Sequence

from slackdlm.report.text import interval, number, p_text, percent
from slackdlm.study.result import (
    INTERVENTIONS,
    ContrastRow,
    QualityRow,
    Setting,
    Source,
    TrendRow,
    WinRow,
)

LABELS = {
    "base": "the base",
    "ce": "CE",
    "ce_slack": "CE on slack canvases",
    "slack_ctc": "slack-CTC",
}
BESIDE = {
    "words": ("words per answer", "{:.1f}"),
    "too_long": ("share of answers longer than any story", "{:.3f}"),
    "adjectives": ("share of adjectives", "{:.3f}"),
    "distinct_bigrams": ("distinct word pairs in the first 1,000 words", "{:.0f}"),
    "coverage": ("share of the requested words used", "{:.3f}"),
    "grammatical": ("share of grammatical sentences", "{:.3f}"),
}
"""What the quality score alone would hide."""


def findings(
    quality: Sequence[QualityRow], win_rates: Sequence[WinRow], source: Source, *, num_seeds: int
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
    texts: list[str] = []
    if quick:
        texts.append(
            "Quick run: the models are barely trained. It shows that the path works; its figures mean nothing."
        )
    if num_seeds == 1:
        texts.append(
            "One training seed: intervals cover new questions, not new training runs. "
            "Run with --seeds 3 to see those."
        )
    elif num_seeds < 5:
        texts.append(
            f"{num_seeds} training seeds: intervals cover new training runs too, and are wide for that reason."
        )
    return texts


def _against(win_rates: Sequence[WinRow], arm: str, rival: str) -> str:
    rows = [
        row for row in win_rates if row.arm == arm and row.against == rival and row.kind == "none"
    ]
    parts = [f"{_verdict(row)} at {_decoding(row)} ({_figures(row)})" for row in _ordered(rows)]
    return f"{_capital(LABELS[arm])} against {LABELS[rival]}: {'; '.join(parts) or 'not measured'}."


def _probe(win_rates: Sequence[WinRow], arm: str, kind: str) -> str:
    verb = {"shift": "Displacing", "substitute": "Substituting"}[kind]
    rows = [
        row for row in win_rates if row.arm == arm and row.against == "self" and row.kind == kind
    ]
    settings = sorted({(row.temperature, row.steps) for row in rows})
    parts = [
        f"at {_decoding(same[0])}: " + ", ".join(_dose(row) for row in _ordered(same))
        for same in (
            [row for row in rows if (row.temperature, row.steps) == setting] for setting in settings
        )
    ]
    where = " by one position" if kind == "shift" else " in place"
    figures = "; ".join(parts) or "not measured"
    legend = " (* significant)" if "*" in figures else ""
    return (
        f"{verb} content tokens{where}, win rate of {LABELS[arm]} against its baseline answers: "
        f"{figures}{legend}."
    )


def _ordered(rows: Sequence[WinRow]) -> list[WinRow]:
    return sorted(rows, key=lambda row: (row.temperature, row.steps, row.rate))


def _verdict(row: WinRow) -> str:
    if row.value is None:
        return "not scored"
    if not row.is_clear:
        return "no significant difference"
    return "wins" if row.value > 0.5 else "LOSES"


def _dose(row: WinRow) -> str:
    if row.value is None:
        return f"{row.rate:.0%}: not scored"
    return f"{row.rate:.0%}: {row.value:.3f}{'*' if row.is_clear else ''}"


def _figures(row: WinRow) -> str:
    if row.value is None:
        return f"n = 0/{row.num_total}"
    text = f"{row.value:.3f}"
    if row.low is not None:
        text += f" [{row.low:.3f}, {row.high:.3f}]"
    return f"{text}, p = {row.p_adjusted:.2g}, n = {row.num_scored}/{row.num_total}"


def _decoding(row: Setting) -> str:
    heat = "greedy" if row.temperature == 0 else f"temperature {row.temperature:g}"
    return f"{row.steps} steps {heat}"


def _beside(quality: Sequence[QualityRow], source: Source) -> list[str]:
    plain = [row for row in quality if row.kind == "none"]
    sentences: list[str] = []
    for temperature, steps in sorted({(row.temperature, row.steps) for row in plain}):
        rows = {
            row.arm: row for row in plain if (row.temperature, row.steps) == (temperature, steps)
        }
        parts: list[str] = []
        for metric, (name, form) in BESIDE.items():
            values = [rows[arm].metrics[metric].value for arm in ("slack_ctc", "ce")]
            values.append(source.metrics[metric].value)
            shown = ["–" if value is None else form.format(value) for value in values]
            parts.append(f"{name} {shown[0]} (CE {shown[1]}, source {shown[2]})")
        sentences.append(
            f"Beside the score, slack-CTC at {_decoding(rows['slack_ctc'])}: {'; '.join(parts)}."
        )
    return sentences


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def probe_findings(trends: Sequence[TrendRow], contrasts: Sequence[ContrastRow]) -> list[str]:
    """What the trends and the contrasts of a probe say."""
    return [_trend(trend) for trend in trends if trend.value is not None] + [
        _contrast(contrast) for contrast in contrasts if contrast.value is not None
    ]


def _trend(trend: TrendRow) -> str:
    def per_point(value: float | None) -> float | None:
        return None if value is None else value / 100

    scaled = trend.model_copy(
        update={name: per_point(getattr(trend, name)) for name in ("value", "low", "high")}
    )
    return (
        f"{trend.arm}, {INTERVENTIONS[trend.kind]}: each percentage point of rate moves its win rate by "
        f"{number(scaled.value, 4)} {interval(scaled, 4)} (p {p_text(trend.p_value)})."
    )


def _contrast(contrast: ContrastRow) -> str:
    arm, against, value = contrast.arm, contrast.against, contrast.value
    if value is not None and contrast.p_adjusted is not None and contrast.p_adjusted < 0.05:
        verdict = f"{arm} keeps its own quality {'better' if value > 0 else 'worse'} than {against}"
    else:
        verdict = f"no difference shown in how {arm} and {against} keep their own quality"
    return (
        f"At {percent(contrast.rate)} {INTERVENTIONS[contrast.kind]}, {verdict}: difference of win rates "
        f"{number(value, 3)} {interval(contrast)}, adjusted p {p_text(contrast.p_adjusted)}."
    )
