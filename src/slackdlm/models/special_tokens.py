"""What are the special tokens called, and how do they write a chat where there is no template?"""

from typing import Literal, NamedTuple

from transformers import PreTrainedTokenizerFast

from slackdlm.errors import ConfigError

Role = Literal["system", "user", "assistant"]

BEGIN_OF_TEXT = "<|startoftext|>"
END_OF_TEXT = "<|endoftext|>"
START_HEADER = "<|start_header_id|>"
END_HEADER = "<|end_header_id|>"
END_OF_TURN = "<|eot_id|>"
MASK = "<|mdm_mask|>"
SLACK = "<slack>"
RESERVED = "<|reserved_token_0|>"
UNKNOWN = "<unk>"
CHATML_START, CHATML_END = "<|im_start|>", "<|im_end|>"
UNUSED = "[unused0]"
SPECIAL_TOKENS = (BEGIN_OF_TEXT, END_OF_TEXT, START_HEADER, END_HEADER, END_OF_TURN, MASK, SLACK)
NAMED_TOKENS = (*SPECIAL_TOKENS, RESERVED, UNUSED, CHATML_START, CHATML_END)
ROLES: tuple[Role, ...] = ("system", "user", "assistant")
ALL_ROLES = (*ROLES, "developer", "tool", "function", "ipython", "observation")


class SpecialTokens(NamedTuple):
    """What a family of models calls its special tokens."""

    mask: str
    """Stands where a token is to be predicted."""
    end: str
    """Ends a text, and pads behind it."""
    end_of_turn: str | None
    """Ends a turn, where the tokenizer has it."""
    unused: str | None
    """Stands for nothing yet, so that it becomes ``<slack>``."""


LLADA = SpecialTokens(MASK, END_OF_TEXT, END_OF_TURN, RESERVED)
DREAM = SpecialTokens("<|mask|>", END_OF_TEXT, CHATML_END, None)

# LLaDA's format. Its published template ends every conversation with an assistant header, asked for
# or not, which puts a second header behind a training sample's last turn; this one does not.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] | trim + '<|eot_id|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] | trim + '<|eot_id|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    "{% endif %}"
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
_LLADA = CHAT_TEMPLATE.replace("bos_token", repr(BEGIN_OF_TEXT))
# For a tokenizer without a template: chat tokens, of which the first decides, template and name.
_BUILT_IN = (
    ((START_HEADER, BEGIN_OF_TEXT, END_HEADER, END_OF_TURN), _LLADA, "LLaDA's headers"),
    ((CHATML_START, CHATML_END), _CHATML, "ChatML"),
)


def special_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int | None:
    """The id of a token by its exact name; None if the tokenizer has no such token."""
    token_id: int | None = tokenizer.backend_tokenizer.token_to_id(token)
    return token_id


def built_in(tokenizer: PreTrainedTokenizerFast) -> tuple[str, str]:
    """A template for a tokenizer that has none, by its chat tokens, and what it is called."""
    for tokens, template, name in _BUILT_IN:
        missing = [token for token in tokens if special_id(tokenizer, token) is None]
        if missing and tokens[0] not in missing:
            raise ConfigError(
                f"tokenizer: expected the chat token {missing[0]} beside the others of its format,"
                f" found none in its {len(tokenizer)} tokens; use the tokenizer that belongs to the"
                " weights"
            )
        if not missing:
            return template, name
    if tokenizer.mask_token is None or (tokenizer.sep_token or tokenizer.eos_token) is None:
        raise ConfigError(
            f"tokenizer: expected a chat template, chat tokens ({START_HEADER} or {CHATML_START}),"
            f" or an encoder's mask and separator, found none in its {len(tokenizer)} tokens;"
            " use a tokenizer of LLaDA, Dream or a masked language model, or one from"
            " train_tokenizer"
        )
    return _PLAIN, "User:, Assistant: and the separator"
