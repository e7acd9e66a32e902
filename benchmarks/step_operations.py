"""How many operations does a LoRA step launch in each arm? python benchmarks/step_operations.py.

A GPU that is faster than its host waits for launches, and then their number is what a step costs. LLaDA-8B's 32 blocks
at a toy width, activations recomputed, products in bfloat16, counted on a CPU; what only looks at memory in another
shape launches nothing and is left out. A GPU computes a norm in one launch, of which a CPU makes six. Half a minute;
writes benchmarks/results/step_operations.csv.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from measurement import write_csv
from torch.utils._python_dispatch import TorchDispatchMode

from slackdlm.models.adapter import casts_by_autocast, new_adapter
from slackdlm.models.configs import LLaDAConfig
from slackdlm.models.loaded import LoadedModel, recompute_activations
from slackdlm.models.loading import new_model
from slackdlm.models.tokenizer import train_tokenizer
from slackdlm.training.config import ObjectiveConfig
from slackdlm.training.data import Sample
from slackdlm.training.draw import canvas_spec, collate
from slackdlm.training.step_loss import sample_losses
from slackdlm.training.stream import TrainStream

CANVAS_LENGTH, PROMPT_LENGTH, RESPONSE_LENGTH, WIDTH = 48, 16, 32, 32
ARMS = {
    "ce": ObjectiveConfig(kind="ce"),
    "slack_ctc": ObjectiveConfig(kind="slack_ctc", slack_ratio=(0.0, 0.5)),
}


class Launches(TorchDispatchMode):
    """Counts operations that compute something."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Runs it."""
        makes_no_view = not any(given.alias_info is not None for given in func._schema.returns)
        writes = any(
            a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments
        )
        if (makes_no_view or writes) and "empty" not in func._schema.name:
            self.count += 1
        return func(*args, **(kwargs or {}))


def adapted_model(num_layers: int) -> LoadedModel:
    """LLaDA in bfloat16 with LoRA on every linear layer of its blocks, as the recipes have it."""
    tokenizer = train_tokenizer(["a text to fit a tokenizer to"], vocab_size=300, kind="byte_bpe")
    config = LLaDAConfig(
        vocab_size=len(tokenizer), d_model=WIDTH, n_layers=num_layers, n_heads=2,
        mlp_hidden_size=2 * WIDTH, max_sequence_length=PROMPT_LENGTH + CANVAS_LENGTH,
    )  # fmt: skip
    loaded = new_model(config, tokenizer, generator_seed=0)
    loaded.model.to(torch.bfloat16)
    adapted = new_adapter(loaded, rank=8, alpha=16, dropout=0.0)
    recompute_activations(adapted.model)
    adapted.model.train()
    return adapted


def operations(loaded: LoadedModel, arm: ObjectiveConfig) -> tuple[int, int]:
    """Of a forward pass with its loss, and of the backward pass."""
    network: Any = loaded.model
    words = torch.arange(10, 10 + PROMPT_LENGTH + RESPONSE_LENGTH)
    sample = Sample(source="made", prompt=words[:PROMPT_LENGTH], response=words[PROMPT_LENGTH:])
    spec = canvas_spec(loaded, canvas_length=CANVAS_LENGTH, objective=arm)
    stream = TrainStream([sample], spec, num_steps=1, batch_size=1, seed=0, data_seed=0)
    batch = collate([stream[0]], spec=spec)
    with casts_by_autocast(network, active=True):
        with Launches() as forward:
            loss = sample_losses(network, network, batch, spec=spec, bf16=True).mean()
        with Launches() as backward:
            loss.backward()
    network.zero_grad()
    return forward.count, backward.count


if __name__ == "__main__":
    rows: list[dict[str, object]] = []
    for num_layers in (1, 2, 32):
        loaded = adapted_model(num_layers)
        for name, arm in ARMS.items():
            forward, backward = operations(loaded, arm)
            rows.append(
                {
                    "arm": name,
                    "num_layers": num_layers,
                    "forward_and_loss": forward,
                    "backward": backward,
                    "torch_version": torch.__version__,
                }
            )
            print(*(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    write_csv(Path(__file__).parent / "results" / "step_operations.csv", rows)
