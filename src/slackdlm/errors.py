"""The few exceptions users see. Each message says where, what was expected, what came, what to do."""


class SlackDLMError(Exception):
    """Base of every error this package raises on purpose; the command line prints it and exits 2."""


class ConfigError(SlackDLMError, ValueError):
    """A recipe, a flag or an argument is wrong."""


class DataError(SlackDLMError, ValueError):
    """A file or a sample the user gave cannot be used."""


class CheckpointError(SlackDLMError, ValueError):
    """A model folder or training checkpoint is missing, torn or of another run."""


def counted(number: int, noun: str) -> str:
    """``1 step``, ``2 steps``, ``2 processes``; the number with its thousands apart."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def one_line(text: object, *, longest: int = 160) -> str:
    """Text of unknown origin in a message: as it is if that is one short printable line, else escaped and cut."""
    shown = str(text)[: 4 * longest]
    if not shown.isprintable():
        shown = " ".join(shown.split())
        shown = shown if shown.isprintable() else ascii(shown)[1:-1]
    return shown if len(shown) <= longest else f"{shown[:longest]}…"
