"""Is the run still learning? The training loss, smoothed, and a sign that it has exploded."""

from collections.abc import Iterable
from statistics import median

_DECAY = 0.95
_WINDOW = 20


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

    def explosion(self, max_growth: float) -> str | None:
        """What has happened, if the median of the last 20 losses is ``max_growth`` times that of the first 20.

        Single losses of masked diffusion vary too much to tell: a sample with few masks can weigh
        a thousand times as much as another.
        """
        if max_growth <= 0 or self.num_steps < 2 * _WINDOW:
            return None
        start, now = median(self.first), median(self.last)
        if now <= max_growth * start:
            return None
        return (
            f"the loss has grown from {start:.4g} (median of the first {_WINDOW} steps) to {now:.4g}"
            f" (of the last {_WINDOW}), more than training.max_loss_growth = {max_growth:g} times"
        )

    @property
    def window(self) -> int:
        """Steps that the growth is judged by: a checkpoint within them may be spoilt."""
        return _WINDOW
