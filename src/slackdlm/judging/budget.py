"""What may judging cost, and what did it?"""

import threading
from dataclasses import dataclass
from typing import NamedTuple

from slackdlm.errors import ConfigError


class Spent(NamedTuple):
    """What calls took."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = 0.0
    """``None`` as soon as one call's cost is unknown."""

    def plus(self, other: "Spent") -> "Spent":
        """Both together."""
        usd = None if self.usd is None or other.usd is None else self.usd + other.usd
        return Spent(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            usd,
        )


@dataclass
class Budget:
    """How much a run may ask; safe to share between threads."""

    max_calls: int | None = None
    """Calls, repeated ones included; ``None``: any number."""
    max_usd: float | None = None
    """Cost. No call is begun that could exceed it together with those under way."""

    def __post_init__(self) -> None:
        """Raises ConfigError where a limit is negative or no number."""
        for name, limit in (("--max-calls", self.max_calls), ("--max-usd", self.max_usd)):
            if limit is not None and not 0 <= limit < float("inf"):
                raise ConfigError(f"{name}: expected at least 0, got {limit}")
        self._lock = threading.Lock()
        self._calls = 0
        self._usd = 0.0
        self._under_way = 0.0

    def begin(self, worst_usd: float | None) -> bool:
        """Whether one more call may begin; it is counted if so."""
        with self._lock:
            if self.max_calls is not None and self._calls >= self.max_calls:
                return False
            if self.max_usd is not None:
                if worst_usd is None:
                    raise ConfigError(
                        "--max-usd: the judge's prices are not known; set judge.usd_per_million"
                    )
                if self._usd + self._under_way + worst_usd > self.max_usd:
                    return False
            self._calls += 1
            self._under_way += worst_usd or 0.0
            return True

    def end(self, worst_usd: float | None, usd: float | None) -> None:
        """Account for a call that is over; of unknown cost, it is taken to have cost the most."""
        with self._lock:
            self._under_way -= worst_usd or 0.0
            self._usd += (worst_usd or 0.0) if usd is None else usd

    @property
    def stopped(self) -> str:
        """What a run says that it ended."""
        limits = (("--max-calls", self.max_calls), ("--max-usd", self.max_usd))
        given = [f"{name} {limit:g}" for name, limit in limits if limit is not None]
        return f"the limit of {' and '.join(given)} is reached"
