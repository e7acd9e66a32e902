"""What ``config.json`` may ask for: every other value, key or size is refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slackdlm.errors import ConfigError
from slackdlm.models.configs import DreamConfig, LLaDAConfig
from slackdlm.models.loading import load_model, save_model

LLADA_SIZES = {"d_model": 64, "n_heads": 4, "vocab_size": 97}
REFUSED = [
    *((LLaDAConfig, key, True, "is not implemented") for key in (
        *("alibi", "input_emb_norm", "attention_layer_norm", "scale_logits", "include_bias"),
        *("include_qkv_bias", "bias_for_layer_norm", "multi_query_attention"),
    )),
    *((LLaDAConfig, key, False, "is not implemented") for key in (
        *("layer_norm_with_affine", "rope", "rope_full_precision"),
    )),
    *((LLaDAConfig, f"{part}_dropout", 0.1, "is not implemented") for part in (
        *("attention", "embedding", "residual"),
    )),
    (LLaDAConfig, "block_type", "sequential", "is not implemented"),
    (LLaDAConfig, "activation_type", "swiglu", "is not implemented"),
    (LLaDAConfig, "layer_norm_type", "default", "is not implemented"),
    (LLaDAConfig, "rope_scaling", {"type": "linear", "factor": 2.0}, "is not implemented"),
    (LLaDAConfig, "clip_qkv", 8.0, "is not implemented"),
    (LLaDAConfig, "block_group_size", 2, "is not implemented"),
    (LLaDAConfig, "init_fn", "kaiming_normal", "is not implemented"),
    (LLaDAConfig, "logit_softcap", 30.0, "is not known and may change"),
    (LLaDAConfig, "rope_thetta", 1e4, "is not known and may change"),
    (LLaDAConfig, "quantization_config", {}, "is not known and may change"),
    (LLaDAConfig, "n_heads", 5, "d_model must be an even multiple of n_heads, got 64 and 5"),
    (LLaDAConfig, "n_heads", 64, "d_model must be an even multiple of n_heads, got 64 and 64"),
    (LLaDAConfig, "n_kv_heads", 3, "n_heads must be a multiple of n_kv_heads, got 4 and 3"),
    (LLaDAConfig, "embedding_size", 96, "embedding_size must be at least vocab_size, got 96"),
    (LLaDAConfig, "n_layers", 0, "n_layers: expected a whole number from 1 to 4096, got 0"),
    (LLaDAConfig, "n_layers", 2**40, "from 1 to 4096, got 1099511627776"),
    (LLaDAConfig, "n_layers", True, "n_layers: expected a whole number"),
    (LLaDAConfig, "d_model", {}, "d_model: expected a whole number from 1 to"),
    (LLaDAConfig, "rope_theta", float("nan"), r"expected a number from 1e-30 to 1e[+]30, got nan"),
    (DreamConfig, "use_sliding_window", True, "is not implemented"),
    (DreamConfig, "rope_scaling", {"type": "yarn"}, "is not implemented"),
    (DreamConfig, "hidden_act", "gelu", "is not implemented"),
    (DreamConfig, "attention_dropout", 0.1, "is not implemented"),
    (DreamConfig, "qk_norm", True, "the key qk_norm = True is not known"),
    (DreamConfig, "num_key_value_heads", 3, "must be a multiple of num_key_value_heads"),
]  # fmt: skip


@pytest.mark.parametrize(("config_class", "key", "value", "message"), REFUSED)
def test_what_is_not_implemented_is_refused_by_name(
    config_class: Any, key: str, value: object, message: str
) -> None:
    sizes = LLADA_SIZES if config_class is LLaDAConfig else {}
    with pytest.raises(ConfigError, match=message) as error:
        config_class(**(sizes | {key: value}))
    assert key in str(error.value)
    if "is not known" in message:
        for nothing in (None, False):
            config_class(**(sizes | {key: nothing}))


def test_a_refused_key_names_the_file(
    published: Path, edit: Callable[..., None], write_kind: Callable[[str], Path]
) -> None:
    edit(published / "config.json", scale_logits=True)
    with pytest.raises(ConfigError, match=rf"{published}/config.json: scale_logits = True is not"):
        load_model(published)


@pytest.mark.parametrize("kind", ["llada", "dream"])
def test_the_saved_config_has_the_published_keys(
    write_kind: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    folder = write_kind(kind)
    loaded = load_model(folder)
    save_model(loaded, tmp_path / "saved")
    published = json.loads((folder / "config.json").read_text())
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    unlike = {"auto_map", "rope_scaling", "transformers_version", "use_cache", "eos_token_id"}
    for key in published.keys() - unlike:
        assert saved[key] == published[key], key
    assert "auto_map" not in saved
    if kind == "dream":  # what its published code cannot do without
        generation = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
        assert generation["mask_token_id"] == loaded.mask_id
        for file in ("vocab.json", "merges.txt"):
            assert (tmp_path / "saved" / file).read_text() == (folder / file).read_text()


def test_a_new_config_is_saved_with_what_the_published_code_asks_for(tmp_path: Path) -> None:
    LLaDAConfig(**LLADA_SIZES).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    for key, value in (("block_type", "llama"), ("rope", True), ("alibi", False)):
        assert saved[key] == value
    assert (saved["embedding_size"], saved["n_kv_heads"], saved["mlp_hidden_size"]) == (97, 4, 256)
