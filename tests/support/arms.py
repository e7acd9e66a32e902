"""The arms that the training tests compare on one small canvas, a model and samples for them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from slackdlm.models.adapter import new_adapter
from slackdlm.models.configs import LLaDAConfig
from slackdlm.models.loaded import LoadedModel
from slackdlm.models.loading import new_model
from slackdlm.models.tokenizer import train_tokenizer
from slackdlm.training.config import (
    DataConfig,
    FromScratchConfig,
    ModelConfig,
    ObjectiveConfig,
    Recipe,
    TrainingConfig,
)
from slackdlm.training.data import Sample
from slackdlm.training.draw import CanvasSpec, Padding
from slackdlm.training.prepare import Prepared
from slackdlm.training.run import train

CANVAS_LENGTH = 20

CE = ObjectiveConfig(kind="ce")
SLACK_CTC = ObjectiveConfig(kind="slack_ctc", slack_ratio=(0.0, 0.5))
MIXED = ObjectiveConfig(kind="mixed", ctc_weight=0.5, slack_ratio=(0.0, 0.5), slack_region="canvas")


def spec_of(**changes: Any) -> CanvasSpec:
    """Cross-entropy without slack, special ids outside the samples' range."""
    spec = CanvasSpec(objective=CE, canvas_length=CANVAS_LENGTH, mask_id=38, slack_id=37, pad_id=36)
    return replace(spec, **changes)


def recipe_of(
    objective: ObjectiveConfig,
    training: TrainingConfig,
    *,
    canvas_length: int = CANVAS_LENGTH,
    padding: Padding = "fixed",
) -> Recipe:
    """For a model and samples in memory: its blocks ``model`` and ``data`` only have to be there."""
    return Recipe(
        model=ModelConfig(from_scratch=FromScratchConfig()),
        data=DataConfig(train="made", canvas_length=canvas_length, padding=padding),
        objective=objective,
        training=training,
    )


def short(**changes: Any) -> TrainingConfig:
    """A run of a few steps without checkpoints."""
    settings = {
        "steps": 6,
        "batch_size": 8,
        "learning_rate": 1e-2,
        "save_every": 0,
        "eval_every": 3,
    }
    return TrainingConfig(**(settings | changes))


def small_tokenizer() -> PreTrainedTokenizerFast:
    words = " ".join(f"w{number}" for number in range(24))
    return train_tokenizer([words], vocab_size=40, kind="word")


def small_model(tokenizer: PreTrainedTokenizerFast | None = None) -> LoadedModel:
    """A few thousand parameters."""
    tokenizer = tokenizer or small_tokenizer()
    config = LLaDAConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        n_layers=1,
        n_heads=2,
        mlp_hidden_size=24,
        max_sequence_length=64,
    )
    return new_model(config, tokenizer, generator_seed=7)


def made_samples() -> list[Sample]:
    """Random prompts and responses, none longer than the canvas."""
    generator = torch.Generator().manual_seed(3)

    def ids(low: int, high: int) -> torch.Tensor:
        length = int(torch.randint(low, high, (), generator=generator))
        return torch.randint(4, 28, (length,), generator=generator)

    return [Sample(ids(2, 9), ids(1, 15), f"made:{number}") for number in range(23)]


def train_made(
    folder: Path,
    *,
    objective: ObjectiveConfig,
    training: TrainingConfig,
    adapter: bool,
    padding: Padding = "fixed",
) -> None:
    """The small model, or an adapter on it, on the samples made here; goes on where the folder's run is."""
    samples, loaded = made_samples(), small_model()
    if adapter:
        loaded = new_adapter(loaded, rank=2, alpha=4, dropout=0)
    train(
        recipe_of(objective, training, padding=padding),
        output=folder,
        prepared=Prepared(loaded, samples, samples[:5]),
        resume=(folder / "run.json").exists(),
        progress=False,
    )
