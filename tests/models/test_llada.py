import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from slackdlm.models.configs import LLaDAConfig
from slackdlm.models.llada import LLaDAModelLM, RMSNorm, rotary_angles, rotate
from slackdlm.models.loaded import recompute_activations

Array = NDArray[np.float64]


def tiny(*, seed: int = 0, **keys: object) -> LLaDAModelLM:
    sizes = {"d_model": 64, "n_layers": 2, "n_heads": 4, "mlp_hidden_size": 192, "vocab_size": 97}
    config = LLaDAConfig(**(sizes | {"max_sequence_length": 64} | keys))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return LLaDAModelLM(config).eval()


def draw_ids(batch: int, length: int, *, vocab_size: int = 97, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocab_size, (batch, length), generator=generator)


# --- an independent restatement: one sample, float64, loops over heads ---------------------------


def restated_logits(
    weights: dict[str, Array],
    ids: list[int],
    *,
    n_layers: int,
    n_heads: int,
    n_kv_heads: int,
    theta: float,
    eps: float,
) -> Array:
    def rms(x: Array, name: str) -> Array:
        return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * weights[f"{name}.weight"]

    def turn(head: Array) -> Array:
        half = head.shape[1] // 2
        angle = np.arange(len(head))[:, None] * theta ** (-np.arange(half) / half)
        turned = (head[:, :half] + 1j * head[:, half:]) * np.exp(1j * angle)
        return np.concatenate([turned.real, turned.imag], axis=1)

    x = weights["wte.weight"][ids]
    size = x.shape[1] // n_heads
    for i in range(n_layers):
        b = f"blocks.{i}"
        h = rms(x, f"{b}.attn_norm")
        q, k, v = (h @ weights[f"{b}.{n}_proj.weight"].T for n in "qkv")
        heads = []
        for head in range(n_heads):
            kv = head * n_kv_heads // n_heads
            mine = slice(head * size, head * size + size)
            theirs = slice(kv * size, kv * size + size)
            scores = turn(q[:, mine]) @ turn(k[:, theirs]).T / np.sqrt(size)
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            heads.append(shares / shares.sum(axis=1, keepdims=True) @ v[:, theirs])
        x = x + np.concatenate(heads, axis=1) @ weights[f"{b}.attn_out.weight"].T
        h = rms(x, f"{b}.ff_norm")
        gate = h @ weights[f"{b}.ff_proj.weight"].T
        inner = gate / (1 + np.exp(-gate)) * (h @ weights[f"{b}.up_proj.weight"].T)
        x = x + inner @ weights[f"{b}.ff_out.weight"].T
    return rms(x, "ln_f") @ weights["ff_out.weight"].T


@pytest.mark.parametrize("n_kv_heads", [4, 2, 1])
@pytest.mark.parametrize("theta", [10000.0, 500000.0])
def test_the_forward_pass_agrees_with_a_float64_restatement(n_kv_heads: int, theta: float) -> None:
    model = tiny(n_kv_heads=n_kv_heads, rope_theta=theta)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name or "ln_f" in name:
                weight += 0.2 * torch.randn(64, generator=torch.Generator().manual_seed(len(name)))
    weights = {
        name.removeprefix("model.transformer."): tensor.double().numpy()
        for name, tensor in model.state_dict().items()
    }
    ids = draw_ids(3, 23)
    logits = model(ids).logits.detach()
    for row in range(3):
        expected = restated_logits(
            weights,
            ids[row].tolist(),
            n_layers=2,
            n_heads=4,
            n_kv_heads=n_kv_heads,
            theta=theta,
            eps=1e-5,
        )
        torch.testing.assert_close(logits[row].double(), torch.tensor(expected), atol=1e-5, rtol=0)


def test_gradient_checkpointing_recomputes_the_blocks() -> None:
    model = tiny().train()
    recompute_activations(model)
    calls: list[str] = []
    model.model.transformer["blocks"][0].q_proj.register_forward_hook(
        lambda *_: calls.append("q_proj")
    )
    model(draw_ids(1, 4)).logits.sum().backward()
    assert len(calls) == 2


def test_transformers_before_5_23_is_asked_to_recompute_by_its_own_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, asked = tiny(), []
    monkeypatch.delattr(PreTrainedModel, "activation_checkpointing_enable")
    monkeypatch.setattr(model, "gradient_checkpointing_enable", asked.append)
    recompute_activations(model)
    assert asked == [{"use_reentrant": False}]


def test_bfloat16_gives_bfloat16_logits_near_the_float32_ones() -> None:
    model, ids = tiny(), draw_ids(2, 9)
    exact = model(ids).logits
    rounded = model.to(torch.bfloat16)(ids).logits
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.15, rtol=0)


def test_norms_and_rotations_stay_in_float32_under_autocast() -> None:
    model, ids = tiny(), draw_ids(2, 9)
    exact = model(ids).last_hidden_state
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model(ids).last_hidden_state
    assert hidden.dtype == torch.float32
    torch.testing.assert_close(hidden, exact, atol=0.15, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_and_rotations_are_the_published_ones_to_the_bit(dtype: torch.dtype) -> None:
    """In float32 inside; the weight is multiplied by what was rounded."""
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(2, 4, 7, 16, generator=generator)
    x32 = x.to(dtype).float()
    norm = RMSNorm(16, eps=1e-5).to(dtype)
    norm.weight.data = torch.rand(16, generator=generator).to(dtype)
    normed = x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + 1e-5)
    ours = norm(x.to(dtype).flatten(0, 1))
    assert torch.equal(ours.view_as(x), norm.weight * normed.to(dtype))

    frequencies = 1.0 / 10_000.0 ** (torch.arange(0, 16, 2) / 16)
    angles = torch.arange(7.0)[:, None] * torch.cat([frequencies, frequencies])
    turned = torch.cat([-x32[..., 8:], x32[..., :8]], dim=-1)
    published = (x32 * angles.cos() + turned * angles.sin()).to(dtype)
    cos, sin = rotary_angles(7, head_size=16, theta=10_000.0, device=x.device)
    assert torch.equal(rotate(x.to(dtype), cos, sin), published)


def test_a_new_model_is_initialised_as_documented() -> None:
    model = tiny(d_model=256, n_heads=4, mlp_hidden_size=512, n_layers=3)
    parts = model.model.transformer
    third = parts["blocks"][2]
    for weight, std in (
        (parts["wte"].weight, 256**-0.5),
        (parts["ff_out"].weight, 256**-0.5),
        (third.q_proj.weight, 256**-0.5),
        (third.up_proj.weight, 256**-0.5),
        (third.attn_out.weight, (256 * 2 * 3) ** -0.5),
        (third.ff_out.weight, (512 * 2 * 3) ** -0.5),
    ):
        assert weight.std().item() == pytest.approx(std, rel=0.05)
        assert weight.abs().max().item() <= 3 * std + 1e-6
    assert bool((third.attn_norm.weight == 1).all())
    assert model(draw_ids(2, 20)).logits.std().item() == pytest.approx(1, abs=0.1)


def test_the_normal_initialisation_has_the_configured_deviation() -> None:
    model = tiny(init_fn="normal", init_std=0.05)
    for weight in (
        model.get_input_embeddings().weight,
        model.model.transformer["blocks"][1].ff_out.weight,
    ):
        assert weight.std().item() == pytest.approx(0.05, rel=0.05)


def test_resizing_keeps_the_config_in_step_and_the_old_rows() -> None:
    model = tiny()
    before = model.get_input_embeddings().weight.detach().clone()
    model.resize_token_embeddings(110, mean_resizing=False)
    assert (model.config.vocab_size, model.config.embedding_size) == (110, 110)
    torch.testing.assert_close(model.get_input_embeddings().weight[:97], before, atol=0, rtol=0)
    assert model(draw_ids(1, 5)).logits.shape == (1, 5, 110)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gpu_gives_the_logits_of_the_cpu(dtype: torch.dtype) -> None:
    model, ids = tiny(n_kv_heads=2), draw_ids(2, 17)
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    exact = model(ids, mask).logits[mask.bool()]
    on_gpu = model.to("cuda", dtype)(ids.cuda(), mask.cuda()).logits.float().cpu()[mask.bool()]
    torch.testing.assert_close(on_gpu, exact, atol=1e-3 if dtype == torch.float32 else 0.15, rtol=0)
