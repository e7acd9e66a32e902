"""Which engine divides the weights over the processes, as the launcher was told, and may it train this?"""

import os
from typing import Any, Literal

import torch
from accelerate import Accelerator, DistributedType
from torch.distributed.fsdp import MixedPrecisionPolicy

from slackdlm.errors import ConfigError
from slackdlm.training.config import TrainingConfig
from slackdlm.training.processes import this_process

Engine = Literal["FSDP", "DEEPSPEED"]

_DDP = "launch with recipes/accelerate/ddp.yaml, which keeps the whole model on each GPU"

_OF_THE_RECIPE = {
    "gradient_clipping": "training.max_grad_norm",
    "gradient_accumulation_steps": "training.micro_batch_size",
}


def engine() -> Engine | None:
    """What ``accelerate launch`` was told to divide the weights with; None: nothing."""
    if _is_set("ACCELERATE_USE_FSDP"):
        return "FSDP"
    return "DEEPSPEED" if _is_set("ACCELERATE_USE_DEEPSPEED") else None


def check_engine(
    training: TrainingConfig,
    *,
    is_quantized: bool,
    is_tied: bool = False,
    has_plain_head: bool = True,
) -> None:
    """Raise unless the launcher's settings train what the recipe says.

    Args:
        training: The recipe's block.
        is_quantized: Whether the weights have 4 bits.
        is_tied: Whether embedding and output layer are one weight.
        has_plain_head: Whether the output layer is without an adapter, the row of ``<slack>`` aside.

    Raises:
        ConfigError: If they do not; says which setting to change.
    """
    wanted = "bf16" if training.bf16 else "no"
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision not in ("no", wanted):
        raise ConfigError(
            f"accelerate: mixed_precision is {precision}, but training.bf16 of the recipe is"
            f" {str(training.bf16).lower()}; set mixed_precision to 'no', and the recipe decides"
        )
    divided_by = engine()
    if divided_by is None:
        return
    if is_quantized:
        raise ConfigError(
            f"model.quantization: 4-bit weights cannot be divided over processes; {_DDP}"
        )
    if not has_plain_head:
        raise ConfigError(
            f"model.adapter: an adapter on the output layer cannot be trained on divided weights; {_DDP}"
        )
    if divided_by == "FSDP":
        _check_fsdp(is_tied=is_tied)
    else:
        _check_deepspeed(precision)


def _check_fsdp(*, is_tied: bool) -> None:
    found = this_process().distributed_type
    if found in (DistributedType.NO, DistributedType.MULTI_CPU):
        raise ConfigError(
            f"accelerate: FSDP divides weights over GPUs alone, and this is {found.value}; on CPUs launch"
            " with `torchrun --nproc-per-node N -m slackdlm.cli train RECIPE`"
        )
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise ConfigError(
            f"accelerate: fsdp_version is {version}, expected 2; use recipes/accelerate/fsdp2.yaml"
        )
    if _is_set("FSDP_ACTIVATION_CHECKPOINTING"):
        raise ConfigError(
            "accelerate: fsdp_activation_checkpointing is on; switch it off and use"
            " training.gradient_checkpointing of the recipe"
        )
    if is_tied:
        raise ConfigError(
            "accelerate: FSDP cannot divide a model whose embedding and output layer are one weight;"
            f" {_DDP}"
        )


def _check_deepspeed(precision: str) -> None:
    if "ACCELERATE_DEEPSPEED_CONFIG_FILE" in os.environ:
        raise ConfigError(
            "accelerate: deepspeed_config_file is set, whose optimizer, scheduler and types would stand"
            " beside the recipe's; use recipes/accelerate/deepspeed-zero3.yaml"
        )
    stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    if stage != "3":
        raise ConfigError(
            f"accelerate: zero_stage is {stage}, expected 3; use recipes/accelerate/deepspeed-zero3.yaml"
        )
    if precision != "no":
        raise ConfigError(
            "accelerate: with mixed_precision bf16 DeepSpeed trains weights of bfloat16, which lose small"
            " updates; set mixed_precision to 'no', and training.bf16 of the recipe decides"
        )
    for setting, key in _OF_THE_RECIPE.items():
        value = os.environ.get(f"ACCELERATE_{setting.upper()}", "auto")
        if value != "auto":
            raise ConfigError(
                f"accelerate: {setting} is {value}; remove it, and {key} of the recipe decides"
            )
    if not _is_set("ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"):
        raise ConfigError(
            "accelerate: without zero3_save_16bit_model no process could save the weights at the end;"
            " set it to true"
        )


def receives_weights() -> bool:
    """Whether the first process sends this one all weights, so that it need not read them itself.

    DeepSpeed does so whatever the others hold, FSDP2 with ``fsdp_cpu_ram_efficient_loading``.
    """
    sends = engine() == "DEEPSPEED" or _is_set("FSDP_CPU_RAM_EFFICIENT_LOADING")
    return engine() is not None and sends and not this_process().is_main_process


def check_sharding(found: DistributedType) -> None:
    """Raise unless the weights are divided over the processes where the launcher was told so.

    Args:
        found: What accelerate made of its configuration.

    Raises:
        ConfigError: If it was to divide them and does not, of which it says nothing itself.
    """
    wanted = engine()
    if wanted is not None and found != DistributedType[wanted]:
        raise ConfigError(
            f"accelerate: its configuration asks for {wanted}, but it has set up {found.value};"
            " launch with a file of recipes/accelerate"
        )


def use_bf16(accelerator: Accelerator) -> None:
    """Products in bfloat16 under an engine that divides float32 weights; nothing else is rounded.

    accelerate would have FSDP2 round the loss too, the sums of gradients over processes, and the angles
    of the rotary embedding, which blocks take as an input; and ZeRO-3 keep the weights themselves in
    bfloat16.
    """
    state: Any = accelerator.state
    if accelerator.is_fsdp2:
        state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
    elif accelerator.distributed_type == DistributedType.DEEPSPEED:
        settings = {"enabled": True, "dtype": "bfloat16"}
        state.deepspeed_plugin.deepspeed_config["torch_autocast"] = settings


def whole_state(accelerator: Accelerator, model: Any) -> dict[str, Any] | None:
    """All weights, gathered on the main process if an engine divided them; else None.

    Args:
        accelerator: Has prepared the model.
        model: What it made of it.
    """
    kind = accelerator.distributed_type
    if kind not in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        accelerator.wait_for_everyone()
        return None
    gathered: Any = accelerator.get_state_dict(model)
    state: dict[str, Any] | None = gathered
    if kind == DistributedType.DEEPSPEED:
        from deepspeed.utils import (  # pyright: ignore[reportMissingImports] - not a dependency
            safe_get_full_fp32_param,
        )

        # Those of a forward pass may have been rounded on their way.
        network: Any = accelerator.unwrap_model(model)
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                value: Any = safe_get_full_fp32_param(parameter)
                if state is not None:
                    state[name] = value.cpu()
    return state


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("true", "1")
