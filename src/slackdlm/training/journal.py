"""What happened at which step, and is the run still learning? ``log.jsonl`` and its loss curve."""

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from slackdlm.atomic import write_text
from slackdlm.errors import DataError, one_line

_DECAY = 0.95
_WINDOW = 20


def append(path: Path, record: dict[str, Any]) -> None:
    """Add one record; non-finite numbers are refused, as JSON has none."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """All records; an unfinished last line, left by a killed process, is dropped.

    Raises:
        DataError: If another line is no JSON.
    """
    if not path.is_file():
        return []
    *lines, _unfinished = path.read_bytes().split(b"\n")
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise DataError(f"{path}:{number}: not valid JSON ({one_line(error)})") from error
    return records


def cut_back(path: Path, *, step: int) -> None:
    """Drop the records after ``step``: a resumed run's journal is that of an unbroken one."""
    kept = [record for record in read(path) if record["step"] <= step]
    write_text(path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in kept))


class LossCurve:
    """The losses so far: their exponential average, and the medians that show an explosion."""

    def __init__(self, losses: Iterable[float] = ()) -> None:
        self.average: float | None = None
        self.first: list[float] = []
        self.last: list[float] = []
        self.num_steps = 0
        for loss in losses:
            self.add(loss)

    def add(self, loss: float) -> None:
        """Take the loss of the next step."""
        self.average = loss if self.average is None else _DECAY * self.average + (1 - _DECAY) * loss
        if len(self.first) < _WINDOW:
            self.first.append(loss)
        self.last = [*self.last, loss][-_WINDOW:]
        self.num_steps += 1

    def explosion(self, max_growth: float, *, guessing: float) -> str | None:
        """What has happened, if the median of the last 20 losses is ``max_growth`` times too high.

        That is, times that of the first 20, or times that of guessing where the first 20 were no better: a run
        may explode within its first steps.

        Single losses of masked diffusion vary too much to tell: a sample with few masks can weigh
        a thousand times as much as another.

        Args:
            max_growth: 0 or less: never.
            guessing: Loss of a model to which all tokens are alike, in nats per canvas position.
        """
        if max_growth <= 0 or self.num_steps < 2 * _WINDOW:
            return None
        start, now = median(self.first), median(self.last)
        if now <= max_growth * min(start, guessing):
            return None
        last = f"(median of the last {_WINDOW} steps), more than training.max_loss_growth = {max_growth:g} times"
        if start <= guessing:
            return (
                f"the loss has grown from {start:.4g} (of the first {_WINDOW}) to {now:.4g} {last}"
            )
        return f"the loss is {now:.4g} {last} the {guessing:.4g} of guessing among all tokens"

    @property
    def window(self) -> int:
        """Steps that the growth is judged by: a checkpoint within them may be spoilt."""
        return _WINDOW
