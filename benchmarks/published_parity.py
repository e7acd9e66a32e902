"""Runs published modelling code on the toy cases of ``tests/models/published_cases.py``; writes its logits.

The published code needs ``transformers`` 4.57 and is not part of this project: run this in an
environment of its own, beside a copy of the folder that holds ``modeling_llada.py`` or
``modeling_dream.py`` with its configuration. The tests compare ours with the file it writes.

    python benchmarks/published_parity.py llada FOLDER --source "NAME COMMIT" \
        --output tests/models/golden/llada.safetensors
"""

import argparse
import importlib
import sys
import types
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from published_cases import CASES, attention, draw_ids, draw_tensor


def import_published(folder: Path, family: str) -> tuple[Any, Any]:
    """Configuration and modelling module, without running the package's ``__init__``."""
    package = types.ModuleType("published")
    package.__path__ = [str(folder)]
    sys.modules["published"] = package
    return tuple(
        importlib.import_module(f"published.{part}_{family}")
        for part in ("configuration", "modeling")
    )


def build(family: str, configuration: Any, modeling: Any, keys: dict[str, Any]) -> Any:
    """The published network on the CPU in float32, its weights not yet set."""
    if family == "dream":
        config = configuration.DreamConfig(**keys, attn_implementation="sdpa")
        return modeling.DreamModel(config)
    # The keys of the published config.json that the published class does not default to.
    config = configuration.LLaDAConfig(
        **{
            "block_type": "llama",
            "activation_type": "silu",
            "layer_norm_type": "rms",
            "layer_norm_with_affine": True,
            "bias_for_layer_norm": False,
            "rope": True,
            "rope_full_precision": True,
            "rope_theta": 500000.0,
            "rms_norm_eps": 1e-5,
            "include_bias": False,
            "include_qkv_bias": False,
            "attention_dropout": 0.0,
            "embedding_dropout": 0.0,
            "residual_dropout": 0.0,
            "use_cache": False,
        }
        | keys
    )
    inner = modeling.create_model_config_from_pretrained_config(config)
    inner.init_device = "cpu"
    return modeling.LLaDAModelLM(config, model=modeling.LLaDAModel(inner, init_params=False))


def main() -> None:
    """Logits of every case into one file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family", choices=sorted(CASES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--source", required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    configuration, modeling = import_published(args.folder, args.family)
    logits: dict[str, torch.Tensor] = {}
    for name, case in CASES[args.family].items():
        model = build(args.family, configuration, modeling, case.config).float().eval()
        with torch.no_grad():
            for key, value in model.named_parameters():
                value.copy_(torch.from_numpy(draw_tensor(key, tuple(value.shape))))
            mask = attention(case)
            output = model(
                torch.from_numpy(draw_ids(case)),
                attention_mask=None if mask is None else torch.from_numpy(mask),
            )
        logits[name] = output.logits.contiguous()
        print(f"{name}: {tuple(output.logits.shape)}, largest {output.logits.abs().max():.2f}")
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    save_file(logits, args.output, metadata={"source": f"{args.source}; {versions}"})


if __name__ == "__main__":
    main()
