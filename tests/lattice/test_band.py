import math

import pytest
import torch
from problems import IDS, MASK_ID, SLACK_ID

from slackdlm.lattice.band import Batch, clamp_columns, gather_columns, target_band

TARGETS = torch.tensor([[0, 1, 2], [2, 2, -100]])
LENGTHS = torch.tensor([4, 3]), torch.tensor([3, 2])
MASKED = Batch(torch.full((2, 4), MASK_ID), TARGETS, *LENGTHS, **IDS, num_slack=1)


def test_a_position_after_k_slack_tokens_emits_the_token_k_places_back():
    band = target_band(MASKED)
    assert band.inside.tolist() == [
        [[True, False], [True, True], [True, True], [False, True]],
        [[True, False], [True, True], [False, True], [False, False]],
    ]
    assert band.ids[0].tolist() == [[0, 0], [1, 0], [2, 1], [0, 2]]
    assert band.ids[1].tolist() == [[2, 0], [2, 2], [0, 2], [0, 0]]


def test_no_token_stands_behind_the_canvas():
    band = target_band(MASKED._replace(num_slack=3))
    assert band.inside[1, 2].any()
    assert not band.inside[1, 3].any()


@pytest.mark.parametrize("num_tokens", [0, 3])
def test_a_band_of_empty_targets_has_no_token(num_tokens: int):
    empty = torch.tensor([0, 0])
    targets = TARGETS[:, :num_tokens]
    band = target_band(MASKED._replace(targets=targets, target_lengths=empty, num_slack=4))
    assert not band.inside.any()
    assert band.ids.shape == (2, 4, 5)


def test_a_visible_position_can_only_emit_what_is_visible_and_gets_no_gradient():
    log_probs = torch.randn(2, 4, 4).log_softmax(2).requires_grad_()
    canvas = torch.tensor([[0, SLACK_ID, MASK_ID, 2], [MASK_ID, 1, MASK_ID, MASK_ID]])
    columns = gather_columns(log_probs, MASKED._replace(canvas=canvas))
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
    band = target_band(MASKED)
    scores = torch.zeros(2, 4, 2).masked_fill(~band.inside, math.nan)
    columns = clamp_columns(scores, torch.zeros(2, 4), band, MASKED)
    assert not columns.token.isnan().any()
    assert (columns.token[~band.inside] == -math.inf).all()


def test_clamping_sends_no_number_to_the_device(monkeypatch: pytest.MonkeyPatch):
    lengths = torch.tensor([2]), torch.tensor([1])
    batch = Batch(torch.tensor([[9, 5]]), torch.tensor([[5]]), *lengths, 9, 8, num_slack=1)
    band = target_band(batch)
    monkeypatch.setattr(torch.Tensor, "new_tensor", None)  # copies from the host, which waits
    columns = clamp_columns(torch.zeros(1, 2, 2), torch.ones(1, 2), band, batch)
    inf = torch.inf
    assert columns.token.tolist() == [[[0, -inf], [-inf, 0]]]
    assert columns.slack.tolist() == [[1, -inf]]
