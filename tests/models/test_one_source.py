"""Folders with more than one model's files: what is checked is what runs, or the folder is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from encoder_checkpoints import write_encoder
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from slackdlm.errors import CheckpointError, ConfigError
from slackdlm.models.loaded import LoadedModel
from slackdlm.models.loading import load_model, save_model

Write = Callable[..., Path]
New = Callable[..., LoadedModel]
Edit = Callable[..., None]
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARDED, WHOLE = "40KB", "5GB"


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def check_same(folder: Path, expected: LoadedModel) -> None:
    state = expected.model.state_dict()
    for name, tensor in load_model(folder).model.state_dict().items():
        torch.testing.assert_close(tensor, state[name], atol=0, rtol=0)


@pytest.mark.parametrize(
    ("old", "later"),
    [(WHOLE, SHARDED), (SHARDED, WHOLE), ("20KB", "60KB"), ("60KB", "20KB"), (WHOLE, WHOLE)],
)
def test_a_model_saved_over_another_is_alone_in_its_folder(
    tmp_path: Path, old: str, later: str, new: New
) -> None:
    folder, alone = tmp_path / "folder", tmp_path / "alone"
    save_model(new(1), folder, max_shard_size=old)
    (folder / "README.md").write_text("mine")
    (folder / "added_tokens.json").write_text('{"left": 300}')
    save_model(new(2), folder, max_shard_size=later)
    save_model(new(2), alone, max_shard_size=later)
    names = {path.name for path in folder.iterdir()} - {"README.md"}
    assert names == {path.name for path in alone.iterdir()}
    assert {INDEX if later != WHOLE else SINGLE} == names & {INDEX, SINGLE}
    check_same(folder, new(2))


def test_a_model_saved_into_its_own_folder_stays_itself(tmp_path: Path, new: New) -> None:
    save_model(new(1), tmp_path, max_shard_size=SHARDED)
    save_model(load_model(tmp_path), tmp_path)
    check_same(tmp_path, new(1))


@pytest.mark.parametrize("num_moved", range(6))
def test_a_checkpoint_half_replaced_does_not_load(
    tmp_path: Path, num_moved: int, monkeypatch: pytest.MonkeyPatch, new: New
) -> None:
    """However many files of the new one are there: the last says where its weights are."""
    save_model(new(1), tmp_path, max_shard_size=SHARDED)
    moved, replace = [], Path.replace

    def stop(self: Path, target: Path) -> Path:
        if ".draft" in str(self.parent) and ".draft" not in str(target):
            if len(moved) == num_moved:
                raise KeyboardInterrupt
            moved.append(target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", stop)
    try:
        save_model(new(2), tmp_path)
    except KeyboardInterrupt:
        with pytest.raises(CheckpointError, match=r"missing|found neither"):
            load_model(tmp_path)
    else:
        check_same(tmp_path, new(2))
    assert not (tmp_path / ".draft").exists()


def test_a_model_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, new: New) -> None:
    save_model(new(1), tmp_path)
    with pytest.raises(ValueError, match="not supported"):
        save_model(new(2), tmp_path, max_shard_size="nothing")
    check_same(tmp_path, new(1))


def test_two_checkpoints_that_differ_are_refused_by_name(tmp_path: Path, new: New) -> None:
    save_model(new(1), tmp_path / "old")
    save_model(new(2), tmp_path / "new", max_shard_size=SHARDED)
    shutil.copy(tmp_path / "old" / SINGLE, tmp_path / "new")
    message = f"holds two checkpoints, {SINGLE} and {INDEX}, whose weights differ; remove"
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "new")
    shutil.copy(tmp_path / "new" / INDEX, tmp_path / "old")  # an index without its shards
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "old")


def test_the_same_weights_twice_are_one_checkpoint(tmp_path: Path, new: New) -> None:
    save_model(new(1), tmp_path / "one")
    save_model(new(1), tmp_path / "two", max_shard_size=SHARDED)
    shutil.copy(tmp_path / "one" / SINGLE, tmp_path / "two")
    check_same(tmp_path / "two", new(1))
    index = {
        "metadata": {},
        "weight_map": dict.fromkeys(load_file(tmp_path / "one" / SINGLE), SINGLE),
    }
    (tmp_path / "one" / INDEX).write_text(json.dumps(index))
    check_same(tmp_path / "one", new(1))


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path, new: New) -> None:
    save_model(new(1), tmp_path, max_shard_size=SHARDED)
    first, second = sorted(tmp_path.glob("model-*"))[:2]
    save_file(load_file(second) | load_file(first), second, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"{second.name}: .*weight.* in another shard too"):
        load_model(tmp_path)


@pytest.mark.parametrize("size", [WHOLE, SHARDED])
def test_other_files_of_weights_are_named_and_not_used(
    tmp_path: Path, size: str, caplog: pytest.LogCaptureFixture, new: New
) -> None:
    save_model(new(1), tmp_path, max_shard_size=size)
    names = ["consolidated.safetensors", "model-00009-of-00009.safetensors"]
    names += ["model.fp16.safetensors", "model.fp16.safetensors.index.json"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    check_same(tmp_path, new(1))
    source = SINGLE if size == WHOLE else INDEX
    assert messages(caplog) == [
        f"{tmp_path}: files not used: {', '.join(names[:3])} and 1 more; the weights are those of {source}"
    ]


def test_a_config_does_not_choose_another_file(tmp_path: Path, edit: Edit) -> None:
    folder = write_encoder(tmp_path / "bert", "bert")
    expected = load_model(folder)
    other = {name: torch.zeros_like(value) for name, value in load_file(folder / SINGLE).items()}
    save_file(other, folder / "other.safetensors", metadata={"format": "pt"})
    edit(folder / "config.json", transformers_weights="other.safetensors")
    check_same(folder, expected)


def test_an_adapter_beside_a_model_is_refused(tmp_path: Path, new: New) -> None:
    """transformers would load the base that the adapter names, and not the weights beside it."""
    save_model(new(1), tmp_path)
    adapted = get_peft_model(new(1).model, LoraConfig(r=2, target_modules=["q_proj"]))
    adapted.save_pretrained(str(tmp_path))
    with pytest.raises(CheckpointError, match=r"holds a model \(config.json\) and an adapter"):
        load_model(tmp_path)
    with pytest.raises(ConfigError, match="holds an adapter; choose another folder"):
        save_model(new(2), tmp_path)


def test_what_transformers_draws_anew_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: New
) -> None:
    """Had the check before it let the folder in."""
    save_model(new(1), tmp_path)
    tensors = load_file(tmp_path / SINGLE)
    name = sorted(tensors)[0]
    save_file({"more": tensors.pop(name), **tensors}, tmp_path / SINGLE, metadata={"format": "pt"})
    monkeypatch.setattr("slackdlm.models.weights.check_tensors", lambda *_, **__: None)
    with pytest.raises(CheckpointError, match=rf"newly drawn: {name}; not used: more"):
        load_model(tmp_path)


# --- what config.json says of the weights --------------------------------------------------------


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "fp8"])
@pytest.mark.parametrize("family", ["bert", "llada"])
def test_float_weights_that_are_called_quantised_are_floats(
    write_kind: Write, edit: Edit, family: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_kind(family)
    expected = load_model(folder)
    keys = {"load_in_8bit": True, "bits": 4, "weight_block_size": [128, 128]}
    edit(folder / "config.json", quantization_config=keys | {"quant_method": method})
    check_same(folder, expected)
    assert messages(caplog) == [
        f"{folder}/config.json: not used: quantization_config ({method}); the weights are read as floats"
    ]


def test_a_type_that_the_weights_do_not_have_is_named(
    tmp_path: Path, new: New, edit: Edit, caplog: pytest.LogCaptureFixture
) -> None:
    save_model(new(1), tmp_path)
    edit(tmp_path / "config.json", dtype="bfloat16", torch_dtype="bfloat16")
    assert load_model(tmp_path).model.dtype == torch.bfloat16
    (line,) = messages(caplog)
    assert f"{tmp_path}: weights of type F32 are read as bfloat16" in line
    assert load_model(tmp_path, dtype="float32").model.dtype == torch.float32
    assert len(caplog.records) == 1


@pytest.mark.parametrize("kind", ["int8", "gptq"])
def test_quantised_weights_are_refused_as_such(tmp_path: Path, kind: str, edit: Edit) -> None:
    folder = write_encoder(tmp_path / "bert", "bert")
    tensors = load_file(folder / SINGLE)
    name = "bert.encoder.layer.0.output.dense.weight"
    weight = tensors.pop(name)
    if kind == "int8":
        tensors[name] = weight.to(torch.int8)
    else:
        tensors[name.replace("weight", "qweight")] = weight.to(torch.int32)
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    edit(folder / "config.json", quantization_config={"quant_method": kind})
    message = rf"output\.dense.*quantization_config \({kind}\): quantised weights are not read"
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


def test_weights_that_differ_and_are_called_tied_are_refused(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "bert", "bert")
    tensors = load_file(folder / SINGLE)
    embedding = tensors["bert.embeddings.word_embeddings.weight"]
    tensors["cls.predictions.decoder.weight"] = embedding + 1
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    message = r"cls.predictions.decoder.weight and bert.embeddings.word_embeddings.weight differ"
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)
