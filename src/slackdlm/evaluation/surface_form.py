"""What does a collapse map take from a text? Trailing zeros, repeated characters and words, indentation, per answer.

A map that merges repeats (``graves``) turns ``1000`` into ``10`` and four blanks into one; ``slack`` must change
nothing. Every token that merging drops is looked at in its place, so that a loss shows whatever it is.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final, Literal, NamedTuple

from slackdlm.collapse import collapse
from slackdlm.errors import DataError
from slackdlm.evaluation.answers import read_turns
from slackdlm.evaluation.jsonl import get_list, get_text, read_rows, show
from slackdlm.evaluation.judgments import as_messages

Kind = Literal[
    "trailing zeros", "other digits", "indentation", "repeated words", "repeated characters"
]
KINDS: Final[tuple[Kind, ...]] = (
    "trailing zeros",
    "other digits",
    "indentation",
    "repeated words",
    "repeated characters",
)


class AnswerSurface(NamedTuple):
    """One turn of an answers file."""

    question_id: str
    turn: int
    system: str
    collapse: str
    """The map the answer was read with."""
    is_changed: bool
    """Whether its text is another than its canvas spells without merging anything."""
    would_change: bool
    """Whether merging repeats changes it."""
    dropped: dict[Kind, int]
    """Tokens that merging repeats drops, by kind."""
    spelled: str
    """What the canvas spells."""
    text: str
    """What the file says."""


def gold_texts(path: Path, *, column: str | None = None) -> list[str]:
    """Texts of a JSONL file: the named column; without one ``answer``, or every assistant turn of ``messages``.

    Raises:
        DataError: If the file or a line cannot be used; names file and line.
    """
    texts: list[str] = []
    for where, row in read_rows(path, what="gold answers"):
        if column is None and "messages" in row and "answer" not in row:
            turns = as_messages(row["messages"], where=f"{where}: 'messages'")
            said = [turn["content"] for turn in turns if turn["role"] == "assistant"]
            if not said:
                raise DataError(
                    f"{where}: expected an assistant's turn in 'messages'; there is none"
                )
            texts += said
        else:
            texts.append(get_text(row, column or "answer", where=where))
    return texts


def has_canvases(path: Path) -> bool:
    """Whether a file is our own ``answers.jsonl``, with the canvas beside each text."""
    _, first = next(iter(read_rows(path, what="answers")))
    return {"id", "turn", "system", "text", "canvas"} <= first.keys()


def check_answers(
    path: Path,
    decode: Callable[[Sequence[int]], str],
    *,
    slack_id: int,
    eos_ids: Sequence[int],
) -> list[AnswerSurface]:
    """Every turn of our own ``answers.jsonl``: what collapse changed, and what merging would.

    Args:
        path: The file; each line holds ``canvas``, ``text`` and ``settings.collapse``.
        decode: Token ids to text, as the answers were decoded.
        slack_id: Id of ``<slack>`` in the model that answered.
        eos_ids: Its end-of-text ids; the canvas counts up to the first.

    Raises:
        DataError: If the file or a line cannot be used.
    """
    found: list[AnswerSurface] = []
    for turn in read_turns(path):
        where = f"{path}: question {turn.question_id!a}, turn {turn.turn}"
        canvas = get_list(turn.row, "canvas", where=where)
        if not all(type(token) is int and 0 <= token < 2**31 for token in canvas):
            raise DataError(f"{where}: expected token ids in 'canvas', got {show(canvas)}")
        end = next((place for place, token in enumerate(canvas) if token in eos_ids), len(canvas))
        ids: list[int] = canvas[:end]
        settings = turn.row.get("settings")
        mode = settings.get("collapse", "slack") if isinstance(settings, dict) else "slack"
        spelled = decode(collapse(ids, slack_id=slack_id))
        merged = decode(collapse(ids, slack_id=slack_id, mode="graves"))
        found.append(
            AnswerSurface(
                question_id=turn.question_id,
                turn=turn.turn,
                system=turn.system,
                collapse=str(mode),
                is_changed=turn.text != spelled,
                would_change=merged != spelled,
                dropped=dropped_kinds(ids, decode, slack_id=slack_id),
                spelled=spelled,
                text=turn.text,
            )
        )
    return found


def dropped_kinds(
    ids: Sequence[int], decode: Callable[[Sequence[int]], str], *, slack_id: int
) -> dict[Kind, int]:
    """How many content tokens of each kind merging repeats drops from a canvas."""
    counts: Counter[Kind] = Counter()
    texts: dict[int, str] = {}

    def text(token: int) -> str:
        if token not in texts:
            texts[token] = decode([token])
        return texts[token]

    runs = [(token, sum(1 for _ in run)) for token, run in groupby(ids)]
    following = ""
    for token, length in reversed(runs):
        if token == slack_id:
            continue
        if length > 1:
            counts[_kind(text(token), following)] += length - 1
        following = text(token)
    return {kind: counts[kind] for kind in KINDS if counts[kind]}


def _kind(token: str, following: str) -> Kind:
    plain = token.strip()
    if plain.isdigit():
        zeros = set(plain) == {"0"} and not following[:1].isdigit()
        return "trailing zeros" if zeros else "other digits"
    if not plain:
        return "indentation"
    return "repeated words" if plain.isalpha() and len(plain) > 1 else "repeated characters"
