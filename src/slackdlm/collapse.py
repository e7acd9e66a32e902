"""Which response does a canvas spell? The collapse map: canvas tokens to response tokens."""

from collections.abc import Iterable
from itertools import groupby
from typing import Literal

from slackdlm.errors import ConfigError

CollapseMode = Literal["slack", "graves"]


def collapse(ids: Iterable[int], *, slack_id: int, mode: CollapseMode = "slack") -> list[int]:
    """The response tokens that a canvas stands for.

    Args:
        ids: Canvas token ids, in order. Any iterable of integers, also a 1-D tensor.
        slack_id: Id of ``<slack>``.
        mode: ``"slack"`` drops every ``<slack>`` and keeps everything else, repeats included.
            ``"graves"`` merges adjacent repeats first and then drops ``<slack>``; it loses the trailing zeros
            of ``1000`` and is kept for that ablation alone.

    Returns:
        The collapsed ids; empty for an empty or all-slack canvas.

    Raises:
        ConfigError: If ``mode`` is neither of the two.

    References:
        ``slack``: the updated collapse map of arXiv 2601.22947 v2. ``graves``: Graves et al., 2006, section 3.1.
    """
    if mode not in ("slack", "graves"):
        raise ConfigError(f"collapse: unknown mode {mode!r}; use 'slack' or 'graves'")
    tokens = (int(token) for token in ids)
    if mode == "graves":
        tokens = (token for token, _ in groupby(tokens))
    return [token for token in tokens if token != slack_id]
