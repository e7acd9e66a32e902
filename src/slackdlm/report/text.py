"""Numbers and names as readers see them; a missing value is a dash and never 0."""

import re
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

MISSING = "–"


@runtime_checkable
class Interval(Protocol):
    """What has two ends."""

    @property
    def low(self) -> float | None:
        """Lower end."""
        ...

    @property
    def high(self) -> float | None:
        """Upper end."""
        ...


def number(value: float | None, digits: int | None = None) -> str:
    """A number with fixed digits, a true minus and thin thousands."""
    if value is None:
        return MISSING
    if digits is None:
        size = abs(value)
        digits = 3 if size < 2 else 2 if size < 10 else 1 if size < 1000 else 0
    return f"{value:,.{digits}f}".replace(",", "\u2009").replace("-", "−")


def count(value: int | None) -> str:
    """A whole number."""
    return MISSING if value is None else number(value, 0)


def percent(rate: float | None) -> str:
    """A share as a percentage without needless zeros."""
    return MISSING if rate is None else f"{100 * rate:.3g} %"


def p_text(p_value: float | None) -> str:
    """A p-value."""
    if p_value is None:
        return MISSING
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def interval(estimate: Interval, digits: int | None = None) -> str:
    """An estimate's interval in brackets; empty where it has none."""
    if estimate.low is None or estimate.high is None:
        return ""
    if digits is None:
        size = max(abs(estimate.low), abs(estimate.high))
        digits = 3 if size < 2 else 2 if size < 10 else 1
    return f"[{number(estimate.low, digits)}, {number(estimate.high, digits)}]"


def markdown_row(texts: Iterable[str]) -> str:
    """One row of a Markdown table; the texts are escaped already."""
    return "| " + " | ".join(texts) + " |"


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|#&!$~])", r"\\\1", " ".join(text.split()))
