"""Text of unknown origin, and tables, on a terminal."""

import re
import unicodedata
from collections.abc import Collection, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_GAP = 2
_FIGURE = 8


def printable(text: str) -> Text:
    """Model text for a terminal: no markup, and control characters shown instead of obeyed."""
    return Text("".join(c if _is_harmless(c) else ascii(c)[1:-1] for c in text))


def _is_harmless(char: str) -> bool:
    return char.isprintable() or char in "\n\t" or unicodedata.category(char) == "Zs"


def table(
    title: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    words: Collection[str] = (),
    width: int,
) -> Group:
    """A table whose cells break between words, as long as the longest words fit side by side.

    Args:
        title: Printed above, flush left.
        headings: One per column.
        rows: Cells, one per column; of any origin.
        words: Headings of the columns that are flush left; the others are figures.
        width: Of the terminal, in characters.

    Returns:
        For ``rich`` to print.
    """
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    columns = [[printable(text) for text in column] for column in zip(headings, *rows, strict=True)]
    widths = _widths(columns, room=width - _GAP * len(columns))
    for column, heading, chars in zip(columns, headings, widths, strict=True):
        justify = "left" if heading in words else "right"
        grid.add_column(column[0], justify=justify, overflow="fold", width=chars)
    for cells in zip(*(column[1:] for column in columns), strict=True):
        grid.add_row(*cells)
    return Group(printable(title), grid)


def progress(*fields: str, transient: bool = False) -> Progress:
    """Bars on standard error: what, how far, how many, time left, then these fields of the task."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        *(TextColumn(f"{{task.fields[{name}]}}") for name in fields),
    )
    return Progress(*columns, console=Console(stderr=True), transient=transient)


def _widths(columns: Sequence[Sequence[Text]], *, room: int) -> list[int | None]:
    """What may not break, then whole cells from the narrowest on; None: folded as needed."""
    widths = [
        max([_longest_word(head.plain), *(_unbroken(text.plain) for text in cells)])
        for head, *cells in columns
    ]
    wanted = [max(text.cell_len for text in column) for column in columns]
    spare = room - sum(widths)
    if spare < 0:
        return [None] * len(columns)
    for i in sorted(range(len(columns)), key=lambda i: wanted[i] - widths[i]):
        more = min(max(wanted[i] - widths[i], 0), spare)
        widths[i] += more
        spare -= more
    return list(widths)


def _unbroken(text: str) -> int:
    """Of a cell: a figure such as ``< 0.001`` stays on one line."""
    return max(cell_len(text), 1) if cell_len(text) <= _FIGURE else _longest_word(text)


def _longest_word(text: str) -> int:
    words: list[str] = re.findall(r"\([^ ]* %\)|\S+", text)
    return max(map(cell_len, words), default=1)
