import pytest

from slackdlm.study.findings import findings, probe_findings, warnings
from slackdlm.study.result import ContrastRow, Source, WinRow


def row(arm, against, value, p, **setting):
    default = {"kind": "none", "rate": 0.0, "steps": 14, "temperature": 0.0}
    return WinRow(
        **default | setting,
        arm=arm,
        against=against,
        value=value,
        low=None if value is None else value - 0.1,
        high=None if value is None else value + 0.1,
        p_value=p,
        p_adjusted=p,
        num_scored=0 if value is None else 128,
        num_total=128,
    )


def sentences(rows):
    return findings([], rows, Source(metrics={}), num_seeds=1)


def sentence(rows, start):
    (found,) = [text for text in sentences(rows) if text.startswith(start)]
    return found


def test_a_win_a_loss_and_a_draw_are_called_by_name():
    for value, p, verdict in (
        (0.7, 0.01, "wins at"),
        (0.3, 0.01, "LOSES at"),
        (0.7, 0.06, "no significant difference at"),
        (None, None, "not scored at"),
    ):
        assert verdict in sentence([row("slack_ctc", "ce", value, p)], "Slack-CTC against CE:")


def test_every_figure_comes_with_interval_p_and_n():
    text = sentence([row("slack_ctc", "ce", 0.7, 0.01)], "Slack-CTC against CE:")
    assert "(0.700 [0.600, 0.800], p = 0.01, n = 128/128)" in text


def test_probe_sentences_list_every_dose_and_star_the_significant() -> None:
    rows = [
        row("ce", "self", 0.4, 0.01, kind="shift", rate=0.1),
        row("ce", "self", 0.48, 0.5, kind="shift", rate=0.01),
        row("ce", "self", None, None, kind="shift", rate=0.2),
        row("ce", "self", 0.3, 0.01, kind="shift", rate=0.1, temperature=1.0),
    ]
    text = sentence(rows, "Displacing content tokens by one position, win rate of CE against")
    assert "at 14 steps greedy: 1%: 0.480, 10%: 0.400*, 20%: not scored" in text
    assert text.endswith("at 14 steps temperature 1: 10%: 0.300* (* significant).")
    plain = sentence(rows[1:2], "Displacing content tokens by one position, win rate of CE against")
    assert plain.endswith("at 14 steps greedy: 1%: 0.480.")


def test_what_was_not_measured_is_said():
    assert "not measured" in sentence([], "Slack-CTC against CE:")


def test_warnings_name_the_limits():
    assert any("mean nothing" in text for text in warnings(num_seeds=1, quick=True))
    assert any("One training seed" in text for text in warnings(num_seeds=1, quick=False))
    assert any("wide" in text for text in warnings(num_seeds=3, quick=False))
    assert warnings(num_seeds=5, quick=False) == []


@pytest.mark.parametrize(
    ("value", "p_adjusted", "verdict"),
    [
        (0.2, 0.01, "slack keeps its own quality better than ce"),
        (-0.2, 0.01, "slack keeps its own quality worse than ce"),
        (0.2, 0.5, "no difference shown in how slack and ce keep their own quality"),
        (0.2, None, "no difference shown in how slack and ce keep their own quality"),
    ],
)
def test_a_contrast_is_said_as_far_as_it_is_shown(value, p_adjusted, verdict):
    figures = {"value": value, "low": value - 0.1, "high": value + 0.1, "num_scored": 9}
    names = {"arm": "slack", "against": "ce", "kind": "shift", "rate": 0.05}
    tested = {"num_total": 9, "p_value": p_adjusted, "p_adjusted": p_adjusted}
    (text,) = probe_findings([], [ContrastRow.model_validate(figures | names | tested)])
    assert text.startswith(f"At 5 % shifted by one place, {verdict}: difference of win rates")
