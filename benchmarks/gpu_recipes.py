"""Do the recipes for LLaDA-8B run on one GPU, and does ``--plan`` say what they take? Random weights, no download.

    python benchmarks/gpu_recipes.py --output FOLDER [--scratch FOLDER] [--case lora-slack-ctc ...] [--rehearse]

Writes a checkpoint of LLaDA-8B's shapes in the published layout (17 GB) and trains it with the commands a user types,
from made-up dialogues of full length. Each case runs in a process of its own. Writes ``recipes_gpu.csv``: planned and
measured memory, and speed. ``--rehearse`` does it on a CPU at toy size, where memory is not measured.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from measurement import hardware, write_csv
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

RECIPES = Path(__file__).parents[1] / "recipes"
# Two samples a pass, twice a step, three steps, 2,048 positions: the shapes of the recipe, and few of them.
SHORT = ["training.steps=3", "training.batch_size=4", "training.micro_batch_size=2"]
SHORT += ["training.eval_samples=2", "training.eval_every=3", "training.save_every=0"]
SHORT += ["training.warmup_steps=1"]
ONE = ["training.batch_size=1", "training.micro_batch_size=1"]
CASES: dict[str, tuple[str, str, list[str]]] = {
    # name: recipe, checkpoint, changes
    "lora-slack-ctc": ("llada-8b-lora-slack-ctc.yaml", "llada", []),
    "lora-ce": ("llada-8b-lora-ce.yaml", "llada", []),
    "qlora-slack-ctc": ("llada-8b-lora-slack-ctc.yaml", "llada", ["model.quantization=4bit"]),
    # All weights in float32 with AdamW's moments take 16 bytes each: half the blocks fit one GPU.
    "full-slack-ctc, 16 blocks": ("llada-8b-full-slack-ctc.yaml", "half", ONE),
    "full-ce, 16 blocks": ("llada-8b-full-ce.yaml", "half", ONE),
}
LLADA_8B = {"d_model": 4096, "n_layers": 32, "n_heads": 32, "mlp_hidden_size": 12288}
TOY = {"d_model": 64, "n_layers": 4, "n_heads": 2, "mlp_hidden_size": 64}


def tokenizer_of_published_size() -> PreTrainedTokenizerFast:
    """LLaDA's special tokens at their published ids; ordinary text is spelt in bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = alphabet + [f"{i}unused" for i in range(126_080 - len(alphabet))]
    backend = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    names = ["<|startoftext|>", "<|endoftext|>", "[CLS]", "[gMASK]"]
    names += [f"<|reserved_token_{i}|>" for i in range(252)] + ["<|mdm_mask|>"]
    names += [f"<role_{i}>" for i in range(9)]
    names += ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    backend.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names])
    ids = {name: backend.token_to_id(name) for name in names}
    expected = {"<|endoftext|>": 126_081, "<|reserved_token_0|>": 126_084, "<|mdm_mask|>": 126_336}
    expected |= {"<|start_header_id|>": 126_346, "<|eot_id|>": 126_348}
    if not expected.items() <= ids.items():
        raise SystemExit(f"the special tokens are not at their published places: {ids}")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )


def write_checkpoint(folder: Path, shape: dict[str, int], *, device: str) -> None:
    """Random bfloat16 weights in the published layout."""
    from slackdlm.models.configs import LLaDAConfig
    from slackdlm.models.llada import LLaDAModelLM
    from slackdlm.models.loaded import LoadedModel
    from slackdlm.models.loading import save_model

    tokenizer = tokenizer_of_published_size()
    config = LLaDAConfig(
        **shape,
        mask_token_id=126_336,
        eos_token_id=126_081,
        pad_token_id=126_081,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = LLaDAModelLM(config)
    finally:
        torch.set_default_dtype(torch.float32)
    loaded = LoadedModel(
        model=model,
        tokenizer=tokenizer,
        mask_id=126_336,
        slack_id=126_084,
        eos_ids=(126_081, 126_348),
        pad_id=126_081,
        name="random weights",
        max_length=4096,
    )
    save_model(loaded, folder)
    tokenizer.save_pretrained(str(folder))


def write_dialogues(file: Path) -> None:
    """Prompts of about 1,000 tokens and answers of about 660, one byte a token."""
    drawn = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz    "
    rows = [
        {
            key: "".join(drawn.choices(letters, k=k))
            for key, k in (("prompt", 1000), ("response", 660))
        }
        for _ in range(16)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run_case(case: str, scratch: Path, *, device: str) -> dict[str, object]:
    """One training run through the command; what it took and what was planned."""
    from slackdlm.cli import main as slackdlm
    from slackdlm.training.config import load_recipe
    from slackdlm.training.plan import plan_memory

    recipe, checkpoint, changes = CASES[case]
    settings = [f"model.path={scratch / checkpoint}", f"data.train={scratch / 'dialogues.jsonl'}"]
    settings += [*SHORT, *changes]
    plan = plan_memory(load_recipe(RECIPES / recipe, settings))
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    output = scratch / "runs" / case.split(",")[0]
    flags = [part for setting in settings for part in ("--set", setting)]
    code = slackdlm(["train", str(RECIPES / recipe), *flags, "--output", str(output), "--quiet"])
    if code != 0:
        raise SystemExit(code)
    measured = torch.cuda.max_memory_allocated() if device == "cuda" else None
    steps = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    losses = [step for step in steps if "loss" in step]
    bounds = [step for step in steps if "eval_ce" in step]
    return {
        "case": case,
        "num_parameters": plan.num_parameters,
        "num_trainable": plan.num_trainable,
        "micro_batch_size": plan.micro_batch_size,
        "num_positions": plan.num_positions,
        "planned_gib": round(plan.peak / 2**30, 3),
        "measured_gib": None if measured is None else round(measured / 2**30, 3),
        "planned_over_measured": None if measured is None else round(plan.peak / measured, 3),
        "last_step_seconds": losses[-1]["seconds"],
        "canvas_positions_per_second": losses[-1]["positions_per_second"],
        "losses": " ".join(f"{step['loss']:.4f}" for step in losses),
        "eval_ce": bounds[-1]["eval_ce"],
        "hardware": hardware(device),
        "torch_version": torch.__version__,
    }


def generate(scratch: Path) -> None:
    """Decode one answer with the trained adapter, on the device the command chooses."""
    from slackdlm.cli import main as slackdlm

    adapter = scratch / "runs" / "lora-slack-ctc" / "model"
    flags = [
        "--adapter",
        str(adapter),
        "--dtype",
        "bfloat16",
        "--canvas-length",
        "64",
        "--steps",
        "32",
    ]
    command = ["generate", str(scratch / "llada"), "--prompt", "a few words", *flags]
    if code := slackdlm(command):
        raise SystemExit(code)


def main() -> int:
    """All cases, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the CSV")
    parser.add_argument(
        "--scratch", type=Path, help="keeps the checkpoints; default: a temporary one"
    )
    parser.add_argument("--rehearse", action="store_true", help="on a CPU at toy size")
    parser.add_argument("--case", action="append", choices=[*CASES, "generate"])
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = "cpu" if arguments.rehearse else "cuda"
    if arguments.here:
        (case,) = arguments.case
        if case == "generate":
            generate(arguments.scratch)
        else:
            print(json.dumps(run_case(case, arguments.scratch, device=device)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        return _all(arguments, arguments.scratch or Path(temporary), device)


def _all(arguments: Any, scratch: Path, device: str) -> int:
    shape = TOY if arguments.rehearse else LLADA_8B
    scratch.mkdir(parents=True, exist_ok=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_dialogues(scratch / "dialogues.jsonl")
    for name, layers in (("llada", shape["n_layers"]), ("half", shape["n_layers"] // 2)):
        if not (scratch / name / "config.json").exists():
            write_checkpoint(scratch / name, {**shape, "n_layers": layers}, device=device)
    if device == "cuda":
        torch.cuda.empty_cache()
    rows: list[dict[str, object]] = []
    failed: list[str] = []
    for case in arguments.case or [*CASES, "generate"]:
        command = [sys.executable, __file__, "--output", str(arguments.output), "--case", case]
        command += ["--scratch", str(scratch), "--here"]
        command += ["--rehearse"] if arguments.rehearse else []
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
        if done.returncode != 0:
            failed.append(case)
            print(f"{case}: failed\n{done.stdout[-500:]}\n{done.stderr[-2500:]}", flush=True)
        elif case == "generate":
            print("generate:", done.stdout[-300:], flush=True)
        else:
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(*(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
            write_csv(arguments.output / "recipes_gpu.csv", rows)
    print("failed:" if failed else "all ran", *failed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
