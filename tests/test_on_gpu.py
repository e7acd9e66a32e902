"""What a GPU must give as the CPU does: losses with their gradients, and decoding, at toy size."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from problems import IDS, VOCAB_SIZE, Problem, draw_problem
from torch import Tensor
from toy_models import random_llada

from slackdlm import fused_linear_slack_ctc_loss, masked_ce_loss, slack_ctc_loss
from slackdlm.models.loaded import LoadedModel
from slackdlm.models.tokenizer import train_tokenizer
from slackdlm.sampling.intervention import ShiftIntervention
from slackdlm.sampling.passes import can_be_captured
from slackdlm.sampling.sampler import Sampler, SamplerConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
HIDDEN_SIZE = 8
PROMPTS = [[5, 6, 7, 8], [9, 10], [11, 12, 13, 14, 15, 16], [5]]


@pytest.fixture(autouse=True)
def full_precision() -> None:
    """Products in float32 as the CPU's, not in TF32."""
    torch.backends.cuda.matmul.allow_tf32 = False


def gradients(
    loss: Callable[..., Tensor], parameters: list[Tensor], device: str
) -> tuple[Tensor, ...]:
    there = [parameter.detach().to(device).requires_grad_() for parameter in parameters]
    value = loss(*there)
    weights = torch.arange(1, len(value) + 1, device=device).to(value.dtype)
    found = torch.autograd.grad(value, there, weights)
    return tuple(tensor.cpu() for tensor in (value.detach(), *found))


def on(problem: Problem, device: str) -> list[Tensor]:
    return [tensor.to(device) for tensor in problem[1:]]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_plain_losses_and_their_gradients(seed: int, dtype: torch.dtype) -> None:
    problem = draw_problem(seed, num_samples=4, num_positions=9, contradiction=0.0)

    def ctc(device: str) -> tuple[Tensor, ...]:
        logits = [problem.logits.to(dtype)]
        return gradients(lambda x: slack_ctc_loss(x, *on(problem, device), **IDS), logits, device)

    def ce(device: str) -> tuple[Tensor, ...]:
        canvas, targets = problem.canvas.to(device), torch.zeros_like(problem.canvas).to(device)
        lengths = problem.canvas_lengths.to(device)
        return gradients(
            lambda x: masked_ce_loss(x, canvas, targets, lengths, mask_id=IDS["mask_id"]),
            [problem.logits.to(dtype)],
            device,
        )

    torch.testing.assert_close(ctc("cuda"), ctc("cpu"))
    torch.testing.assert_close(ce("cuda"), ce("cpu"))


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("chunk_size", [2, None])
@pytest.mark.parametrize("seed", range(4))
def test_the_fused_loss_and_its_gradients(seed: int, chunk_size: int | None, ctc_weight: float):
    problem = draw_problem(seed, num_samples=4, num_positions=9, contradiction=0.0)
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(4, 9, HIDDEN_SIZE, generator=generator)
    head = torch.randn(VOCAB_SIZE, HIDDEN_SIZE, generator=generator)
    clean = torch.randint(0, VOCAB_SIZE, problem.canvas.shape, generator=generator)

    def fused(device: str) -> tuple[Tensor, ...]:
        def loss(states: Tensor, weight: Tensor) -> Tensor:
            return fused_linear_slack_ctc_loss(
                states,
                weight,
                *on(problem, device),
                **IDS,
                clean=clean.to(device),
                ctc_weight=ctc_weight,
                chunk_size=chunk_size,
            )

        return gradients(loss, [hidden, head], device)

    torch.testing.assert_close(fused("cuda"), fused("cpu"), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def models() -> tuple[LoadedModel, LoadedModel]:
    """The same random model on the CPU and on the GPU."""
    tokenizer = train_tokenizer([" ".join(f"w{i}" for i in range(40))], vocab_size=64, kind="word")

    def new() -> LoadedModel:
        size: dict[str, int] = {"d_model": 32, "n_layers": 3, "mlp_hidden_size": 64}
        return random_llada(tokenizer, **size, max_length=64, seed=3)

    there = new()
    there.model.to("cuda")
    return new(), there


def test_the_pass_is_captured_there_alone(models: tuple[LoadedModel, LoadedModel]) -> None:
    assert [can_be_captured(loaded) for loaded in models] == [False, True]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"block_length": 6},
        {"block_length": 6, "cache": "prefix"},
        {"block_length": 6, "cache": "dual"},
        {"remasking": "entropy", "steps": 7},
        {"remasking": "margin", "steps": 24},
        {"remasking": "random"},
        {"remasking": "threshold", "bound": 0.12, "steps": None},
        {"remasking": "entropy_bound", "bound": 3.0, "steps": None},
        {"guidance": 1.5},
        {"spacing": 3},
        {"refill": 2},
        {"forbid_end_of_text": True, "delay_end": True, "early_stop": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("rate", [None, 0.3])
def test_greedy_decoding_gives_the_tokens_of_the_cpu(
    models: tuple[LoadedModel, LoadedModel], changes: dict[str, Any], rate: float | None
) -> None:
    shift = None if rate is None else ShiftIntervention(rate, seed=4)
    config = SamplerConfig(**{"canvas_length": 24, "steps": 12, "batch_size": 4} | changes)
    here, there = (Sampler(loaded, config, shift).generate_from_ids(PROMPTS) for loaded in models)
    assert [a.canvas for a in there] == [a.canvas for a in here]
    assert [(a.dose, a.num_forwards) for a in there] == [(a.dose, a.num_forwards) for a in here]


@pytest.mark.parametrize("remasking", ["low_confidence", "random", "threshold"])
def test_sampling_on_a_gpu_repeats_and_knows_no_batch_mates(
    models: tuple[LoadedModel, LoadedModel], remasking: str
) -> None:
    bound = 0.1 if remasking == "threshold" else None
    settings: dict[str, Any] = {"canvas_length": 24, "temperature": 1.0, "remasking": remasking}
    shift = ShiftIntervention(0.2, seed=1)

    def canvases(batch_size: int) -> list[list[int]]:
        config = SamplerConfig(**settings, bound=bound, batch_size=batch_size)
        answers = Sampler(models[1], config, shift).generate_from_ids(PROMPTS)
        return [answer.canvas for answer in answers]

    together = canvases(4)
    assert canvases(4) == together
    assert canvases(1) == together
    assert len({tuple(canvas) for canvas in together}) == len(PROMPTS)
