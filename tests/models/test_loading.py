"""``load_model``, ``new_model``: what comes back, and what is refused with the file that is wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from slackdlm.errors import CheckpointError, ConfigError
from slackdlm.models.configs import LLaDAConfig
from slackdlm.models.loaded import LoadedModel
from slackdlm.models.loading import load_model, new_model
from slackdlm.models.tokenizer import train_tokenizer

Write = Callable[..., Path]
New = Callable[..., LoadedModel]
FIRST_SHARD, INDEX = "model-00001-of-00002.safetensors", "model.safetensors.index.json"


def edit_json(path: Path, **keys: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def edit_shard(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the first shard and the index with it."""
    tensors = load_file(folder / FIRST_SHARD)
    index = json.loads((folder / INDEX).read_text())
    for name in tensors:
        del index["weight_map"][name]
    edit(tensors)
    index["weight_map"] |= dict.fromkeys(tensors, FIRST_SHARD)
    save_file(tensors, folder / FIRST_SHARD, metadata={"format": "pt"})
    (folder / INDEX).write_text(json.dumps(index))


def remove_weights(folder: Path) -> None:
    for path in [*folder.glob("*.safetensors"), folder / INDEX]:
        path.unlink()


# --- what is loaded ------------------------------------------------------------------------------


def test_a_single_file_checkpoint_loads_as_a_sharded_one(
    published: Path, draw_ids: Callable[[], torch.Tensor]
) -> None:
    ids = draw_ids()
    sharded = load_model(published).model(ids).logits
    tensors = {k: v for file in published.glob("*.safetensors") for k, v in load_file(file).items()}
    remove_weights(published)
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


def test_a_token_named_slack_goes_before_a_reserved_one(published: Path) -> None:
    path = published / "tokenizer.json"
    path.write_text(path.read_text().replace("<|reserved_token_1|>", "<slack>"))
    loaded = load_model(published)
    assert "<|reserved_token_0|>" in loaded.tokenizer.get_vocab()
    assert loaded.tokenizer.convert_ids_to_tokens(loaded.slack_id) == "<slack>"


def test_a_new_model_knows_its_special_ids(new: New) -> None:
    loaded = new()
    names = loaded.tokenizer.convert_ids_to_tokens
    special = ["<|mdm_mask|>", "<slack>", "<|endoftext|>"]
    assert names([loaded.mask_id, loaded.slack_id, loaded.pad_id]) == special
    config = loaded.model.config
    assert (config.mask_token_id, config.pad_token_id) == (loaded.mask_id, loaded.pad_id)
    assert loaded.name == "new"


def test_the_seed_alone_decides_the_weights_of_a_new_model(new: New) -> None:
    before = torch.random.get_rng_state()
    first = new(seed=7).model.state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    second, other = new(seed=7).model.state_dict(), new(seed=8).model.state_dict()
    for name, tensor in first.items():
        assert torch.equal(second[name], tensor), name
    wte = "model.transformer.wte.weight"
    assert not torch.equal(other[wte], first[wte])


def test_a_new_model_leaves_the_config_alone() -> None:
    tokenizer = train_tokenizer([], vocab_size=263, kind="byte_bpe")
    config = LLaDAConfig(d_model=64, n_layers=1, n_heads=4, vocab_size=263)
    new_model(config, tokenizer, generator_seed=0)
    assert config.mask_token_id is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"vocab_size": 200}, r"ids up to \d+, but the embedding has only 200 rows"),
        ({"mask_token_id": 3}, r"mask_token_id is 3, but <\|mdm_mask\|> .* is"),
    ],
)
def test_a_new_model_that_does_not_fit_its_tokenizer_is_an_error(
    new: New, keys: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        new(**keys)


# --- what cannot be loaded -----------------------------------------------------------------------


def test_a_missing_folder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in (tmp_path / "none", str(tmp_path / "none"), "./none", "none", "runs/none"):
        with pytest.raises(CheckpointError, match="none: expected a checkpoint folder, found none"):
            load_model(name)


def test_a_hub_id_that_is_not_in_the_cache_is_an_error_offline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"no-such-owner/none: .* not in the local cache"):
        load_model("no-such-owner/none")


def test_a_folder_of_another_kind_is_told_apart(published: Path, tmp_path: Path) -> None:
    adapter, run = tmp_path / "adapter", tmp_path / "run"
    for file in (adapter / "adapter_config.json", run / "run.json"):
        file.parent.mkdir()
        file.write_text("{}")
    with pytest.raises(CheckpointError, match=r"config.json: missing; this is an adapter; give"):
        load_model(adapter)
    with pytest.raises(CheckpointError, match=r"adapter_config.json: missing; this is a model"):
        load_model(published, adapter=published)
    for keys in ({"name_or_path": run}, {"name_or_path": published, "adapter": run}):
        with pytest.raises(
            CheckpointError, match=rf"a training run, whose result is {run / 'mod'}"
        ):
            load_model(**keys)


def write(name: str, content: str | bytes) -> Callable[[Path], object]:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / name).write_bytes(data)


def tear(keep: int) -> Callable[[Path], object]:
    def cut(folder: Path) -> None:
        shard = folder / FIRST_SHARD
        shard.write_bytes(shard.read_bytes()[:keep])

    return cut


def rename_mask(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace("<|mdm_mask|>", "<|other|>"))


def lose_a_tensor_of_the_index(folder: Path) -> None:
    tensors = load_file(folder / FIRST_SHARD)
    save_file({name: tensors[name] for name in sorted(tensors)[1:]}, folder / FIRST_SHARD)


WRONG_FOLDERS: list[tuple[Callable[[Path], object], str]] = [
    *(
        (lambda folder, file=file: (folder / file).unlink(), rf"{file}: missing")
        for file in ("config.json", "tokenizer.json", "tokenizer_config.json", FIRST_SHARD)
    ),
    (lambda folder: (folder / INDEX).unlink(), rf"{FIRST_SHARD}, .* without their index; copy"),
    (remove_weights, "expected model.safetensors or .* found neither"),
    (write("config.json", "{"), "config.json: expected JSON"),
    (write("tokenizer.json", "{}"), "tokenizer.json: no tokenizer can be made of it"),
    *((tear(keep), rf"{FIRST_SHARD}: torn or not safetensors") for keep in (0, 4, 100, -1)),
    (
        lambda folder: edit_json(folder / INDEX, weight_map={"a": "../../model.safetensors"}),
        r"expected file names, got '\.\./\.\./model",
    ),
    (lose_a_tensor_of_the_index, "attn_norm.weight in the index but in no shard"),
    (
        lambda folder: edit_shard(folder, lambda tensors: tensors.pop(sorted(tensors)[0])),
        "missing: model.transformer.blocks.0.attn_norm",
    ),
    (
        lambda folder: edit_shard(folder, lambda tensors: tensors.update(extra=torch.zeros(2))),
        "unexpected: extra",
    ),
    (
        lambda folder: edit_json(folder / "config.json", mlp_hidden_size=128),
        r"ff_out.weight is \[64, 192\], expected \[64, 128\]",
    ),
    *(
        (lambda folder, key=key: edit_json(folder / "config.json", **{key: 7}), rf"{key} is 7, but")
        for key in ("mask_token_id", "eos_token_id", "pad_token_id")
    ),
    (rename_mask, r"expected the token <\|mdm_mask\|>, found none"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_FOLDERS)
def test_a_folder_that_is_not_whole_or_not_of_one_piece_is_refused_by_name(
    published: Path, change: Callable[[Path], object], message: str
) -> None:
    change(published)
    with pytest.raises(CheckpointError, match=message):
        load_model(published)


def test_a_vocabulary_too_small_for_the_ids_is_an_error(write_checkpoint: Write) -> None:
    with pytest.raises(CheckpointError, match=r"ids up to \d+, but .* has only \d+ rows"):
        load_model(write_checkpoint(spare_rows=-1))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        *(
            ("model_type", name, rf"model_type {name!r} .* supported: llada")
            for name in ("llama", "Bert", None)
        ),
        ("max_sequence_length", None, "max_sequence_length"),
        ("dtype", 7, "dtype: expected a type"),
        ("torch_dtype", "float12", "torch_dtype: expected a type"),
    ],
)
def test_a_config_that_says_no_model_is_an_error(
    published: Path, key: str, value: object, message: str
) -> None:
    edit_json(published / "config.json", **{key: value})
    with pytest.raises(ConfigError, match=rf"config.json: .*{message}"):
        load_model(published)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"dtype": "bf16"}, "dtype: unknown 'bf16'; use one of float32"),
        ({"device": "tpu"}, "device: unknown 'tpu'; use cpu, cuda or cuda:0"),
        ({"device": "cuda:99"}, "finds .* CUDA device.* for 'cuda:99'; use another or cpu"),
        ({"device": "xpu:99"}, "finds no xpu device for 'xpu:99'"),
        ({"device": "vulkan"}, "finds no vulkan device for 'vulkan'"),
        ({"quantization": "8bit"}, "quantization: unknown '8bit'; use '4bit'"),
    ],
)
def test_a_type_or_a_device_that_is_not_there_is_an_error(
    published: Path, keys: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_model(published, **keys)
