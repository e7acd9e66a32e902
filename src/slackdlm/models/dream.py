"""Dream, natively: a Qwen2 without the causal mask whose outputs are shifted by one.

The network predicts position ``i`` at position ``i - 1``, as the autoregressive model it grew from
did. Here hidden states and logits come out aligned: what is read at ``i`` speaks about ``i``, so
that the loss and the sampler need to know nothing of it.

References:
    Ye et al., 2025 (Dream 7B). Qwen team, 2024 (Qwen2.5).
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, Qwen2Model

from slackdlm.errors import ConfigError
from slackdlm.models.configs import DreamConfig
from slackdlm.models.llada import LLaDAOutput, RecomputedBlocks, attention_bias, check_length


def align(hidden: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
    """Each position's prediction, from the position before it; the first has only its own."""
    return torch.cat([hidden[:, :1], hidden[:, :-1]], dim=1)


class DreamModel(RecomputedBlocks, PreTrainedModel):
    """Dream with its head, under the published names of class, modules and configuration keys."""

    config_class = DreamConfig
    config: DreamConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["Qwen2DecoderLayer"]  # noqa: RUF012
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: DreamConfig) -> None:
        super().__init__(config)
        self.model = Qwen2Model(config.body())
        for layer in self.model.layers:
            # Without a mask transformers would take a causal one from this.
            attention: Any = layer.self_attn
            attention.is_causal = False
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Int[Tensor, "B L"],
        attention_mask: Int[Tensor, "B L"]
        | Bool[Tensor, "B L"]
        | Bool[Tensor, "B 1 1 L"]
        | None = None,
        *,
        logits: bool = True,
        store: object | None = None,
    ) -> LLaDAOutput:
        """Logits of every position given all others, aligned with the positions.

        As LLaDA's, but without a ``store``: a part's first prediction comes from the position
        before it. With padding, which goes on the left, the first real position means nothing
        either: it is the beginning of the prompt.

        Raises:
            ConfigError: If the input is longer than ``max_position_embeddings``, or there is a
                ``store``.
            DataError: If a row of the mask is all zeros.
        """
        if store is not None:
            raise ConfigError("cache: not implemented for Dream; use cache: none")
        length = input_ids.shape[1]
        check_length(length, self.config.max_position_embeddings, "max_position_embeddings")
        bias = attention_bias(attention_mask)
        if bias is not None:
            bias = bias.expand(-1, -1, length, -1)
        # A mapping goes to the layers as it is; anything else would be made causal first.
        masks: Any = {"full_attention": bias}
        output = self.model(input_ids=input_ids, attention_mask=masks, use_cache=False)
        hidden = align(output.last_hidden_state)
        return LLaDAOutput(
            last_hidden_state=hidden, logits=self.lm_head(hidden) if logits else None
        )
