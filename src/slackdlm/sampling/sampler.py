"""How are prompts answered? LLaDA's iterative unmasking, one sampler for everything."""

from collections.abc import Callable, Sequence

from slackdlm.errors import ConfigError, DataError
from slackdlm.models.chat import encode_prompt
from slackdlm.models.loaded import LoadedModel
from slackdlm.sampling.config import SamplerConfig, schedule
from slackdlm.sampling.decoding import Commit, Decoding, Generation, OnStep
from slackdlm.sampling.intervention import ShiftIntervention

__all__ = ["Commit", "Generation", "Prompt", "Sampler", "SamplerConfig", "schedule"]

Prompt = str | Sequence[dict[str, str]]


class Sampler:
    """Decodes prompts with a masked diffusion model.

    Args:
        loaded: Model, tokenizer and special ids.
        config: How to decode.
        intervention: Optional intervention on what is committed.

    Raises:
        ConfigError: If the model cannot do what the settings ask for.

    References:
        Nie et al., 2025 (LLaDA), Algorithm 5 and ``generate.py``: token for token the same on the same noise, except
        that a mask is never committed, any number of steps and block length leaves no mask behind, confidences are
        float32, equal confidences are committed from the left, and a delayed end is delayed at any temperature.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        config: SamplerConfig,
        intervention: ShiftIntervention | None = None,
    ) -> None:
        model_type = loaded.model.config.model_type
        if config.cache != "none" and model_type != "llada":
            raise ConfigError(
                f"sampler: cache={config.cache} needs a native LLaDA, got a model of type {model_type!r}; "
                "use cache=none"
            )
        self.loaded = loaded
        self.config = config
        self.intervention = intervention

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        row_ids: Sequence[int] | None = None,
        on_batch: Callable[[int], None] | None = None,
        on_step: OnStep | None = None,
    ) -> list[Generation]:
        """Decode a response for each prompt.

        Args:
            prompts: User texts, or chats as lists of ``{"role", "content"}``.
            row_ids: Ids that seed each row's noise, at least 0; by default 0, 1, 2, ...
            on_batch: Called with the number of prompts just finished, for progress bars.
            on_step: Called after every step with the batch's canvases, to be looked at while they resolve.

        Returns:
            One generation per prompt, in order. They do not depend on ``batch_size`` or batch-mates.

        Raises:
            DataError: If a prompt cannot be encoded, or the number of ids is not that of prompts.
        """
        encoded = [encode_prompt(self.loaded.tokenizer, _messages(prompt)) for prompt in prompts]
        return self.generate_from_ids(encoded, row_ids=row_ids, on_batch=on_batch, on_step=on_step)

    def generate_from_ids(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        row_ids: Sequence[int] | None = None,
        on_batch: Callable[[int], None] | None = None,
        on_step: OnStep | None = None,
    ) -> list[Generation]:
        """As :meth:`generate`, for prompts that are token ids already: a canvas is decoded behind each."""
        ids = list(range(len(prompts))) if row_ids is None else list(row_ids)
        if len(ids) != len(prompts):
            raise DataError(f"generate: {len(prompts)} prompts but {len(ids)} row ids")
        self._check_lengths(prompts)
        generations: list[Generation] = []
        for start in range(0, len(prompts), self.config.batch_size):
            rows = slice(start, start + self.config.batch_size)
            batch = Decoding(
                self.loaded, self.config, self.intervention, prompts[rows], ids[rows]
            ).run(on_step)
            generations += batch
            if on_batch is not None:
                on_batch(len(batch))
        return generations

    def _check_lengths(self, encoded: Sequence[Sequence[int]]) -> None:
        room = self.loaded.max_length - self.config.canvas_length
        if room < 1:
            raise DataError(
                f"generate: a canvas of {self.config.canvas_length} leaves no room for a prompt in the model's "
                f"{self.loaded.max_length} tokens; shorten the canvas"
            )
        too_long = [row for row, prompt in enumerate(encoded) if len(prompt) > room]
        if too_long:
            raise DataError(
                f"generate: {len(too_long)} of {len(encoded)} prompts are longer than the {room} tokens that "
                f"a canvas of {self.config.canvas_length} leaves, the first is prompt {too_long[0]} "
                f"with {len(encoded[too_long[0]])}; shorten the prompt or the canvas"
            )


def _messages(prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
