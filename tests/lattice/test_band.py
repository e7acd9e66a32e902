import math

import pytest
import torch
from problems import IDS, MASK_ID, SLACK_ID

from slackdlm.lattice.band import clamp_columns, gather_columns, target_band

TARGETS = torch.tensor([[0, 1, 2], [2, 2, -100]])
LENGTHS = torch.tensor([4, 3]), torch.tensor([3, 2])


def test_a_position_after_k_slack_tokens_emits_the_token_k_places_back():
    band = target_band(TARGETS, *LENGTHS, num_positions=4, num_slack=1)
    assert band.inside.tolist() == [
        [[True, False], [True, True], [True, True], [False, True]],
        [[True, False], [True, True], [False, True], [False, False]],
    ]
    assert band.ids[0].tolist() == [[0, 0], [1, 0], [2, 1], [0, 2]]
    assert band.ids[1].tolist() == [[2, 0], [2, 2], [0, 2], [0, 0]]


def test_no_token_stands_behind_the_canvas():
    band = target_band(TARGETS, *LENGTHS, num_positions=4, num_slack=3)
    assert band.inside[1, 2].any()
    assert not band.inside[1, 3].any()


@pytest.mark.parametrize("num_tokens", [0, 3])
def test_a_band_of_empty_targets_has_no_token(num_tokens: int):
    empty = torch.tensor([0, 0])
    band = target_band(TARGETS[:, :num_tokens], LENGTHS[0], empty, num_positions=4, num_slack=4)
    assert not band.inside.any()
    assert band.ids.shape == (2, 4, 5)


def test_a_visible_position_can_only_emit_what_is_visible_and_gets_no_gradient():
    log_probs = torch.randn(2, 4, 4).log_softmax(2).requires_grad_()
    canvas = torch.tensor([[0, SLACK_ID, MASK_ID, 2], [MASK_ID, 1, MASK_ID, MASK_ID]])
    columns = gather_columns(log_probs, canvas, TARGETS, *LENGTHS, num_slack=1, **IDS)
    nothing = -math.inf
    assert columns.token[0, 0].tolist() == [0.0, nothing]
    assert columns.token[0, 1].tolist() == [nothing, nothing]
    assert columns.slack[0, [0, 1, 3]].tolist() == [nothing, 0.0, nothing]
    assert columns.token[0, 3].tolist() == [nothing, 0.0]
    assert columns.token[1, 1].tolist() == [nothing, nothing]
    torch.testing.assert_close(columns.token[0, 2], log_probs[0, 2, [2, 1]])
    torch.testing.assert_close(columns.slack[0, 2], log_probs[0, 2, SLACK_ID])
    torch.where(columns.token > nothing, columns.token, 0.0).sum().backward()
    assert log_probs.grad is not None
    assert log_probs.grad[canvas != MASK_ID].abs().max() == 0
    assert log_probs.grad[0, 2].tolist() == [0.0, 1.0, 1.0, 0.0]


def test_scores_outside_the_band_do_not_matter():
    band = target_band(TARGETS, *LENGTHS, num_positions=4, num_slack=1)
    scores = torch.zeros(2, 4, 2).masked_fill(~band.inside, math.nan)
    canvas = torch.full((2, 4), MASK_ID)
    columns = clamp_columns(scores, torch.zeros(2, 4), band, canvas, **IDS)
    assert not columns.token.isnan().any()
    assert (columns.token[~band.inside] == -math.inf).all()


def test_clamping_sends_no_number_to_the_device(monkeypatch: pytest.MonkeyPatch):
    band = target_band(
        torch.tensor([[5]]), torch.tensor([2]), torch.tensor([1]), num_positions=2, num_slack=1
    )
    monkeypatch.setattr(torch.Tensor, "new_tensor", None)  # copies from the host, which waits
    columns = clamp_columns(
        torch.zeros(1, 2, 2), torch.ones(1, 2), band, torch.tensor([[9, 5]]), mask_id=9, slack_id=8
    )
    inf = torch.inf
    assert columns.token.tolist() == [[[0, -inf], [-inf, 0]]]
    assert columns.slack.tolist() == [[1, -inf]]
