"""What need not be computed again? Keys and values kept while a block is decoded: an approximation, never the default.

Axis letters: ``B`` rows, ``N`` heads, ``P`` positions of the input, ``L`` positions of the sequence, ``H`` head size.
"""

from jaxtyping import Float
from torch import Tensor


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
