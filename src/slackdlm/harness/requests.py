r"""What does a request of lm-eval ask? Its context and target as ids, its stop texts and lengths.

lm-eval hands conversations on as text. Ours travel as a JSON text behind a record separator (RFC 7464), so that what a
question says is never read as a special token, and no format has to be taken apart again.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from transformers import PreTrainedTokenizerFast

from slackdlm.errors import DataError
from slackdlm.models.chat import encode_opening, encode_prompt
from slackdlm.models.tokenizer import encode_text
from slackdlm.sampling.sampler import SamplerConfig

_CHAT = "\x1e"
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


class Stopping(NamedTuple):
    """Where an answer ends before the model ends it."""

    until: tuple[str, ...]
    """The answer ends before the first of these."""
    max_tokens: int | None
    """The answer has no more tokens than that."""


def render_chat(messages: Sequence[Mapping[str, str]]) -> str:
    """A conversation as the context of a request."""
    return _CHAT + json.dumps([dict(message) for message in messages], ensure_ascii=False)


def encode_context(tokenizer: PreTrainedTokenizerFast, context: str) -> list[int]:
    """Ids of a request's context.

    Plain text is encoded as it is, without special tokens. A conversation of :func:`render_chat` gets the model's
    format; if the assistant speaks last, it is asked to go on from there.

    Raises:
        DataError: If the text or a message cannot be encoded.
    """
    if not context.startswith(_CHAT):
        return encode_text(tokenizer, context)
    messages: list[dict[str, str]] = json.loads(context.removeprefix(_CHAT))
    if messages[-1]["role"] != "assistant":
        return encode_prompt(tokenizer, messages)
    return encode_prompt(tokenizer, messages[:-1]) + encode_opening(
        tokenizer, messages[-1]["content"]
    )


def encode_pair(
    tokenizer: PreTrainedTokenizerFast, context: str, target: str
) -> tuple[list[int], list[int]]:
    """Ids of a context and of the target behind it.

    In plain text both are cut as one text, as the model was trained: white space that ends the context belongs to the
    target, and so does a token that lies across the border. Behind a conversation the target is encoded by itself, as a
    response is in training.

    Raises:
        DataError: As for :func:`encode_context`.
    """
    if context.startswith(_CHAT):
        return encode_context(tokenizer, context), encode_text(tokenizer, target)
    before = encode_text(tokenizer, context.rstrip())
    whole = encode_text(tokenizer, context + target)
    common = 0
    while common < min(len(before), len(whole)) and before[common] == whole[common]:
        common += 1
    return whole[:common], whole[common:]


def read_stopping(arguments: Mapping[str, Any]) -> Stopping:
    """Stop texts and length of a generation request.

    Raises:
        DataError: If they are not texts or not a number.
    """
    until = arguments.get("until") or []
    texts = [until] if isinstance(until, str) else until
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"harness: expected 'until' to be a text or texts, got {until!r}")
    length = next((arguments[name] for name in _LENGTHS if arguments.get(name) is not None), None)
    if length is not None and (type(length) is not int or length < 1):
        raise DataError(f"harness: expected 'max_gen_toks' to be at least 1, got {length!r}")
    return Stopping(tuple(text for text in cast("list[str]", texts) if text), length)


def unused_settings(arguments: Mapping[str, Any], config: SamplerConfig) -> list[str]:
    """What a task asks of the generation and does not get: the sampler's settings decide."""
    temperature = float(arguments.get("temperature") or 0.0)
    if arguments.get("do_sample") is True and "temperature" not in arguments:
        temperature = 1.0
    if arguments.get("do_sample") is False:
        temperature = 0.0
    unused: list[str] = []
    if temperature != config.temperature:
        unused.append(f"temperature={temperature:g} (decoded with {config.temperature:g})")
    length = read_stopping(arguments).max_tokens
    if length is not None and length > config.canvas_length:
        unused.append(f"max_gen_toks={length} (the canvas has {config.canvas_length} positions)")
    known = {"until", "do_sample", "temperature", *_LENGTHS}
    return unused + [f"{k}={v}" for k, v in sorted(arguments.items()) if k not in known]


def stopped(text: str, until: Sequence[str]) -> str:
    """The text up to the first stop text."""
    starts = [start for stop in until if (start := text.find(stop)) >= 0]
    return text[: min(starts, default=len(text))]
