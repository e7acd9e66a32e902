"""What will this run need in memory? Counted on a network that is all shapes, before any weight is read.

Activations are not estimated: a forward pass over fake tensors says which tensors autograd keeps.
The rest is arithmetic. The allocator's own overhead is left out.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from peft.utils.other import TrainableTokensWrapper
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from slackdlm.errors import ConfigError
from slackdlm.models.adapter import casts_by_autocast
from slackdlm.models.loaded import plain_head
from slackdlm.objectives.vocabulary_pass import default_chunk_size
from slackdlm.training.config import Recipe
from slackdlm.training.plan_network import Network, dequantised, empty_network, weight_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPlan:
    """Bytes per process, and what they are for."""

    num_parameters: int
    """Weights of the model, adapters included."""
    num_trainable: int
    """Those that are trained."""
    micro_batch_size: int
    """Samples per forward pass and process."""
    num_positions: int
    """Longest prompt and longest canvas, in tokens."""
    weights: int
    """This process's share; sharded: with the two blocks and the rest that are gathered at a time."""
    gradients: int
    """Of the trained weights; across processes without sharding: and the buckets they are sent in."""
    optimizer: int
    """AdamW's two moments."""
    update: int
    """What the optimizer's step needs beside them for a moment."""
    activations: int
    """What the forward pass keeps for the backward pass."""
    loss_buffers: int
    """A chunk of logits, the lattice, and the gradients of hidden states and output layer."""
    dequantised: int
    """The largest 4-bit layer as it is multiplied with, for a moment in each pass."""
    gradients_kept: bool
    """Whether gradients are there during the forward pass already: with accumulation."""

    @property
    def peak(self) -> int:
        """The most that is held at a time: at the loss, or at the optimizer's step."""
        lasting = self.weights + self.optimizer
        # Layers come out of their 4 bits in the backward pass, when the logits are gone.
        at_loss = self.activations + max(self.loss_buffers, self.dequantised)
        if self.gradients_kept:
            at_loss += self.gradients
        return lasting + max(at_loss, self.gradients + self.update)


class Kept(NamedTuple):
    """Bytes that one forward pass keeps for the backward pass."""

    blocks: list[int]
    """In each transformer block."""
    inputs: list[int]
    """The input of each block."""
    rest: int
    """Outside the blocks."""


def plan_memory(
    recipe: Recipe,
    *,
    num_processes: int = 1,
    sharded: bool = False,
    micro_batch_size: int | None = None,
) -> MemoryPlan:
    """Memory of one process of a run.

    Args:
        recipe: The run. Of ``model.path`` only the configuration and tokenizer are read.
        num_processes: Processes (GPUs) of the run.
        sharded: Weights, gradients and optimizer state divided over them (FSDP2, ZeRO-3).
        micro_batch_size: Samples per forward pass; default: the recipe's.

    Returns:
        The plan, for the longest prompts and canvases.

    Raises:
        ConfigError: If the recipe or its model is wrong, the batch does not split evenly, or 4-bit
            weights are to be sharded.
        CheckpointError: If the model's configuration cannot be read, or its adapter does not fit.
    """
    _check_sharded(recipe, sharded=sharded)
    training = recipe.training
    if micro_batch_size is None:
        accumulation = training.num_accumulation(num_processes=num_processes)
        micro_batch_size = training.batch_size // accumulation // num_processes
    network = empty_network(recipe)
    return _plan(
        recipe,
        network,
        _activations(recipe, network, num_samples=micro_batch_size, sharded=sharded),
        num_processes=num_processes,
        sharded=sharded,
        micro_batch_size=micro_batch_size,
    )


def _plan(
    recipe: Recipe,
    network: Network,
    activations: int,
    *,
    num_processes: int,
    sharded: bool,
    micro_batch_size: int,
) -> MemoryPlan:
    parameters = list(network.parameters())
    trained = [p for p in parameters if p.requires_grad]
    share = num_processes if sharded else 1
    weights, gradients = weight_bytes(network) // share, sum(map(_nbytes, trained)) // share
    optimizer = 2 * gradients
    # On a GPU the step is fused; on a CPU it goes weight by weight.
    update = 0 if torch.cuda.is_available() else 2 * max(map(_nbytes, trained))
    if sharded:
        weights += _gathered(network, element_size=2 if recipe.training.bf16 else 4)
    elif num_processes > 1:
        gradients *= 2
    return MemoryPlan(
        num_parameters=sum(p.numel() for p in parameters),
        num_trainable=sum(p.numel() for p in trained),
        micro_batch_size=micro_batch_size,
        num_positions=recipe.data.max_prompt_length + recipe.data.canvas_length,
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        update=update,
        activations=activations,
        loss_buffers=_loss_buffers(network, recipe, num_samples=micro_batch_size),
        dequantised=dequantised(network),
        gradients_kept=recipe.training.batch_size > micro_batch_size * num_processes,
    )


def largest_micro_batch(
    recipe: Recipe, *, memory: float, num_processes: int = 1, sharded: bool = False
) -> int | None:
    """Most samples per forward pass that fit, and that the global batch can be split into.

    Args:
        recipe: The run.
        memory: Bytes per process.
        num_processes: As in :func:`plan_memory`.
        sharded: As in :func:`plan_memory`.

    Returns:
        The size; None if not even one sample fits.
    """
    _check_sharded(recipe, sharded=sharded)
    per_process = recipe.training.batch_size // num_processes
    network = empty_network(recipe)
    one, two = (_activations(recipe, network, num_samples=size, sharded=sharded) for size in (1, 2))
    for size in range(per_process, 0, -1):
        if per_process % size:
            continue
        plan = _plan(
            recipe,
            network,
            one + (size - 1) * (two - one),
            num_processes=num_processes,
            sharded=sharded,
            micro_batch_size=size,
        )
        if plan.peak <= memory:
            return size
    return None


def kept_activations(network: Network, *, num_samples: int, num_positions: int, bf16: bool) -> Kept:
    """What autograd keeps of a forward pass, counted on fake tensors.

    Args:
        network: On the meta device; put on fake CPU memory here.
        num_samples: Rows of the batch.
        num_positions: Tokens of each row.
        bf16: Whether products are autocast to bfloat16.

    Raises:
        ConfigError: If what the network does depends on its numbers.
    """
    blocks = [m for m in network.modules() if isinstance(m, GradientCheckpointingLayer)]
    known: set[int] = set()  # storages that are counted, or weights
    kept = [0] * (len(blocks) + 1)
    inputs = [0] * len(blocks)
    place = len(blocks)
    held: list[Tensor] = []  # storages stay alive, so that no address is met twice

    def enter(index: int) -> Callable[[nn.Module, Any], None]:
        def hook(block: nn.Module, arguments: Any) -> None:
            nonlocal place
            place = index
            inputs[index] = _nbytes(arguments[0])

        return hook

    def leave() -> None:
        nonlocal place
        place = len(blocks)

    def pack(tensor: Tensor) -> Tensor:
        address = _address(tensor)
        if address not in known:
            known.add(address)
            kept[place] += tensor.untyped_storage().nbytes()
            held.append(tensor)
        return tensor

    handles = [block.register_forward_pre_hook(enter(i)) for i, block in enumerate(blocks)] + [
        block.register_forward_hook(lambda *_: leave()) for block in blocks
    ]
    with _fake_memory(network):
        known.update(map(_address, network.parameters()))
        network.train()
        with (
            casts_by_autocast(network, active=bf16),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16),
        ):
            try:
                network(torch.zeros(num_samples, num_positions, dtype=torch.long), logits=False)
            except (DataDependentOutputException, DynamicOutputShapeException) as error:
                base = network.get_base_model() if isinstance(network, PeftModel) else network
                raise ConfigError(
                    f"--plan: not possible for {type(base).__name__}, whose forward pass looks at its"
                    " numbers; train a few steps with a small training.micro_batch_size"
                ) from error
    for handle in handles:
        handle.remove()
    return Kept(blocks=kept[:-1], inputs=inputs, rest=kept[-1])


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage] - fakes have no data_ptr


@contextmanager
def _fake_memory(network: nn.Module) -> Generator[None]:
    with FakeTensorMode(allow_non_fake_inputs=True):
        made: dict[int, Tensor] = {}  # tied weights stay tied
        for module in network.modules():
            for name, value in module.named_parameters(recurse=False):
                if id(value) not in made:
                    fake = torch.empty(value.shape, dtype=value.dtype, device="cpu")
                    made[id(value)] = nn.Parameter(fake, requires_grad=value.requires_grad)
                setattr(module, name, made[id(value)])
            for name, value in module.named_buffers(recurse=False):
                setattr(module, name, torch.empty(value.shape, dtype=value.dtype, device="cpu"))
        yield


def _activations(recipe: Recipe, network: Network, *, num_samples: int, sharded: bool) -> int:
    bf16 = recipe.training.bf16
    num_positions = recipe.data.max_prompt_length + recipe.data.canvas_length
    kept = kept_activations(
        network, num_samples=num_samples, num_positions=num_positions, bf16=bf16
    )
    if not recipe.training.gradient_checkpointing or not kept.blocks:
        return sum(kept.blocks) + kept.rest
    # Autocast keeps its bfloat16 copies of trained weights for the whole forward pass; sharded
    # ones are gathered in bfloat16 and freed again.
    matrices = [
        p for p in network.parameters() if p.requires_grad and p.ndim == 2 and p.dtype.itemsize == 4
    ]
    copies = 2 * sum(p.numel() for p in matrices) if bf16 and not sharded else 0
    return kept.rest + sum(kept.inputs) + max(kept.blocks) + copies


def _loss_buffers(network: Network, recipe: Recipe, *, num_samples: int) -> int:
    """Of the loss as :mod:`slackdlm.training.step_loss` computes it, all masked."""
    layer: Any = network.get_output_embeddings()
    weight = plain_head(layer).weight
    vocab_size, hidden_size = weight.shape
    length = recipe.data.canvas_length
    rows = num_samples * length
    half = recipe.training.bf16 or weight.dtype == torch.bfloat16
    element = 2 if half else 4
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chunk = min(rows, default_chunk_size(vocab_size, device))
    is_plain = isinstance(layer, nn.Linear | TrainableTokensWrapper)
    # Through an adapter: the logits, their exponentials and two gradients, all computed again.
    logits = chunk * vocab_size * ((8 if half else 4) if is_plain else (20 if half else 16))
    states = rows * hidden_size * (2 * element + 4)
    trained = any(p.requires_grad and p.shape == weight.shape for p in layer.parameters())
    head = weight.numel() * 4 if trained else 0
    copies = weight.numel() * 2 if half and weight.dtype == torch.float32 else 0
    if recipe.objective.weight == 0:
        return logits + states + head + copies
    high = recipe.objective.slack_ratio[1]
    num_slack = round(length * high / (1 + high))
    lattice = 6 * rows * (num_slack + 1) * 4
    return logits + states + head + copies + lattice


def _gathered(network: Network, *, element_size: int) -> int:
    """Weights that are whole at a time: two blocks, and what lies outside all blocks."""
    blocks = [m for m in network.modules() if isinstance(m, GradientCheckpointingLayer)]
    sizes = [sum(p.numel() for p in block.parameters()) for block in blocks]
    rest = sum(p.numel() for p in network.parameters()) - sum(sizes)
    return element_size * (rest + 2 * max(sizes, default=0))


def _check_sharded(recipe: Recipe, *, sharded: bool) -> None:
    if sharded and recipe.model.quantization is not None:
        raise ConfigError(
            "--sharded: 4-bit weights (model.quantization) lie whole on every process; leave one out"
        )


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
