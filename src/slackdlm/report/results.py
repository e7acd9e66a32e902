"""What may a results file hold? Checking it, making its text safe to draw, and looking things up in it."""

import math
import unicodedata
from pathlib import Path
from typing import Any, Final, NamedTuple

from slackdlm.errors import DataError
from slackdlm.jsonl import as_object, read_json
from slackdlm.report.schema import SHAPE, check_shape

Results = dict[str, Any]

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


class Panel(NamedTuple):
    """One decoding set-up, un-intervened or not."""

    temperature: float
    steps: int


def checked(results: Results) -> Results:
    """The results with every section present and every string safe to draw.

    Control characters and lone surrogates become U+FFFD; numbers that are not finite become None.

    Raises:
        DataError: If a section or a key is missing or of the wrong type; names its place.
    """
    try:
        safe = clean(results)
        check_shape(safe, SHAPE)
    except RecursionError as error:
        raise DataError("results: nested too deeply") from error
    return safe


def load_results(file: Path) -> Results:
    """What a ``results.json`` holds, `checked`; every error names the file."""
    results = as_object(read_json(file, what="a results.json"), where=f"{file}: a results.json")
    if not results.keys() & {"title", "quality"}:
        raise DataError(
            f"{file}: holds no results of slackdlm demo; compare and probe write their own pages, beside this file"
        )
    try:
        return checked(results)
    except DataError as error:
        raise DataError(f"{file}: {error}") from error


def clean(value: Any) -> Any:
    """A value whose text is safe to draw, as `checked` makes it."""
    if isinstance(value, str):
        return drawable(value)
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def drawable(text: str) -> str:
    """Text with control characters and lone surrogates as U+FFFD."""
    return "".join("\ufffd" if _undrawable(char) else char for char in text)


def _undrawable(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t"


def arm_labels(results: Results) -> dict[str, str]:
    """Each arm's label by name, in the order of the file; arms met only in rows come last."""
    labels = {arm["name"]: arm["label"] for arm in results["arms"]}
    for section in ("quality", "win_rates", "training", "replays", "samples"):
        for row in results[section]:
            labels.setdefault(row["arm"], row["arm"])
    return labels


def temperatures(results: Results) -> list[float]:
    """The decoding temperatures, rising."""
    return sorted({row["temperature"] for row in results["quality"]})


def plain_rows(results: Results, temperature: float) -> list[dict[str, Any]]:
    """The un-intervened quality rows at one temperature, by steps and then by arm."""
    order = list(arm_labels(results))
    rows = [
        row
        for row in results["quality"]
        if row["kind"] == "none" and row["temperature"] == temperature
    ]
    return sorted(rows, key=lambda row: (row["steps"], order.index(row["arm"])))


def probed_panels(results: Results) -> list[Panel]:
    """The set-ups under which an intervention was measured, by temperature and then by steps."""
    rows = [*results["quality"], *results["win_rates"]]
    return sorted({Panel(r["temperature"], r["steps"]) for r in rows if r["kind"] != "none"})


def scored_range(estimates: list[dict[str, Any]]) -> str:
    """The questions scored behind some estimates, such as ``n = 256`` or ``n = 250 to 256``."""
    counts = [row["num_scored"] for row in estimates if row.get("value") is not None]
    if not counts:
        return "n = 0"
    low, high = min(counts), max(counts)
    return f"n = {low}" if low == high else f"n = {low} to {high}"
