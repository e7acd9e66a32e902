"""The arms that the training tests compare, on one small canvas."""

from dataclasses import replace
from typing import Any

from slackdlm.training.config import ObjectiveConfig, TrainingConfig
from slackdlm.training.stream import CanvasSpec

CANVAS_LENGTH = 20

CE = ObjectiveConfig(kind="ce")
SLACK_CTC = ObjectiveConfig(kind="slack_ctc", slack_ratio=(0.0, 0.5))
MIXED = ObjectiveConfig(kind="mixed", ctc_weight=0.5, slack_ratio=(0.0, 0.5), slack_region="canvas")


def spec_of(**changes: Any) -> CanvasSpec:
    """Cross-entropy without slack, special ids outside the samples' range."""
    spec = CanvasSpec(
        canvas_length=CANVAS_LENGTH,
        padding="fixed",
        slack_ratio=(0.0, 0.0),
        slack_region="content",
        ctc_weight=0.0,
        loss_norm="sequence",
        eps=1e-3,
        mask_id=38,
        slack_id=37,
        pad_id=36,
    )
    return replace(spec, **changes)


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
