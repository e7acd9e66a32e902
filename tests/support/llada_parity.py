"""Ours beside LLaDA's published generate.py on random toy weights: the same noise, token for token.

    python tests/sampling/llada_parity.py generate.py [--cases 400] [--write]

``generate.py`` is the file of github.com/ML-GSAI/LLaDA (none of it is kept here). Both sides get the same uniforms; two
things are done to the file as it is loaded: its hard-coded end ids become the toy tokenizer's, and in cases that delay
the end at a temperature above 0 the one line that then suppresses only one of two ids is mended. A case that comes out
different is run again with equal confidences taken from the left, which ``torch.topk`` leaves open.
``--write`` keeps some of the reference's outputs in golden/llada.json, which the tests compare with.
"""

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

GOLDEN = Path(__file__).parents[1] / "sampling" / "golden" / "llada.json"
NUM_GOLDEN = 48
FORGETFUL = "logits_with_noise[:, :, 126081] = logits[:, :, 126348] = -torch.inf"
MENDED = "logits[:, :, 126081] = logits[:, :, 126348] = -torch.inf"


def toy_model(seed: int, sharpness: float):
    """A random toy LLaDA whose head gives the mask a logit of 0, so that it is hardly ever the likeliest."""
    from slackdlm.models.configs import LLaDAConfig
    from slackdlm.models.loading import new_model
    from slackdlm.models.tokenizer import train_tokenizer
    from slackdlm.study.toy_language import vocabulary

    tokenizer = train_tokenizer([" ".join(vocabulary())], vocab_size=256, kind="word")
    config = LLaDAConfig(
        vocab_size=len(tokenizer), d_model=32, n_layers=2, n_heads=2, mlp_hidden_size=64
    )
    loaded = new_model(config, tokenizer, generator_seed=seed)
    head = loaded.model.get_output_embeddings().weight
    with torch.no_grad():
        head *= sharpness
        head[loaded.mask_id] = 0
    return loaded


def draw_case(number: int) -> dict[str, Any]:
    """Settings that the reference accepts, and prompts."""
    rng = np.random.Generator(np.random.PCG64([2026, number]))
    num_blocks = int(rng.integers(1, 5))
    canvas_length = num_blocks * int(rng.integers(1, 13))
    rows = int(rng.integers(1, 4))
    return {
        "number": number,
        "sharpness": float(rng.choice([1.0, 2.0, 6.0])),
        "prompts": [rng.integers(1, 40, rng.integers(1, 12)).tolist() for _ in range(rows)],
        "canvas_length": canvas_length,
        "block_length": canvas_length // num_blocks,
        "steps": num_blocks * int(rng.integers(1, canvas_length // num_blocks + 3)),
        "temperature": float(rng.choice([0.0, 1.0])),
        "guidance": float(rng.choice([0.0, 0.0, 0.7, 2.0])),
        "remasking": str(rng.choice(["low_confidence", "low_confidence", "random"])),
        "forbid_end_of_text": bool(rng.random() < 0.25),
        "delay_end": bool(rng.random() < 0.25),
    }


class SharedNoise:
    """The uniforms of the reference: for every step one per token and cell of the whole sequence."""

    def __init__(self, case: dict[str, Any], *, vocab_size: int, mask_id: int) -> None:
        self.number, self.vocab_size, self.mask_id = case["number"], vocab_size, mask_id
        self.rows = len(case["prompts"])
        self.prompt_length = max(len(prompt) for prompt in case["prompts"])
        self.length = self.prompt_length + case["canvas_length"]
        self.block, self.step = 0, 0

    def sequence(self, width: int):
        stream = np.random.PCG64([self.number, self.block, self.step, width])
        uniforms = np.random.Generator(stream).random((self.rows, self.length, width))
        if width > 1:
            uniforms[..., self.mask_id] = 0.0  # the reference would commit a mask; ours never does
        return uniforms

    def draw(self, cells, width: int):
        """What ours asks for: masked cells alone."""
        uniforms = self.sequence(width)
        return torch.from_numpy(uniforms[cells.rows, self.prompt_length + cells.positions])


def ours(loaded, case: dict[str, Any]) -> list[list[int]]:
    from slackdlm.sampling.config import SamplerConfig
    from slackdlm.sampling.decoding import Decoding

    noise = SharedNoise(case, vocab_size=loaded.model.config.vocab_size, mask_id=loaded.mask_id)

    class Shared(Decoding):
        def _steps_of(self, block):
            noise.block, noise.step = block.first // case["block_length"], -1
            yield from super()._steps_of(block)

        def _step(self, *arguments):
            noise.step += 1
            super()._step(*arguments)

    names = set(SamplerConfig.__dataclass_fields__) & set(case)
    config = SamplerConfig(**{name: case[name] for name in names})
    decoding = Shared(loaded, config, None, case["prompts"], list(range(len(case["prompts"]))))
    decoding.predictor.noise = noise
    return [answer.canvas for answer in decoding.run()]


def from_the_left(confidence, k):
    """``torch.topk`` with equal values in order."""
    ordered = confidence.sort(descending=True, stable=True)
    return ordered.values[:k], ordered.indices[:k]


def reference(source: str, loaded, case: dict[str, Any], *, topk) -> list[list[int]]:
    """LLaDA's own ``generate`` on the same weights, prompts and uniforms."""
    vocab_size = loaded.model.config.vocab_size
    noise = SharedNoise(case, vocab_size=vocab_size, mask_id=loaded.mask_id)
    per_block = case["steps"] * case["block_length"] // case["canvas_length"]
    calls = iter(range(case["steps"]))

    class Model:
        device = torch.device("cpu")

        def __call__(self, ids, attention_mask=None):
            noise.block, noise.step = divmod(next(calls), per_block)
            return loaded.model(ids, attention_mask)

    class Torch(SimpleNamespace):
        def __getattr__(self, name):
            return getattr(torch, name)

    namespace: dict[str, Any] = {"__name__": "reference"}
    exec(source, namespace)
    namespace["torch"] = Torch(
        rand_like=lambda logits, dtype: torch.from_numpy(noise.sequence(vocab_size)),
        rand=lambda shape, device: torch.from_numpy(noise.sequence(1)[..., 0]).float(),
        topk=topk,
    )
    longest = noise.prompt_length
    ids = torch.full((noise.rows, longest), loaded.pad_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(case["prompts"]):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    out = namespace["generate"](
        Model(),
        ids,
        attention_mask=mask,
        steps=case["steps"],
        gen_length=case["canvas_length"],
        block_length=case["block_length"],
        temperature=case["temperature"],
        cfg_scale=case["guidance"],
        remasking=case["remasking"],
        mask_id=loaded.mask_id,
        logits_eos_inf=case["forbid_end_of_text"],
        confidence_eos_eot_inf=case["delay_end"],
    )
    return out[:, longest:].tolist()


def is_repaired(case: dict[str, Any]) -> bool:
    """Whether the published file suppresses only one of the two ends in this case."""
    return case["delay_end"] and case["temperature"] > 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("generate", type=Path, help="LLaDA's generate.py")
    parser.add_argument("--cases", type=int, default=400)
    parser.add_argument("--write", action="store_true", help="write golden/llada.json")
    arguments = parser.parse_args()
    published = arguments.generate.read_text(encoding="utf-8")
    if FORGETFUL not in published:
        parser.error("the file is not the version this script knows")
    counts: dict[str, int] = {}
    golden: list[dict[str, Any]] = []
    for number in range(arguments.cases):
        case = draw_case(number)
        loaded = toy_model(number, case["sharpness"])
        text = published.replace(FORGETFUL, MENDED) if is_repaired(case) else published
        ends = sorted(set(loaded.eos_ids) - {loaded.pad_id})
        text = text.replace("126081", str(loaded.pad_id)).replace("126348", str(ends[0]))
        expected, found = reference(text, loaded, case, topk=torch.topk), ours(loaded, case)
        verdict = "same" if expected == found else "DIFFERENT"
        if any(loaded.mask_id in row for row in expected):
            verdict = "the reference committed a mask"
        elif expected != found and reference(text, loaded, case, topk=from_the_left) == found:
            verdict = "same once equal confidences are taken from the left"
        kind = "one line mended" if is_repaired(case) else "as published"
        counts[f"{kind}: {verdict}"] = counts.get(f"{kind}: {verdict}", 0) + 1
        if verdict == "DIFFERENT":
            sys.stdout.write(f"{json.dumps(case)}\n{expected}\n{found}\n")
        elif verdict == "same" and len(golden) < NUM_GOLDEN:
            golden.append(case | {"canvases": expected})
    sys.stdout.write(json.dumps(counts, indent=1) + "\n")
    if arguments.write:
        GOLDEN.parent.mkdir(exist_ok=True)
        lines = ",\n".join(json.dumps(case) for case in golden)
        GOLDEN.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    return int(any("DIFFERENT" in key for key in counts))


if __name__ == "__main__":
    sys.exit(main())
