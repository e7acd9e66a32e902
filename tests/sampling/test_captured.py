"""When is a pass captured? Played on the CPU; tests/test_on_gpu.py has the graphs themselves."""

from typing import Any

import pytest
import torch

from slackdlm.sampling import prediction
from slackdlm.sampling.captured import can_be_captured
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
