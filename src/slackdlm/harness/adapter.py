"""Our models as lm-eval's ``LM``: ``lm_eval.simple_evaluate(model=HarnessLM(...), tasks=[...])``.

Every finished request can be kept in a journal, under a key of everything that decides it: weights, adapter,
tokenizer, settings and the request. lm-eval's own cache (``use_cache``) knows requests alone, and gives a changed model
the old one's answers.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
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
    Stopping,
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
from slackdlm.sampling.answering import decoding_identity
from slackdlm.sampling.config import recorded
from slackdlm.sampling.intervention import ShiftIntervention
from slackdlm.sampling.sampler import Sampler, SamplerConfig

OnProgress = Callable[[str, int, int], None]
"""Called with the kind of request, and how many are done of how many."""


class _Request(NamedTuple):
    """What is worked out, with the key of its result."""

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
        decoding = decoding_identity(self.sampler, self.model_identity)
        self.generation_identity: Row = {"what": "lm-eval generation"} | decoding
        self.likelihood_identity: Row = {
            "what": "lm-eval log-likelihood bound without slack",
            "mc_samples": mc_samples,
            "guidance": config.guidance,
            "seed": config.seed,
            "model": decoding["model"],
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
        # The same question again in one task (``repeats``) is another draw.
        repeats: Counter[tuple[str | None, str]] = Counter()
        stoppings: list[Stopping] = []
        generations: list[_Request] = []
        for request in requests:
            text, arguments = request.arguments[:2]
            stoppings.append(read_stopping(arguments))
            self.unused.update(unused_settings(arguments, self.config))
            item = {"context": text, "repeat": repeats[request.task_name, text]}
            repeats[request.task_name, text] += 1
            ids = encode_context(self.loaded.tokenizer, text)
            key = item_key(self.generation_identity, item)
            generations.append(_Request(key, ids, [], _seed(item)))
        self._check_room(generations)
        results = self._complete(
            "generations", generations, self._generate, lambda _: self.config.batch_size
        )
        return [
            self._text(row, *stopping) for row, stopping in zip(results, stoppings, strict=True)
        ]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """The bound of every target's log-likelihood in nats, and whether greedy decoding writes the target.

        Raises:
            DataError: If a text cannot be encoded or does not fit into the model's input.
        """
        pairs = [encode_pair(self.loaded.tokenizer, *request.arguments[:2]) for request in requests]
        return [
            (float(row["log_likelihood"]), bool(row["is_greedy"])) for row in self._rate_all(pairs)
        ]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """The bound of every whole text's log-likelihood in nats.

        A text longer than the model's input is rated in parts, each of half the input behind as much of the text before
        it as fits, the first part being a whole input.
        """
        parts: list[tuple[list[int], list[int]]] = []
        counts: list[int] = []
        most = self.loaded.max_length
        for request in requests:
            ids = encode_text(self.loaded.tokenizer, request.args[0])
            starts = [0, *range(most, len(ids), max(most // 2, 1))]
            ends = [*starts[1:], len(ids)]
            parts += [
                (ids[max(end - most, 0) : start], ids[start:end])
                for start, end in zip(starts, ends, strict=True)
            ]
            counts.append(len(starts))
        bounds = (float(row["log_likelihood"]) for row in self._rate_all(parts))
        return [sum(islice(bounds, count)) for count in counts]

    def _rate_all(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Row]:
        """The results of rating targets, each behind its prompt."""
        requests = [self._rated(*pair) for pair in pairs]
        # All of them before the first is worked out: hours later is too late.
        check_lengths(self.loaded, _targets(requests))

        def batch_size(first: _Request) -> int:
            """So that about as many canvases as in decoding fill a batch."""
            masks = num_masks(len(first.target_ids), self.mc_samples)
            return max(1, self.config.batch_size // max(1, masks))

        return self._complete("likelihoods", requests, self._rate, batch_size)

    def _rated(self, prompt_ids: list[int], target_ids: list[int]) -> _Request:
        item = {"prompt": prompt_ids, "target": target_ids}
        key, seed = item_key(self.likelihood_identity, item), _seed([self.config.seed, item])
        return _Request(key, prompt_ids, target_ids, seed)

    def _complete(
        self,
        kind: str,
        requests: Sequence[_Request],
        work: Callable[[Sequence[_Request]], list[Row]],
        batch_size: Callable[[_Request], int],
    ) -> list[Row]:
        """A result for every request: those of the journal, and those still to be worked out."""
        # Alike lengths together: less padding.
        ordered = sorted(requests, key=lambda r: len(r.prompt_ids) + len(r.target_ids))
        items = {request.key: request for request in ordered}
        done = 0

        def report(count: int) -> None:
            nonlocal done
            done += count
            if self.on_progress is not None:
                self.on_progress(kind, done, len(items))

        journal = self.journal or Journal(None)
        journal.complete(items, work, batch_size=batch_size, on_done=report)
        entries = [journal.get(request.key) for request in requests]
        return [entry.payload for entry in entries if entry is not None]

    def _check_room(self, requests: Sequence[_Request]) -> None:
        room = self.loaded.max_length - self.config.canvas_length
        too_long = [len(r.prompt_ids) for r in requests if len(r.prompt_ids) > room]
        if too_long:
            raise DataError(
                f"harness: {len(too_long)} of {len(requests)} prompts are longer than the {max(room, 0)} tokens that "
                f"a canvas of {self.config.canvas_length} leaves of the model's {self.loaded.max_length}, the longest "
                f"has {max(too_long)}; use fewer examples in the prompt (--num-fewshot) or a shorter canvas"
            )

    def _generate(self, batch: Sequence[_Request]) -> list[Row]:
        answers = self.sampler.generate_from_ids(
            [r.prompt_ids for r in batch], row_ids=[r.seed for r in batch]
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

    def _rate(self, batch: Sequence[_Request]) -> list[Row]:
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


def _targets(requests: Sequence[_Request]) -> list[Target]:
    return [Target(r.prompt_ids, r.target_ids, r.seed) for r in requests]
