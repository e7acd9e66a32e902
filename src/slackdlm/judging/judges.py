"""Who judges? One call, one reply, whoever gives it; what a reply means is the protocol's to say.

Judged texts are untrusted: they reach a judge inside its prompt and are never parsed for a verdict themselves.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from slackdlm.errors import ConfigError, DataError
from slackdlm.journal import content_hash
from slackdlm.judging.thoughts import strip_thoughts
from slackdlm.judgments import Game, Grade, Messages
from slackdlm.records import Question

CUT_OFF: Final = "cut off: the reply reached the judge's limit of tokens; raise judge.max_tokens"
"""Why a reply has no verdict that was not finished for want of tokens: what was still to come might revise it."""
UNFINISHED: Final = "not finished"
"""How the reason begins where it was something else."""


class Call(NamedTuple):
    """One thing to judge."""

    messages: Messages
    """What a language model is sent."""
    question: Question
    answers: tuple[tuple[str, ...], ...]
    """The turns of each answer in the order shown: two answers to compare, or one to grade."""
    order: int
    """0, or 1 for the game with the answers swapped."""
    first_token: bool = False
    """Whether the reply is its first token, with the probabilities of the likeliest ones (`first_token`)."""


class Reply(NamedTuple):
    """What a judge said, its thoughts left out."""

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    """Thoughts included, as they are paid for."""
    usd: float | None = None
    """Cost; ``None`` if no price is known."""
    unfinished: str = ""
    """Why the judge stopped before its end, such as `CUT_OFF`; such a reply has no verdict, whatever it holds."""


class CallFailed(Exception):  # noqa: N818 - an outcome, recorded and reported, not an error of the user's
    """A call gave no reply."""

    def __init__(self, reason: str, *, again: bool) -> None:
        super().__init__(reason)
        self.again = again
        """Whether the same call may succeed a moment later."""


class Judge(ABC):
    """Anything that replies to calls; as it stands one on this machine: one call at a time, for nothing."""

    name: str
    """As result files name the judge."""
    settings: dict[str, Any]
    """All else that decides a reply; JSON, part of the identity of every judgment."""
    concurrency: int = 1
    """Calls at a time, each in a thread of its own."""
    gives_up_after: int | None = None
    """Calls failing in a row after which it is taken to be out of order; ``None``: never."""

    @abstractmethod
    def reply(self, call: Call) -> Reply:
        """The reply; raises `CallFailed` if there is none, ConfigError if there can never be one."""

    def worst_usd(self, call: Call) -> float | None:
        """About the most that a call can cost; ``None`` if no price is known."""
        return 0.0

    def close(self) -> None:  # noqa: B027 - most judges hold nothing open
        """Close what it holds open; it is asked no more."""


def estimate_tokens(messages: Messages) -> int:
    """A guess at the tokens of a prompt: a quarter of its UTF-8 bytes."""
    return -(-sum(len(turn["content"].encode("utf-8", "replace")) for turn in messages) // 4)


def why_unfinished(judgment: Game | Grade) -> str:
    """Why a judgment's reply was not finished; empty if it was, or nobody said."""
    error = str(judgment.extra.get("error", ""))
    return error if error.startswith((CUT_OFF, UNFINISHED)) else ""


class ExactJudge(Judge):
    """A function that judges by itself, such as a parser for a toy language.

    Args:
        name: Its name and version.
        function: From a question and the answers in the order shown to a reply that ends with a verdict.
    """

    def __init__(
        self, name: str, function: Callable[[Question, Sequence[Sequence[str]]], str]
    ) -> None:
        self.name = name
        self.settings = {"kind": "exact"}
        self._function = function

    def reply(self, call: Call) -> Reply:
        """What the function says; a text it cannot read is a failed call."""
        if call.first_token:
            raise ConfigError(
                f"judge {self.name}: says words, not probabilities of tokens; use --benchmark alpaca-eval-unweighted"
            )
        try:
            return Reply(self._function(call.question, call.answers), 0, 0, 0.0)
        except DataError as error:
            raise CallFailed(str(error), again=False) from error


class ReplayJudge(Judge):
    """Says again what was recorded for the same words in the same order.

    Args:
        name: The recorded judge's.
        judgments: Recorded judgments with prompts and replies. The prompt's last turn, which holds question and
            answers, is what identifies a call: older files keep no system prompt.

    Raises:
        DataError: If two different replies were recorded for the same words.
    """

    def __init__(self, name: str, judgments: Sequence[Game | Grade]) -> None:
        self.name = name
        self._replies: dict[str, str] = {}
        self._unfinished: dict[str, str] = {}
        for judgment in judgments:
            if not judgment.prompt or judgment.reply is None or judgment.status == "failed":
                continue
            order = judgment.order if isinstance(judgment, Game) else 0
            key = _replay_key(judgment.prompt, order)
            if self._replies.setdefault(key, judgment.reply) != judgment.reply:
                raise DataError(
                    f"replay: two replies to question {judgment.question_id!a} are recorded for the same words; "
                    "replay the judgments of one judge at a time"
                )
            if unfinished := why_unfinished(judgment):
                self._unfinished[key] = unfinished
        self.settings = {
            "kind": "replay",
            "recorded_sha256": content_hash([self._replies, self._unfinished]),
        }

    def reply(self, call: Call) -> Reply:
        """The recorded reply; a call never recorded fails."""
        key = _replay_key(call.messages, call.order)
        text = self._replies.get(key)
        if text is None:
            raise CallFailed("no reply is recorded for these words", again=False)
        return Reply(strip_thoughts(text), 0, 0, 0.0, self._unfinished.get(key, ""))


def _replay_key(messages: Messages, order: int) -> str:
    return content_hash([messages[-1]["content"], order])
