"""Small checkpoints in the layout in which LLaDA-8B is published, written without our code."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

D, N_LAYERS, N_HEADS, F = 64, 2, 4, 192
TEXTS = [
    "In the year 1000 the boats sailed 200 miles.",
    "user assistant system\n\nHello, world!",
] * 3

# Structure of the published template: it always ends with an assistant header.
PUBLISHED_TEMPLATE = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    "+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)


def published_config(*, vocab_size: int, mask_id: int, end_id: int) -> dict[str, Any]:
    """Every key of the published config.json, with small sizes."""
    remote = {"AutoConfig": "configuration_llada.LLaDAConfig"}
    remote |= dict.fromkeys(("AutoModel", "AutoModelForCausalLM"), "modeling_llada.LLaDAModelLM")
    off = (
        *("alibi", "attention_layer_norm", "bias_for_layer_norm", "flash_attention"),
        *("include_bias", "include_qkv_bias", "input_emb_norm", "scale_logits", "use_cache"),
        "weight_tying",
    )
    texts = {"activation_type": "silu", "block_type": "llama", "layer_norm_type": "rms"}
    texts |= {"init_device": "meta", "init_fn": "mitchell", "model_type": "llada"}
    texts |= {"precision": "amp_bf16", "torch_dtype": "float32", "transformers_version": "4.46.3"}
    sizes = {"d_model": D, "n_layers": N_LAYERS, "n_heads": N_HEADS, "n_kv_heads": N_HEADS}
    sizes |= {"mlp_hidden_size": F, "mlp_ratio": 4, "max_sequence_length": 128}
    sizes |= {"vocab_size": vocab_size, "embedding_size": vocab_size, "block_group_size": 1}
    ids = {"mask_token_id": mask_id, "eos_token_id": end_id, "pad_token_id": end_id}
    numbers = {"rms_norm_eps": 1e-05, "rope_theta": 500000.0, "init_std": 0.02}
    numbers |= {"alibi_bias_max": 8.0, "attention_dropout": 0.0, "embedding_dropout": 0.0}
    return {
        **{"architectures": ["LLaDAModelLM"], "auto_map": remote, "residual_dropout": 0.0},
        **dict.fromkeys(off, False),
        **dict.fromkeys(("rope", "rope_full_precision", "layer_norm_with_affine"), True),
        **{"attention_layer_norm_with_affine": True, "init_cutoff_factor": None},
        **{"multi_query_attention": None, **texts, **sizes, **ids, **numbers},
    }


def published_tensors(*, vocab_size: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under the published names."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) / shape[-1] ** 0.5

    def norm() -> torch.Tensor:
        return 1 + 0.1 * torch.randn(D, generator=generator)

    tensors = {"wte": draw(vocab_size, D), "ln_f": norm(), "ff_out": draw(vocab_size, D)}
    for i in range(N_LAYERS):
        block = {"attn_norm": norm(), "ff_norm": norm(), "ff_out": draw(D, F)}
        block |= {name: draw(D, D) for name in ("q_proj", "k_proj", "v_proj", "attn_out")}
        block |= {name: draw(F, D) for name in ("ff_proj", "up_proj")}
        tensors |= {f"blocks.{i}.{name}": tensor for name, tensor in block.items()}
    return {f"model.transformer.{name}.weight": tensor for name, tensor in tensors.items()}


def write_weights(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Two shards and their index."""
    names = sorted(tensors)
    half = len(names) // 2
    weight_map: dict[str, str] = {}
    for i, part in enumerate((names[:half], names[half:])):
        shard = f"model-{i + 1:05d}-of-00002.safetensors"
        save_file({n: tensors[n] for n in part}, folder / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, shard)
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def write_tokenizer(folder: Path, *, reserved: bool = True) -> dict[str, int]:
    """tokenizer.json and tokenizer_config.json as published: byte-level BPE and special tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, show_progress=False),
    )
    names = ["<|startoftext|>", "<|endoftext|>", "[CLS]", "[gMASK]"]
    names += [f"<|reserved_token_{i}|>" for i in range(3)] if reserved else []
    names += ["<|mdm_mask|>", "<role>", "</role>"]
    names += ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    backend.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names])
    backend.save(str(folder / "tokenizer.json"))
    config = {
        "add_bos_token": False,
        "add_eos_token": False,
        "bos_token": "<|startoftext|>",
        "chat_template": PUBLISHED_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "cls_token": "[CLS]",
        "eos_token": "<|endoftext|>",
        "fast_tokenizer": True,
        "gmask_token": "[gMASK]",
        "model_max_length": 1000000000000000019884624838656,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "trust_remote_code": True,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return {name: backend.token_to_id(name) for name in names} | {"": backend.get_vocab_size()}


def write_llada(
    folder: Path, *, spare_rows: int = 5, reserved: bool = True, seed: int = 0, **keys: Any
) -> Path:
    """A whole checkpoint; keywords override config keys."""
    folder.mkdir()
    ids = write_tokenizer(folder, reserved=reserved)
    rows = ids[""] + spare_rows
    config = published_config(
        vocab_size=rows, mask_id=ids["<|mdm_mask|>"], end_id=ids["<|endoftext|>"]
    )
    (folder / "config.json").write_text(json.dumps(config | keys))
    write_weights(folder, published_tensors(vocab_size=rows, seed=seed))
    return folder
