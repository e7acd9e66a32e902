"""How is one row of a frozen vocabulary trained? PEFT's trainable tokens, without their copies.

PEFT writes the trained rows into a copy of the whole matrix at every pass, and autograd then
computes a gradient of that size: for LLaDA-8B some gigabytes for the sake of one token. Here the
row is put where its token occurs (embedding) or its logit belongs (output layer). Files, merging
and tied weights stay PEFT's.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.utils.other import TrainableTokensWrapper
from torch import Tensor, nn

from slackdlm.errors import CheckpointError
from slackdlm.models.loaded import plain_head


class TokenRows(TrainableTokensLayer):
    """PEFT's layer with the same results, but for a bias of the output layer, which PEFT drops."""

    def forward_adapters(
        self, x: Tensor, active_adapters: Sequence[str], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Embeddings of ids, or logits of hidden states, the trained rows in their place."""
        output: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return output
        for name in active_adapters:
            ids, rows = self.token_indices[name], self.trainable_tokens_delta[name]
            if isinstance(self.base_layer, nn.Embedding):
                for token_id, row in zip(ids, rows, strict=True):
                    output = torch.where((x == token_id)[..., None], row.to(output.dtype), output)
            else:
                bias: Tensor | None = getattr(self.base_layer, "bias", None)
                logits = F.linear(x, rows.to(x.dtype), None if bias is None else bias[ids])
                index = torch.tensor(ids, device=x.device)
                output = output.index_copy(-1, index, logits.to(output.dtype))
        return output


def use_token_rows(model: PeftModel, *, slack_id: int) -> None:
    """Make the trainable tokens of an adapter :class:`TokenRows`, trained in float32.

    Raises:
        CheckpointError: If they are others than ``<slack>`` and PEFT makes two models of them, one
            as it is and one once it is merged: the first leaves out the output layer's bias or tie.
    """
    network: Any = model.get_base_model()
    embedding, output = network.get_input_embeddings(), network.get_output_embeddings()
    others = [layer for layer in _wrapped(model) if _token_ids(layer) != [slack_id]]
    if _is_bare_and_tied(embedding, output) or (
        others and (_is_half_tied(embedding, output) or any(map(_has_bias, others)))
    ):
        raise CheckpointError(
            "trainable tokens beside an output layer with a bias, or tied to the embedding, is not"
            " supported: PEFT's own logits change when it is merged; merge it, load the whole model"
        )
    if isinstance(embedding, TrainableTokensWrapper):
        layer: Any = embedding.token_adapter
        if output.weight is layer.base_layer.weight:
            # The output layer has the rows of the embedding; PEFT knows some configurations alone.
            (name,) = model.active_adapters
            rows = layer.token_indices[name]
            network.set_output_embeddings(
                TrainableTokensWrapper(output, name, rows, tied_adapter=layer)
            )
    for module in model.modules():
        if isinstance(module, TrainableTokensLayer):
            module.__class__ = TokenRows
            for name, row in module.trainable_tokens_delta.items():
                value = nn.Parameter(row.detach().float(), requires_grad=row.requires_grad)
                module.trainable_tokens_delta[name] = value


def _wrapped(model: PeftModel) -> list[Any]:
    return [m.token_adapter for m in model.modules() if isinstance(m, TrainableTokensWrapper)]


def _token_ids(layer: Any) -> list[int]:
    return [token_id for name in layer.active_adapters for token_id in layer.token_indices[name]]


def _has_bias(layer: Any) -> bool:
    return getattr(layer.get_base_layer(), "bias", None) is not None


def _is_bare_and_tied(embedding: Any, output: Any) -> bool:
    """Whether an adapter of token rows alone is on an embedding that the output layer shares."""
    if not isinstance(embedding, TrainableTokensLayer):
        return False
    return getattr(output, "base_layer", output).weight is embedding.base_layer.weight


def _is_half_tied(embedding: Any, output: Any) -> bool:
    """Whether the output layer has the embedding's weight, but not the rows trained of it."""
    if not isinstance(embedding, TrainableTokensWrapper):
        return False
    layer: Any = embedding.token_adapter
    is_wrapped = isinstance(output, TrainableTokensWrapper)
    return not is_wrapped and plain_head(output).weight is layer.base_layer.weight
