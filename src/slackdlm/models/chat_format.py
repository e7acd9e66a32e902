"""How is a conversation written? By the tokenizer's own chat template, else by one of ours.

Text and ids are those of ``tokenizer.apply_chat_template``, but that what spells a special token
in a message is text.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, cast

import jinja2
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from slackdlm.errors import ConfigError, DataError, one_line
from slackdlm.models.chat_tokens import TemplateTokens, unmarked
from slackdlm.models.special_tokens import built_in, special_id
from slackdlm.models.tokenizer import encode_text

_LOG = logging.getLogger(__name__)
# What a template raises by itself, and what Python raises in it.
_ERRORS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)

Message = Mapping[str, Any]
Tools = Sequence[Mapping[str, Any]]

_WORD, _QUESTION = "Zqw", {"role": "user", "content": "x"}
_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")


class _Frame(NamedTuple):
    """What stands around the content of an assistant's last turn."""

    prompt_end: str
    """Ends a prompt and is not written before a turn that is there (an empty thought)."""
    opening: str
    """The other way round."""
    tail: str
    """Behind the content."""
    end: str
    """Of the tail, what is learnt: up to its first special token; if it has none, one more."""


class ChatFormat:
    r"""The format of a tokenizer's models.

    * A tokenizer with a chat template: that template.
    * LLaDA's tokens: ``<|startoftext|>``, then ``<|start_header_id|>role<|end_header_id|>\n\n``
      content ``<|eot_id|>``.
    * ChatML's tokens (Dream): ``<|im_start|>role\n`` content ``<|im_end|>\n``.
    * Neither (encoders; ours): the class token if there is one, then ``User:\n`` content and the
      separator (``System:``, ``Assistant:``).

    Raises:
        ConfigError: If the tokenizer has none of these, only some tokens of a format, or a template
            that cannot be used.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._built_in: str | None = None
        if tokenizer.chat_template is None:
            self._built_in, name = built_in(tokenizer)
            self.description = f"built in ({name}), as the tokenizer has no chat template"
        else:
            self.description = f"the tokenizer's own chat template{_chosen(tokenizer)}"
        end = tokenizer.sep_token or tokenizer.eos_token
        self._end = "" if end is None else str(end)
        self._variables: dict[str, Any] = {"begin": tokenizer.cls_token or "", "end": self._end}
        self._variables |= tokenizer.special_tokens_map
        self._tokens = TemplateTokens(tokenizer)
        self._shapes: set[object] = set()
        try:
            self._render([_QUESTION], None, reply=True)
        except DataError as error:
            raise ConfigError(
                f"tokenizer: its chat template cannot be used ({error}); copy the tokenizer again"
            ) from error
        self._warn(str(tokenizer.chat_template))

    def _warn(self, template: str) -> None:
        named = dict.fromkeys(re.findall(r"<\|\w+\|>", template))
        unknown = [token for token in named if special_id(self._tokenizer, token) is None]
        if unknown:
            _LOG.warning(
                "the tokenizer's chat template writes %s, which its tokenizer reads as mere text;"
                " use the template of this tokenizer",
                ", ".join(unknown),
            )
        if "strftime_now" in template:
            self.description += ", which writes today's date"
            _LOG.warning(
                "the tokenizer's chat template writes today's date: prompts, and with them"
                " results, depend on the day"
            )

    def prompt(self, messages: Sequence[Message], tools: Tools | None) -> list[int]:
        """Ids of the messages and of what opens the assistant's turn."""
        mark, (marked, tools_) = self._tokens.mark([messages, tools])
        text, _ = self._written(marked, tools_, mark, reply=True)
        self._check_shape(messages, tools)
        return self._ids(text, mark, messages)

    def replies(
        self, messages: Sequence[Message], tools: Tools | None
    ) -> list[tuple[list[int], list[int]]]:
        """Ids of prompt and response of each of the assistant's turns."""
        mark, (marked, tools_) = self._tokens.mark([messages, tools])
        self._check_shape(messages, tools)
        turns: list[tuple[list[int], list[int]]] = []
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            prompt, reply = self._reply(marked[:index], marked[index], tools_, mark)
            prompt_ids = self._ids(prompt, mark, messages)
            ids = self._ids(prompt + reply, mark, messages)
            if ids[: len(prompt_ids)] != prompt_ids:  # tokens would join what decoding cannot
                ids = prompt_ids + self._ids(reply, mark, messages)
            turns.append((prompt_ids, ids[len(prompt_ids) :]))
        return turns

    @cached_property
    def end_of_turn(self) -> tuple[int | None, str]:
        """The special token that ends a response, and text before it that is no part of the answer.

        None and nothing if they are not there.
        """
        _, reply = self._reply([_QUESTION], {"role": "assistant", "content": _WORD}, None, None)
        tail = reply.partition(_WORD)[2]
        specials = list(self._tokens.spelled.finditer(tail))
        if not specials or specials[-1].end() < len(tail):
            return None, tail
        last = specials[-1]
        return self._tokens.id_of(last[0]), tail[: last.start()]

    @cached_property
    def trims(self) -> bool:
        """Whether the template takes white space from the start of a content."""
        reply = {"role": "assistant", "content": f" \n{_WORD}"}
        return not self.writes(f" \n{_WORD}", [_QUESTION, reply])

    @cached_property
    def quotes_arguments(self) -> bool:
        """Whether arguments of calls that are JSON text become a quoted string; warned of once."""
        call = {"name": "x", "arguments": f'{{"{_WORD}": 1}}'}
        reply = {"role": "assistant", "tool_calls": [{"type": "function", "function": call}]}
        quotes = self.writes(f'\\"{_WORD}', [_QUESTION, reply])
        if quotes:
            _LOG.warning(
                "tool_calls: the chat template quotes arguments that are text, so a model learns to"
                " quote them; give objects in place of JSON text"
            )
        return quotes

    def writes(self, word: str, messages: Sequence[Message], tools: Tools | None = None) -> bool:
        """Whether a word of messages or tools is written; not if the template refuses them."""
        try:
            return word in self._render(messages, tools)[0]
        except DataError:
            return False

    def _reply(
        self, history: Sequence[Message], turn: Message, tools: Tools | None, mark: str | None
    ) -> tuple[str, str]:
        """Prompt and what is learnt of a turn, with marks where they spell special tokens.

        Learnt is what the template's generation marks enclose, else the content and its end. A
        template may trim contents; what is to be learnt comes whole.
        """
        prompt, _ = self._written(history, tools, mark, reply=True)
        text, spans = self._written([*history, turn], tools, mark)
        content, shared = str(turn.get("content") or ""), _num_shared(prompt, text)
        stripped = content.strip()
        spans = [span for span in spans if span[1] > shared]
        if spans:
            start, end = spans[0][0], spans[-1][1]
            if text.startswith(prompt):
                start = max(start, len(prompt))
                prompt = text[:start]
            learnt = text[start:end]
            if learnt.startswith(stripped) and not learnt.startswith(content):
                learnt = content + learnt.removeprefix(stripped)
            return prompt, learnt
        frame = self._frame
        before = prompt.removesuffix(frame.prompt_end)
        if not text.startswith(before) or not text.endswith(frame.tail):
            raise DataError(
                "messages: the chat template writes an assistant's turn otherwise than it opens one"
            )
        body = text[len(before) : len(text) - len(frame.tail)]
        written = body.removeprefix(frame.opening)
        if body.startswith(frame.opening) and written.strip() == stripped:
            body = frame.opening + content
        return prompt, body.removeprefix(frame.prompt_end) + frame.end

    @cached_property
    def _frame(self) -> _Frame:
        prompt, _ = self._render([_QUESTION], None, reply=True)
        text, _ = self._render([_QUESTION, {"role": "assistant", "content": _WORD}], None)
        before, word, tail = text.partition(_WORD)
        shared = _num_shared(prompt, before)
        special = self._tokens.spelled.search(tail)
        end = tail[: special.end()] if special else tail + self._end
        if not word or not end:
            raise ConfigError(
                "tokenizer: its chat template cannot be trained with, since an assistant's turn "
                f"{'has no end' if word else 'is not written'}; use another tokenizer"
            )
        return _Frame(prompt[shared:], before[shared:], tail, end)

    def _check_shape(self, messages: Sequence[Message], tools: Tools | None) -> None:
        """DataError if the template leaves a message out; rendered once for each shape."""
        shape = (
            tuple((m["role"], bool(m.get("content")), *sorted(m)) for m in messages),
            tools is None,
        )
        if shape in self._shapes:
            return
        words = [f"Z{n}qw" if m.get("content") else "" for n, m in enumerate(messages)]
        named = [
            {**m, "content": word} if word else m for m, word in zip(messages, words, strict=True)
        ]
        text, _ = self._render(named, tools)
        for index, (message, word) in enumerate(zip(messages, words, strict=True)):
            if word not in text:
                beside = " beside its tool_calls" if "tool_calls" in message else ""
                raise DataError(
                    f"messages[{index}]: the tokenizer's chat template does not write the content"
                    f" of role {message['role']!r}{beside}; leave it out or use another tokenizer"
                )
        self._shapes.add(shape)

    def _render(
        self, messages: Sequence[Message], tools: Tools | None, *, reply: bool = False
    ) -> tuple[str, list[tuple[int, int]]]:
        """The text, and where what the assistant generates lies in it."""
        try:
            tokenizer: Any = self._tokenizer
            template = str(self._built_in or tokenizer.get_chat_template(tools=tools))
            [text], spans = cast(
                "tuple[list[str], list[list[tuple[int, int]]]]",
                render_jinja_template(
                    conversations=[[dict(message) for message in messages]],
                    tools=None if tools is None else [dict(tool) for tool in tools],
                    chat_template=template,
                    return_assistant_tokens_mask=_MARKS.search(template) is not None,
                    add_generation_prompt=reply,
                    **self._variables,
                ),
            )
        except _ERRORS as error:
            text = f"messages: the chat template refuses them: {one_line(error)}"
            raise DataError(text) from error
        return text, spans[0] if spans else []

    def _written(
        self,
        messages: Sequence[Message],
        tools: Tools | None,
        mark: str | None,
        *,
        reply: bool = False,
    ) -> tuple[str, list[tuple[int, int]]]:
        """As :meth:`_render`; marks must have changed nothing."""
        text, spans = self._render(messages, tools, reply=reply)
        if mark is not None:
            plain = unmarked([messages, tools], mark)
            if self._render(*plain, reply=reply)[0] != text.replace(mark, ""):
                raise DataError(
                    "messages: they spell special tokens, which the chat template treats in its own"
                    " way; remove them"
                )
        return text, spans

    def _ids(self, text: str, mark: str | None, messages: Sequence[Message]) -> list[int]:
        """Ids of a text; what cannot be encoded is said of the message it is in."""
        try:
            return self._tokens.ids(text, mark)
        except DataError:
            for index, message in enumerate(messages):
                try:
                    encode_text(self._tokenizer, str(message.get("content") or ""))
                except DataError as error:
                    raise DataError(f"messages[{index}]: {error}") from error
            raise


def chat_format(tokenizer: PreTrainedTokenizerFast) -> ChatFormat:
    """The format of a tokenizer's models; errors as for :class:`ChatFormat`."""
    return _chat_format(tokenizer, str(tokenizer.chat_template), len(tokenizer))


@lru_cache(maxsize=4)
def _chat_format(tokenizer: PreTrainedTokenizerFast, template: str, size: int) -> ChatFormat:
    """Made again for another template or vocabulary."""
    return ChatFormat(tokenizer)


def _chosen(tokenizer: PreTrainedTokenizerFast) -> str:
    """Of several named templates, which is used; nothing if there is one alone."""
    templates: object = tokenizer.chat_template
    if not isinstance(templates, dict):
        return ""
    names = [one_line(str(name)) for name in cast("dict[str, str]", templates)]
    tools = " (tool_use where there are tools)" if "tool_use" in names else ""
    chosen = f" 'default'{tools} of the {len(names)} it has: {', '.join(names)}"
    _LOG.warning("chat template: used is%s", chosen)
    return chosen


def _num_shared(first: str, second: str) -> int:
    """Characters at the start that two texts have in common."""
    if second.startswith(first):
        return len(first)
    pairs = enumerate(zip(first, second, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(first), len(second)))
