import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from transformers import PreTrainedModel

from slackdlm.errors import ConfigError, DataError
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


def test_the_parameters_number_what_the_formula_says() -> None:
    v, d, f, layers = 97, 64, 192, 2
    formula = 2 * v * d + layers * (4 * d**2 + 3 * d * f + 2 * d) + d
    assert sum(p.numel() for p in tiny().parameters()) == formula


def test_the_8b_defaults_have_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = LLaDAModelLM(LLaDAConfig(mlp_hidden_size=12288))
    assert sum(p.numel() for p in model.parameters()) == 8_015_581_184


def test_attention_is_not_causal() -> None:
    model, ids = tiny(), draw_ids(1, 8)
    changed = ids.clone()
    changed[0, -1] = (changed[0, -1] + 1) % 97
    assert not torch.allclose(model(ids).logits[0, 0], model(changed).logits[0, 0], atol=1e-3)


def test_a_mask_of_ones_gives_bitwise_the_logits_without_a_mask() -> None:
    model, ids = tiny(), draw_ids(2, 9)
    plain = model(ids).logits
    torch.testing.assert_close(model(ids, torch.ones_like(ids)).logits, plain, atol=0, rtol=0)
    ones = torch.ones_like(ids, dtype=torch.bool)
    torch.testing.assert_close(model(ids, attention_mask=ones).logits, plain, atol=0, rtol=0)


def test_what_the_mask_hides_does_not_matter() -> None:
    model, ids = tiny(), draw_ids(2, 12)
    mask = torch.ones_like(ids)
    mask[0, 3:6] = 0
    other = torch.where(mask == 0, (ids + 11) % 97, ids)
    real = mask.bool()
    torch.testing.assert_close(
        model(ids, mask).logits[real], model(other, mask).logits[real], atol=0, rtol=0
    )
    assert bool(model(ids, mask).logits.isfinite().all())


@pytest.mark.parametrize("pad_length", [1, 7, 30])
def test_left_padding_leaves_the_real_positions_as_they_were(pad_length: int) -> None:
    model, ids = tiny(), draw_ids(1, 11)
    padded = torch.cat([torch.full((1, pad_length), 5), ids], dim=1)
    mask = torch.cat([torch.zeros(1, pad_length), torch.ones(1, 11)], dim=1).long()
    alone = model(ids).logits
    torch.testing.assert_close(model(padded, mask).logits[:, pad_length:], alone, atol=2e-5, rtol=0)


def test_a_batch_of_mixed_lengths_gives_the_logits_of_each_alone() -> None:
    model, long, short = tiny(), draw_ids(1, 14), draw_ids(1, 6, seed=2)
    batch = torch.cat([long, torch.cat([torch.zeros(1, 8).long(), short], dim=1)])
    mask = torch.ones(2, 14).long()
    mask[1, :8] = 0
    together = model(batch, mask).logits
    torch.testing.assert_close(together[:1], model(long).logits, atol=2e-5, rtol=0)
    torch.testing.assert_close(together[1:, 8:], model(short).logits, atol=2e-5, rtol=0)


def test_a_row_with_nothing_to_attend_to_is_an_error() -> None:
    model, ids = tiny(), draw_ids(2, 5)
    mask = torch.ones_like(ids)
    mask[1] = 0
    with pytest.raises(DataError, match="attention_mask: a row is all zeros"):
        model(ids, mask)


def test_a_longer_input_than_the_model_knows_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"at most 64 tokens \(max_sequence_length\), got 65"):
        tiny()(draw_ids(1, 65))


def test_the_head_applied_to_the_hidden_states_gives_the_logits() -> None:
    model, ids = tiny(), draw_ids(2, 9)
    output = model(ids)
    head = model.get_output_embeddings().weight
    assert head.shape == (97, 64)
    torch.testing.assert_close(output.last_hidden_state @ head.T, output.logits, atol=1e-6, rtol=0)


def test_the_logits_can_be_left_out() -> None:
    model, ids = tiny(), draw_ids(2, 9)
    output = model(ids, logits=False)
    assert output.logits is None
    torch.testing.assert_close(
        output.last_hidden_state, model(ids).last_hidden_state, atol=0, rtol=0
    )


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(use_reentrant: bool) -> None:
    ids, mask = draw_ids(2, 9), torch.ones(2, 9).long()
    mask[0, 0] = 0
    plain, saving = tiny().train(), tiny().train()
    saving.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    assert saving.is_gradient_checkpointing
    assert not plain.is_gradient_checkpointing
    for model in (plain, saving):
        model(ids, mask).logits.logsumexp(-1).sum().backward()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(saving.get_parameter(name).grad, parameter.grad, atol=0, rtol=0)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weight_tying", [False, True])
def test_saving_and_loading_is_bit_exact(
    tmp_path: Path, dtype: torch.dtype, weight_tying: bool
) -> None:
    model, ids = tiny(weight_tying=weight_tying).to(dtype), draw_ids(2, 9)
    model.save_pretrained(tmp_path)
    loaded = LLaDAModelLM.from_pretrained(tmp_path)
    assert loaded.dtype == dtype
    assert loaded.state_dict().keys() == model.state_dict().keys()
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits, atol=0, rtol=0)
    names = set(load_file(tmp_path / "model.safetensors"))
    assert len(names) == (20 if weight_tying else 21)
    assert ("model.transformer.ff_out.weight" in names) == (not weight_tying)


def test_the_tied_head_is_the_embedding() -> None:
    model = tiny(weight_tying=True)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_the_saved_config_has_the_published_keys(
    tmp_path: Path, write_checkpoint: Callable[..., Path]
) -> None:
    published = json.loads((write_checkpoint() / "config.json").read_text())
    LLaDAConfig.from_dict(published).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    for key in published.keys() - {"auto_map", "torch_dtype", "transformers_version", "use_cache"}:
        assert saved[key] == published[key], key
    assert "auto_map" not in saved


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("alibi", True),
        ("input_emb_norm", True),
        ("attention_layer_norm", True),
        ("scale_logits", True),
        ("include_bias", True),
        ("include_qkv_bias", True),
        ("bias_for_layer_norm", True),
        ("layer_norm_with_affine", False),
        ("attention_dropout", 0.1),
        ("embedding_dropout", 0.1),
        ("residual_dropout", 0.1),
        ("block_type", "sequential"),
        ("activation_type", "swiglu"),
        ("layer_norm_type", "default"),
        ("rope", False),
        ("rope_full_precision", False),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("clip_qkv", 8.0),
        ("block_group_size", 2),
        ("multi_query_attention", True),
        ("init_fn", "kaiming_normal"),
    ],
)
def test_a_variant_that_is_not_implemented_is_an_error_naming_its_key(
    key: str, value: object
) -> None:
    with pytest.raises(ConfigError, match=rf"config.json: {key} = .* is not implemented"):
        tiny(**{key: value})


@pytest.mark.parametrize(
    ("key", "value"), [("logit_softcap", 30.0), ("rope_thetta", 1e4), ("quantization_config", {})]
)
def test_a_key_nobody_knows_is_an_error_unless_it_asks_for_nothing(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"the key {key} = .* is not known and may change"):
        tiny(**{key: value})
    for nothing in (None, False):
        tiny(**{key: nothing})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"n_heads": 5}, "d_model must be an even multiple of n_heads, got 64 and 5"),
        ({"n_heads": 64}, "d_model must be an even multiple of n_heads, got 64 and 64"),
        ({"n_kv_heads": 3}, "n_heads must be a multiple of n_kv_heads, got 4 and 3"),
        ({"embedding_size": 96}, "embedding_size must be at least vocab_size, got 96 and 97"),
        ({"n_layers": 0}, "n_layers: expected a whole number from 1 to 4096, got 0"),
        (
            {"n_layers": 2**40},
            "n_layers: expected a whole number from 1 to 4096, got 1099511627776",
        ),
        ({"d_model": {}}, "d_model: expected a whole number from 1 to"),
        (
            {"rope_theta": float("nan")},
            "rope_theta: expected a number from 1e-30 to 1e[+]30, got nan",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_an_error(keys: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**keys)


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
