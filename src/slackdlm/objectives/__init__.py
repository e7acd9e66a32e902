"""Losses of masked canvases: cross-entropy, slack-CTC, and both fused with the output layer."""

from slackdlm.objectives.fused_linear import fused_linear_slack_ctc_loss
from slackdlm.objectives.masked_ce import masked_ce_loss
from slackdlm.objectives.slack_ctc import slack_ctc_loss

__all__ = ["fused_linear_slack_ctc_loss", "masked_ce_loss", "slack_ctc_loss"]
