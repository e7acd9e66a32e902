"""Text of unknown origin on a terminal."""

from rich.text import Text


def printable(text: str) -> Text:
    """Model text for a terminal: no markup, and control characters shown instead of obeyed."""
    return Text("".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text))
