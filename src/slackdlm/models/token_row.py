"""How is one row of a frozen vocabulary trained? PEFT's trainable tokens, without their copies.

PEFT writes the trained rows into a copy of the whole matrix at every pass, and autograd then
computes a gradient of that size: for LLaDA-8B some gigabytes for the sake of one token. Here the row
is put where its token occurs (embedding) or its logit belongs (output layer). Files, merging and
tied weights stay PEFT's.
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
        CheckpointError: If they are others than ``<slack>`` and PEFT makes two models of them, one as it is
            and another once it is merged: the first leaves out the output layer's bias, or its tie.
    """
    wrappers = [m for m in model.modules() if isinstance(m, TrainableTokensWrapper)]
    others = [m for m in wrappers if _token_ids(m) != [slack_id]]
    if _is_bare_and_tied(model) or (
        others and (_is_tied(model) or any(_has_bias(wrapper) for wrapper in others))
    ):
        raise CheckpointError(
            "trainable tokens beside an output layer with a bias, or tied to the embedding, is not"
            " supported: PEFT's own logits change when it is merged; merge it and load the whole model"
        )
    _follow_tie(model)
    for module in model.modules():
        if isinstance(module, TrainableTokensLayer):
            module.__class__ = TokenRows
            for name, row in module.trainable_tokens_delta.items():
                own = nn.Parameter(row.detach().float(), requires_grad=row.requires_grad)
                module.trainable_tokens_delta[name] = own


def _is_bare_and_tied(model: PeftModel) -> bool:
    """Whether an adapter of nothing but token rows (TRAINABLE_TOKENS) is on an embedding that the output shares."""
    network: Any = model.get_base_model()
    embedding, output = network.get_input_embeddings(), network.get_output_embeddings()
    if not isinstance(embedding, TrainableTokensLayer):
        return False
    return getattr(output, "base_layer", output).weight is embedding.base_layer.weight


def _token_ids(wrapper: Any) -> list[int]:
    layer = wrapper.token_adapter
    return [token_id for name in layer.active_adapters for token_id in layer.token_indices[name]]


def _has_bias(wrapper: Any) -> bool:
    return getattr(wrapper.token_adapter.get_base_layer(), "bias", None) is not None


def _is_tied(model: PeftModel) -> bool:
    """Whether the output layer has the embedding's weight, but not the rows trained of it."""
    network: Any = model.get_base_model()
    embedding, output = network.get_input_embeddings(), network.get_output_embeddings()
    if not isinstance(embedding, TrainableTokensWrapper) or isinstance(
        output, TrainableTokensWrapper
    ):
        return False
    layer: Any = embedding.token_adapter
    return plain_head(output).weight is layer.base_layer.weight


def _follow_tie(model: PeftModel) -> None:
    """An output layer tied to the embedding has its rows; PEFT knows some configurations' keys alone."""
    network: Any = model.get_base_model()
    embedding, output = network.get_input_embeddings(), network.get_output_embeddings()
    if not isinstance(embedding, TrainableTokensWrapper):
        return
    layer: Any = embedding.token_adapter
    if output.weight is not layer.base_layer.weight:
        return
    (name,) = model.active_adapters
    wrapper = TrainableTokensWrapper(output, name, layer.token_indices[name], tied_adapter=layer)
    network.set_output_embeddings(wrapper)
