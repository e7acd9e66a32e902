"""Questions in, answers out: JSONL files, one object a line, written whole or not at all."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

from slackdlm.errors import DataError
from slackdlm.models.loading import LoadedModel
from slackdlm.sampling.intervention import ShiftIntervention
from slackdlm.sampling.sampler import Prompt, Sampler, SamplerConfig


class Question(NamedTuple):
    """One thing to ask."""

    id: str | int
    """From the file's ``id``, or the line number counted from 0."""
    prompt: Prompt
    """A text, or a chat that ends with a user's turn."""


def read_questions(
    path: Path, *, column: str = "prompt", first: int | None = None
) -> list[Question]:
    """Questions of a JSONL file.

    Args:
        path: One object a line, with ``messages`` or the named column, and optionally ``id``.
        column: Column of the question's text where there are no ``messages``.
        first: How many to read; all if not given.

    Raises:
        DataError: If the file is missing or empty, or a line cannot be used; names file and line.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such question file")
    questions: list[Question] = []
    # Not splitlines: U+2028 inside a JSON string ends no line of the file.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if first is not None and len(questions) == first:
            break
        if not line.strip():
            continue
        try:
            row: object = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not valid JSON ({error.msg})") from error
        columns = cast("dict[str, Any]", row) if isinstance(row, dict) else {}
        prompt = columns.get("messages", columns.get(column))
        if not isinstance(prompt, str | list) or not prompt:
            raise DataError(
                f"{path}:{number}: expected a text in column {column!r} or a list in 'messages'"
            )
        questions.append(Question(columns.get("id", number - 1), prompt))
    if not questions:
        raise DataError(f"{path}: the file holds no question")
    return questions


def write_answers(
    loaded: LoadedModel,
    questions: Sequence[Question],
    config: SamplerConfig,
    file: Path,
    *,
    intervention: ShiftIntervention | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> None:
    """Answer every question and write ``answers.jsonl``.

    A row holds everything that decided the text: model, settings, seed, intervention, and the raw canvas beside it.

    Args:
        loaded: The model.
        questions: What to ask, in order; a question's place seeds its noise.
        config: How to decode.
        file: Where to write; replaced only when all answers are there.
        intervention: Optional intervention.
        on_batch: Called with the number of answers just finished.
    """
    started = time.perf_counter()
    sampler = Sampler(loaded, config, intervention)
    answers = sampler.generate([question.prompt for question in questions], on_batch=on_batch)
    seconds = time.perf_counter() - started
    settings = asdict(config)
    probe = None if intervention is None else vars(intervention)
    model = {"name": loaded.name, "sha256": weights_sha256(loaded)}
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    with part.open("w", encoding="utf-8") as stream:
        for question, answer in zip(questions, answers, strict=True):
            row = {
                "id": question.id,
                "prompt": question.prompt,
                "text": answer.text,
                "tokens": answer.tokens,
                "canvas": answer.canvas,
                "forwards": answer.num_forwards,
                "dose": answer.dose._asdict(),
                "settings": settings,
                "intervention": probe,
                "model": model,
                "seconds": round(seconds / len(questions), 4),
            }
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    part.replace(file)


def weights_sha256(loaded: LoadedModel) -> str:
    """Hash of all weights, names and types: what the model is, wherever it was loaded from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(loaded.model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(
            tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()
