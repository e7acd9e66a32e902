"""Ours against the logits of the published modelling code; see ``benchmarks/published_parity.py``."""

from pathlib import Path

import pytest
import torch
from published_cases import CASES, attention, draw_ids, draw_tensor
from safetensors.torch import load_file
from transformers import PreTrainedModel

from slackdlm.models.configs import DreamConfig, LLaDAConfig
from slackdlm.models.dream import DreamModel, align
from slackdlm.models.llada import LLaDAModelLM

GOLDEN = Path(__file__).parent / "golden"


def fill(model: PreTrainedModel) -> PreTrainedModel:
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(torch.from_numpy(draw_tensor(name, tuple(value.shape))))
    return model.eval()


@torch.no_grad()
def largest_difference(model: PreTrainedModel, family: str, name: str) -> float:
    """At the positions that are no padding."""
    case = CASES[family][name]
    mask = attention(case)
    mask = None if mask is None else torch.from_numpy(mask)
    logits = model(torch.from_numpy(draw_ids(case)), mask).logits
    published = load_file(GOLDEN / f"{family}.safetensors")[name]
    if family == "dream":  # whose own sampler shifts them so
        published = align(published)
        mask = None if mask is None else mask.roll(1, dims=1) & mask
    difference = (logits - published).abs()
    return float((difference if mask is None else difference[mask.bool()]).max())


@pytest.mark.parametrize("name", CASES["llada"])
def test_llada_has_the_logits_of_the_published_code(name: str) -> None:
    model = fill(LLaDAModelLM(LLaDAConfig(**CASES["llada"][name].config)))
    assert largest_difference(model, "llada", name) <= 1e-5


@pytest.mark.parametrize("name", CASES["dream"])
def test_dream_has_the_logits_of_the_published_code(name: str) -> None:
    model = fill(DreamModel(DreamConfig(**CASES["dream"][name].config)))
    assert largest_difference(model, "dream", name) <= 1e-5
