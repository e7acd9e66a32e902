"""What does a training run need to know? One YAML file, frozen dataclasses, documented fields.

The paper (arXiv 2601.22947) publishes neither its learning rate nor its data nor its loss weights,
so no default here claims to be its value.
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from slackdlm.errors import ConfigError
from slackdlm.training.parsing import apply_overrides, build, read_yaml


@dataclass(frozen=True, kw_only=True, slots=True)
class FromScratchConfig:
    """A small model trained from random weights, with a tokenizer fitted to the training texts."""

    tokenizer_kind: Literal["byte_bpe", "word"] = "byte_bpe"
    """``byte_bpe`` can spell anything; ``word`` is for closed vocabularies such as the demo's."""
    vocab_size: int = 2048
    """Tokens, special ones included. Ours: small enough for a CPU."""
    d_model: int = 128
    """Width ``D`` of the hidden states."""
    n_layers: int = 4
    """Transformer blocks."""
    n_heads: int = 4
    """Attention heads; must divide ``d_model``."""
    mlp_hidden_size: int = 384
    """Width of the feed-forward layers. Default: three times ``d_model``, as LLaDA-8B."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "n_layers", "n_heads", "mlp_hidden_size"):
            _at_least(getattr(self, name), 1, path=f"model.from_scratch.{name}")
        if self.d_model % self.n_heads:
            raise ConfigError(
                f"model.from_scratch.n_heads: {self.n_heads} does not divide d_model {self.d_model}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Where the weights come from: exactly one of ``path`` and ``from_scratch``."""

    path: str | None = None
    """Model folder or hub name to start from."""
    adapter: str | None = None
    """LoRA adapter folder on top of ``path``."""
    from_scratch: FromScratchConfig | None = None
    """Shape of a new model."""

    def __post_init__(self) -> None:
        if (self.path is None) == (self.from_scratch is None):
            raise ConfigError("model: expected exactly one of model.path and model.from_scratch")
        if self.adapter is not None and self.path is None:
            raise ConfigError("model.adapter: an adapter needs the model.path it was trained on")


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnsConfig:
    """Names of the two text columns of a data file without ``messages``."""

    prompt: str = "prompt"
    """Column with the user's turn."""
    response: str = "response"
    """Column with the assistant's turn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """The training dialogues and the shape of the canvas they are written on."""

    train: str
    """JSONL file: ``messages``, or ``prompt`` and ``response``, or ``columns``."""
    eval: str | None = None
    """JSONL file for the evaluation loss. Without it ``training.eval_samples`` are held out from
    the end of ``train``."""
    columns: ColumnsConfig | None = None
    """Column names, where they are not the standard ones."""
    max_prompt_length: int = 256
    """Longest prompt, in tokens. Longer samples are left out and counted."""
    canvas_length: int = 256
    """Canvas positions ``L`` of every sample, in tokens: content, then supervised end-of-text
    padding. The same in every arm and in decoding, so that the divisor of the loss and the number
    of forwards agree."""

    def __post_init__(self) -> None:
        _at_least(self.max_prompt_length, 1, path="data.max_prompt_length")
        _at_least(self.canvas_length, 1, path="data.canvas_length")


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
    """``sequence``: LLaDA's mean of per-sample means; ``token``: global sum by global number of
    supervised positions. On the fixed, wholly supervised canvas of this trainer the two are the
    same number."""
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
        if not 0 <= low <= high:
            raise ConfigError(
                f"objective.slack_ratio: expected 0 <= low <= high, got [{low}, {high}]"
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
    """Steps between evaluations; 0: at the end only."""
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
    report_to: Literal["none", "tensorboard", "wandb"] = "none"
    """A logger beside ``log.jsonl``."""
    seed: int = 0
    """New weights, masks and slack."""
    data_seed: int = 0
    """Order of the samples alone, so that arms and repeats can share it."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "keep_checkpoints"):
            _at_least(getattr(self, name), 1, path=f"training.{name}")
        if self.micro_batch_size is not None:
            _at_least(self.micro_batch_size, 1, path="training.micro_batch_size")
        for name in (
            "warmup_steps",
            "eval_every",
            "eval_samples",
            "save_every",
            "weight_decay",
            "max_grad_norm",
        ):
            _at_least(getattr(self, name), 0, path=f"training.{name}")
        if not self.learning_rate > 0:
            raise ConfigError(
                f"training.learning_rate: expected a number above 0, got {self.learning_rate}"
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
                f" processes = {micro} x {num_processes}"
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
        overrides: ``a.b=value`` strings, values parsed as YAML, applied before checking.

    Returns:
        The checked recipe.

    Raises:
        ConfigError: If the file is missing, is no YAML mapping, or holds a wrong key or value.
    """
    file = Path(path)
    try:
        mapping: object = read_yaml(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: there is no such recipe file") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not valid YAML ({error})") from error
    if not isinstance(mapping, dict):
        raise ConfigError(f"{file}: expected the blocks model, data, objective and training")
    blocks: dict[str, Any] = dict(mapping)
    apply_overrides(blocks, overrides or [])
    try:
        return replace(build(Recipe, blocks), name=file.stem)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def _at_least(value: float, lowest: int, *, path: str) -> None:
    if not value >= lowest:
        raise ConfigError(f"{path}: expected at least {lowest}, got {value}")
