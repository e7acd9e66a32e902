"""A reply whose first token is all that counts, with the probabilities of what else it could have been."""

from collections.abc import Mapping
from typing import NamedTuple

from slackdlm.errors import DataError
from slackdlm.jsonl import as_object, dump, get_number, get_object, get_text, parse

NUM_ALTERNATIVES = 5
"""Likeliest tokens that are asked for, as AlpacaEval does."""


class FirstToken(NamedTuple):
    """What a judge said first."""

    token: str
    log_probs: Mapping[str, float]
    """Of the likeliest tokens, that one as a rule among them; natural logarithms."""


def write_first_token(said: FirstToken) -> str:
    """The text that journals and judgment files keep as the reply."""
    return dump({"token": said.token, "log_probs": dict(said.log_probs)})


def read_first_token(reply: str) -> FirstToken | None:
    """What `write_first_token` wrote; ``None`` for any other text."""
    where = "reply"
    try:
        row = as_object(parse(reply, where=where), where=where)
        told = get_object(row, "log_probs", where=where)
        return FirstToken(
            get_text(row, "token", where=where),
            {token: get_number(told, token, where=where) for token in told},
        )
    except DataError:
        return None
