"""Files that a program must survive: valid ones of every kind, and ways to spoil them."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from hypothesis import strategies as st

from slackdlm.errors import SlackDLMError

LONGEST_MESSAGE = 400
"""Characters of an error, without the file's folder."""
LONGEST_SECONDS = 20

Syntax = Literal["json", "jsonl", "yaml", "text"]


class Kind(NamedTuple):
    """One kind of input: a valid file, what reads it, and what holds of anything it accepts."""

    name: str
    syntax: Syntax
    content: bytes
    read: Callable[[Path], Any]
    place: Callable[[Path], Path]
    """Makes a folder in which the file lies beside whatever it needs; gives the file."""
    check: Callable[[bytes, Any], None]
    """Raises AssertionError if what was read is not what the spoilt bytes say."""
    sample: int = 40
    """How many of it the suite tries."""


class Outcome(NamedTuple):
    """What became of one input."""

    refused: bool
    message: str
    seconds: float


WILD_TEXTS = (
    "", " ", "A>B", "ok", "tie", "-1", "7", "nan", "1e5", "on", "no", "null", "~", "\ud800", "\x00", "\x1b[31m",
    "a\nb\r\nc", "../../etc/passwd", "\u202e", "x" * 5000, "0x10", "1_000", "1:30", "010", "=", "<<", "*a", "\ufeff",
)  # fmt: skip
WILD_NUMBERS = (
    0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 1e308, -0.0, 1e-320, 0.5, float("nan"), float("inf"), -float("inf"),
)  # fmt: skip
wild = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-10, 300)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(WILD_NUMBERS)
    | st.text(max_size=6)
    | st.sampled_from(WILD_TEXTS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(9 * ['*' + a])}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
DOCUMENTS = (
    "", "\n\n", " ", "null", "[]", "{}", "0", '"text"', "true", "NaN", "[" * 100_000, '{"a":' * 50_000,
    "9" * 5000,
    "x" * 1_000_000, "\x00" * 100, "\ufeff", "---\n---\n", "&a [*a]", "a: &a {b: *a}", "? [1, 2]\n: 3\n", LAUGHS,
    "!!python/object/apply:os.system ['true']", "!!python/name:os.system",
    "!!binary x", "2001-99-99", "%YAML 9.9\n---\n",
    "<<: 1", "a: !!int x", "\t- x", "a: [", "- - - -", "{\x1b[31m: 1}", "!!set {a, b}", "=", "a: =",
    "1:30", ": ", "[[1]]: 2",
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path into a JSON value."""
    found = [path]
    if isinstance(value, dict | list):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in entries:
            found += places(inner, (*path, key))
    return found


def changed(value: Any, path: tuple[Any, ...], new: Any, how: str) -> Any:
    """A copy with the value at a path replaced, removed, given twice or under another name."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    key = path[0]
    if len(path) > 1 or how == "replace":
        copy[key] = changed(value[key], path[1:], new, how)
    elif how == "remove":
        del copy[key]
    elif how == "twice" and isinstance(copy, dict):
        copy = {f"\ue000{key}": new} | copy
    elif how == "rename" and isinstance(copy, dict):
        copy[f"{key}x" if isinstance(new, bool) else str(new)[:40]] = copy.pop(key)
    else:
        copy[key] = new
    return copy


def dumped(value: Any, syntax: Syntax) -> bytes:
    """As text; keys that begin with U+E000 lose it, so that a key can stand twice."""
    if syntax == "yaml":
        text = yaml.safe_dump(value, allow_unicode=True, sort_keys=False)
    else:
        text = json.dumps(value, ensure_ascii=False)
    return text.replace("\ue000", "").replace('"\\ue000', '"').encode("utf-8", "surrogatepass")


def parsed(content: bytes, syntax: Syntax) -> Any:
    """The valid value of a file; a list of rows for JSONL."""
    text = content.decode()
    if syntax == "jsonl":
        return [json.loads(line) for line in text.split("\n") if line]
    return yaml.safe_load(text) if syntax == "yaml" else json.loads(text)


@st.composite
def spoilt(draw: st.DrawFn, content: bytes, syntax: Syntax) -> bytes:
    """The bytes of a file that was valid: one value changed, bytes damaged, or another document altogether."""
    way = draw(st.sampled_from(("value", "value", "value", "value", "bytes", "whole")))
    if way == "whole":
        document = draw(st.sampled_from(DOCUMENTS)).encode()
        return draw(st.sampled_from((document, document + content, content + document)))
    if way == "bytes":
        return _damaged(draw, content)
    if syntax == "text":
        key, sign, _ = content.partition(b"=")
        new = draw(wild)
        text = new if isinstance(new, str) else json.dumps(new)
        return key + sign + text.encode("utf-8", "surrogatepass")
    value = parsed(content, syntax)
    if syntax != "jsonl":
        return dumped(_one_changed(draw, value), syntax)
    row = draw(st.integers(0, len(value) - 1))
    lines = [dumped(one, "json") for one in value]
    lines[row] = dumped(_one_changed(draw, value[row]), "json")
    return b"\n".join(lines) + b"\n"


def _one_changed(draw: st.DrawFn, value: Any) -> Any:
    path = draw(st.sampled_from(places(value)))
    how = draw(st.sampled_from(("replace", "replace", "replace", "remove", "twice", "rename")))
    return changed(value, path, draw(wild), how)


def _damaged(draw: st.DrawFn, content: bytes) -> bytes:
    how = draw(st.sampled_from(("edit", "edit", "cut", "bom", "crlf", "utf-16", "latin", "double")))
    if how == "cut":
        return content[: draw(st.integers(0, len(content)))]
    if how == "edit":
        spoilt_bytes = bytearray(content)
        for _ in range(draw(st.integers(1, 4))):
            place = draw(st.integers(0, len(spoilt_bytes)))
            length = draw(st.integers(0, 3))
            spoilt_bytes[place : place + length] = draw(st.binary(max_size=3))
        return bytes(spoilt_bytes)
    return {
        "bom": b"\xef\xbb\xbf" + content,
        "crlf": content.replace(b"\n", b"\r\n"),
        "utf-16": content.decode().encode("utf-16"),
        "latin": content.replace(b"e", b"\xe9"),
        "double": content + content,
    }[how]


def attempt(kind: Kind, file: Path, content: bytes) -> Outcome:
    """Read spoilt bytes: they are refused with one short message, or what comes of them holds.

    Raises:
        AssertionError: If the message is unfit or what was read is wrong.
    """
    file.write_bytes(content)
    started = time.perf_counter()
    with time_limit(LONGEST_SECONDS):
        try:
            found = kind.read(file)
        except SlackDLMError as error:
            message = str(error)
        else:
            kind.check(content, found)
            return Outcome(False, "", time.perf_counter() - started)
    seconds = time.perf_counter() - started
    check_message(message, file)
    return Outcome(True, message, seconds)


def check_message(message: str, file: Path) -> None:
    """One line, not too long, safe to print, that names the file or its folder."""
    named = message.startswith("--set") or file.name in message or file.parent.name in message
    assert named, message
    short = message.replace(str(file.parent), "")
    assert len(short) <= LONGEST_MESSAGE, (len(short), short[:600])
    assert message.isprintable(), message


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """AssertionError after so many seconds of computing, or ten times as many of any kind."""

    def ring(*_: object) -> None:
        raise AssertionError(f"still running after {seconds} s")

    old = [signal.signal(number, ring) for number in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(10 * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        signal.signal(signal.SIGPROF, old[0])
        signal.signal(signal.SIGALRM, old[1])
