"""Questions and answers of every benchmark, and which published file a question file is."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from slackdlm.errors import DataError
from slackdlm.jsonl import add_once
from slackdlm.judgments import Messages

KNOWN_VERSIONS: Final[dict[str, str]] = {
    "a75cef6623db6b27aec810497b059f0659705d7ff48dcbccc5bd5b130728ac73": "arena-hard-v2.0",
    "2650242d2883f22b2abd498f273b6a7e02253cce533f5c91a858e1d44aa3002f": "arena-hard-v0.1",
    "119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7": "mt-bench",
}
"""sha256 of a published question file -> its version."""


@dataclass(frozen=True)
class Question:
    """One thing a benchmark asks."""

    id: str
    """The benchmark's own id, as text."""
    category: str | None
    """The benchmark's own category, where it has them."""
    messages: Messages
    """The chat up to where the answer begins; ends with a user's turn."""
    later_turns: tuple[str, ...] = ()
    """What the user says next, after each answer; MT-Bench has one such turn."""
    reference: tuple[str, ...] = ()
    """A reference answer per turn, where the benchmark's judge is shown one."""
    checklist: tuple[str, ...] = ()
    """What WildBench's judge is told to look at."""
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Whatever else the file held."""

    @property
    def prompt(self) -> str:
        """The last user turn of `messages`."""
        return self.messages[-1]["content"]


@dataclass(frozen=True)
class Answer:
    """One system's answer to one question."""

    question_id: str
    """Id of the question."""
    system: str
    """Whose answer it is."""
    turns: tuple[str, ...]
    """The text of each turn, at least one; an empty text is an answer too."""
    messages: Messages = ()
    """The chat it answers, in the formats that repeat it."""
    later_turns: tuple[str, ...] = ()
    """What the user said next, where the format repeats that too."""
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Whatever else the file held."""
    source: str = field(default="", compare=False)
    """The file it was read from, for messages."""

    @property
    def text(self) -> str:
        """The first turn."""
        return self.turns[0]


def check_asked(answer: Answer, question: Question, *, what: str) -> None:
    """DataError if the answer's file repeats what was asked and the question asks something else.

    Args:
        answer: Of the same id.
        question: The question.
        what: What the answers are, where no file is known.
    """
    if not answer.messages:
        return
    repeated = [*(turn["content"] for turn in answer.messages), *answer.later_turns]
    # Later turns may have no answer.
    later = question.later_turns[: len(answer.later_turns)]
    texts = [*(turn["content"] for turn in question.messages), *later]
    if repeated == texts:
        return
    was, now = next(
        pair for pair in zip_longest(repeated, texts, fillvalue="") if pair[0] != pair[1]
    )
    pairs = enumerate(zip(was, now, strict=False))
    same = next((n for n, (a, b) in pairs if a != b), min(len(was), len(now)))
    start = same - 20 if same > 40 else 0
    shown = [f"{'…' if start else ''}{text[start : start + 60]}" for text in (was, now)]
    raise DataError(
        f"{answer.source or what}: {answer.system!a} answers question {answer.question_id!a} as {shown[0]!a}, but the "
        f"question file has {shown[1]!a} there. It may have changed since (without ids a question's id is its line's "
        "number): use the file that was answered, or answer this one"
    )


def check_version(path: Path, version: str) -> None:
    """DataError unless the file is, byte for byte, the published version named."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    actual = KNOWN_VERSIONS.get(sha256, "a file of no known version")
    if actual != version:
        raise DataError(
            f"{path}: expected the published file of {version}, got {actual} (sha256 {sha256[:16]}…)"
        )


def unique(answers: list[Answer], *, path: Path) -> list[Answer]:
    """The answers; DataError if one system answers a question twice."""
    seen: set[tuple[str, str]] = set()
    for answer in answers:
        problem = (
            f"{path}: {answer.system!a} answers question {answer.question_id!a} twice; keep one"
        )
        add_once(seen, (answer.question_id, answer.system), problem)
    return answers


def unique_questions(questions: list[Question], *, path: Path) -> list[Question]:
    """The questions; DataError if two have one id."""
    seen: set[str] = set()
    for question in questions:
        add_once(seen, question.id, f"{path}: two questions have the id {question.id!a}; keep one")
    return questions
