"""LLaDA, natively: a bidirectional Llama that predicts every masked token at once.

Names of parameters and configuration keys are the published ones, so that LLaDA-8B loads as it is,
without remote code, on CPU and GPU. There is no time conditioning.

References:
    Nie et al., 2025 (LLaDA). Su et al., 2021 (RoPE). Zhang and Sennrich, 2019 (RMSNorm).
    Shazeer, 2020 (SwiGLU).
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol, cast, no_type_check, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.generic import ModelOutput

from slackdlm.errors import ConfigError, DataError
from slackdlm.models.configs import LLaDAConfig


@no_type_check  # mixed precision rebuilds it from one mapping, which trips run-time checks
@dataclass
class LLaDAOutput(ModelOutput):
    """What a forward pass returns."""

    last_hidden_state: Float[Tensor, "B L D"] | None = None
    """After the final norm: what the head reads. Always set."""
    logits: Float[Tensor, "B L V"] | None = None
    """Unnormalised, aligned with the positions; None if they were not asked for."""


@runtime_checkable
class KeyValueStore(Protocol):
    """Keys and values of earlier passes, so that a pass may be over a part of the sequence."""

    first: int
    """Position of the input's first token in the sequence."""
    length: int
    """Positions of the whole sequence, which the attention mask covers."""

    def update(
        self, layer: int, keys: Float[Tensor, "B N P H"], values: Float[Tensor, "B N P H"]
    ) -> tuple[Float[Tensor, "B N L H"], Float[Tensor, "B N L H"]]:
        """Takes a layer's keys (rotated) and values of the input; gives those of the sequence."""
        ...


class RMSNorm(nn.Module):
    """``x / rms(x)`` in fp32, cast back, times a learned weight."""

    def __init__(self, size: int, *, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Each position divided by its root mean square."""
        normed = F.rms_norm(x, x.shape[-1:], eps=self.eps)  # one kernel on a GPU, fp32 inside
        return self.weight * normed.to(x.dtype)


def residual_linear(in_features: int, out_features: int, *, depth: int) -> nn.Linear:
    """A projection into the residual stream; its depth (1 = first block) sets its initial scale.

    No subclass: bitsandbytes quantises layers whose type is exactly ``nn.Linear``.
    """
    linear: Any = nn.Linear(in_features, out_features, bias=False)
    linear.residual_depth = depth
    return linear


def rotary_angles(
    length: int, *, head_size: int, theta: float, device: torch.device
) -> tuple[Float[Tensor, "L H"], Float[Tensor, "L H"]]:
    """Cosines and sines of positions ``0 .. length - 1``, half-split, fp32 even under autocast.

    The sines are negative in the first half, which takes the second half's channels.
    """
    channels = torch.arange(0, head_size, 2, device=device, dtype=torch.float32)
    frequencies = 1.0 / theta ** (channels / head_size)
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * frequencies
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def rotate(
    x: Float[Tensor, "B N L H"], cos: Float[Tensor, "L H"], sin: Float[Tensor, "L H"]
) -> Float[Tensor, "B N L H"]:
    """Heads turned by their positions' angles; computed in fp32, returned in the type of ``x``."""
    first, second = x.chunk(2, dim=-1)
    swapped = torch.cat([second, first], dim=-1)
    return (x * cos + swapped * sin).to(x.dtype)


def attention_bias(
    mask: Int[Tensor, "B L"] | Bool[Tensor, "B L"] | Bool[Tensor, "B 1 1 L"] | None,
) -> Bool[Tensor, "B 1 1 L"] | None:
    """Which keys may be attended to, or None if all may, so that the fast kernels stay available.

    Args:
        mask: 1 (or True) = attend. None stands for all ones. What this function returned is passed
            on unread: a loop that prepares it once does not wait for the device in every pass.

    Raises:
        DataError: If a row has nothing to attend to.
    """
    if mask is None or mask.ndim == 4:
        return mask
    keep = mask != 0
    if bool(keep.all()):
        return None
    if not bool(keep.any(dim=-1).all()):
        raise DataError(
            "attention_mask: a row is all zeros; each row needs at least one token to attend to"
        )
    return keep[:, None, None, :]


def check_length(length: int, longest: int, what: str) -> None:
    """ConfigError unless an input of ``length`` tokens is one of at most ``longest``."""
    if length > longest:
        raise ConfigError(
            f"input: expected at most {longest} tokens ({what}), got {length}; "
            "shorten the prompt or the canvas"
        )


class LLaDABlock(GradientCheckpointingLayer):
    """One pre-norm block: full attention, then SwiGLU, each added to the residual stream."""

    def __init__(self, config: LLaDAConfig, *, depth: int) -> None:
        super().__init__()
        self.layer = depth - 1
        size = config.d_model
        self.num_heads, self.num_kv_heads = config.n_heads, config.num_kv_heads
        self.head_size = size // self.num_heads
        kv_size = self.num_kv_heads * self.head_size
        self.attn_norm = RMSNorm(size, eps=config.rms_norm_eps)
        self.q_proj = nn.Linear(size, size, bias=False)
        self.k_proj = nn.Linear(size, kv_size, bias=False)
        self.v_proj = nn.Linear(size, kv_size, bias=False)
        self.attn_out = residual_linear(size, size, depth=depth)
        self.ff_norm = RMSNorm(size, eps=config.rms_norm_eps)
        self.ff_proj = nn.Linear(size, config.ff_size, bias=False)
        self.up_proj = nn.Linear(size, config.ff_size, bias=False)
        self.ff_out = residual_linear(config.ff_size, size, depth=depth)

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        cos: Float[Tensor, "L H"],
        sin: Float[Tensor, "L H"],
        bias: Bool[Tensor, "B 1 1 K"] | None,
        store: KeyValueStore | None = None,
    ) -> Float[Tensor, "B L D"]:
        """The residual stream after this block. Positional, as gradient checkpointing needs."""
        x = x + self._attend(self.attn_norm(x), cos, sin, bias, store)
        normed = self.ff_norm(x)
        return x + self.ff_out(F.silu(self.ff_proj(normed)) * self.up_proj(normed))

    def _attend(
        self,
        x: Float[Tensor, "B L D"],
        cos: Float[Tensor, "L H"],
        sin: Float[Tensor, "L H"],
        bias: Bool[Tensor, "B 1 1 K"] | None,
        store: KeyValueStore | None,
    ) -> Float[Tensor, "B L D"]:
        batch, length, _ = x.shape
        q = self.q_proj(x).view(batch, length, self.num_heads, self.head_size).transpose(1, 2)
        k = self.k_proj(x).view(batch, length, self.num_kv_heads, self.head_size).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.num_kv_heads, self.head_size).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if store is not None:
            k, v = store.update(self.layer, k, v)
        repeats = self.num_heads // self.num_kv_heads
        if repeats > 1:
            # enable_gqa would give up the memory-efficient kernel as soon as there is a mask.
            k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=False)
        return self.attn_out(mixed.transpose(1, 2).reshape(batch, length, -1))


class RecomputedBlocks:
    """Mixed into a network, since the inherited property warns when PEFT asks for it."""

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether a block recomputes its activations."""
        modules = cast("nn.Module", self).modules()
        blocks = (m for m in modules if isinstance(m, GradientCheckpointingLayer))
        return any(block.gradient_checkpointing for block in blocks)


class LLaDAModelLM(RecomputedBlocks, PreTrainedModel):
    """LLaDA with its head; ``2 V D + layers (4 D^2 + 3 D F + 2 D) + D`` parameters without GQA.

    A new model is initialised as ``init_fn`` says. ``mitchell``: normal with standard deviation
    ``1 / sqrt(fan in)`` (embedding: ``1 / sqrt(D)``), projections back into the residual stream
    divided by ``sqrt(2 * depth)``, cut at three standard deviations; the logits of a new model then
    have a standard deviation near 1. ``normal``: ``init_std`` everywhere. Norm weights are 1.

    References:
        Nie et al., 2025 (LLaDA). The initialisation is OLMo's (Groeneveld et al., 2024), by the
        name under which LLaDA's configuration asks for it.
    """

    config_class = LLaDAConfig
    config: LLaDAConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["LLaDABlock"]  # noqa: RUF012
    _tied_weights_keys = {  # noqa: RUF012
        "model.transformer.ff_out.weight": "model.transformer.wte.weight",
    }

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__(config)
        blocks = range(1, config.n_layers + 1)
        parts = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.num_rows, config.d_model),
                "blocks": nn.ModuleList([LLaDABlock(config, depth=depth) for depth in blocks]),
                "ln_f": RMSNorm(config.d_model, eps=config.rms_norm_eps),
                "ff_out": nn.Linear(config.d_model, config.num_rows, bias=False),
            }
        )
        self.model = nn.ModuleDict({"transformer": parts})  # the published names
        self.post_init()

    def forward(
        self,
        input_ids: Int[Tensor, "B L"],
        attention_mask: Int[Tensor, "B K"]
        | Bool[Tensor, "B K"]
        | Bool[Tensor, "B 1 1 K"]
        | None = None,
        *,
        logits: bool = True,
        store: KeyValueStore | None = None,
    ) -> LLaDAOutput:
        """Logits of every position given all others.

        Args:
            input_ids: Token ids, ``mask_token_id`` where a token is to be predicted.
            attention_mask: 1 = attend. None or all ones: everything attends to everything. Outputs
                at positions with 0 are finite and mean nothing. Pad on the left: positions are
                relative, so the real ones come out as without padding. Or what ``attention_bias``
                made of it.
            logits: False leaves the ``[B, L, V]`` logits out, for losses that apply the head.
            store: Keys and values of the rest of the sequence; the input is then a part of it, and
                the attention mask covers the whole (``K`` positions; ``K = L`` without a store).

        Returns:
            The logits (or None) and the hidden states that the head reads.

        Raises:
            ConfigError: If the input is longer than ``max_sequence_length``.
            DataError: If a row of the mask is all zeros.
        """
        first, length = (0, input_ids.shape[1]) if store is None else (store.first, store.length)
        check_length(length, self.config.max_sequence_length, "max_sequence_length")
        parts = self._parts
        x: Tensor = parts["wte"](input_ids)
        head_size = self.config.d_model // self.config.n_heads
        cos, sin = rotary_angles(
            length, head_size=head_size, theta=self.config.rope_theta, device=x.device
        )
        cos, sin = (part[first : first + input_ids.shape[1]] for part in (cos, sin))
        bias = attention_bias(attention_mask)
        for block in parts["blocks"].children():
            x = block(x, cos, sin, bias) if store is None else block(x, cos, sin, bias, store)
        hidden: Tensor = parts["ln_f"](x)
        return LLaDAOutput(
            last_hidden_state=hidden, logits=parts["ff_out"](hidden) if logits else None
        )

    @property
    def _parts(self) -> nn.ModuleDict:
        return cast("nn.ModuleDict", self.model["transformer"])

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding."""
        return self._parts["wte"]

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding."""
        self._parts["wte"] = value

    def get_output_embeddings(self) -> nn.Module:
        """The head; its weight is ``[V, D]`` and ``hidden @ weight.T`` are the logits."""
        return self._parts["ff_out"]

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the head."""
        self._parts["ff_out"] = new_embeddings

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """As in transformers; keeps ``embedding_size`` in step with ``vocab_size``."""
        resized = super().resize_token_embeddings(*args, **kwargs)
        self.config.embedding_size = self.config.vocab_size
        return resized

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, RMSNorm):
            init.ones_(module.weight)
            return
        if not isinstance(module, nn.Linear | nn.Embedding):
            return
        if self.config.init_fn == "normal":
            init.normal_(module.weight, std=self.config.init_std)
            return
        std = 1 / math.sqrt(module.weight.shape[1])
        depth: Any = getattr(module, "residual_depth", None)
        if depth is not None:
            std /= math.sqrt(2 * depth)
        init.trunc_normal_(module.weight, std=std, a=-3 * std, b=3 * std)
