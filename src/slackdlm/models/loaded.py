"""What is a loaded model? The network, its tokenizer, the ids that have a meaning, and the head."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from slackdlm.models.training_record import TrainingRecord


@dataclass(frozen=True)
class LoadedModel:
    """A model with everything needed to talk to it."""

    model: PreTrainedModel | PeftModel
    """``model(input_ids, attention_mask).logits`` are aligned with the positions."""
    tokenizer: PreTrainedTokenizerFast
    """The tokenizer of these ids."""
    mask_id: int
    """Stands where a token is to be predicted; never part of a text."""
    slack_id: int
    """Stands where nothing is said; dropped by ``slackdlm.collapse``."""
    eos_ids: tuple[int, ...]
    """Every id that ends a response: end of text (encoders: the separator) and end of turn."""
    pad_id: int
    """The end of text as padding; the first of ``eos_ids``."""
    name: str
    """Where it came from; goes into result files."""
    max_length: int
    """Longest input in tokens, prompt and canvas together."""
    record: TrainingRecord | None = None
    """The canvases it was last trained on, where its folder says so."""


def head_weight(model: PreTrainedModel | PeftModel) -> Float[Tensor, "V D"]:
    """The output layer's weight: ``hidden @ weight.T`` are the logits.

    A bias (encoders have one) is its last column, and the last feature of ``hidden`` is then 1; the
    gradient of the column is the gradient of the bias.
    """
    head: Any = model.get_output_embeddings()
    bias: Tensor | None = getattr(head, "bias", None)
    return head.weight if bias is None else torch.cat([head.weight, bias[:, None]], dim=1)
