"""Toy configurations, weights and inputs on which ours and the published modelling code are compared.

Needs numpy alone, so that ``benchmarks/published_parity.py`` can use it where the published code
runs. The weights come from numpy's PCG64, tensor by tensor in the order of their names.
"""

import zlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Case(NamedTuple):
    """One comparison."""

    config: dict[str, Any]
    batch: int
    length: int
    pads: tuple[int, ...]
    """Positions of padding on the left of each row; none at all: no attention mask."""


LLADA: dict[str, Any] = {
    "d_model": 32,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 4,
    "mlp_hidden_size": 96,
    "vocab_size": 61,
    "embedding_size": 61,
    "max_sequence_length": 64,
    "weight_tying": False,
}
DREAM: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 61,
    "max_position_embeddings": 64,
    "rope_theta": 1000000.0,
    "mask_token_id": 60,
    "pad_token_id": 59,
}
CASES: dict[str, dict[str, Case]] = {
    "llada": {
        "as LLaDA-8B": Case(LLADA, 2, 40, ()),
        "left padding": Case(LLADA, 3, 13, (0, 5, 1)),
        "grouped heads, left padding": Case(LLADA | {"n_kv_heads": 2}, 2, 17, (3, 0)),
        "one key head, tied, other constants": Case(
            LLADA | {"n_kv_heads": 1, "weight_tying": True}
            | {"rope_theta": 10000.0, "rms_norm_eps": 1e-6, "n_layers": 3},
            2, 17, (),
        ),
    },
    "dream": {
        "as Dream-7B": Case(DREAM, 2, 40, ()),
        "left padding": Case(DREAM, 3, 13, (0, 5, 1)),
        "no grouped heads, other constants": Case(
            DREAM | {"num_key_value_heads": 4, "rope_theta": 10000.0, "rms_norm_eps": 1e-5},
            2, 17, (),
        ),
    },
}  # fmt: skip


def draw_tensor(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A tensor of random weights, the same for the same name and shape."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    uniform = 2 * generator.random(shape) - 1
    if "norm" in name or "ln_f" in name:
        return (1 + 0.3 * uniform).astype(np.float32)
    fan_in = shape[-1] if len(shape) > 1 else 4
    return (uniform * (3 / fan_in) ** 0.5).astype(np.float32)


def draw_ids(case: Case) -> NDArray[np.int64]:
    """Token ids ``[B, L]``, padding included."""
    generator = np.random.Generator(np.random.PCG64(case.length))
    return (generator.random((case.batch, case.length)) * case.config["vocab_size"]).astype(
        np.int64
    )


def attention(case: Case) -> NDArray[np.int64] | None:
    """1 = attend; None without padding."""
    if not case.pads:
        return None
    return (np.arange(case.length) >= np.array(case.pads)[:, None]).astype(np.int64)
