"""Who judges? Settings of a judge and of what it may be asked, from YAML and ``--set``."""

from dataclasses import fields
from pathlib import Path
from typing import Any, Final, Literal, get_args
from urllib.parse import urlsplit

from slackdlm.config import Count, NonNegative, Positive, Share, Text, Whole, load, settings
from slackdlm.errors import ConfigError

OPENAI_URL: Final = "https://api.openai.com/v1"

JudgeKind = Literal["openai", "local", "replay", "toy"]


@settings
class JudgeConfig:
    """A judge, and how much it may be asked."""

    kind: JudgeKind
    """``openai``: any OpenAI-compatible endpoint; ``local``: a model on this machine; ``replay``:
    recorded judgments; ``toy``: the exact judge of the demo's language."""
    model: Text | None = None
    """The judge's name at the endpoint, a folder or a hub id."""
    recorded: Text | None = None
    """File with the judgments that ``replay`` repeats."""
    base_url: Text = OPENAI_URL
    """Address of the endpoint, up to and including ``/v1``."""
    key_variable: Text | None = None
    """Environment variable that holds the key (at OpenAI: OPENAI_API_KEY). Never the key itself."""
    temperature: NonNegative | None = 0.0
    """0 is greedy; null sends none, as some models refuse it."""
    top_p: Share | None = None
    """Sent if given."""
    seed: Whole | None = None
    """Sent if given; of a local judge's sampling."""
    max_tokens: Count = 16_000
    """Longest reply, thoughts included."""
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Name of that limit in the request; newer OpenAI models want the second."""
    extra_body: dict[str, Any] | None = None
    """Further fields of the request, as the server documents them."""
    concurrency: Count = 8
    """Calls at a time."""
    timeout: Positive = 600.0
    """Seconds of one try."""
    usd_per_million: tuple[NonNegative, NonNegative] | None = None
    """Prices of prompt and reply tokens."""
    device: Text | None = None
    """Where a local judge runs (default: a GPU if there is one)."""
    max_calls: Whole | None = None
    """Stop after this many calls."""
    max_usd: NonNegative | None = None
    """Stop before a call that could exceed this cost in US dollars."""
    max_missing: Share = 0.05
    """Share of judgments without a score above which the exit code is 2."""

    def __post_init__(self) -> None:
        needed = {"openai": "model", "local": "model", "replay": "recorded"}.get(self.kind)
        if needed is not None and getattr(self, needed) is None:
            raise ConfigError(
                f"judge.{needed}: kind: {self.kind} needs it; give {_FLAGS[needed]} or --set judge.{needed}=..."
            )
        for field in fields(self):
            if field.name not in (*_USED[self.kind], *_BUDGET) and (
                getattr(self, field.name) != field.default
            ):
                raise ConfigError(
                    f"judge.{field.name}: has no effect with kind: {self.kind}; leave it out"
                )
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ConfigError(f"judge.base_url: expected an http(s) address, got {self.base_url!r}")
        if url.username or url.password or url.query:
            raise ConfigError("judge.base_url: holds a key; give it in an environment variable")


_FLAGS = {"model": "--judge-model", "recorded": "--recorded"}
_BUDGET = ("kind", "max_calls", "max_usd", "max_missing")
_REQUEST = (
    "model", "base_url", "key_variable", "temperature", "top_p", "seed", "max_tokens", "token_limit",
    "extra_body", "concurrency", "timeout", "usd_per_million",
)  # fmt: skip
_USED: Final[dict[str, tuple[str, ...]]] = {
    "openai": _REQUEST,
    "local": ("model", "temperature", "seed", "max_tokens", "device"),
    "replay": ("model", "recorded"),
    "toy": (),
}
"""Settings that each kind of judge looks at; any other is refused."""


@settings
class _JudgeFile:
    """A file of judge settings."""

    judge: JudgeConfig
    """Who judges."""


def load_judge(choice: str, overrides: list[str]) -> JudgeConfig:
    """The judge that ``--judge`` and ``--set judge.KEY=VALUE`` name.

    Args:
        choice: One of the kinds, or a YAML file with the block ``judge``.
        overrides: ``judge.KEY=VALUE``.

    Raises:
        ConfigError: If there is no such file, or a key or value is wrong.
    """
    kinds = get_args(JudgeKind)
    if choice in kinds:
        return load(_JudgeFile, None, [f"judge.kind={choice}", *overrides]).judge
    file = Path(choice)
    if not file.exists():
        raise ConfigError(f"--judge {choice}: expected a YAML file or one of {', '.join(kinds)}")
    return load(_JudgeFile, file, overrides, blocks="the block judge").judge
