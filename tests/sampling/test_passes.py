"""Cached and captured passes. Captures are played on the CPU; tests/test_on_gpu.py has the graphs themselves."""

import copy
from typing import Any

import pytest
import torch

from slackdlm.models.llada import attention_bias
from slackdlm.sampling import prediction
from slackdlm.sampling.passes import KeyValueCache, can_be_captured
from slackdlm.sampling.sampler import Sampler, SamplerConfig

PROMPTS = ["tell twice cat", "tell thrice red boat softly often cat", "tell twice"]


class Played:
    """A graph's interface: inputs are copied to one place, results always come at another."""

    made: list[torch.Size] = []  # noqa: RUF012
    calls = 0

    def __init__(self, forward: Any, inputs: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.forward, self.inputs = forward, inputs.clone()
        self.bias = None if bias is None else bias.clone()
        self.hidden = forward(inputs, bias)
        Played.made.append(inputs.shape)

    def fits(self, inputs: torch.Tensor) -> bool:
        return inputs.shape == self.inputs.shape

    def __call__(self, inputs: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        Played.calls += 1
        self.inputs.copy_(inputs)
        if self.bias is not None:
            self.bias.copy_(bias)
        return self.hidden.copy_(self.forward(self.inputs, self.bias))


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> type[Played]:
    monkeypatch.setattr(Played, "made", [])
    monkeypatch.setattr(Played, "calls", 0)
    monkeypatch.setattr(prediction, "CapturedPass", Played)
    monkeypatch.setattr(prediction, "can_be_captured", lambda loaded: True)
    return Played


@pytest.mark.parametrize(
    "changes", [{}, {"guidance": 1.0}, {"block_length": 6}, {"temperature": 1.0}], ids=str
)
def test_a_shape_is_captured_at_its_second_pass_and_changes_nothing(toy, request, changes):
    config = SamplerConfig(**{"canvas_length": 24, "batch_size": 3} | changes)
    plain = [a.canvas for a in Sampler(toy, config).generate(PROMPTS)]
    played = request.getfixturevalue("played")
    assert [a.canvas for a in Sampler(toy, config).generate(PROMPTS)] == plain
    assert len(played.made) == 1
    assert played.calls == 24 - 1


def test_rows_that_end_give_the_rest_a_capture_of_their_own(toy, request):
    config = SamplerConfig(canvas_length=24, batch_size=3, remasking="threshold", bound=0.12)
    plain = Sampler(toy, config).generate(PROMPTS)
    assert [a.num_forwards for a in plain] == [3, 6, 2]
    played = request.getfixturevalue("played")
    assert [a.canvas for a in Sampler(toy, config).generate(PROMPTS)] == [a.canvas for a in plain]
    assert [shape[0] for shape in played.made] == [3, 1]  # two rows have one pass


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_passes_over_a_part_are_not_captured(toy, played, cache):
    config = SamplerConfig(canvas_length=24, block_length=6, cache=cache)
    Sampler(toy, config).generate(PROMPTS)
    assert played.made == []


def test_a_model_on_the_cpu_is_not_captured(toy):
    assert not can_be_captured(toy)


@pytest.fixture
def ids(toy):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, toy.model.config.vocab_size, (2, 12), generator=generator)


@pytest.mark.parametrize("part", [slice(4, 8), slice(4, 12), slice(0, 5), slice(11, 12)])
@pytest.mark.parametrize("padded", [False, True])
@torch.inference_mode()
def test_a_part_of_an_unchanged_sequence_comes_out_as_in_the_full_pass(toy, ids, part, padded):
    mask = torch.ones_like(ids)
    mask[1, :3] = int(not padded)
    cache = KeyValueCache(12)
    full = toy.model(ids, mask, logits=False, store=cache).last_hidden_state
    torch.testing.assert_close(full, toy.model(ids, mask, logits=False).last_hidden_state)
    cache.first = part.start
    again = toy.model(ids[:, part], mask, logits=False, store=cache).last_hidden_state
    torch.testing.assert_close(again, full[:, part], rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_a_part_attends_to_itself_as_it_is_and_to_the_rest_as_it_was(toy, ids):
    """In a one-layer model the rest's keys do not depend on the part: the cached pass is exact."""
    model = copy.deepcopy(toy.model)
    del model.model.transformer["blocks"][1:]
    cache = KeyValueCache(12)
    model(ids, logits=False, store=cache)
    changed = ids.clone()
    changed[:, 4:8] = (ids[:, 4:8] + 1) % 40
    cache.first = 4
    part = model(changed[:, 4:8], logits=False, store=cache).last_hidden_state
    full = model(changed, logits=False).last_hidden_state
    torch.testing.assert_close(part, full[:, 4:8], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(part, model(ids, logits=False).last_hidden_state[:, 4:8], atol=1e-3)


@torch.inference_mode()
def test_a_full_pass_replaces_everything(toy, ids):
    cache = KeyValueCache(12)
    toy.model(ids, logits=False, store=cache)
    other = ids.flip(1)
    cache.first = 0
    full = toy.model(other, logits=False, store=cache).last_hidden_state
    cache.first = 6
    again = toy.model(other[:, 6:], logits=False, store=cache).last_hidden_state
    torch.testing.assert_close(again, full[:, 6:], rtol=1e-5, atol=1e-5)


def test_a_prepared_mask_is_used_as_it_is(toy, ids):
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    prepared = attention_bias(mask)
    assert attention_bias(prepared) is prepared
    torch.testing.assert_close(
        toy.model(ids, prepared).logits, toy.model(ids, mask).logits, rtol=0, atol=0
    )
