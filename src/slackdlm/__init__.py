"""Masked diffusion language models with alignment-flexible supervision.

Public names are imported on first use, so that ``import slackdlm`` stays instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from slackdlm.collapse import collapse  # at once: a late import would bind the module to this name

if TYPE_CHECKING:
    from slackdlm.models.loading import load_model
    from slackdlm.objectives.fused_linear import fused_linear_slack_ctc_loss
    from slackdlm.objectives.masked_ce import masked_ce_loss
    from slackdlm.objectives.slack_ctc import slack_ctc_loss
    from slackdlm.sampling.config import SamplerConfig
    from slackdlm.sampling.intervention import ShiftIntervention
    from slackdlm.sampling.sampler import Sampler

_HOMES = {
    "Sampler": "slackdlm.sampling.sampler",
    "SamplerConfig": "slackdlm.sampling.config",
    "ShiftIntervention": "slackdlm.sampling.intervention",
    "fused_linear_slack_ctc_loss": "slackdlm.objectives.fused_linear",
    "load_model": "slackdlm.models.loading",
    "masked_ce_loss": "slackdlm.objectives.masked_ce",
    "slack_ctc_loss": "slackdlm.objectives.slack_ctc",
}

__all__ = [
    "Sampler",
    "SamplerConfig",
    "ShiftIntervention",
    "collapse",
    "fused_linear_slack_ctc_loss",
    "load_model",
    "masked_ce_loss",
    "slack_ctc_loss",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'slackdlm' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
