"""Pure maths of the slack lattice: no model, no config."""

from slackdlm.lattice.reference import band_log_likelihood

__all__ = ["band_log_likelihood"]
