"""How are conversations written where a tokenizer has no chat template? By the chat tokens it has."""

from transformers import PreTrainedTokenizerFast

from slackdlm.errors import ConfigError
from slackdlm.models.tokenizer import (
    BEGIN_OF_TEXT,
    CHAT_TEMPLATE,
    CHATML_END,
    CHATML_START,
    END_HEADER,
    END_OF_TURN,
    START_HEADER,
    special_id,
)

_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_PLAIN = (
    "{{ begin }}{% for message in messages %}"
    "{{ message['role'] | capitalize + ':\\n' + message['content'] + end }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:\\n' }}{% endif %}"
)


def built_in(tokenizer: PreTrainedTokenizerFast) -> tuple[str, str]:
    """The template for a tokenizer that has none, and what it is called.

    Raises:
        ConfigError: If it has none of the tokens that one is made for, or only some.
    """
    if special_id(tokenizer, START_HEADER) is not None:
        _require(tokenizer, BEGIN_OF_TEXT, END_HEADER, END_OF_TURN)
        template, name = CHAT_TEMPLATE.replace("bos_token", repr(BEGIN_OF_TEXT)), "LLaDA's headers"
    elif special_id(tokenizer, CHATML_START) is not None:
        _require(tokenizer, CHATML_END)
        template, name = _CHATML, "ChatML"
    elif tokenizer.mask_token is not None and end_token(tokenizer) is not None:
        template, name = _PLAIN, "User:, Assistant: and the separator"
    else:
        raise ConfigError(
            f"tokenizer: expected a chat template, chat tokens ({START_HEADER} or {CHATML_START}), or"
            f" an encoder's mask and separator tokens, found none in its {len(tokenizer)} tokens; use a"
            " tokenizer of LLaDA, Dream or a masked language model, or one from train_tokenizer"
        )
    return template, f"built in ({name}), as the tokenizer has no chat template"


def end_token(tokenizer: PreTrainedTokenizerFast) -> str | None:
    """The tokenizer's own token for the end of a text."""
    end = tokenizer.sep_token or tokenizer.eos_token
    return None if end is None else str(end)


def _require(tokenizer: PreTrainedTokenizerFast, *tokens: str) -> None:
    for token in tokens:
        if special_id(tokenizer, token) is None:
            raise ConfigError(
                f"tokenizer: expected the chat token {token} beside the others of its format, found "
                f"none in its {len(tokenizer)} tokens; use the tokenizer that belongs to the weights"
            )
