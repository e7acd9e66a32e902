"""What does a training run need to know? One YAML file, frozen dataclasses, documented fields.

The paper (arXiv 2601.22947) publishes neither its learning rate nor its data nor its loss weights,
so no default here claims to be its value.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Gt, Lt

from slackdlm.config import (
    Count,
    Flag,
    NonNegative,
    Positive,
    Share,
    Text,
    Whole,
    apply_overrides,
    build,
    read_mapping,
    settings,
)
from slackdlm.errors import ConfigError
from slackdlm.training.data_config import ColumnsConfig, DataConfig
from slackdlm.training.model_config import FromScratchConfig, LoraRecipe, ModelConfig

__all__ = [
    "ColumnsConfig",
    "DataConfig",
    "FromScratchConfig",
    "LoraRecipe",
    "ModelConfig",
    "ObjectiveConfig",
    "Recipe",
    "TrainingConfig",
    "load_recipe",
]


@settings
class ObjectiveConfig:
    """The one block in which matched arms differ."""

    kind: Literal["ce", "slack_ctc", "mixed"]
    """``ce`` (position-wise), ``slack_ctc`` (marginalised over alignments) or their mixture."""
    ctc_weight: Share | None = None
    """Share ``w`` of slack-CTC in ``(1 - w) CE + w slack_ctc``, in [0, 1]; for ``mixed`` alone."""
    slack_ratio: tuple[NonNegative, NonNegative] = (0.0, 0.0)
    """Smallest and largest slack budget as a share of the response tokens, drawn per sample; ``[0,
    0]`` inserts none."""
    slack_region: Literal["content", "canvas"] = "content"
    """``content``: slack falls inside the response; ``canvas``: also into the end-of-text padding
    behind it."""
    alignment: Literal["random", "model"] = "random"
    """Where the slack stands on the canvas that is then masked. ``random``: anywhere, all arrangements
    alike; ``model``: where the model itself would put it, drawn from its posterior over alignments
    on the fully masked canvas, for one more forward pass a step."""
    alignment_warmup: Whole = 300
    """Steps with random alignments before the model's own; for ``alignment: model``."""
    loss_norm: Literal["sequence", "token"] = "sequence"
    """``sequence``: LLaDA's mean of per-sample means; ``token``: the sum over all supervised positions
    of an optimizer step by their number, over all processes and accumulation steps. They differ
    with ``data.padding: none`` alone: otherwise the canvases of a step are equally long."""
    eps: Annotated[Share, Gt(0)] = 1e-3
    """Smallest masking rate, in (0, 1]. LLaDA's value."""

    def __post_init__(self) -> None:
        if (self.ctc_weight is None) == (self.kind == "mixed"):
            given = "missing" if self.ctc_weight is None else f"given with kind: {self.kind}"
            raise ConfigError(
                f"objective.ctc_weight: required for kind: mixed and for it alone; it is {given}"
            )
        low, high = self.slack_ratio
        if not 0 <= low <= high < 1000:
            raise ConfigError(
                f"objective.slack_ratio: expected 0 <= low <= high < 1000, got [{low}, {high}]"
            )

        if self.alignment == "model" and high == 0:
            raise ConfigError(
                "objective.alignment: model needs slack to place; set objective.slack_ratio"
            )

    @property
    def weight(self) -> float:
        """``w`` of the combined objective: 0 for ``ce``, 1 for ``slack_ctc``."""
        return {"ce": 0.0, "slack_ctc": 1.0}.get(self.kind, self.ctc_weight or 0.0)


@settings
class TrainingConfig:
    """Optimisation, evaluation and bookkeeping."""

    steps: Count
    """Optimizer steps."""
    batch_size: Count = 32
    """Samples per optimizer step over all processes and accumulation steps."""
    micro_batch_size: Count | None = None
    """Samples per forward and process; must divide ``batch_size`` by the processes. Default: no
    accumulation."""
    learning_rate: Annotated[Positive, Lt(1000)] = 3e-4
    """Peak of AdamW. Ours, for small models; LLaDA-8B's published fine-tuning rates are about 1e-5
    to 2.5e-5."""
    warmup_steps: Whole = 0
    """Steps of linear warm-up from 0."""
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    """Learning rate after the warm-up; ``cosine`` and ``linear`` end at 0."""
    weight_decay: NonNegative = 0.0
    """AdamW's decay, on matrices alone (neither norms nor biases)."""
    max_grad_norm: NonNegative = 1.0
    """Gradients are clipped to this norm; 0 switches clipping off."""
    eval_every: Whole = 100
    """Steps between evaluations, the first before any step; 0: at the end only."""
    eval_samples: Whole = 64
    """Samples of the evaluation loss; 0: no evaluation."""
    save_every: Whole = 500
    """Steps between checkpoints; 0: none, the final model alone."""
    keep_checkpoints: Count = 2
    """Newest complete checkpoints kept."""
    bf16: Flag = False
    """Autocast to bfloat16."""
    gradient_checkpointing: Flag = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    report_to: Literal[
        "none",
        "tensorboard",
        "wandb",
        "mlflow",
        "trackio",
        "swanlab",
        "comet_ml",
        "clearml",
        "dvclive",
        "neptune",
    ] = "none"
    """A logger beside ``log.jsonl``: one of those that ``transformers`` has."""
    max_loss_growth: NonNegative = 2.0
    """A run stops as diverged once the median loss of its last 20 steps is this many times that of
    its first 20, or that of guessing (``ln V``) if it is less; 0: never. Ours. A loss or gradient
    that is not finite always stops it."""
    seed: Annotated[Whole, Lt(2**32)] = 0
    """New weights, masks and slack; 0 to 2**32 - 1."""
    data_seed: Whole = 0
    """Order of the samples alone, so that arms and repeats can share it; 0 or more."""

    def num_accumulation(self, *, num_processes: int = 1) -> int:
        """Forward passes per process and optimizer step.

        Raises:
            ConfigError: If the global batch does not split evenly, which would change the loss.
        """
        micro = self.micro_batch_size or max(self.batch_size // num_processes, 1)
        if self.batch_size % (micro * num_processes):
            raise ConfigError(
                f"training.batch_size: {self.batch_size} is not a multiple of micro_batch_size x"
                f" processes = {micro} x {num_processes}; change one of them"
            )
        return self.batch_size // (micro * num_processes)


@settings
class Recipe:
    """One run. Matched runs differ in ``objective`` alone."""

    model: ModelConfig
    """Where the weights come from."""
    data: DataConfig
    """What it is trained on."""
    objective: ObjectiveConfig
    """What it is trained for."""
    training: TrainingConfig
    """How it is trained."""
    name: Text = "run"
    """Names the output folder; default: the stem of the recipe file."""

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dicts of the four blocks, as ``run.json`` records them."""
        blocks = asdict(self)
        del blocks["name"]
        return blocks


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read one YAML recipe.

    Args:
        path: The file. Its stem is the default of ``Recipe.name``.
        overrides: ``a.b=value`` strings, see :func:`slackdlm.config.apply_overrides`, applied before checking.

    Returns:
        The checked recipe.

    Raises:
        ConfigError: If the file is missing, is no YAML mapping, or holds a wrong key or value.
    """
    file = Path(path)
    blocks = read_mapping(file, blocks="the blocks model, data, objective and training")
    apply_overrides(blocks, overrides or [], Recipe)
    return build(Recipe, {"name": file.stem} | blocks, where=file)
