"""Which dialogues are trained on? Rows in, encoded samples out, one per assistant turn."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from slackdlm.errors import DataError, counted
from slackdlm.models.chat import encode_dialogue, written_fields
from slackdlm.training.data_config import ColumnsConfig, Format
from slackdlm.training.dialogues import Dialogue, learnt, read_dialogue
from slackdlm.training.processes import this_process
from slackdlm.training.rows import read_rows

_LOG = logging.getLogger(__name__)
_NUM_NAMED = 5
_NUM_REASONS = 3


class Sample(NamedTuple):
    """One assistant turn and all that was said before it, as token ids."""

    prompt: Int[Tensor, " P"]
    """Left of the canvas; never masked."""
    response: Int[Tensor, " S"]
    """The target, end-of-turn token included."""
    source: str
    """Where it came from."""


def read_dialogues(
    name_or_path: str | Path,
    *,
    columns: ColumnsConfig | None = None,
    form: Format = "auto",
    split: str = "train",
    subset: str | None = None,
    streaming: bool = False,
    limit: int | None = None,
) -> list[Dialogue]:
    """Every dialogue of a data set: see :func:`slackdlm.training.rows.read_rows`.

    Args:
        name_or_path: Where the rows are.
        columns: Names of the columns, if they are to be read by name.
        form: What a row is, if they are not; see ``data.format``.
        split: Of a folder or a hub data set.
        subset: Configuration of a hub data set.
        streaming: Read a hub data set row by row.
        limit: At most so many.

    Returns:
        The dialogues in their order.

    Raises:
        DataError: If there is none, or a row cannot be read or in two ways; names file and line.
    """
    rows = read_rows(name_or_path, split=split, subset=subset, streaming=streaming, limit=limit)
    dialogues = [read_dialogue(row, columns=columns, form=form) for row in rows]
    if not dialogues:
        raise DataError(f"{name_or_path}: the file holds no dialogue")
    return dialogues


def encode_samples(
    dialogues: Iterable[Dialogue],
    tokenizer: PreTrainedTokenizerFast,
    *,
    name: str,
    max_prompt_length: int,
    canvas_length: int,
    max_unusable: float = 0.1,
) -> list[Sample]:
    """One sample per assistant turn that is to be learnt. Nothing is cut: what does not fit is left out and named.

    Args:
        dialogues: What :func:`read_dialogues` gave.
        tokenizer: Its chat tokens write the prompt.
        name: What these samples are, for messages.
        max_prompt_length: Longest prompt kept, in tokens.
        canvas_length: Longest response kept, in tokens, end of turn included.
        max_unusable: Largest share left out before it is an error.

    Returns:
        The samples in their order.

    Raises:
        DataError: If no sample or too few of them can be used; names the first that cannot. A row that is
            marked not to be learnt is no sample, and not one that cannot be used.
    """
    unusable: dict[str, list[str]] = {}
    encoded: list[Sample] = []
    for dialogue in dialogues:
        try:
            encoded += _samples_of(dialogue, tokenizer)
        except DataError as error:
            unusable.setdefault(str(error), []).append(dialogue.source)
    long_responses = [s for s in encoded if s.response.numel() > canvas_length]
    answered = [s for s in encoded if s.response.numel() <= canvas_length]
    long_prompts = [s for s in answered if s.prompt.numel() > max_prompt_length]
    samples = [s for s in answered if s.prompt.numel() <= max_prompt_length]
    total = len(encoded) + sum(map(len, unusable.values()))
    if not total:
        raise DataError(
            f"{name}: nothing is to be learnt: every row is marked weight: 0, train: false or the like"
        )
    num_left_out = total - len(samples)
    if not num_left_out:
        return samples
    report = f"{name}: {num_left_out} of {total} samples left out: " + "; ".join(
        [
            *_too_long("prompt", long_prompts, max_prompt_length),
            *_too_long("response", long_responses, canvas_length),
            *_cannot_be_used(unusable),
        ]
    )
    if samples and num_left_out <= max_unusable * total:
        if this_process().is_main_process:
            _LOG.warning("%s", report)
        return samples
    advice = " or ".join(
        what
        for what, concerned in (
            ("raise data.max_prompt_length", long_prompts),
            ("raise data.canvas_length", long_responses),
            ("repair these rows", unusable),
        )
        if concerned
    )
    verdict = (
        f"That is more than data.max_unusable ({max_unusable:g})" if samples else "None is left"
    )
    raise DataError(f"{report}. {verdict}; {advice}")


def num_shared(samples: Iterable[Sample], others: Iterable[Sample]) -> int:
    """How many of the samples are among the others too, prompt and response alike."""

    def key(sample: Sample) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return tuple(sample.prompt.tolist()), tuple(sample.response.tolist())

    keys = list(map(key, samples))
    shared = set(keys).intersection(map(key, others))
    return sum(own in shared for own in keys)


def _samples_of(dialogue: Dialogue, tokenizer: PreTrainedTokenizerFast) -> list[Sample]:
    written = written_fields(tokenizer)
    messages, are_learnt = learnt(dialogue, written)
    tools: dict[str, Any] = {"tools": dialogue.tools} if "tools" in written else {}
    turns = encode_dialogue(tokenizer, messages, **tools)
    samples = [
        Sample(
            prompt=torch.tensor(turn.prompt_ids, dtype=torch.long),
            response=torch.tensor(turn.response_ids, dtype=torch.long),
            source=dialogue.source,
        )
        for turn, is_learnt in zip(turns, are_learnt, strict=True)
        if is_learnt
    ]
    return samples


def fingerprint(samples: Sequence[Sample]) -> str:
    """SHA-256 of the token ids of all samples, in order: the data as the model sees it."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(json.dumps([sample.prompt.tolist(), sample.response.tolist()]).encode())
    return digest.hexdigest()


def _too_long(part: str, samples: Sequence[Sample], limit: int) -> list[str]:
    if not samples:
        return []
    longest = max(getattr(sample, part).numel() for sample in samples)
    names = _first([sample.source for sample in samples])
    number, most = counted(len(samples), part), counted(limit, "token")
    return [f"{number} above {most}, longest {longest} ({names})"]


def _cannot_be_used(sources_by_reason: Mapping[str, Sequence[str]]) -> list[str]:
    """The commonest reasons, each with the rows it holds for."""
    ordered = sorted(sources_by_reason.items(), key=lambda item: -len(item[1]))
    named = [
        f"{len(sources)} cannot be used, {reason} ({_first(sources)})"
        for reason, sources in ordered[:_NUM_REASONS]
    ]
    num_more = sum(len(sources) for _, sources in ordered[_NUM_REASONS:])
    return [*named, f"{num_more} cannot be used for other reasons"] if num_more else named


def _first(names: Sequence[str]) -> str:
    more = f", and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
    return ", ".join(names[:_NUM_NAMED]) + more
