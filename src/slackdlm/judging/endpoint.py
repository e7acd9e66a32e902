"""A judge behind an OpenAI-compatible endpoint: vLLM, SGLang or a hosted one, through the ``openai`` client.

The key comes from a named environment variable and is written nowhere; replies and messages that repeat it are
blanked.
"""

import os
import threading
import time
from collections.abc import Mapping
from typing import Any, Literal, cast

import openai
from openai.types.chat.chat_completion import ChoiceLogprobs

from slackdlm.benchmarks.alpaca_eval import NUM_ALTERNATIVES, FirstToken, write_first_token
from slackdlm.errors import ConfigError, show
from slackdlm.judging.config import OPENAI_URL, JudgeConfig
from slackdlm.judging.judges import (
    CUT_OFF,
    UNFINISHED,
    Call,
    CallFailed,
    Judge,
    Reply,
    estimate_tokens,
)
from slackdlm.judging.thoughts import strip_thoughts

LONGEST_WAIT = 900.0
"""Seconds of a Retry-After that are waited for."""
CONNECT_SECONDS = 10.0
"""Within which a connection must come about."""
_NOT_REACHED = ("ConnectError", "ConnectTimeout", "ProxyError")
"""Errors of httpx or httpx2, whichever the client is built on, that mean that no server was met."""

_NO_COMPLETION = (AttributeError, LookupError, TypeError, ValueError)
"""What comes of reading a response of another form."""
_FINISHED = (
    "stop", "end_turn", "stop_sequence", "eos", "eos_token", "complete", "tool_calls", "function_call",
)  # fmt: skip
"""What servers say of a reply that the model ended itself."""
_AT_THE_LIMIT = ("length", "max_tokens", "max_output_tokens", "model_length")


class EndpointJudge(Judge):
    """A language model behind an endpoint.

    Args:
        config: Where it is, and what is asked of it.
        environment: Holds the key.
        max_retries: Tries again after 408, 409, 429, 5xx, timeouts and broken connections.

    Raises:
        ConfigError: If the environment variable is not set.
    """

    gives_up_after = 20

    def __init__(
        self,
        config: JudgeConfig,
        environment: Mapping[str, str] = os.environ,
        *,
        max_retries: int = 6,
    ) -> None:
        self.config = config
        self.name = str(config.model)
        self.concurrency = config.concurrency
        # Neither the address nor max_tokens, as only replies that end before it count.
        self.settings = {
            "kind": "endpoint",
            "temperature": config.temperature,
            "top_p": config.top_p,
            "seed": config.seed,
            "extra_body": config.extra_body or {},
        }
        self._key = ""
        default = "OPENAI_API_KEY" if config.base_url == OPENAI_URL else None
        if variable := config.key_variable or default:
            self._key = environment.get(variable, "").strip()
            if not self._key:
                raise ConfigError(
                    f"judge: the environment variable {variable} is not set; put the key there"
                )
        connect = min(CONNECT_SECONDS, config.timeout)
        self._client = openai.OpenAI(
            base_url=config.base_url,
            api_key=self._key or "none",
            timeout=openai.Timeout(config.timeout, connect=connect),
            max_retries=max_retries,
        )
        self._contact_lock = threading.Lock()
        self._contact: ConfigError | Literal["none", "made"] = "none"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def worst_usd(self, call: Call) -> float | None:
        """Twice the guessed prompt and the longest reply."""
        return self._usd(2 * estimate_tokens(call.messages), self._max_tokens(call))

    def reply(self, call: Call) -> Reply:
        """One request, tried again by the client as the server asks.

        The first call of all finds out, within seconds and without a retry, whether there is a server at all.
        """
        self._make_contact()
        request = self._request(call)
        try:
            completion = self._client.chat.completions.create(**request)
            return self._read(completion, first_token=call.first_token)
        except (
            openai.AuthenticationError,
            openai.PermissionDeniedError,
            openai.NotFoundError,
        ) as error:
            raise ConfigError(
                f"judge: {self.config.base_url} refuses {self.name!a}: {self._safe(error)}; "
                "check the model's name, the URL and the key"
            ) from None
        except openai.RateLimitError as error:
            if error.code == "insufficient_quota":
                raise ConfigError(f"judge: no credit left: {self._safe(error)}") from None
            self._wait(error)
            raise CallFailed(self._safe(error), again=True) from None
        except openai.APIStatusError as error:
            again = error.status_code >= 500 or error.status_code in (408, 409)
            raise CallFailed(self._safe(error), again=again) from None
        except openai.APIConnectionError as error:
            raise CallFailed(f"{self._safe(error)} ({self.config.base_url})", again=True) from None
        except (openai.OpenAIError, *_NO_COMPLETION) as error:
            raise CallFailed(
                f"no usable chat completion: {self._safe(error)}", again=True
            ) from None

    def _make_contact(self) -> None:
        """Ask once whether anything answers there, whatever it says; ConfigError, at once and for all calls, if not."""
        with self._contact_lock:
            if self._contact == "none":
                client = self._client.with_options(max_retries=0, timeout=CONNECT_SECONDS)
                self._contact = "made"
                try:
                    client.models.with_raw_response.list()
                except openai.OpenAIError as error:
                    if type(error.__cause__).__name__ in _NOT_REACHED:
                        reason = self._blank(str(error.__cause__) or "no connection in time")[:200]
                        self._contact = ConfigError(
                            f"judge: nothing answers at {self.config.base_url} ({reason}); start the server, or check "
                            "--base-url and the network. Nothing was asked"
                        )
            if isinstance(self._contact, ConfigError):
                raise self._contact

    def _request(self, call: Call) -> dict[str, Any]:
        config = self.config
        request: dict[str, Any] = {
            "model": config.model,
            # What is no valid Unicode cannot be sent; the judge sees a question mark for it.
            "messages": [
                {k: turn[k].encode("utf-8", "replace").decode() for k in ("role", "content")}
                for turn in call.messages
            ],
            config.token_limit: self._max_tokens(call),
        }
        if call.first_token:
            request |= {"logprobs": True, "top_logprobs": NUM_ALTERNATIVES}
        for name in ("temperature", "top_p", "seed"):
            if getattr(config, name) is not None:
                request[name] = getattr(config, name)
        if config.extra_body:
            request["extra_body"] = config.extra_body
        return request

    def _max_tokens(self, call: Call) -> int:
        return 1 if call.first_token else self.config.max_tokens

    def _read(self, completion: Any, *, first_token: bool) -> Reply:
        """The reply in a completion, whose fields the client does not check; one of `_NO_COMPLETION` if it has none."""
        choice = completion.choices[0]
        unfinished = _unfinished(choice)
        usage = completion.usage
        prompt, reply = (_count(usage, name) for name in ("prompt_tokens", "completion_tokens"))
        if first_token and unfinished in ("", CUT_OFF):  # one token is asked for
            text, unfinished = self._first_token(choice), ""
        else:
            text = strip_thoughts(_said(choice.message.content))
        refusal = choice.message.refusal
        if isinstance(refusal, str) and refusal and not text:
            text, unfinished = refusal, f"{UNFINISHED}: the judge refuses"
        usd = None if prompt is None or reply is None else self._usd(prompt, reply)
        return Reply(self._blank(text), prompt, reply, usd, self._blank(unfinished))

    def _first_token(self, choice: Any) -> str:
        """The first token of a choice and the likeliest ones; ConfigError if the endpoint does not tell them."""
        if choice.logprobs is None:
            raise ConfigError(
                f"judge: {self.config.base_url} gives no log-probabilities with {self.name!a}; use an endpoint that "
                "does, or --benchmark alpaca-eval-unweighted"
            )
        tokens = ChoiceLogprobs.model_validate(choice.logprobs.model_dump(warnings=False)).content
        first = (tokens or [])[0]
        likeliest = {token.token: token.logprob for token in first.top_logprobs}
        return write_first_token(FirstToken(first.token, likeliest))

    def _usd(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        if self.config.usd_per_million is None:
            return None
        prompt, completion = self.config.usd_per_million
        return (prompt_tokens * prompt + completion_tokens * completion) / 1e6

    def _wait(self, error: openai.RateLimitError) -> None:
        """The client waits at most a minute for a Retry-After; wait for a longer one here."""
        try:
            seconds = float(error.response.headers.get("retry-after", "0"))
        except ValueError:
            return
        if 60 < seconds <= LONGEST_WAIT:
            time.sleep(seconds)

    def _safe(self, error: Exception) -> str:
        return self._blank(f"{type(error).__name__}: {error}")[:500]

    def _blank(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def _said(content: Any) -> str:
    """The text of a message, of its parts those that are text: not its thoughts. None is what a refusal looks like."""
    if not isinstance(content, list):
        return content or ""
    parts = cast("list[Any]", content)
    return "".join(part["text"] for part in parts if part.get("type") in ("text", "output_text"))


def _unfinished(choice: Any) -> str:
    """Why a choice was not finished; empty if it was, or the server does not say."""
    reason = choice.finish_reason or getattr(choice, "stop_reason", None)
    if not isinstance(reason, str) or reason.lower() in _FINISHED:
        return ""
    if reason.lower() in _AT_THE_LIMIT:
        return CUT_OFF
    return f"{UNFINISHED}: the endpoint says {show(reason)}"


def _count(usage: object, name: str) -> int | None:
    count = getattr(usage, name, None)
    return count if type(count) is int and count >= 0 else None
