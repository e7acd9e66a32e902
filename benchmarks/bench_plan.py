"""``slackdlm train --plan`` against a real run: planned and measured peak memory on a CPU.

    python benchmarks/bench_plan.py [OUTPUT.csv]

Every case runs in its own process: a tiny model first, so that imports and compiled kernels are part
of the baseline, then three steps of the case with batches of full length. Measured is the rise of the
peak resident memory. Freed memory goes back to the system at once (MALLOC_MMAP_THRESHOLD_), so the
peak is that of the tensors.

A case that is in OUTPUT.csv already is left as it is, so that an interrupted call can be repeated; take
its line out to measure it again. ``qlora`` is left out where bitsandbytes is not installed.
"""

import csv
import dataclasses
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

CASES = {
    "slack_ctc": [],
    "ce": ["objective.kind=ce", "objective.slack_ratio=[0, 0]"],
    "recomputed": ["training.gradient_checkpointing=true"],
    "bf16": ["training.bf16=true"],
    "accumulated": ["training.micro_batch_size=2"],
    "large_vocabulary": ["model.from_scratch.vocab_size=32768"],
    "adapter": ["adapter"],
    "qlora": ["adapter", "4bit"],
}
RECIPE = """
model: {from_scratch: {vocab_size: 4096, d_model: 384, n_layers: 6, n_heads: 6, mlp_hidden_size: 1152}}
data: {train: none, max_prompt_length: 128, canvas_length: 384}
objective: {kind: slack_ctc, slack_ratio: [0.5, 0.5]}
training: {steps: 3, batch_size: 4, eval_samples: 0, save_every: 0, eval_every: 0}
"""


def measure(case: str) -> None:
    """One case in this process; prints planned and measured bytes as JSON."""
    import torch

    from slackdlm.models.adapter import new_adapter
    from slackdlm.models.configs import LLaDAConfig
    from slackdlm.models.loaded import LoadedModel
    from slackdlm.models.loading import load_model, new_model, save_model
    from slackdlm.models.tokenizer import train_tokenizer
    from slackdlm.training.config import FromScratchConfig, LoraRecipe, ModelConfig, load_recipe
    from slackdlm.training.data import Sample
    from slackdlm.training.plan import plan_memory
    from slackdlm.training.prepare import Prepared
    from slackdlm.training.run import train

    folder = Path(tempfile.mkdtemp())
    file = folder / "recipe.yaml"
    file.write_text(RECIPE)
    options = [option for option in CASES[case] if "=" in option]
    recipe = load_recipe(file, options)
    tokenizer = train_tokenizer(["a few words"], vocab_size=300, kind="byte_bpe")

    def build(shape: FromScratchConfig, length: int) -> LoadedModel:
        config = LLaDAConfig(
            vocab_size=shape.vocab_size,
            d_model=shape.d_model,
            n_layers=shape.n_layers,
            n_heads=shape.n_heads,
            mlp_hidden_size=shape.mlp_hidden_size,
            max_sequence_length=length,
        )
        return new_model(config, tokenizer, generator_seed=0)

    def run(loaded: LoadedModel, name: str, prompt: int, canvas: int) -> None:
        # A third of the canvas is slack at most: slack ratio 0.5 of the response.
        response = torch.full((canvas * 2 // 3,), 10)
        samples = [Sample(torch.full((prompt,), 9), response, "made")] * 8
        train(
            dataclasses.replace(
                recipe, data=dataclasses.replace(recipe.data, canvas_length=canvas)
            ),
            output=folder / name,
            prepared=Prepared(loaded, samples, []),
            progress=False,
        )

    data, shape = recipe.data, recipe.model.from_scratch or FromScratchConfig()
    length = data.max_prompt_length + data.canvas_length
    quantization = "4bit" if "4bit" in CASES[case] else None

    def load(name: str, shape: FromScratchConfig, length: int) -> LoadedModel:
        """The model, or a new adapter on the one saved under a name."""
        if "adapter" not in CASES[case]:
            return build(shape, length)
        loaded = load_model(folder / name, dtype="float32", quantization=quantization)
        return new_adapter(loaded, rank=16, alpha=32, dropout=0)

    small = dataclasses.replace(shape, d_model=64, n_layers=1, n_heads=2, mlp_hidden_size=64)
    if "adapter" in CASES[case]:
        save_model(build(shape, length), folder / "base")
        save_model(build(small, 64), folder / "small")
        path, lora = str(folder / "base"), LoraRecipe(rank=16)
        model = ModelConfig(path=path, lora=lora, quantization=quantization)
        recipe = dataclasses.replace(recipe, model=model)
    plan = plan_memory(recipe)
    run(load("small", small, 64), "warm", 8, 24)
    gc.collect()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    run(load("base", shape, length), "run", data.max_prompt_length, data.canvas_length)
    parts = dataclasses.asdict(plan)
    print(json.dumps({"planned": plan.peak, "measured": _status("VmHWM") - before, **parts}))


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def main(output: Path) -> None:
    """All cases, each in its own process, into one CSV."""
    import torch
    from measurement import write_csv

    rows: list[dict[str, object]] = []
    if output.exists():
        with output.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    for case in CASES:
        if case in [row["case"] for row in rows]:
            continue
        if "4bit" in CASES[case] and find_spec("bitsandbytes") is None:
            print(case, "left out: bitsandbytes is not installed")
            continue
        command = [sys.executable, __file__, "--case", case]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        megabytes = {k: round(found[k] / 2**20, 1) for k in ("planned", "measured")}
        rows.append(
            {
                "case": case,
                "planned_mib": megabytes["planned"],
                "measured_mib": megabytes["measured"],
                "planned_over_measured": round(found["planned"] / found["measured"], 3),
                "num_parameters": found["num_parameters"],
                "cpu": platform.processor() or platform.machine(),
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                "torch": torch.__version__,
                "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
        print(rows[-1]["case"], rows[-1]["planned_mib"], rows[-1]["measured_mib"], found)
        write_csv(output, rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        measure(sys.argv[2])
    else:
        default = Path(__file__).with_name("results") / "plan_cpu.csv"
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
