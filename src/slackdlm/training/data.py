"""Which dialogues are trained on? JSONL in, encoded samples out, one per assistant turn."""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from slackdlm.errors import DataError
from slackdlm.models.chat import encode_dialogue

_LOG = logging.getLogger(__name__)


class Dialogue(NamedTuple):
    """One line of a data file."""

    messages: list[dict[str, Any]]
    """Turns with ``role`` and ``content``, as the file has them; checked where they are encoded."""
    source: str
    """``file:line``, for messages."""


class Sample(NamedTuple):
    """One assistant turn and all that was said before it, as token ids."""

    prompt: Int[Tensor, " P"]
    """Left of the canvas; never masked."""
    response: Int[Tensor, " S"]
    """The target, end-of-turn token included."""
    source: str
    """Where it came from."""


def read_dialogues(path: str | Path, *, prompt: str | None, response: str | None) -> list[Dialogue]:
    """Every dialogue of a JSONL file.

    Args:
        path: One JSON object a line: ``messages``, or a prompt and a response column.
        prompt: Name of the prompt column; None: autodetect ``messages`` or ``prompt``.
        response: Name of the response column; None: ``response``.

    Returns:
        The dialogues in file order; blank lines are skipped.

    Raises:
        DataError: If the file is missing or empty, or a line cannot be used; names file and line.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{file}: there is no such data file")
    dialogues: list[Dialogue] = []
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            source = f"{file}:{number}"
            try:
                row: object = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{source}: not valid JSON ({error.msg})") from error
            dialogues.append(_dialogue(row, prompt=prompt, response=response, source=source))
    if not dialogues:
        raise DataError(f"{file}: the file holds no dialogue")
    return dialogues


def encode_samples(
    dialogues: Sequence[Dialogue],
    tokenizer: PreTrainedTokenizerFast,
    *,
    name: str,
    max_prompt_length: int,
    canvas_length: int,
) -> list[Sample]:
    """One sample per assistant turn; those that do not fit are left out, counted and logged.

    Args:
        dialogues: What :func:`read_dialogues` gave.
        tokenizer: Its chat template writes the prompt.
        name: What these samples are, for messages.
        max_prompt_length: Longest prompt kept, in tokens.
        canvas_length: Longest response kept, in tokens, end of turn included.

    Returns:
        The samples in file order.

    Raises:
        DataError: If a dialogue cannot be encoded (names file and line), or no sample or fewer than
            half of them fit.
    """
    samples: list[Sample] = []
    prompt_lengths: list[int] = []
    response_lengths: list[int] = []
    for dialogue in dialogues:
        try:
            turns = encode_dialogue(tokenizer, dialogue.messages)
        except DataError as error:
            raise DataError(f"{dialogue.source}: {error}") from error
        for turn in turns:
            sample = Sample(
                prompt=torch.tensor(turn.prompt_ids, dtype=torch.long),
                response=torch.tensor(turn.response_ids, dtype=torch.long),
                source=dialogue.source,
            )
            prompt_lengths.append(sample.prompt.numel())
            response_lengths.append(sample.response.numel())
            if prompt_lengths[-1] <= max_prompt_length and response_lengths[-1] <= canvas_length:
                samples.append(sample)
    dropped = len(prompt_lengths) - len(samples)
    report = (
        f"{name}: {dropped} of {len(prompt_lengths)} samples are too long and left out:"
        f" {sum(length > max_prompt_length for length in prompt_lengths)} prompts above"
        f" {max_prompt_length} tokens (longest {max(prompt_lengths, default=0)}),"
        f" {sum(length > canvas_length for length in response_lengths)} responses above"
        f" {canvas_length} (longest {max(response_lengths, default=0)})"
    )
    if not samples or dropped > len(samples):
        raise DataError(f"{report}; raise data.max_prompt_length or data.canvas_length")
    if dropped:
        _LOG.warning("%s", report)
    return samples


def fingerprint(samples: Sequence[Sample]) -> str:
    """SHA-256 of the token ids of all samples, in order: the data as the model sees it."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(json.dumps([sample.prompt.tolist(), sample.response.tolist()]).encode())
    return digest.hexdigest()


def _dialogue(row: object, *, prompt: str | None, response: str | None, source: str) -> Dialogue:
    if not isinstance(row, dict):
        raise DataError(f"{source}: expected a JSON object, got {type(row).__name__}")
    columns = cast("dict[str, Any]", row)
    if prompt is None and "messages" in columns:
        messages = columns["messages"]
        if not isinstance(messages, list) or not all(isinstance(turn, dict) for turn in messages):
            raise DataError(f"{source}: expected a list of turns in 'messages'")
        return Dialogue(cast("list[dict[str, Any]]", messages), source)
    turns = {"user": prompt or "prompt", "assistant": response or "response"}
    for column in turns.values():
        if not isinstance(columns.get(column), str):
            raise DataError(
                f"{source}: expected text in column {column!r}; the columns are"
                f" {', '.join(map(repr, columns))}; set data.columns"
            )
    return Dialogue([{"role": r, "content": columns[c]} for r, c in turns.items()], source)
