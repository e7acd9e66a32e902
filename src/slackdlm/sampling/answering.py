"""How is a file of questions answered? Journalled, in any number of processes, the same whatever happened on the way.

Every process keeps a journal of its own beside the output and takes every ``world_size``-th question. The last one to
finish writes the output, in the order of the questions. Running the same command again answers what is missing; neither
the number of processes nor the batch size changes an answer; another kind of device may, so it answers anew.
"""

import os
import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from slackdlm.atomic import check_writable
from slackdlm.errors import ConfigError, DataError
from slackdlm.journal import Entry, Journal, item_key
from slackdlm.jsonl import Row, write_rows
from slackdlm.models.identity import model_identity
from slackdlm.models.loaded import LoadedModel
from slackdlm.records import Question
from slackdlm.sampling.config import deciding, recorded
from slackdlm.sampling.intervention import ShiftIntervention
from slackdlm.sampling.sampler import Generation, Sampler, SamplerConfig


class Shard(NamedTuple):
    """Which share of the questions a process takes."""

    rank: int
    """From 0."""
    world_size: int
    """Processes in all, over all machines; they must see the same folder."""

    @property
    def name(self) -> str:
        """Stem of its files."""
        return f"{self.rank}-of-{self.world_size}"


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


class _Item(NamedTuple):
    """One turn to answer."""

    row: int
    """Place of the question, which seeds the noise."""
    turn: int
    messages: tuple[Mapping[str, str], ...]
    key: str


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


def journal_folder(output: Path) -> Path:
    """Where the answers to an output are journalled; made here. Errors as in :func:`check_output`."""
    folder = check_output(output)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_output(output: Path) -> Path:
    """Where the answers to an output would be journalled; nothing is made.

    Raises:
        ConfigError: If the output could not be written in the end, or is a file that no journal stands for.
    """
    folder = output.with_name(output.name + ".journal")
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
    loaded: LoadedModel,
    questions: Sequence[Question],
    config: SamplerConfig,
    output: Path,
    *,
    intervention: ShiftIntervention | None = None,
    system: str | None = None,
    shard: Shard = ALONE,
    on_answers: Callable[[int], None] | None = None,
) -> Answered | None:
    """Answer every question and write ``answers.jsonl``.

    A row holds everything that decided the text: model, settings, seed, intervention, and the raw canvas beside it.
    Later turns are put to the model with its own answers before them.

    Args:
        loaded: The model.
        questions: What to ask, in order; a question's place seeds its noise.
        config: How to decode.
        output: Where to write; replaced only when all answers are there. ``OUTPUT.journal`` keeps what is done.
        intervention: Optional intervention.
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
    folder = journal_folder(output)
    run = _Run(loaded, questions, config, intervention, folder, shard)
    done = folder / f"{shard.name}.done"
    done.unlink(missing_ok=True)
    with Journal(folder / f"{shard.name}.sqlite") as journal, run.readable(owner=True) as others:
        for turn in range(1, 1 + max(1 + len(question.later_turns) for question in questions)):
            run.answer_turn(turn, journal, [journal, *others], on_answers)
    # Only after the journal is closed: others open it when they see the mark.
    done.touch()
    marks = [folder / f"{rank}-of-{shard.world_size}.done" for rank in range(shard.world_size)]
    if not all(mark.exists() for mark in marks):
        return None
    with run.readable(owner=False) as journals:
        return run.write(output, journals, system=system or loaded.name)


class _Run:
    """What decides the answers, and where they are kept."""

    def __init__(
        self,
        loaded: LoadedModel,
        questions: Sequence[Question],
        config: SamplerConfig,
        intervention: ShiftIntervention | None,
        folder: Path,
        shard: Shard,
    ) -> None:
        self.questions = questions
        self.folder = folder
        self.shard = shard
        self.batch_size = config.batch_size
        self.sampler = Sampler(loaded, config, intervention)
        self.model = model_identity(loaded)
        self.settings = recorded(config)
        self.identity: Row = {
            "settings": deciding(self.settings),
            "intervention": None if intervention is None else dict(vars(intervention)),
            "model": {k: v for k, v in self.model.items() if k != "name"},
            "device": loaded.device.type,
        }

    @contextmanager
    def readable(self, *, owner: bool) -> Generator[list[Journal]]:
        """The journals that no other process is writing; not that of this process if it is its ``owner``."""
        with ExitStack() as stack:
            files = sorted(self.folder.glob("*-of-*.sqlite"))
            if owner:
                own = re.compile(rf"\d+-of-{self.shard.world_size}")
                files = [file for file in files if not own.fullmatch(file.stem)]
            yield [stack.enter_context(Journal(file)) for file in files]

    def item(self, row: int, turn: int, journals: Sequence[Journal]) -> _Item | None:
        """One turn of a question; ``None`` if it has no such turn or the one before has no answer."""
        question = self.questions[row]
        if turn > 1 + len(question.later_turns):
            return None
        messages = question.messages
        for text in question.later_turns[: turn - 1]:
            before = _find(self._key(row, messages), journals)
            if before is None or before.status != "ok":
                return None
            answer = {"role": "assistant", "content": before.payload["text"]}
            messages = (*messages, answer, {"role": "user", "content": text})
        return _Item(row, turn, messages, self._key(row, messages))

    def _key(self, row: int, messages: Sequence[Mapping[str, str]]) -> str:
        return item_key(self.identity, {"row": row, "prompt": [dict(m) for m in messages]})

    def answer_turn(
        self,
        turn: int,
        journal: Journal,
        journals: Sequence[Journal],
        on_answers: Callable[[int], None] | None,
    ) -> None:
        """Answer that turn of every question of this process that has none yet."""
        rows = range(self.shard.rank, len(self.questions), self.shard.world_size)
        items = [item for row in rows if (item := self.item(row, turn, journals)) is not None]
        pending = [item for item in items if not _is_done(item.key, journals)]
        if on_answers is not None:
            on_answers(len(items) - len(pending))
        for start in range(0, len(pending), self.batch_size):
            batch = pending[start : start + self.batch_size]
            entries = [
                Entry(item.key, "failed" if "error" in payload else "ok", payload)
                for item, payload in zip(batch, self._decode(batch), strict=True)
            ]
            # One transaction a batch: each waits for the disk.
            journal.record_all(entries, identity=self.identity)
            if on_answers is not None:
                on_answers(len(batch))

    def _decode(self, batch: Sequence[_Item]) -> list[Row]:
        started = time.perf_counter()
        try:
            answers = self.sampler.generate(
                [[dict(message) for message in item.messages] for item in batch],
                row_ids=[item.row for item in batch],
            )
        except DataError as error:
            if len(batch) == 1:
                return [{"error": str(error)}]
            # One question of the batch cannot be asked: find it, and answer the others.
            return [payload for item in batch for payload in self._decode([item])]
        seconds = round((time.perf_counter() - started) / len(batch), 4)
        return [_payload(answer) | {"seconds": seconds} for answer in answers]

    def write(self, output: Path, journals: Sequence[Journal], *, system: str) -> Answered | None:
        """Merge all journals into the output; ``None`` if another process has yet to answer something."""
        unanswered: list[Unanswered] = []
        lines: list[Row] = []
        for row, question in enumerate(self.questions):
            for turn in range(1, 2 + len(question.later_turns)):
                item = self.item(row, turn, journals)
                if item is None:
                    error = "the turn before has no answer"
                    unanswered.append(Unanswered(question.id, turn, error))
                    continue
                entry = _find(item.key, journals)
                if entry is None:
                    return None
                if entry.status == "failed":
                    unanswered.append(Unanswered(question.id, turn, entry.payload["error"]))
                else:
                    lines.append(self._line(item, question, entry.payload, system=system))
        write_rows(output, lines)
        return Answered(output, len(self.questions), len(lines), unanswered)

    def _line(self, item: _Item, question: Question, payload: Row, *, system: str) -> Row:
        return {
            "id": question.id,
            "category": question.category,
            "turn": item.turn,
            "system": system,
            "prompt": [dict(message) for message in item.messages],
            **payload,
            "slack_share": _slack_share(self.sampler.loaded, payload["canvas"]),
            "seed": [self.sampler.config.seed, item.row],
            "settings": self.settings,
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


def _find(key: str, journals: Sequence[Journal]) -> Entry | None:
    """The item, answered if any journal has an answer."""
    found: Entry | None = None
    for journal in journals:
        entry = journal.get(key)
        if entry is not None and (found is None or entry.status == "ok"):
            found = entry
            if entry.status == "ok":
                break
    return found


def _is_done(key: str, journals: Sequence[Journal]) -> bool:
    return any(journal.is_done(key) for journal in journals)
