"""What does a training run need to know? One YAML file, frozen dataclasses, documented fields.

The paper (arXiv 2601.22947) publishes neither its learning rate nor its data nor its loss weights,
so no default here claims to be its value.
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from slackdlm.errors import ConfigError
from slackdlm.parsing import apply_overrides, at_least, build, read_mapping
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


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveConfig:
    """The one block in which matched arms differ."""

    kind: Literal["ce", "slack_ctc", "mixed"]
    """``ce`` (position-wise), ``slack_ctc`` (marginalised over alignments) or their mixture."""
    ctc_weight: float | None = None
    """Share ``w`` of slack-CTC in ``(1 - w) CE + w slack_ctc``, in [0, 1]; for ``mixed`` alone."""
    slack_ratio: tuple[float, float] = (0.0, 0.0)
    """Smallest and largest slack budget as a share of the response tokens, drawn per sample; ``[0,
    0]`` inserts none."""
    slack_region: Literal["content", "canvas"] = "content"
    """``content``: slack falls inside the response; ``canvas``: also into the end-of-text padding
    behind it."""
    loss_norm: Literal["sequence", "token"] = "sequence"
    """``sequence``: LLaDA's mean of per-sample means; ``token``: the sum over all supervised positions
    of an optimizer step by their number, over all processes and accumulation steps. They differ
    with ``data.padding: none`` alone: otherwise the canvases of a step are equally long."""
    eps: float = 1e-3
    """Smallest masking rate, in (0, 1]. LLaDA's value."""

    def __post_init__(self) -> None:
        if (self.ctc_weight is None) == (self.kind == "mixed"):
            given = "missing" if self.ctc_weight is None else f"given with kind: {self.kind}"
            raise ConfigError(
                f"objective.ctc_weight: required for kind: mixed and for it alone; it is {given}"
            )
        if self.ctc_weight is not None and not 0 <= self.ctc_weight <= 1:
            raise ConfigError(
                f"objective.ctc_weight: expected a number in [0, 1], got {self.ctc_weight}"
            )
        low, high = self.slack_ratio
        if not 0 <= low <= high < 1000:
            raise ConfigError(
                f"objective.slack_ratio: expected 0 <= low <= high < 1000, got [{low}, {high}]"
            )
        if not 0 < self.eps <= 1:
            raise ConfigError(f"objective.eps: expected a number in (0, 1], got {self.eps}")

    @property
    def weight(self) -> float:
        """``w`` of the combined objective: 0 for ``ce``, 1 for ``slack_ctc``."""
        return {"ce": 0.0, "slack_ctc": 1.0}.get(self.kind, self.ctc_weight or 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """Optimisation, evaluation and bookkeeping."""

    steps: int
    """Optimizer steps."""
    batch_size: int = 32
    """Samples per optimizer step over all processes and accumulation steps."""
    micro_batch_size: int | None = None
    """Samples per forward and process; must divide ``batch_size`` by the processes. Default: no
    accumulation."""
    learning_rate: float = 3e-4
    """Peak of AdamW. Ours, for small models; LLaDA-8B's published fine-tuning rates are about 1e-5
    to 2.5e-5."""
    warmup_steps: int = 0
    """Steps of linear warm-up from 0."""
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    """Learning rate after the warm-up; ``cosine`` and ``linear`` end at 0."""
    weight_decay: float = 0.0
    """AdamW's decay, on matrices alone (neither norms nor biases)."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm; 0 switches clipping off."""
    eval_every: int = 100
    """Steps between evaluations, the first before any step; 0: at the end only."""
    eval_samples: int = 64
    """Samples of the evaluation loss; 0: no evaluation."""
    save_every: int = 500
    """Steps between checkpoints; 0: none, the final model alone."""
    keep_checkpoints: int = 2
    """Newest complete checkpoints kept."""
    bf16: bool = False
    """Autocast to bfloat16."""
    gradient_checkpointing: bool = False
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
    max_loss_growth: float = 2.0
    """A run stops as diverged once the median loss of its last 20 steps is this many times that of
    its first 20, or that of guessing (``ln V``) if it is less; 0: never. Ours. A loss or gradient
    that is not finite always stops it."""
    seed: int = 0
    """New weights, masks and slack; 0 to 2**32 - 1."""
    data_seed: int = 0
    """Order of the samples alone, so that arms and repeats can share it; 0 or more."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "keep_checkpoints"):
            at_least(getattr(self, name), 1, path=f"training.{name}")
        if self.micro_batch_size is not None:
            at_least(self.micro_batch_size, 1, path="training.micro_batch_size")
        for name in (
            "warmup_steps",
            "eval_every",
            "eval_samples",
            "save_every",
            "weight_decay",
            "max_grad_norm",
            "max_loss_growth",
            "data_seed",
        ):
            at_least(getattr(self, name), 0, path=f"training.{name}")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"training.seed: expected 0 to 2**32 - 1, got {self.seed}")
        if not 0 < self.learning_rate < 1000:
            raise ConfigError(
                f"training.learning_rate: expected a number above 0 and below 1000, got {self.learning_rate}"
            )

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One run. Matched runs differ in ``objective`` alone; the run's name is that of its file."""

    model: ModelConfig
    """Where the weights come from."""
    data: DataConfig
    """What it is trained on."""
    objective: ObjectiveConfig
    """What it is trained for."""
    training: TrainingConfig
    """How it is trained."""
    name: str = field(default="run", metadata={"not_a_key": True})
    """Stem of the recipe file; names the output folder. Not a key of the file."""

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dicts of the four blocks, as ``run.json`` records them."""
        blocks = asdict(self)
        del blocks["name"]
        return blocks


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read one YAML recipe.

    Args:
        path: The file. Its stem becomes ``Recipe.name``.
        overrides: ``a.b=value`` strings, see :func:`slackdlm.parsing.apply_overrides`, applied before checking.

    Returns:
        The checked recipe.

    Raises:
        ConfigError: If the file is missing, is no YAML mapping, or holds a wrong key or value.
    """
    file = Path(path)
    blocks = read_mapping(file, blocks="the blocks model, data, objective and training")
    apply_overrides(blocks, overrides or [], Recipe)
    try:
        return replace(build(Recipe, blocks), name=file.stem)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
