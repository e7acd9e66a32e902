import pytest

from slackdlm.report.probe import sentences


@pytest.mark.parametrize(
    ("value", "p_adjusted", "said"),
    [
        (0.2, 0.01, "slack keeps its own quality better than ce"),
        (-0.2, 0.01, "slack keeps its own quality worse than ce"),
        (0.2, 0.5, "no difference shown in how slack and ce keep their own quality"),
        (0.2, None, "no difference shown in how slack and ce keep their own quality"),
    ],
)
def test_a_contrast_is_said_as_far_as_it_is_shown(value, p_adjusted, said):
    difference = {"value": value, "low": value - 0.1, "high": value + 0.1}
    contrast = {"arm": "slack", "against": "ce", "kind": "shift", "rate": 0.05}
    contrast |= {"difference": difference, "p_adjusted": p_adjusted}
    (sentence,) = sentences({"trends": [], "contrasts": [contrast]})
    assert sentence.startswith(f"At 5 % shifted by one place, {said}: difference of win rates")
