"""How big is the demo? Its sizes, chosen by measurement (docs/results/001-toy-language.md), and its arms.

All arms see the same samples in the same order, the same masks, the same number of steps and the same canvas length;
they differ in the objective block alone.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

from slackdlm.training.config import ObjectiveConfig, TrainingConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Treatment:
    """One objective under comparison."""

    name: str
    """Folder and key in every result."""
    label: str
    """Short name for tables and plots."""
    description: str
    """One sentence for readers of the report."""
    objective: ObjectiveConfig
    """What sets it apart."""


PROBED = ("ce", "ce_slack", "slack_ctc")
"""Arms that the shift intervention is tried on: those of `paper_arms`."""


def paper_arms(
    slack_ratio: tuple[float, float], *, slack_region: Literal["content", "canvas"]
) -> list[Treatment]:
    """The matched baseline, the control that inserts slack without marginalising, and slack-CTC."""
    return [
        Treatment(
            name="ce",
            label="CE, matched",
            description="The base, fine-tuned further with position-wise cross-entropy and no slack.",
            objective=ObjectiveConfig(kind="ce"),
        ),
        Treatment(
            name="ce_slack",
            label="CE on slack canvas",
            description="Cross-entropy on canvases with random slack: inserts slack, does not marginalise over it.",
            objective=ObjectiveConfig(
                kind="ce", slack_ratio=slack_ratio, slack_region=slack_region
            ),
        ),
        Treatment(
            name="slack_ctc",
            label="slack-CTC",
            description="The alignment-flexible objective: the sum over every placement of the slack.",
            objective=ObjectiveConfig(
                kind="slack_ctc", slack_ratio=slack_ratio, slack_region=slack_region
            ),
        ),
    ]


BASE = Treatment(
    name="base",
    label="base",
    description="Pre-trained with cross-entropy; where every arm starts.",
    objective=ObjectiveConfig(kind="ce"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoPlan:
    """Every size of the demo. Chosen by measurement; see docs/results/001-toy-language.md."""

    num_train: int = 20_000
    """Training stories."""
    num_questions: int = 128
    """Held-out prompts decoded and judged."""
    canvas_length: int = 48
    """``L`` of every arm, in training and decoding."""
    d_model: int = 96
    """Width of the model."""
    n_layers: int = 3
    """Transformer blocks."""
    n_heads: int = 4
    """Attention heads."""
    mlp_hidden_size: int = 256
    """Width of the feed-forward layers."""
    base: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            steps=1500,
            batch_size=32,
            learning_rate=4e-3,
            warmup_steps=100,
            eval_every=500,
            save_every=500,
        )
    )
    """Pre-training of the base."""
    arm: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            steps=2000,
            batch_size=32,
            learning_rate=4e-3,
            warmup_steps=50,
            eval_every=500,
            save_every=500,
        )
    )
    """Fine-tuning of each arm."""
    slack_ratio: tuple[float, float] = (0.0, 0.25)
    """Slack budget of the arms that have one, as a share of the response tokens."""
    slack_region: Literal["content", "canvas"] = "canvas"
    """Where their slack may fall."""
    temperatures: tuple[float, ...] = (0.0, 1.0)
    """Decoding temperatures; 0 is greedy."""
    steps: tuple[int, ...] = (6, 12, 24)
    """Denoising steps."""
    probed_steps: tuple[int, ...] = (12,)
    """Step counts at which interventions are tried."""
    rates: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.2)
    """Shares of content tokens displaced or substituted."""
    delayed: bool = True
    """Cells that propose an end of text or slack are decoded last, in every arm: without it padding and slack eat the
    answers of arms trained with slack (docs/results/008-order-of-decoding.md)."""
    num_decoding_seeds: int = 2
    """Runs per condition that has randomness."""


QUICK = DemoPlan(
    num_train=512,
    num_questions=16,
    d_model=32,
    n_layers=2,
    n_heads=2,
    mlp_hidden_size=64,
    base=TrainingConfig(
        steps=60,
        batch_size=16,
        learning_rate=3e-3,
        warmup_steps=10,
        eval_every=30,
        eval_samples=16,
        save_every=30,
    ),
    arm=TrainingConfig(
        steps=30,
        batch_size=16,
        learning_rate=2e-3,
        warmup_steps=5,
        eval_every=15,
        eval_samples=16,
        save_every=15,
    ),
    steps=(6, 12),
    rates=(0.01, 0.1),
    num_decoding_seeds=1,
)
"""The demo's whole path in a minute or two. Its models are untrained toys: look at the path, not at the figures."""


def variants(plan: DemoPlan) -> list[Treatment]:
    """What drives slack-CTC's behaviour: its budget, its mixture with CE, and where slack may fall."""
    low, high = plan.slack_ratio
    objective = ObjectiveConfig(
        kind="slack_ctc", slack_ratio=plan.slack_ratio, slack_region=plan.slack_region
    )
    other = "content" if plan.slack_region == "canvas" else "canvas"
    return [
        _variant("ctc_half", "half the slack", replace(objective, slack_ratio=(low, high / 2))),
        _variant("ctc_double", "double the slack", replace(objective, slack_ratio=(low, 2 * high))),
        _variant("mixed", "mixed, 0.5", replace(objective, kind="mixed", ctc_weight=0.5)),
        _variant(f"ctc_{other}", f"slack in the {other}", replace(objective, slack_region=other)),
    ]


def _variant(name: str, label: str, objective: ObjectiveConfig) -> Treatment:
    return Treatment(
        name=name, label=label, description=f"slack-CTC: {label}.", objective=objective
    )
