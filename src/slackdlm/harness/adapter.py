"""Our models as lm-eval's ``LM``: ``lm_eval.simple_evaluate(model=HarnessLM(...), tasks=[...])``.

Every finished request can be kept in a journal, under a key of everything that decides it: weights, adapter,
tokenizer, settings and the request. lm-eval's own cache (``use_cache``) knows requests alone, and gives a changed model
the old one's answers.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from slackdlm.errors import ConfigError, DataError
from slackdlm.harness.likelihood import (
    Target,
    are_greedy,
    check_lengths,
    log_likelihood_bounds,
    num_masks,
)
from slackdlm.harness.requests import (
    encode_context,
    encode_pair,
    read_stopping,
    render_chat,
    stopped,
    unused_settings,
)
from slackdlm.journal import Journal, content_hash, item_key
from slackdlm.jsonl import Row
from slackdlm.models.chat import decode_answer
from slackdlm.models.identity import model_identity
from slackdlm.models.loaded import LoadedModel
from slackdlm.models.tokenizer import encode_text
from slackdlm.sampling.config import deciding, recorded
from slackdlm.sampling.intervention import ShiftIntervention
from slackdlm.sampling.sampler import Sampler, SamplerConfig

OnProgress = Callable[[str, int, int], None]
"""Called with the kind of request, and how many are done of how many."""


class _Asked(NamedTuple):
    """A request with the key of its result."""

    key: str
    prompt_ids: list[int]
    target_ids: list[int]
    seed: int
    """Decides its noise: from the content of the request, so that all models meet the same."""


class HarnessLM(LM):
    """A masked diffusion model that answers lm-eval's requests.

    Generation is :class:`slackdlm.sampling.sampler.Sampler` with these settings on one canvas for all tasks; of a
    request's ``generation_kwargs`` the stop texts and the largest number of tokens are honoured, and what is not is in
    :attr:`unused`. Log-likelihoods are the bound of :mod:`slackdlm.harness.likelihood`. Neither batch size
    nor order nor ``limit`` changes a result.

    Args:
        loaded: The model, with an adapter or without.
        config: How to decode; its seed, guidance and batch size hold for likelihoods too.
        intervention: What disturbs the decoding.
        mc_samples: Masks per target (LLaDA: 128, and 1 for targets of one token).
        journal: Where finished requests are kept and looked up.
        on_progress: For progress bars.

    Raises:
        ConfigError: If there are no samples, or the model cannot do what the settings ask for.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        config: SamplerConfig,
        *,
        intervention: ShiftIntervention | None = None,
        mc_samples: int = 128,
        journal: Journal | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        super().__init__()
        if mc_samples < 1:
            raise ConfigError(f"harness: mc_samples must be at least 1, got {mc_samples}")
        self.loaded = loaded
        self.config = config
        self.sampler = Sampler(loaded, config, intervention)
        self.mc_samples = mc_samples
        self.journal = journal
        self.on_progress = on_progress
        self.unused: Counter[str] = Counter()
        """What tasks asked of generations and did not get, with the number of requests."""
        self.model_identity = model_identity(loaded)
        model = {k: v for k, v in self.model_identity.items() if k != "name"}
        self.generation_identity: Row = {
            "what": "lm-eval generation",
            "settings": deciding(recorded(config)),
            "intervention": None if intervention is None else dict(vars(intervention)),
            "model": model,
            "device": loaded.device.type,
        }
        self.likelihood_identity: Row = {
            "what": "lm-eval log-likelihood bound without slack",
            "mc_samples": mc_samples,
            "guidance": config.guidance,
            "seed": config.seed,
            "model": model,
        }

    @property
    def tokenizer_name(self) -> str:
        """Name and content of the tokenizer, for lm-eval's file of requests."""
        return f"{self.loaded.name}-{self.model_identity['tokenizer_sha256'][:12]}"

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The tokenizer's template, for lm-eval's records; conversations are encoded by our own safe format."""
        return str(self.loaded.tokenizer.chat_template or "")

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as a context; without ``add_generation_prompt`` its last message is to be continued."""
        return render_chat(chat_history)

    def get_model_info(self) -> Row:
        """What decides results beside the task, for lm-eval's ``results["config"]``."""
        return {
            "identity": dict(self.model_identity),
            "generation": recorded(self.config),
            "device": self.generation_identity["device"],
            "intervention": self.generation_identity["intervention"],
            "likelihood": {k: v for k, v in self.likelihood_identity.items() if k != "model"},
        }

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Decode an answer to every request, up to its first stop text.

        Raises:
            DataError: If a context cannot be encoded or leaves no room for the canvas.
        """
        pairs: list[tuple[str, Row]] = [request.arguments[:2] for request in requests]
        stoppings = [read_stopping(arguments) for _, arguments in pairs]
        for _, arguments in pairs:
            self.unused.update(unused_settings(arguments, self.config))
        encoded = {
            text: encode_context(self.loaded.tokenizer, text)
            for text in dict.fromkeys(text for text, _ in pairs)
        }
        # The same question again in one task (``repeats``) is another draw.
        seen: Counter[tuple[str | None, str]] = Counter()
        asked: list[_Asked] = []
        for request, (text, _) in zip(requests, pairs, strict=True):
            item = {"context": text, "repeat": seen[request.task_name, text]}
            seen[request.task_name, text] += 1
            key = item_key(self.generation_identity, item)
            asked.append(_Asked(key, encoded[text], [], _seed(item)))
        found = self._answer("generations", asked, self._generate)
        return [self._text(found[a.key], *s) for a, s in zip(asked, stoppings, strict=True)]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """The bound of every target's log-likelihood in nats, and whether greedy decoding writes the target.

        Raises:
            DataError: If a text cannot be encoded or does not fit into the model's input.
        """
        asked: list[_Asked] = []
        for request in requests:
            context, target = request.arguments[:2]
            ids = encode_pair(self.loaded.tokenizer, context, target)
            asked.append(self._rated(*ids))
        found = self._answer("likelihoods", asked, self._rate)
        return [
            (float(found[a.key]["log_likelihood"]), bool(found[a.key]["is_greedy"])) for a in asked
        ]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """The bound of every whole text's log-likelihood in nats.

        A text longer than the model's input is rated in parts, each of half the input behind as much of the text before
        it as fits, the first part being a whole input.
        """
        parts: list[list[_Asked]] = []
        most = self.loaded.max_length
        for request in requests:
            ids = encode_text(self.loaded.tokenizer, request.args[0])
            step = max(most // 2, 1)
            starts = [0, *range(most, len(ids), step)]
            ends = [*starts[1:], len(ids)]
            parts.append(
                [
                    self._rated(ids[max(end - most, 0) : start], ids[start:end])
                    for start, end in zip(starts, ends, strict=True)
                ]
            )
        found = self._answer("likelihoods", [a for part in parts for a in part], self._rate)
        return [sum(float(found[a.key]["log_likelihood"]) for a in part) for part in parts]

    def _rated(self, prompt_ids: list[int], target_ids: list[int]) -> _Asked:
        item = {"prompt": prompt_ids, "target": target_ids}
        key, seed = item_key(self.likelihood_identity, item), _seed([self.config.seed, item])
        return _Asked(key, prompt_ids, target_ids, seed)

    def _answer(
        self,
        kind: str,
        asked: Sequence[_Asked],
        work: Callable[[Sequence[_Asked]], list[Row]],
    ) -> dict[str, Row]:
        """Results by key: those of the journal, then those still to be worked out, recorded batch by batch."""
        # Alike lengths together: less padding.
        ordered = sorted(asked, key=lambda a: len(a.prompt_ids) + len(a.target_ids))
        unique = {a.key: a for a in ordered}
        self._check_lengths(kind, list(unique.values()))
        done = 0

        def report(count: int) -> None:
            nonlocal done
            done += count
            if self.on_progress is not None:
                self.on_progress(kind, done, len(unique))

        journal = self.journal or Journal(None)
        journal.complete(
            unique, work, batch_size=lambda first: self._batch(kind, first), on_done=report
        )
        entries = {key: journal.get(key) for key in unique}
        return {key: entry.payload for key, entry in entries.items() if entry is not None}

    def _batch(self, kind: str, first: _Asked) -> int:
        """Requests worked out together, so that about ``batch_size`` canvases fill a batch."""
        if kind == "generations" or not first.target_ids:
            return self.config.batch_size
        most = num_masks(len(first.target_ids), self.mc_samples)
        return max(1, self.config.batch_size // most)

    def _check_lengths(self, kind: str, pending: Sequence[_Asked]) -> None:
        """All of them before the first is worked out: hours later is too late."""
        if kind == "likelihoods":
            check_lengths(self.loaded, _targets(pending))
            return
        room = self.loaded.max_length - self.config.canvas_length
        too_long = [len(a.prompt_ids) for a in pending if len(a.prompt_ids) > room]
        if too_long:
            raise DataError(
                f"harness: {len(too_long)} of {len(pending)} prompts are longer than the {max(room, 0)} tokens that a "
                f"canvas of {self.config.canvas_length} leaves of the model's {self.loaded.max_length}, the longest "
                f"has {max(too_long)}; use fewer examples in the prompt (--num-fewshot) or a shorter canvas"
            )

    def _generate(self, batch: Sequence[_Asked]) -> list[Row]:
        answers = self.sampler.generate_from_ids(
            [a.prompt_ids for a in batch], row_ids=[a.seed for a in batch]
        )
        return [
            {"text": answer.text, "tokens": answer.tokens, "canvas": answer.canvas}
            for answer in answers
        ]

    def _text(self, payload: Row, until: Sequence[str], max_tokens: int | None) -> str:
        text = str(payload["text"])
        if max_tokens is not None and len(payload["tokens"]) > max_tokens:
            kept = payload["tokens"][:max_tokens]
            text = decode_answer(self.loaded.tokenizer, kept)
        return stopped(text, until)

    def _rate(self, batch: Sequence[_Asked]) -> list[Row]:
        targets = _targets(batch)
        size, guidance = self.config.batch_size, self.config.guidance
        bounds = log_likelihood_bounds(
            self.loaded, targets, num_samples=self.mc_samples, batch_size=size, guidance=guidance
        )
        greedy = are_greedy(self.loaded, targets, batch_size=size, guidance=guidance)
        return [
            {"log_likelihood": bound, "is_greedy": is_greedy}
            for bound, is_greedy in zip(bounds, greedy, strict=True)
        ]


def _seed(item: object) -> int:
    return int(content_hash(item)[:15], 16)


def _targets(asked: Sequence[_Asked]) -> list[Target]:
    return [Target(a.prompt_ids, a.target_ids, a.seed) for a in asked]
