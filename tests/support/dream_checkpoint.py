"""Small checkpoints in the layout in which Dream-7B is published, written without our code."""

import json
from pathlib import Path
from typing import Any

import torch
from llada_checkpoint import write_weights
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

# Structure of the published template: a default system message, headers only when asked for.
TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|beginoftext|>", "<|mask|>"]
D, F, LAYERS, HEADS, KV_HEADS = 64, 96, 2, 4, 2


def published_config(*, rows: int, ids: dict[str, int]) -> dict[str, Any]:
    """Every key of the published config.json, with small sizes."""
    return {
        "architectures": ["DreamModel"],
        "attention_dropout": 0.0,
        "auto_map": {
            "AutoConfig": "configuration_dream.DreamConfig",
            "AutoModel": "modeling_dream.DreamModel",
        },
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|endoftext|>"],
        "hidden_act": "silu",
        "hidden_size": D,
        "initializer_range": 0.02,
        "intermediate_size": F,
        "mask_token_id": ids["<|mask|>"],
        "max_position_embeddings": 128,
        "max_window_layers": 28,
        "model_type": "Dream",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "pad_token_id": ids["<|endoftext|>"],
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.46.2",
        "use_cache": True,
        "use_mrope": False,
        "use_sliding_window": False,
        "vocab_size": rows,
    }


def published_tensors(*, rows: int) -> dict[str, torch.Tensor]:
    """Random weights under the published names."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) / shape[-1] ** 0.5

    kv = D // HEADS * KV_HEADS
    tensors = {"model.embed_tokens.weight": draw(rows, D), "lm_head.weight": draw(rows, D)}
    tensors["model.norm.weight"] = 1 + draw(D)
    for i in range(LAYERS):
        block = {"self_attn.o_proj.weight": draw(D, D), "mlp.down_proj.weight": draw(D, F)}
        for name, size in (("q", D), ("k", kv), ("v", kv)):
            block |= {f"self_attn.{name}_proj.weight": draw(size, D)}
            block |= {f"self_attn.{name}_proj.bias": draw(size)}
        block |= {f"mlp.{name}_proj.weight": draw(F, D) for name in ("gate", "up")}
        block |= {f"{name}_layernorm.weight": 1 + draw(D) for name in ("input", "post_attention")}
        tensors |= {f"model.layers.{i}.{name}": tensor for name, tensor in block.items()}
    return tensors


def write_tokenizer(folder: Path) -> dict[str, int]:
    """vocab.json, merges.txt and tokenizer_config.json; there is no tokenizer.json."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(
        ["user assistant system\nYou are a helpful assistant. Hello, world!"] * 3,
        trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet, show_progress=False),
    )
    backend.model.save(str(folder))
    first = backend.get_vocab_size()
    ids = {name: first + i for i, name in enumerate(SPECIAL)}
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(i): {"content": name, "special": True} | flags for name, i in ids.items()
        },
        "additional_special_tokens": ["<|beginoftext|>", "<|mask|>"],
        "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
        "bos_token": "<|beginoftext|>",
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|endoftext|>",
        "errors": "replace",
        "mask_token": "<|mask|>",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "DreamTokenizer",
        "unk_token": None,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return ids


def write_checkpoint(folder: Path, *, spare_rows: int = 4, **keys: Any) -> Path:
    """A whole checkpoint; keywords override config keys."""
    folder.mkdir()
    ids = write_tokenizer(folder)
    rows = max(ids.values()) + 1 + spare_rows
    config = published_config(rows=rows, ids=ids) | keys
    (folder / "config.json").write_text(json.dumps(config))
    write_weights(folder, published_tensors(rows=rows))
    (folder / "modeling_dream.py").write_text("raise SystemExit('remote code was run')")
    (folder / "tokenization_dream.py").write_text("raise SystemExit('remote code was run')")
    return folder
