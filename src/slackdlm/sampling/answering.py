"""How is a file of questions answered? Journalled, in any number of processes, the same whatever happened on the way.

Every process takes every ``world_size``-th question. Who finds that all are answered writes the output, in the order of
the questions. Running the same command again answers what is missing; neither the number of processes nor the batch
size changes an answer; another kind of device may, so it answers anew.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from slackdlm.atomic import check_writable
from slackdlm.errors import ConfigError, DataError
from slackdlm.journal import Journal, item_key, journal_of
from slackdlm.jsonl import Row, write_rows
from slackdlm.models.identity import ModelIdentity, model_identity
from slackdlm.models.loaded import LoadedModel
from slackdlm.records import Question
from slackdlm.sampling.config import deciding, recorded
from slackdlm.sampling.sampler import Generation, Sampler


class Shard(NamedTuple):
    """Which share of the questions a process takes."""

    rank: int
    """From 0."""
    world_size: int
    """Processes in all, over all machines; they must see the same folder."""


ALONE = Shard(0, 1)
"""One process answers everything."""


class Unanswered(NamedTuple):
    """A turn of a question that could not be put to the model."""

    question_id: str
    turn: int
    error: str


class Answered(NamedTuple):
    """What is in the output."""

    output: Path
    num_questions: int
    """Questions of the file."""
    num_answers: int
    """Lines of the output: answered turns of all questions."""
    unanswered: list[Unanswered]
    """Turns without an answer; no line stands for them."""


class _Turn(NamedTuple):
    """One turn to answer."""

    row: int
    """Place of the question, which seeds the noise."""
    number: int
    """From 1."""
    messages: tuple[Mapping[str, str], ...]
    key: str
    """In the journal."""


def shard_from_environment(environment: Mapping[str, str] = os.environ) -> Shard:
    """The share that ``torchrun`` or ``accelerate launch`` gave this process, by RANK and WORLD_SIZE.

    Raises:
        ConfigError: If the two contradict each other.
    """
    rank, world_size = environment.get("RANK", "0"), environment.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and world_size.isdecimal() and int(rank) < int(world_size)):
        raise ConfigError(
            f"RANK={rank!r}, WORLD_SIZE={world_size!r}: expected numbers with 0 <= RANK < WORLD_SIZE; "
            "unset both, or use torchrun or accelerate launch"
        )
    return Shard(int(rank), int(world_size))


def check_output(output: Path) -> Path:
    """Where the answers to an output would be journalled; nothing is made.

    Raises:
        ConfigError: If the output could not be written in the end, or is a file that no journal stands for.
    """
    folder = journal_of(output)
    try:
        check_writable(output)
        check_writable(folder / "answers")
        if output.exists() and not folder.exists():
            raise FileExistsError(
                None, f"it exists and {folder.name} beside it, which made it, does not"
            )
    except OSError as error:
        raise ConfigError(
            f"{output}: cannot be written ({error.strerror}); give another --output"
        ) from error
    return folder


def answer_questions(
    sampler: Sampler,
    questions: Sequence[Question],
    output: Path,
    *,
    system: str | None = None,
    shard: Shard = ALONE,
    on_answers: Callable[[int], None] | None = None,
) -> Answered | None:
    """Answer every question and write ``answers.jsonl``.

    A row holds everything that decided the text: model, settings, seed, intervention, and the raw canvas beside it.
    Later turns are put to the model with its own answers before them.

    Args:
        sampler: The model and how it decodes.
        questions: What to ask, in order; a question's place seeds its noise.
        output: Where to write; replaced only when all answers are there. ``OUTPUT.journal`` keeps what is done.
        system: Name of this system in the file; the model's if not given.
        shard: Which questions this process takes.
        on_answers: Called with the number of turns of this process just finished, also those finished before.

    Returns:
        What was written and which questions have no answer; ``None`` if another process has yet to finish, which
        will write the output then.

    Raises:
        ConfigError: If the output cannot be written.
        DataError: If a journal beside the output cannot be used.
    """
    run = _Run(sampler, questions, Journal(check_output(output)))
    for number in range(1, 1 + max(1 + len(question.later_turns) for question in questions)):
        rows = range(shard.rank, len(questions), shard.world_size)
        turns = [turn for row in rows if (turn := run.turn(row, number)) is not None]
        run.journal.complete(
            {turn.key: turn for turn in turns},
            run.decode,
            batch_size=lambda _: sampler.config.batch_size,
            on_done=on_answers or (lambda _: None),
        )
    return run.write(output, system=system or sampler.loaded.name)


def decoding_identity(sampler: Sampler, model: ModelIdentity) -> Row:
    """Everything beside the prompt and its noise that decides a decoded text; the model's name does not."""
    return {
        "settings": deciding(recorded(sampler.config)),
        "intervention": None if sampler.intervention is None else dict(vars(sampler.intervention)),
        "model": {key: value for key, value in model.items() if key != "name"},
        "device": sampler.loaded.device.type,
    }


class _Run:
    """What decides the answers, and where they are kept."""

    def __init__(self, sampler: Sampler, questions: Sequence[Question], journal: Journal) -> None:
        self.sampler = sampler
        self.questions = questions
        self.journal = journal
        self.model = model_identity(sampler.loaded)
        self.identity = decoding_identity(self.sampler, self.model)

    def turn(self, row: int, number: int) -> _Turn | None:
        """One turn of a question; ``None`` if it has no such turn or the one before has no answer."""
        question = self.questions[row]
        if number > 1 + len(question.later_turns):
            return None
        messages = question.messages
        for text in question.later_turns[: number - 1]:
            before = self.journal.get(self._key(row, messages))
            if before is None or before.status != "ok":
                return None
            answer = {"role": "assistant", "content": before.payload["text"]}
            messages = (*messages, answer, {"role": "user", "content": text})
        return _Turn(row, number, messages, self._key(row, messages))

    def _key(self, row: int, messages: Sequence[Mapping[str, str]]) -> str:
        return item_key(self.identity, {"row": row, "prompt": [dict(m) for m in messages]})

    def decode(self, batch: Sequence[_Turn]) -> list[Row]:
        """An answer to each, or why there is none."""
        started = time.perf_counter()
        try:
            answers = self.sampler.generate(
                [[dict(message) for message in turn.messages] for turn in batch],
                row_ids=[turn.row for turn in batch],
            )
        except DataError as error:
            if len(batch) == 1:
                return [{"error": str(error)}]
            # One question of the batch cannot be asked: find it, and answer the others.
            return [payload for turn in batch for payload in self.decode([turn])]
        seconds = round((time.perf_counter() - started) / len(batch), 4)
        return [_payload(answer) | {"seconds": seconds} for answer in answers]

    def write(self, output: Path, *, system: str) -> Answered | None:
        """Write all answers, whoever found them; ``None`` if another process has yet to answer something."""
        unanswered: list[Unanswered] = []
        lines: list[Row] = []
        for row, question in enumerate(self.questions):
            for number in range(1, 2 + len(question.later_turns)):
                turn = self.turn(row, number)
                if turn is None:
                    error = "the turn before has no answer"
                    unanswered.append(Unanswered(question.id, number, error))
                    continue
                entry = self.journal.get(turn.key)
                if entry is None:
                    return None
                if entry.status == "failed":
                    unanswered.append(Unanswered(question.id, number, entry.payload["error"]))
                else:
                    lines.append(self._line(turn, question, entry.payload, system=system))
        write_rows(output, lines)
        return Answered(output, len(self.questions), len(lines), unanswered)

    def _line(self, turn: _Turn, question: Question, payload: Row, *, system: str) -> Row:
        return {
            "id": question.id,
            "category": question.category,
            "turn": turn.number,
            "system": system,
            "prompt": [dict(message) for message in turn.messages],
            **payload,
            "slack_share": _slack_share(self.sampler.loaded, payload["canvas"]),
            "seed": [self.sampler.config.seed, turn.row],
            "settings": recorded(self.sampler.config),
            "intervention": self.identity["intervention"],
            "model": self.model,
            "device": self.identity["device"],
        }


def _payload(answer: Generation) -> dict[str, Any]:
    return {
        "text": answer.text,
        "tokens": answer.tokens,
        "canvas": answer.canvas,
        "forwards": answer.num_forwards,
        "dose": answer.dose._asdict(),
    }


def _slack_share(loaded: LoadedModel, canvas: Sequence[int]) -> float | None:
    """Slack before the first end of text, as a share of those cells; ``None`` where there are none."""
    end = next((i for i, token in enumerate(canvas) if token in loaded.eos_ids), len(canvas))
    return canvas[:end].count(loaded.slack_id) / end if end else None
