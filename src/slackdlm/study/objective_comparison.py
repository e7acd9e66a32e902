"""Does the objective matter, everything else equal? Matched arms fine-tuned from one base.

All arms see the same samples in the same order, the same masks, the same number of steps and the same canvas length;
they differ in the objective block alone.
"""

from dataclasses import dataclass
from typing import Literal

from slackdlm.training.config import ObjectiveConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
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
) -> list[Arm]:
    """The matched baseline, the control that inserts slack without marginalising, and slack-CTC."""
    return [
        Arm(
            name="ce",
            label="CE, matched",
            description="The base, fine-tuned further with position-wise cross-entropy and no slack.",
            objective=ObjectiveConfig(kind="ce"),
        ),
        Arm(
            name="ce_slack",
            label="CE on slack canvas",
            description="Cross-entropy on canvases with random slack: inserts slack, does not marginalise over it.",
            objective=ObjectiveConfig(
                kind="ce", slack_ratio=slack_ratio, slack_region=slack_region
            ),
        ),
        Arm(
            name="slack_ctc",
            label="slack-CTC",
            description="The alignment-flexible objective: the sum over every placement of the slack.",
            objective=ObjectiveConfig(
                kind="slack_ctc", slack_ratio=slack_ratio, slack_region=slack_region
            ),
        ),
    ]
