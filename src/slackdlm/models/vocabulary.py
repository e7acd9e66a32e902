"""Which ids have a meaning, and is there a row for each? ``<slack>`` gets one if need be."""

from typing import Any, cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from slackdlm.errors import CheckpointError, one_line
from slackdlm.models.chat import end_of_turn
from slackdlm.models.loaded import LoadedModel
from slackdlm.models.special_tokens import SLACK, UNUSED, SpecialTokens, special_id


def encoder_tokens(tokenizer: PreTrainedTokenizerFast, *, where: str) -> SpecialTokens:
    """The tokens that an encoder's tokenizer names; CheckpointError if it has no mask or end."""
    mask, end = tokenizer.mask_token, tokenizer.sep_token or tokenizer.eos_token
    if mask is None or end is None:
        raise CheckpointError(
            f"{where}: expected a tokenizer with a mask_token and a sep_token or eos_token, got "
            f"mask_token {mask!r}, sep_token {tokenizer.sep_token!r} and eos_token "
            f"{tokenizer.eos_token!r}; use the tokenizer of a masked language model"
        )
    return SpecialTokens(str(mask), str(end), None, UNUSED)


def check_config_ids(
    config: Any, tokenizer: PreTrainedTokenizerFast, names: SpecialTokens, *, where: str
) -> None:
    """CheckpointError unless the special ids of a configuration are those of the tokenizer."""
    for key, token in (("mask_token_id", names.mask), ("pad_token_id", names.end)):
        configured, token_id = getattr(config, key), require_id(tokenizer, token, where=where)
        if configured != token_id:
            raise CheckpointError(
                f"{where}: {key} is {configured}, but {token} of the tokenizer is {token_id}; "
                "use the tokenizer that belongs to the weights"
            )
    if not listed_ends(config.eos_token_id, tokenizer, names, where=where):
        raise CheckpointError(f"{where}: eos_token_id is None; use {names.end} of the tokenizer")


def listed_ends(
    listed: object, tokenizer: PreTrainedTokenizerFast, names: SpecialTokens, *, where: str
) -> tuple[int, ...]:
    """The ids that a configuration calls ends: one, a list of them, or None.

    Raises:
        CheckpointError: If one is the mask, or no token that the tokenizer sets apart from text.
    """
    if listed is None:
        return ()
    ends = cast("list[object]", listed) if isinstance(listed, list) else [listed]
    # What the tokenizer sets apart from text, but for what cannot end anything.
    tokens = {names.end, *(str(token) for token in tokenizer.added_tokens_decoder.values())}
    ids = [special_id(tokenizer, t) for t in tokens - {names.mask, SLACK, names.unused}]
    for token_id in ends:
        if type(token_id) is not int or token_id not in ids:
            end_id = require_id(tokenizer, names.end, where=where)
            raise CheckpointError(
                f"{where}: eos_token_id is {one_line(listed, longest=80)}, but {names.end} of the"
                f" tokenizer is {end_id}, and {one_line(token_id, longest=40)} is no special token"
                " of it; use the tokenizer that belongs to the weights"
            )
    return tuple(cast("list[int]", ends))


def check_room(tokenizer: PreTrainedTokenizerFast, *, num_rows: int, where: str) -> None:
    """CheckpointError unless every id of the tokenizer has a row of the embedding."""
    largest = max(tokenizer.get_vocab().values())
    if largest >= num_rows:
        raise CheckpointError(
            f"{where}: the tokenizer has ids up to {largest}, but the embedding has only "
            f"{num_rows} rows; use the tokenizer that belongs to the weights"
        )


def require_id(tokenizer: PreTrainedTokenizerFast, token: str, *, where: str) -> int:
    """The id of a token a model cannot do without; CheckpointError if there is none."""
    token_id = special_id(tokenizer, token)
    if token_id is None:
        raise CheckpointError(
            f"{where}: expected the token {token}, found none in its tokenizer of"
            f" {len(tokenizer)} tokens; use the tokenizer of a masked diffusion model"
        )
    return token_id


def assemble(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    names: SpecialTokens,
    *,
    name: str,
    max_length: int,
    ends: tuple[int, ...] = (),
) -> LoadedModel:
    """Model and tokenizer with their ids; grows the vocabulary if ``<slack>`` has no row.

    ``ends`` end a response beside the ends of the text and of a turn.
    """
    end_id = require_id(tokenizer, names.end, where=name)
    turn_id = special_id(tokenizer, names.end_of_turn) if names.end_of_turn else None
    slack_id = _slack_id(model, tokenizer, unused=names.unused)
    known = (end_id, turn_id, end_of_turn(tokenizer)[0])
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        mask_id=require_id(tokenizer, names.mask, where=name),
        slack_id=slack_id,
        eos_ids=tuple(dict.fromkeys(i for i in (*known, *ends) if i is not None)),
        pad_id=end_id,
        name=name,
        max_length=max_length,
    )


def _slack_id(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, unused: str | None
) -> int:
    """The id of ``<slack>``, or of a token that is not used, or of one that is added here."""
    for token in (SLACK, unused):
        token_id = None if token is None else special_id(tokenizer, token)
        if token_id is not None:
            return token_id
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [SLACK]}, replace_extra_special_tokens=False
    )
    slack_id = require_id(tokenizer, SLACK, where="<slack>")
    embedding: Any = model.get_input_embeddings()
    if slack_id >= len(embedding.weight):
        _add_rows(model, slack_id + 1)
    return slack_id


@torch.no_grad()
def _add_rows(model: PreTrainedModel, num_rows: int) -> None:
    """Grow embedding and head; new rows are the mean of the old ones, so nothing is drawn."""
    embedding: Any = model.get_input_embeddings()
    num_old = len(embedding.weight)
    with torch.random.fork_rng(devices=[]):
        model.resize_token_embeddings(num_rows, mean_resizing=False)
    layers: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    for layer in layers:
        for rows in (layer.weight, getattr(layer, "bias", None)):
            if rows is not None:
                rows[num_old:] = rows[:num_old].float().mean(0).to(rows.dtype)
    # By this name PEFT would find the smaller model and save both matrices with every adapter.
    model.name_or_path = ""
