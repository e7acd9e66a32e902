"""The probe as a page, as Markdown, as JSON and as a plot. Names and models are untrusted text."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from slackdlm.atomic import write_bytes, write_text
from slackdlm.report import plots
from slackdlm.report.page import data_uri, environment, flatten, style_sheet
from slackdlm.report.results import clean
from slackdlm.report.tables import (
    interval,
    markdown_row,
    markdown_text,
    number,
    p_text,
    percent,
    realised,
)

KINDS = {
    "shift": "shifted by one place",
    "swap": "swapped with a neighbour",
    "substitute": "substituted in place",
    "drop": "withheld for a step",
}
HEAD = ("arm", "kind", "rate", "win rate", "95 % interval", "p", "adjusted p", "done", "n")


def write_probe(result: Mapping[str, Any], folder: Path) -> Path:
    """Write ``probe.html``, ``probe.md``, ``probe.json`` and ``probe.png`` into a folder; returns the page.

    Args:
        result: The probe's result as nested dicts, with ``settings`` beside its own fields.
        folder: Made if missing; the same result gives the same bytes.
    """
    shown: dict[str, Any] = clean(dict(result))
    light, dark = (plots.probe_figure(shown, theme) for theme in (plots.LIGHT, plots.DARK))
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    write_text(folder / "probe.json", text)
    write_bytes(folder / "probe.png", plots.to_png(light))
    write_text(folder / "probe.md", markdown(shown))
    page = (
        environment()
        .get_template("probe.html.jinja")
        .render(
            r=shown,
            head=HEAD,
            rows=cells(shown),
            sentences=sentences(shown),
            notes=notes(shown),
            settings=flatten(shown["settings"]),
            light=data_uri(plots.to_svg(light)),
            dark=data_uri(plots.to_svg(dark)),
            style=Markup(style_sheet()),  # ours
        )
    )
    write_text(folder / "probe.html", page)
    return folder / "probe.html"


def cells(result: Mapping[str, Any]) -> list[list[str]]:
    """The rows as text, in the order of `HEAD`."""
    return [
        [
            row["arm"],
            row["kind"],
            percent(row["rate"]),
            number(row["win_rate"]["value"], 3),
            interval(row["win_rate"]),
            p_text(row["p_value"]),
            p_text(row["p_adjusted"]),
            realised(row["kind"], row["dose"]),
            f"{row['win_rate']['num_scored']} / {row['win_rate']['num_total']}",
        ]
        for row in result["rows"]
    ]


def sentences(result: Mapping[str, Any]) -> list[str]:
    """What the trends and the contrasts say."""
    found: list[str] = []
    for entry in result["trends"]:
        trend = entry["trend"]
        if trend["value"] is not None:
            found.append(
                f"{entry['arm']}, {KINDS[entry['kind']]}: each percentage point of rate moves its win rate by "
                f"{number(trend['value'] / 100, 4)} {_per_point(trend)} (p {p_text(trend['p_value'])})."
            )
    for entry in result["contrasts"]:
        difference = entry["difference"]
        if difference["value"] is None:
            continue
        is_clear = entry["p_adjusted"] is not None and entry["p_adjusted"] < 0.05
        how = "better" if difference["value"] > 0 else "worse"
        verdict = (
            f"{entry['arm']} keeps its own quality {how} than {entry['against']}"
            if is_clear
            else f"no difference shown in how {entry['arm']} and {entry['against']} keep their own quality"
        )
        found.append(
            f"At {percent(entry['rate'])} {KINDS[entry['kind']]}, {verdict}: difference of win rates "
            f"{number(difference['value'], 3)} {interval(difference)}, adjusted p {p_text(entry['p_adjusted'])}."
        )
    return found


def _per_point(trend: Mapping[str, Any]) -> str:
    if trend["low"] is None or trend["high"] is None:
        return ""
    return f"[{number(trend['low'] / 100, 4)}, {number(trend['high'] / 100, 4)}]"


def notes(result: Mapping[str, Any]) -> list[str]:
    """What every figure rests on."""
    return [
        "Interventions: " + "; ".join(f"{kind}: {what}" for kind, what in KINDS.items()) + ".",
        f"Benchmark {result['benchmark']}, judged by {result['judge']}; {result['num_questions']} questions.",
        "Each arm is judged against its own undisturbed answers, in both orders; 0.5 means no change. The question is "
        "the unit: decoding seeds are averaged within it, intervals are BCa bootstraps over questions, p-values "
        "two-sided sign-flip tests, adjusted by Benjamini-Hochberg over all rows (over all contrasts for those).",
        "An arm whose undisturbed answers are poor has little to lose: read this beside a comparison of the arms.",
    ]


def markdown(result: Mapping[str, Any]) -> str:
    """The whole result in Markdown."""
    out = ["# Probe", ""]
    out += [f"> **Before you read on:** {markdown_text(text)}\n" for text in result["warnings"]]
    out += [markdown_row(HEAD), markdown_row(["---", "---", *["---:"] * (len(HEAD) - 2)])]
    out += [markdown_row([markdown_text(text) for text in row]) for row in cells(result)]
    out += ["", *(f"* {markdown_text(text)}" for text in sentences(result))]
    out += ["", *(markdown_text(text) for text in notes(result)), ""]
    return "\n".join(out)
