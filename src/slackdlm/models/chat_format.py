"""How is a turn written? LLaDA's headers, ChatML (Dream), or plain text for encoders.

A message is: ids that open it, a joint and the content encoded as text, an id that ends it, and ids
behind that. The special tokens are ids and never text.
"""

import re
from typing import NamedTuple

import jinja2
from transformers import PreTrainedTokenizerFast

from slackdlm.errors import ConfigError
from slackdlm.models.tokenizer import (
    BEGIN_OF_TEXT,
    CHATML_END,
    CHATML_START,
    END_HEADER,
    END_OF_TURN,
    ROLES,
    START_HEADER,
    encode_text,
    special_id,
)


class ChatFormat(NamedTuple):
    """What stands around the contents of a conversation."""

    begin: list[int]
    """Before the first message."""
    openings: dict[str, list[int]]
    """Before each message, by its role."""
    joint: str
    """Text between opening and content."""
    end_id: int
    """Ends a message; of a response it is the last id."""
    after: list[int]
    """Behind the end of a message."""
    default_system: str | None
    """System message of a conversation that has none."""


def chat_format(tokenizer: PreTrainedTokenizerFast) -> ChatFormat:
    r"""The format of a tokenizer's models, by the chat tokens it has.

    * LLaDA: ``<|startoftext|>``, then ``<|start_header_id|>role<|end_header_id|>\n\n`` content
      ``<|eot_id|>``.
    * ChatML (Dream): ``<|im_start|>role\n`` content ``<|im_end|>\n``; the system message that the
      tokenizer's own template gives a conversation without one.
    * Neither (encoders; ours): the class token if there is one, then ``User:\n`` content and the
      separator (``System:``, ``Assistant:``).

    Raises:
        ConfigError: If the tokenizer has none of these tokens, or only some of a format's.
    """
    if special_id(tokenizer, START_HEADER) is not None:
        return _llada(tokenizer)
    if special_id(tokenizer, CHATML_START) is not None:
        return _chatml(tokenizer)
    end = tokenizer.sep_token_id if tokenizer.sep_token is not None else tokenizer.eos_token_id
    if tokenizer.mask_token is None or end is None:
        raise ConfigError(
            f"tokenizer: expected chat tokens ({START_HEADER} or {CHATML_START}), or an encoder's "
            f"mask and separator tokens, found neither in its {len(tokenizer)} tokens; use a "
            "tokenizer of LLaDA, Dream or a masked language model, or one from train_tokenizer"
        )
    begin = tokenizer.cls_token_id if tokenizer.cls_token is not None else None
    return ChatFormat(
        begin=[] if begin is None else [int(str(begin))],
        openings={role: encode_text(tokenizer, f"{role.capitalize()}:") for role in ROLES},
        joint="\n",
        end_id=int(str(end)),
        after=[],
        default_system=None,
    )


def _llada(tokenizer: PreTrainedTokenizerFast) -> ChatFormat:
    start, end = _require(tokenizer, START_HEADER), _require(tokenizer, END_HEADER)
    return ChatFormat(
        begin=[_require(tokenizer, BEGIN_OF_TEXT)],
        openings={role: [start, *encode_text(tokenizer, role), end] for role in ROLES},
        joint="\n\n",
        end_id=_require(tokenizer, END_OF_TURN),
        after=[],
        default_system=None,
    )


def _chatml(tokenizer: PreTrainedTokenizerFast) -> ChatFormat:
    start = _require(tokenizer, CHATML_START)
    return ChatFormat(
        begin=[],
        openings={role: [start, *encode_text(tokenizer, role)] for role in ROLES},
        joint="\n",
        end_id=_require(tokenizer, CHATML_END),
        after=encode_text(tokenizer, "\n"),
        default_system=_default_system(tokenizer),
    )


def _default_system(tokenizer: PreTrainedTokenizerFast) -> str | None:
    if tokenizer.chat_template is None:
        return None
    try:
        text = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    except (jinja2.TemplateError, ArithmeticError, TypeError, ValueError) as error:
        raise ConfigError(
            f"tokenizer: its chat template cannot be used ({error}); copy the tokenizer again"
        ) from error
    pattern = rf"{re.escape(CHATML_START)}system\n(.*?){re.escape(CHATML_END)}"
    found = re.match(pattern, str(text), re.DOTALL)
    return found.group(1).strip() if found else None


def _require(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    token_id = special_id(tokenizer, token)
    if token_id is None:
        raise ConfigError(
            f"tokenizer: expected the chat token {token} beside the others of its format, found "
            f"none in its {len(tokenizer)} tokens; use the tokenizer that belongs to the weights"
        )
    return token_id
