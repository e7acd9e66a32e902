import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from slackdlm.errors import CheckpointError, ConfigError
from slackdlm.models.chat import encode_prompt
from slackdlm.models.configs import LLaDAConfig
from slackdlm.models.loaded import LoadedModel
from slackdlm.models.loading import load_model, new_model, save_model
from slackdlm.models.tokenizer import train_tokenizer

Write = Callable[..., Path]
FIRST_SHARD = "model-00001-of-00002.safetensors"


def draw_ids(*, vocab_size: int = 290) -> torch.Tensor:
    return torch.randint(0, vocab_size, (2, 9), generator=torch.Generator().manual_seed(3))


def new(*, seed: int = 0, **keys: object) -> LoadedModel:
    tokenizer = train_tokenizer(["the boats"], vocab_size=300, kind="byte_bpe")
    sizes = {"d_model": 64, "n_layers": 2, "n_heads": 4, "mlp_hidden_size": 192}
    config = LLaDAConfig(**(sizes | {"vocab_size": len(tokenizer)} | keys))
    return new_model(config, tokenizer, generator_seed=seed)


def edit_json(path: Path, **keys: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def edit_shard(folder: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the first shard and the index with it."""
    tensors = load_file(folder / FIRST_SHARD)
    index_path = folder / "model.safetensors.index.json"
    index = json.loads(index_path.read_text())
    for name in tensors:
        del index["weight_map"][name]
    edit(tensors)
    index["weight_map"] |= dict.fromkeys(tensors, FIRST_SHARD)
    save_file(tensors, folder / FIRST_SHARD, metadata={"format": "pt"})
    index_path.write_text(json.dumps(index))


# --- published checkpoints -----------------------------------------------------------------------


def test_a_published_checkpoint_loads_bit_by_bit(published: Path) -> None:
    loaded = load_model(published)
    state = loaded.model.state_dict()
    shards = [load_file(path) for path in sorted(published.glob("*.safetensors"))]
    assert state.keys() == shards[0].keys() | shards[1].keys()
    for name, tensor in (shards[0] | shards[1]).items():
        torch.testing.assert_close(state[name], tensor, atol=0, rtol=0)
    assert not loaded.model.training
    assert loaded.name == str(published)


def test_the_special_ids_of_a_published_checkpoint_are_found_by_name(published: Path) -> None:
    loaded = load_model(published)
    names = loaded.tokenizer.convert_ids_to_tokens
    assert names(loaded.mask_id) == "<|mdm_mask|>"
    assert names(loaded.slack_id) == "<|reserved_token_0|>"
    assert names(list(loaded.eos_ids)) == ["<|endoftext|>", "<|eot_id|>"]
    assert names(loaded.pad_id) == "<|endoftext|>"


def test_a_reserved_slack_token_changes_neither_vocabulary_nor_embedding(published: Path) -> None:
    rows = json.loads((published / "config.json").read_text())["vocab_size"]
    loaded = load_model(published)
    assert loaded.model.get_input_embeddings().weight.shape == (rows, 64)
    assert "<slack>" not in loaded.tokenizer.get_vocab()


def test_a_published_checkpoint_survives_saving_and_loading(
    published: Path, tmp_path: Path
) -> None:
    loaded = load_model(published)
    save_model(loaded, tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    for name, tensor in loaded.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], tensor, atol=0, rtol=0)
    assert again.tokenizer.get_vocab() == loaded.tokenizer.get_vocab()
    assert again.tokenizer.chat_template == loaded.tokenizer.chat_template
    for field in ("mask_id", "slack_id", "eos_ids", "pad_id"):
        assert getattr(again, field) == getattr(loaded, field)


def test_a_single_file_checkpoint_loads_as_a_sharded_one(published: Path) -> None:
    ids = draw_ids()
    sharded = load_model(published).model(ids).logits
    shards = sorted(published.glob("*.safetensors"))
    tensors = load_file(shards[0]) | load_file(shards[1])
    for path in (*shards, published / "model.safetensors.index.json"):
        path.unlink()
    save_file(tensors, published / "model.safetensors", metadata={"format": "pt"})
    torch.testing.assert_close(load_model(published).model(ids).logits, sharded, atol=0, rtol=0)


def test_the_type_of_the_weights_is_the_checkpoints_unless_asked_for(
    write_checkpoint: Write,
) -> None:
    folder = write_checkpoint(torch_dtype="float32")
    assert load_model(folder).model.dtype == torch.float32
    assert load_model(folder, dtype="bfloat16").model.dtype == torch.bfloat16
    assert load_model(folder, dtype=torch.float16).model.dtype == torch.float16
    half = write_checkpoint(torch_dtype="bfloat16")
    assert load_model(half).model.dtype == torch.bfloat16


def test_loading_draws_no_random_numbers(write_checkpoint: Write) -> None:
    folder = write_checkpoint(reserved=False, spare_rows=0)
    before = torch.random.get_rng_state()
    load_model(folder)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_token_named_slack_goes_before_a_reserved_one(published: Path) -> None:
    path = published / "tokenizer.json"
    path.write_text(path.read_text().replace("<|reserved_token_1|>", "<slack>"))
    loaded = load_model(published)
    assert "<|reserved_token_0|>" in loaded.tokenizer.get_vocab()
    assert loaded.tokenizer.convert_ids_to_tokens(loaded.slack_id) == "<slack>"


# --- <slack> where there is no token for it ------------------------------------------------------


def test_slack_takes_a_spare_row_without_a_resize(write_checkpoint: Write) -> None:
    folder = write_checkpoint(reserved=False, spare_rows=2)
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    loaded = load_model(folder)
    assert loaded.slack_id == rows - 2
    assert loaded.tokenizer.convert_ids_to_tokens(loaded.slack_id) == "<slack>"
    assert loaded.model.get_input_embeddings().weight.shape[0] == rows


def test_without_a_spare_row_slack_gets_a_new_one_that_is_the_mean(write_checkpoint: Write) -> None:
    folder = write_checkpoint(reserved=False, spare_rows=0)
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    loaded = load_model(folder)
    assert loaded.slack_id == rows
    for module in (
        loaded.model.get_input_embeddings(),
        loaded.model.get_output_embeddings(),
    ):
        assert module.weight.shape == (rows + 1, 64)
        torch.testing.assert_close(module.weight[rows], module.weight[:rows].mean(0))
    assert loaded.model(draw_ids()).logits.shape[-1] == rows + 1


def test_an_added_slack_token_survives_saving_and_loading(
    write_checkpoint: Write, tmp_path: Path
) -> None:
    loaded = load_model(write_checkpoint(reserved=False, spare_rows=0))
    save_model(loaded, tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    assert again.slack_id == loaded.slack_id
    ids = draw_ids()
    torch.testing.assert_close(again.model(ids).logits, loaded.model(ids).logits, atol=0, rtol=0)


def test_an_added_slack_token_is_not_read_in_text(write_checkpoint: Write) -> None:
    loaded = load_model(write_checkpoint(reserved=False))
    prompt = encode_prompt(loaded.tokenizer, [{"role": "user", "content": "a <slack> b"}])
    assert loaded.slack_id not in prompt


# --- new models ----------------------------------------------------------------------------------


def test_a_new_model_knows_its_special_ids() -> None:
    loaded = new()
    names = loaded.tokenizer.convert_ids_to_tokens
    assert names([loaded.mask_id, loaded.slack_id, loaded.pad_id]) == [
        "<|mdm_mask|>",
        "<slack>",
        "<|endoftext|>",
    ]
    config = loaded.model.config
    assert (config.mask_token_id, config.pad_token_id) == (loaded.mask_id, loaded.pad_id)
    assert loaded.name == "new"


def test_the_seed_alone_decides_the_weights_of_a_new_model() -> None:
    torch.rand(3)
    first = new(seed=7).model.state_dict()
    torch.rand(5)
    second, other = new(seed=7).model.state_dict(), new(seed=8).model.state_dict()
    wte = "model.transformer.wte.weight"
    for name, tensor in first.items():
        assert torch.equal(second[name], tensor), name
    assert not torch.equal(other[wte], first[wte])


def test_a_new_model_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    new()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_new_model_leaves_the_config_alone() -> None:
    tokenizer = train_tokenizer([], vocab_size=263, kind="byte_bpe")
    config = LLaDAConfig(d_model=64, n_layers=1, n_heads=4, vocab_size=263)
    new_model(config, tokenizer, generator_seed=0)
    assert config.mask_token_id is None


@pytest.mark.parametrize("weight_tying", [False, True])
def test_a_new_model_survives_saving_and_loading(tmp_path: Path, weight_tying: bool) -> None:
    loaded = new(weight_tying=weight_tying)
    save_model(loaded, tmp_path)
    again = load_model(tmp_path)
    ids = draw_ids(vocab_size=260)
    torch.testing.assert_close(again.model(ids).logits, loaded.model(ids).logits, atol=0, rtol=0)
    assert again.slack_id == loaded.slack_id


def test_a_new_model_with_too_small_a_vocabulary_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"ids up to \d+, but the embedding has only 200 rows"):
        new(vocab_size=200)


def test_a_new_model_with_another_mask_id_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"mask_token_id is 3, but <\|mdm_mask\|> .* is"):
        new(mask_token_id=3)


# --- what cannot be loaded -----------------------------------------------------------------------


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    for name in (tmp_path / "none", str(tmp_path / "none"), "./none", "none"):
        with pytest.raises(CheckpointError, match="none: expected a checkpoint folder, found none"):
            load_model(name)


def test_a_missing_folder_in_an_existing_one_is_not_taken_for_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="runs/none: expected a checkpoint folder"):
        load_model("runs/none")


def test_a_hub_id_that_is_not_in_the_cache_is_an_error_offline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        CheckpointError, match="no-such-owner/none: there is no such folder, and the hub"
    ):
        load_model("no-such-owner/none")


@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer.json", "tokenizer_config.json", FIRST_SHARD]
)
def test_a_missing_file_is_an_error_naming_it(published: Path, file: str) -> None:
    (published / file).unlink()
    with pytest.raises(CheckpointError, match=rf"{file}: missing"):
        load_model(published)


def test_a_folder_of_another_kind_is_told_apart(published: Path, adapter: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"config.json: missing; this is an adapter; give the"
    ):
        load_model(adapter)
    with pytest.raises(
        CheckpointError, match=r"adapter_config.json: missing; this is a model, not an"
    ):
        load_model(published, adapter=published)
    run = published.parent / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    message = rf"missing; this is the folder of a training run, whose result is {run / 'model'}"
    with pytest.raises(CheckpointError, match=message):
        load_model(run)
    with pytest.raises(CheckpointError, match=message):
        load_model(published, adapter=run)


def test_shards_without_their_index_are_an_error(published: Path) -> None:
    (published / "model.safetensors.index.json").unlink()
    with pytest.raises(
        CheckpointError,
        match=rf"found {FIRST_SHARD}, .* without their index; copy model.safetensors",
    ):
        load_model(published)


def test_a_config_that_is_not_json_is_an_error(published: Path) -> None:
    (published / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config.json: expected JSON"):
        load_model(published)


def test_a_tokenizer_file_that_is_json_but_no_tokenizer_is_an_error(published: Path) -> None:
    (published / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer.json: no tokenizer can be made of it"):
        load_model(published)


@pytest.mark.parametrize("model_type", ["llama", "Bert", None])
def test_an_unknown_architecture_is_an_error_naming_what_is_supported(
    published: Path, model_type: str | None
) -> None:
    edit_json(published / "config.json", model_type=model_type)
    with pytest.raises(ConfigError, match=rf"model_type {model_type!r} .* supported: llada"):
        load_model(published)


def test_a_variant_that_is_not_implemented_is_an_error(write_checkpoint: Write) -> None:
    with pytest.raises(ConfigError, match="scale_logits = True is not implemented"):
        load_model(write_checkpoint(scale_logits=True))


def test_pickled_weights_are_never_loaded(published: Path) -> None:
    for path in [*published.glob("*.safetensors"), published / "model.safetensors.index.json"]:
        path.unlink()
    torch.save({}, published / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"found only pickles \(pytorch_model.bin\)"):
        load_model(published)


def test_a_folder_without_weights_is_an_error(published: Path) -> None:
    for path in [*published.glob("*.safetensors"), published / "model.safetensors.index.json"]:
        path.unlink()
    with pytest.raises(CheckpointError, match=r"expected model.safetensors or .* found neither"):
        load_model(published)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_torn_shard_is_an_error(published: Path, keep: int) -> None:
    shard = published / FIRST_SHARD
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=rf"{FIRST_SHARD}: torn or not safetensors"):
        load_model(published)


def test_an_index_that_points_outside_the_folder_is_an_error(published: Path) -> None:
    edit_json(
        published / "model.safetensors.index.json", weight_map={"a": "../../model.safetensors"}
    )
    with pytest.raises(CheckpointError, match=r"expected file names, got '\.\./\.\./model"):
        load_model(published)


def test_a_tensor_in_the_index_but_in_no_shard_is_an_error(published: Path) -> None:
    tensors = load_file(published / FIRST_SHARD)
    gone = sorted(tensors)[0]
    del tensors[gone]
    save_file(tensors, published / FIRST_SHARD)
    with pytest.raises(CheckpointError, match=f"{gone} in the index but in no shard"):
        load_model(published)


def test_missing_tensors_are_an_error_naming_them(published: Path) -> None:
    edit_shard(published, lambda tensors: tensors.__delitem__(sorted(tensors)[0]))
    with pytest.raises(CheckpointError, match=r"missing: model.transformer.blocks.0.attn_norm"):
        load_model(published)


def test_unexpected_tensors_are_an_error_naming_them(published: Path) -> None:
    edit_shard(published, lambda tensors: tensors.update(extra=torch.zeros(2)))
    with pytest.raises(CheckpointError, match="unexpected: extra"):
        load_model(published)


def test_tensors_of_another_shape_are_an_error_naming_both(published: Path) -> None:
    edit_json(published / "config.json", mlp_hidden_size=128)
    with pytest.raises(
        CheckpointError, match=r"ff_out.weight is \[64, 192\], expected \[64, 128\]"
    ):
        load_model(published)


@pytest.mark.parametrize("key", ["mask_token_id", "eos_token_id", "pad_token_id"])
def test_special_ids_that_disagree_are_an_error(published: Path, key: str) -> None:
    edit_json(published / "config.json", **{key: 7})
    with pytest.raises(CheckpointError, match=rf"{key} is 7, but <\|"):
        load_model(published)


def test_a_tokenizer_without_a_mask_token_is_an_error(published: Path) -> None:
    path = published / "tokenizer.json"
    path.write_text(path.read_text().replace("<|mdm_mask|>", "<|other|>"))
    with pytest.raises(
        CheckpointError, match=rf"{published}: expected the token <\|mdm_mask\|>, found none"
    ):
        load_model(published)


def test_a_vocabulary_too_small_for_the_ids_is_an_error(write_checkpoint: Write) -> None:
    folder = write_checkpoint(spare_rows=-1)
    with pytest.raises(
        CheckpointError, match=r"ids up to \d+, but the embedding has only \d+ rows"
    ):
        load_model(folder)


def test_an_unknown_type_of_weights_is_an_error(published: Path) -> None:
    with pytest.raises(ConfigError, match="dtype: unknown 'bf16'; use one of float32"):
        load_model(published, dtype="bf16")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("tpu", "device: unknown 'tpu'; use cpu, cuda or cuda:0"),
        ("cuda:99", "finds .* CUDA device.* for 'cuda:99'; use another or cpu"),
        ("xpu:99", "finds no xpu device for 'xpu:99'"),
        ("vulkan", "finds no vulkan device for 'vulkan'"),
    ],
)
def test_a_device_that_is_not_there_is_an_error(published: Path, device: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_model(published, device=device)


# --- adapters ------------------------------------------------------------------------------------


@pytest.fixture
def adapter(published: Path, tmp_path: Path) -> Path:
    """A LoRA adapter with weights that change the output, as PEFT saves it."""
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = get_peft_model(load_model(published).model, config)
    adapted.save_pretrained(tmp_path / "adapter")
    # What other libraries write; PEFT's causal wrapper could not call the model.
    edit_json(tmp_path / "adapter" / "adapter_config.json", task_type="CAUSAL_LM")
    return tmp_path / "adapter"


def test_keys_of_other_peft_versions_that_ask_for_nothing_do_no_harm(
    published: Path, adapter: Path
) -> None:
    file = adapter / "adapter_config.json"
    edit_json(file, merge_weights=False, some_future_key=None)
    load_model(published, adapter=adapter)
    edit_json(file, some_future_key=1)
    with pytest.raises(CheckpointError, match="unknown keys some_future_key"):
        load_model(published, adapter=adapter)


def test_an_adapter_changes_the_logits_as_its_merged_weights_do(
    published: Path, adapter: Path
) -> None:
    ids = draw_ids()
    plain, adapted = load_model(published), load_model(published, adapter=adapter)
    logits = adapted.model(ids).logits
    assert not torch.allclose(plain.model(ids).logits, logits, atol=1e-2)
    assert adapted.model(ids, logits=False).logits is None
    assert adapted.model.get_output_embeddings().weight.shape[1] == 64
    merged = adapted.model.merge_and_unload()
    torch.testing.assert_close(merged(ids).logits, logits, atol=1e-4, rtol=0)
    assert not any(p.requires_grad for n, p in adapted.model.named_parameters() if "lora" in n)


def test_an_adapter_is_named_beside_its_model(published: Path, adapter: Path) -> None:
    assert load_model(published, adapter=adapter).name == f"{published}+{adapter}"


def test_loading_an_adapter_draws_no_random_numbers(published: Path, adapter: Path) -> None:
    before = torch.random.get_rng_state()
    load_model(published, adapter=adapter)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_model_with_an_adapter_is_not_saved_as_a_whole_model(
    published: Path, adapter: Path, tmp_path: Path
) -> None:
    adapted = load_model(published, adapter=adapter)
    with pytest.raises(ConfigError, match="save_model: the model carries an adapter"):
        save_model(adapted, tmp_path / "saved")
    merged = dataclasses.replace(adapted, model=adapted.model.merge_and_unload())
    save_model(merged, tmp_path / "saved")
    ids = draw_ids()
    torch.testing.assert_close(
        load_model(tmp_path / "saved").model(ids).logits,
        merged.model(ids).logits,
        atol=0,
        rtol=0,
    )


def test_a_missing_adapter_is_an_error(published: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a checkpoint folder, found none"):
        load_model(published, adapter=tmp_path / "none")


def test_a_pickled_adapter_is_never_loaded(published: Path, adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="pickled adapters are never loaded"):
        load_model(published, adapter=adapter)


def test_a_torn_adapter_is_an_error(published: Path, adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="torn or not safetensors"):
        load_model(published, adapter=adapter)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            "adapter_config.json",
            "adapter_config.json: missing; the checkpoint folder is not complete",
        ),
        ("adapter_model.safetensors", "expected adapter_model.safetensors, found none"),
    ],
)
def test_an_adapter_without_one_of_its_files_is_an_error(
    published: Path, adapter: Path, file: str, message: str
) -> None:
    (adapter / file).unlink()
    with pytest.raises(CheckpointError, match=message):
        load_model(published, adapter=adapter)


@pytest.mark.parametrize("kind", [None, "NOPE", ["LORA"]])
def test_an_adapter_of_no_kind_is_an_error(published: Path, adapter: Path, kind: object) -> None:
    edit_json(adapter / "adapter_config.json", peft_type=kind)
    with pytest.raises(CheckpointError, match=r"expected a peft_type such as LORA, got [N'\[]"):
        load_model(published, adapter=adapter)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "q_proj.lora_A.weight is missing"),
        ("unexpected", r"blocks.9.q_proj.lora_A.weight is unexpected"),
        ("shape", r"q_proj.lora_A.weight is \[3, 3\], expected \[2, 64\]"),
    ],
)
def test_an_adapter_of_another_model_is_an_error(
    published: Path, adapter: Path, change: str, message: str
) -> None:
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    tensor = tensors.pop(name)
    if change == "unexpected":
        tensors |= {name: tensor, name.replace("blocks.0", "blocks.9"): tensor.clone()}
    elif change == "shape":
        tensors[name] = torch.zeros(3, 3)
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=f"the adapter does not fit the model .*{message}"):
        load_model(published, adapter=adapter)
