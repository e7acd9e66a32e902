"""Folders of models and adapters as other tools leave them: what is loaded is what runs, or it is said."""

import json
import random
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import peft
import torch
from hypothesis import strategies as st
from plausible_inputs import Addition, Door, Result, listening

from slackdlm.errors import SlackDLMError
from slackdlm.models.chat import encode_prompt
from slackdlm.models.configs import LLaDAConfig
from slackdlm.models.loaded import LoadedModel
from slackdlm.models.loading import load_model, new_model, save_model
from slackdlm.models.tokenizer import train_tokenizer
from slackdlm.sampling.sampler import Sampler, SamplerConfig

PROMPT = "the boats"
IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


def new(seed: int) -> LoadedModel:
    tokenizer = train_tokenizer(["the boats"], vocab_size=300, kind="byte_bpe")
    config = LLaDAConfig(
        vocab_size=len(tokenizer), d_model=32, n_layers=2, n_heads=2, mlp_hidden_size=48
    )
    return new_model(config, tokenizer, generator_seed=seed)


@cache
def models() -> dict[str, dict[str, bytes]]:
    """Files of two models, each as one file and as shards."""
    found: dict[str, dict[str, bytes]] = {}
    for seed in (1, 2):
        for name, size in (("one", "5GB"), ("shards", "60KB")):
            with tempfile.TemporaryDirectory() as folder:
                save_model(new(seed), folder, max_shard_size=size)
                found[f"{name}-{seed}"] = {
                    file.name: file.read_bytes()
                    for file in Path(folder).iterdir()
                    if file.is_file()
                }
    return found


CONFIG_KEYS: tuple[tuple[str, Any], ...] = (
    ("quantization_config", {"quant_method": "bitsandbytes", "load_in_4bit": True}),
    ("quantization_config", {"quant_method": "gptq", "bits": 4}),
    ("rope_scaling", {"rope_type": "linear", "factor": 2.0}), ("sliding_window", 8), ("alibi", True),
    ("attention_dropout", 0.5), ("logit_scale", 0.5), ("final_logit_softcapping", 30.0), ("scale_logits", True),
    ("eos_token_id", [3, 4]), ("num_experts", 4), ("n_kv_heads", 1), ("rope_theta", 1e6), ("layer_norm_eps", 0.1),
    ("torch_dtype", "bfloat16"), ("_name_or_path", "elsewhere"), ("transformers_version", "4.1.0"),
    ("use_cache", True), ("tie_word_embeddings", True), ("weight_tying", True), ("bos_token_id", 7),
)  # fmt: skip
HARMLESS = {
    "attention_dropout",
    "_name_or_path",
    "transformers_version",
    "use_cache",
    "bos_token_id",
    "torch_dtype",
}
"""Keys that decide no logits of an evaluation: to ignore them changes nothing."""


@st.composite
def folders(draw: st.DrawFn) -> Addition:
    layout = draw(st.sampled_from(("one", "shards")))
    files = dict(models()[f"{layout}-1"])
    kind = draw(st.sampled_from(("weights", "tokenizer", "config", "other")))
    name = ""
    if kind == "weights":
        other = models()[f"{draw(st.sampled_from(('one', 'shards')))}-2"]
        weights = [file for file in other if "safetensors" in file]
        chosen = draw(st.lists(st.sampled_from(weights), min_size=1, unique=True))
        for file in chosen:
            files.setdefault(file, other[file])
        name = draw(st.sampled_from(("", "", "model.fp16.safetensors", "consolidated.safetensors")))
        if name:
            files[name] = other[weights[0]]
    elif kind == "tokenizer":
        name, text = draw(
            st.sampled_from(
                (
                    ("vocab.txt", "a\nb\n"),
                    ("added_tokens.json", '{"<other>": 299}'),
                    ("special_tokens_map.json", '{"eos_token": "<|eot_id|>"}'),
                    ("generation_config.json", '{"eos_token_id": [5, 6], "temperature": 0.5}'),
                    ("chat_template.jinja", "{% for m in messages %}[{{ m.content }}]{% endfor %}"),
                    ("tokenizer.model", "x"),
                )
            )
        )
        files[name] = text.encode()
    elif kind == "config":
        name, value = draw(st.sampled_from(CONFIG_KEYS))
        config = json.loads(files["config.json"])
        files["config.json"] = json.dumps(config | {name: value}).encode()
    else:
        name = draw(
            st.sampled_from(
                ("adapter_config.json", "pytorch_model.bin", "optimizer.pt", "README.md")
            )
        )
        files[name] = b'{"peft_type": "LORA"}' if name.endswith("json") else b"x"
    return Addition((files, layout), name)


def facts(loaded: LoadedModel) -> str:
    """What a model answers with, as text."""
    ids = IDS % len(loaded.tokenizer)
    with torch.no_grad():
        logits = loaded.model(input_ids=ids).logits
    prompt = encode_prompt(loaded.tokenizer, [{"role": "user", "content": PROMPT}])
    return f"{logits.float().sum(-1).tolist()} {prompt} {sorted(loaded.eos_ids)} {loaded.pad_id}"


def load_folder(addition: Addition, folder: Path) -> Result:
    """Unlike the first model, without a word, is the fault; so is a key of meaning that changed nothing."""
    files, layout = addition.content
    place = folder / "model"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name, content in files.items():
        (place / name).write_bytes(content)
    valid = folder / "valid"
    if not valid.exists():
        save_model(new(1), valid)
    with listening() as lines:
        try:
            found = facts(load_model(place))
        except SlackDLMError as error:
            return Result("", str(error), refused=True)
    said = " ".join(lines)
    is_config = addition.name in {key for key, _ in CONFIG_KEYS}
    is_same = found == facts(load_model(valid))
    if is_config and addition.name not in HARMLESS:
        fine = not is_same or addition.name in said
    elif addition.name == "chat_template.jinja":  # the tokenizer's own, whatever else there is
        fine = not is_same
    else:
        fine = is_same or (addition.name != "" and addition.name in said)
    if is_config and not is_same and not said:
        fine = addition.name in (
            "eos_token_id",
            "n_kv_heads",
            "rope_theta",
            "layer_norm_eps",
            "rms_norm_eps",
        )
    assert fine, (
        f"{addition.name or 'another model'} beside {layout}: other answers, or no word ({said})"
    )
    return Result("zebra", said, refused=False)


# Adapters


def configs() -> dict[str, Callable[[list[str]], peft.PeftConfig]]:
    """Every kind of adapter that PEFT puts on linear layers."""
    lora = peft.LoraConfig
    return {
        "lora": lambda t: lora(r=2, target_modules=t),
        "rslora": lambda t: lora(r=2, target_modules=t, use_rslora=True, lora_alpha=4),
        "dora": lambda t: lora(r=2, target_modules=t, use_dora=True),
        "lora bias": lambda t: lora(r=2, target_modules=t, lora_bias=True),
        "pattern": lambda t: lora(
            r=2, target_modules=t, rank_pattern={"ff_out": 3}, alpha_pattern={"ff_out": 9}
        ),
        "all-linear": lambda t: lora(r=2, target_modules="all-linear"),
        "saved head": lambda t: lora(
            r=2, target_modules=["q_proj"], modules_to_save=["model.transformer.ff_out"]
        ),
        "saved embedding": lambda t: lora(r=2, target_modules=["q_proj"], modules_to_save=["wte"]),
        "token rows": lambda t: lora(
            r=2, target_modules=["q_proj"], trainable_token_indices=[3, 4]
        ),
        "pissa": lambda t: lora(r=2, target_modules=t, init_lora_weights="pissa"),
        "layers": lambda t: lora(
            r=2, target_modules=t, layers_to_transform=[1], layers_pattern="blocks"
        ),
        "ia3": lambda t: peft.IA3Config(target_modules=t, feedforward_modules=[]),
        "loha": lambda t: peft.LoHaConfig(r=2, target_modules=t),
        "lokr": lambda t: peft.LoKrConfig(r=2, target_modules=t),
        "oft": lambda t: peft.OFTConfig(oft_block_size=4, target_modules=t),
        "vera": lambda t: peft.VeraConfig(
            r=2, target_modules=[n for n in t if n != "ff_out"] or ["q_proj"]
        ),
        "prompt": lambda t: peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
    }


NAMES = ("q_proj", "v_proj", "attn_out", "ff_proj", "up_proj", "ff_out", "wte")


@st.composite
def adapters(draw: st.DrawFn) -> Addition:
    kind = draw(st.sampled_from(sorted(configs())))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    if kind not in ("lora", "rslora", "pattern", "layers"):
        names = [name for name in names if name != "wte"] or ["ff_out"]
    return Addition((kind, names, draw(st.integers(0, 9))), kind)


def load_adapter(addition: Addition, folder: Path) -> Result:
    """Logits of PEFT's own model, also where our sampler takes them."""
    kind, names, seed = addition.content
    base, place = folder / "base", folder / "adapter"
    shutil.rmtree(place, ignore_errors=True)
    if not base.exists():
        save_model(new(1), base)
    torch.manual_seed(seed)
    random.seed(seed)
    try:
        made: Any = peft.get_peft_model(load_model(base).model, configs()[kind](names))
        with torch.no_grad():
            for name, value in made.named_parameters():
                if value.requires_grad and "base_layer.weight" not in name:
                    value += 0.3 * torch.randn_like(value)
        made.save_pretrained(place)
        made.eval()
    except Exception as error:  # what PEFT itself cannot make is no adapter
        return Result("", type(error).__name__, refused=True)
    with listening() as lines:
        try:
            loaded = load_model(base, adapter=place)
        except SlackDLMError as error:
            return Result("", str(error), refused=True)
    with torch.no_grad():
        expected = made(input_ids=IDS).logits
        torch.testing.assert_close(
            loaded.model(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-4
        )
    greedy = SamplerConfig(canvas_length=1, steps=1)
    prompt = IDS[0].tolist()
    (answer,) = Sampler(loaded, greedy).generate_from_ids([prompt])
    canvas = torch.tensor([[*prompt, loaded.mask_id]])
    with torch.no_grad():
        logits = made(input_ids=canvas).logits[0, -1].float()
    logits[loaded.mask_id] = -torch.inf
    best = int(logits.argmax())
    near = logits[answer.canvas[0]] >= logits[best] - 1e-4
    assert near, f"{kind} on {names}: decoded {answer.canvas[0]}, PEFT's logits say {best}"
    return Result("zebra", " ".join(lines), refused=False)


def all_doors() -> list[Door]:
    models()  # made before anything is drawn
    return [
        Door("model folders", folders(), load_folder, sample=40),
        Door("adapters", adapters(), load_adapter, sample=40),
    ]
