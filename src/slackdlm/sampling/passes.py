"""How is a pass over the model made cheaper? Keys and values kept within a block, and passes captured as CUDA graphs.

A forward pass of LLaDA-8B is some two thousand kernels; over a short sequence the GPU waits for the host to launch each
of them. A captured pass is recorded once and launched whole, with the same numbers. Kept keys and values are an
approximation, never the default.

Axis letters: ``B`` rows, ``R`` rows that still decode, ``N`` heads, ``P`` positions of the input, ``L`` positions of
the sequence, ``H`` head size, ``D`` hidden size, ``K`` keys attended to.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor

from slackdlm.models.dream import DreamModel
from slackdlm.models.llada import LLaDAModelLM
from slackdlm.models.loading import LoadedModel


class KeyValueCache:
    """Keys and values of the whole sequence from its last full pass, the input's own written over them.

    A pass over the whole sequence fills it. A later pass over a part attends to the part as it is now and to the
    rest as it was. ``prefix`` passes run from the block's start to the end of the canvas, so that only what lies
    before the block is old; ``dual`` passes run over the block alone.

    Args:
        length: Positions of the sequence, prompt and canvas.

    References:
        Wu et al., 2025 (Fast-dLLM), ``generate_with_prefix_cache`` and ``generate_with_dual_cache``.
    """

    def __init__(self, length: int) -> None:
        self.first = 0
        self.length = length
        self._layers: list[tuple[Tensor, Tensor]] = []

    def update(
        self, layer: int, keys: Float[Tensor, "B N P H"], values: Float[Tensor, "B N P H"]
    ) -> tuple[Float[Tensor, "B N L H"], Float[Tensor, "B N L H"]]:
        """Takes in what the input's positions now hold; gives keys and values of the sequence."""
        if keys.shape[2] == self.length:
            self._layers[layer:] = [(keys, values)]
            return keys, values
        stored_keys, stored_values = self._layers[layer]
        here = slice(self.first, self.first + keys.shape[2])
        stored_keys[:, :, here] = keys
        stored_values[:, :, here] = values
        return stored_keys, stored_values


Pass = Callable[[Int[Tensor, "R P"], Bool[Tensor, "R 1 1 K"] | None], Float[Tensor, "R P D"]]


def can_be_captured(loaded: LoadedModel) -> bool:
    """Whether a forward pass of this model never waits for the host: our own networks, whole on one GPU."""
    model: Any = loaded.model
    network: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return (
        loaded.device.type == "cuda"
        and isinstance(network, LLaDAModelLM | DreamModel)
        and not getattr(network, "is_quantized", False)
        and not getattr(network, "hf_device_map", None)
    )


class CapturedPass:
    """A pass over inputs of one shape as a CUDA graph: the same kernels, hence the same numbers.

    Args:
        forward: The pass. Has run before on inputs of this shape, so that its libraries are set up.
        inputs: Token ids of the shape that all later ones have.
        bias: The attention mask of the first call.
    """

    def __init__(
        self, forward: Pass, inputs: Int[Tensor, "R P"], bias: Bool[Tensor, "R 1 1 K"] | None
    ) -> None:
        self._inputs = inputs.clone()
        self._bias = None if bias is None else bias.clone()
        # Work spaces of a stream are made by its first pass.
        stream = torch.cuda.Stream(inputs.device)
        stream.wait_stream(torch.cuda.current_stream(inputs.device))
        with torch.cuda.stream(stream):
            forward(self._inputs, self._bias)
        torch.cuda.current_stream(inputs.device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):
            self._hidden = forward(self._inputs, self._bias)

    def fits(self, inputs: Int[Tensor, "R P"]) -> bool:
        """Whether inputs have the shape it was captured for."""
        return inputs.shape == self._inputs.shape

    def __call__(
        self, inputs: Int[Tensor, "R P"], bias: Bool[Tensor, "R 1 1 K"] | None
    ) -> Float[Tensor, "R P D"]:
        """What ``forward`` gives, overwritten by the next call."""
        self._inputs.copy_(inputs)
        if self._bias is not None and bias is not None:
            self._bias.copy_(bias)
        self._graph.replay()
        return self._hidden
