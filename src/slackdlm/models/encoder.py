"""Any encoder with a masked-LM head as a diffusion model: BERT, RoBERTa, ModernBERT and their kin.

The network is transformers' own class; what is added is the protocol that loss and sampler share:
the output layer applied to ``model(ids, mask, logits=False).last_hidden_state`` gives the logits.
Hidden states are therefore taken behind the head's transform.

References:
    Devlin et al., 2019 (BERT). Liu et al., 2019 (RoBERTa). Warner et al., 2024 (ModernBERT).
"""

import re
from functools import cache
from inspect import signature
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, MODEL_FOR_MASKED_LM_MAPPING, PreTrainedModel

from slackdlm.errors import CheckpointError, ConfigError, one_line
from slackdlm.models.llada import LLaDAOutput, RecomputedBlocks, attention_bias, check_length
from slackdlm.models.loaded import forward_replaced, logits_of

# What published checkpoints hold beside the masked language model, and a buffer of old versions.
_UNUSED = re.compile(r"(^|\.)pooler\.|^cls\.seq_relationship\.|\.position_ids$")


class EncoderProtocol(RecomputedBlocks):
    """Mixed into a masked-LM class of transformers by :func:`encoder_class`."""

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
        """Logits of every position given all others: as LLaDA's, but without a ``store``.

        Padding goes on the left: positions are counted from the first 1 of the mask.

        Raises:
            ConfigError: If the input is longer than the position table, or there is a ``store``.
            DataError: If a row of the mask is all zeros.
        """
        this = cast("Any", self)
        if store is not None:
            raise ConfigError("cache: not implemented for encoders; use cache: none")
        check_length(input_ids.shape[1], max_length(this), "positions of the model")
        bias = attention_bias(attention_mask)
        mask = torch.ones_like(input_ids) if bias is None else bias[:, 0, 0].long()
        settings: dict[str, Any] = {"attention_mask": mask}
        if "position_ids" in signature(super().forward).parameters:  # pyright: ignore
            settings["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0) + _first_position(this)
        head = this.get_output_embeddings()
        with forward_replaced(head, _itself):  # the logits are not computed
            hidden: Tensor = super().forward(input_ids=input_ids, **settings).logits  # pyright: ignore
        scores = head(hidden) if logits else None
        return LLaDAOutput(last_hidden_state=hidden, logits=scores)


def is_encoder(model_type: object) -> bool:
    """Whether transformers has a masked-LM class for this ``model_type``."""
    name = str(model_type)
    return name in CONFIG_MAPPING and CONFIG_MAPPING[name] in MODEL_FOR_MASKED_LM_MAPPING


def encoder_config(raw: dict[str, Any]) -> Any:
    """The configuration of an encoder, by transformers' own class.

    Raises:
        ConfigError: If it is no bidirectional encoder, or asks for positions transformers has not.
    """
    config = CONFIG_MAPPING[str(raw["model_type"])].from_dict(raw)
    values = {"is_encoder_decoder": config.is_encoder_decoder} | raw
    for key, supported in (
        ("is_encoder_decoder", (False, None)),
        ("is_decoder", (False, None)),
        ("position_embedding_type", ("absolute",)),
    ):
        if values.get(key, supported[0]) not in supported:
            raise ConfigError(
                f"config.json: {key} = {one_line(repr(values[key]))} is not supported; "
                "use a bidirectional encoder with absolute or rotary positions"
            )
    return config


@cache
def encoder_class(config_class: type[Any]) -> type[PreTrainedModel]:
    """The masked-LM class of a configuration's with the protocol mixed in, under the same name."""
    base: Any = MODEL_FOR_MASKED_LM_MAPPING[config_class]
    return type(base.__name__, (EncoderProtocol, base), {"__module__": __name__})


def without_head(error: CheckpointError, raw: dict[str, Any]) -> CheckpointError:
    """An error of weights that do not fit, and that the checkpoint names no masked-LM class."""
    names: Any = raw.get("architectures")
    if not isinstance(names, list) or any(re.search("MaskedLM|PreTraining", str(n)) for n in names):
        return error
    classes = one_line(", ".join(map(str, cast("list[object]", names))))
    return CheckpointError(f"{error}; it is a {classes}, not a model with a masked-LM head")


def is_unused(name: str) -> bool:
    """Whether a tensor of a published checkpoint is none of the masked language model's."""
    return _UNUSED.search(name) is not None


def max_length(model: PreTrainedModel) -> int:
    """Longest input in tokens."""
    table = _position_table(model)
    if table is None:
        return int(model.config.max_position_embeddings)
    return table.num_embeddings - _first_position(model)


@torch.no_grad()
def check_protocol(model: PreTrainedModel) -> None:
    """Raise unless the model does what loss and sampler rely on; three small forward passes.

    On the meta device there are no numbers to ask.

    The head applied to the hidden states gives the logits of transformers' own forward pass, and
    padding on the left changes nothing at the other positions.

    Raises:
        ConfigError: If the architecture is not one that this protocol fits.
        CheckpointError: If its numbers are not finite.
    """
    if model.device.type == "meta":
        return
    embedding: Any = model.get_input_embeddings()
    rows, padding = len(embedding.weight), model.config.pad_token_id
    ids = [i for i in range(min(rows, 8)) if i != padding][:6]
    inputs = torch.tensor([ids], device=embedding.weight.device)
    mask = torch.ones_like(inputs)
    original: Any = super(EncoderProtocol, model)  # pyright: ignore
    expected: Tensor = original.forward(input_ids=inputs, attention_mask=mask).logits
    if not bool(expected.isfinite().all()):
        raise CheckpointError(f"{model.name_or_path}: its logits are not finite; copy it again")
    left = torch.full_like(inputs[:, :3], ids[0])
    tolerance = 1e-3 if expected.dtype == torch.float32 else 0.1
    try:
        states: list[Tensor] = [
            model(inputs, logits=False).last_hidden_state,
            model(
                torch.cat([left, inputs], dim=1),
                torch.cat([torch.zeros_like(left), mask], dim=1),
                logits=False,
            ).last_hidden_state[:, 3:],
        ]
        errors = [float((logits_of(model, state[0]) - expected[0]).abs().max()) for state in states]
    except RuntimeError as error:  # of shapes that do not fit
        raise ConfigError(
            f"{type(model).__name__}: not supported, since its head is not one matrix"
            f" ({one_line(error)}); use a BERT, RoBERTa or ModernBERT"
        ) from error
    for error, what in zip(errors, ("its head", "left padding"), strict=True):
        if not error <= tolerance * float(expected.abs().max()):
            raise ConfigError(
                f"{type(model).__name__}: not supported, since {what} changes its logits by "
                f"{error:.2g}; use a BERT, RoBERTa or ModernBERT"
            )


def _position_table(model: PreTrainedModel) -> nn.Embedding | None:
    modules = dict(model.named_modules()).items()
    tables = [m for name, m in modules if name.endswith("position_embeddings")]
    return next((table for table in tables if isinstance(table, nn.Embedding)), None)


def _first_position(model: PreTrainedModel) -> int:
    """RoBERTa counts from behind its padding id."""
    table = _position_table(model)
    return 0 if table is None or table.padding_idx is None else table.padding_idx + 1


def _itself(hidden: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
    return hidden
