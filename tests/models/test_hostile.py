"""Nothing in a checkpoint folder is run: neither pickles nor code, nor what a template asks for."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from dream_checkpoint import write_checkpoint as write_dream
from encoder_checkpoints import write_encoder
from safetensors.torch import load_file, save_file

from slackdlm.errors import CheckpointError, ConfigError
from slackdlm.models.chat import encode_prompt
from slackdlm.models.loading import load_model

FAMILIES = ("llada", "dream", "bert")
USER = [{"role": "user", "content": "hello"}]


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.mark,))


@pytest.fixture
def write(tmp_path: Path, write_checkpoint: Callable[..., Path]) -> Callable[[str], Path]:
    def checkpoint(family: str) -> Path:
        if family == "llada":
            return write_checkpoint()
        if family == "dream":
            return write_dream(tmp_path / family)
        return write_encoder(tmp_path / family, family)

    return checkpoint


def remove_weights(folder: Path) -> None:
    for path in [*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")]:
        path.unlink()


@pytest.mark.parametrize("family", FAMILIES)
def test_code_that_the_config_points_at_is_not_run(
    write: Callable[[str], Path], tmp_path: Path, family: str
) -> None:
    folder, mark = write(family), tmp_path / "was-run"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Evil: ...\n")
    for file in ("config.json", "tokenizer_config.json"):
        content = json.loads((folder / file).read_text())
        content["auto_map"] = {
            key: "evil.Evil"
            for key in ("AutoConfig", "AutoModel", "AutoModelForMaskedLM", "AutoTokenizer")
        }
        content["trust_remote_code"] = True
        (folder / file).write_text(json.dumps(content))
    if family != "bert":  # whose configuration class is transformers' own
        content = json.loads((folder / "config.json").read_text())
        del content["trust_remote_code"]
        (folder / "config.json").write_text(json.dumps(content))
    load_model(folder)
    assert not mark.exists()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pickle_beside_the_weights_is_not_opened(
    write: Callable[[str], Path], tmp_path: Path, family: str
) -> None:
    folder, mark = write(family), tmp_path / "was-run"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    load_model(folder)
    assert not mark.exists()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_a_pickle_instead_of_the_weights_is_an_error_whatever_its_name(
    write: Callable[[str], Path], tmp_path: Path, family: str, name: str
) -> None:
    folder, mark = write(family), tmp_path / "was-run"
    remove_weights(folder)
    (folder / name).write_bytes(pickle.dumps(Bomb(mark)))
    message = "found only pickles" if name.endswith(".bin") else "torn or not safetensors"
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)
    assert not mark.exists()


def test_links_are_followed_as_the_hub_cache_has_them_but_not_to_a_pickle(
    write: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = write("bert")
    weights = folder / "model.safetensors"
    blob = tmp_path / "blob"
    weights.rename(blob)
    weights.symlink_to(blob)
    load_model(folder)
    blob.write_bytes(pickle.dumps(Bomb(tmp_path / "was-run")))
    with pytest.raises(CheckpointError, match=r"model.safetensors: torn or not safetensors"):
        load_model(folder)
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize("what", ["dangling link", "link to itself", "folder"])
def test_a_shard_that_is_no_file_is_an_error(write: Callable[[str], Path], what: str) -> None:
    folder = write("llada")
    shard = folder / "model-00001-of-00002.safetensors"
    shard.unlink()
    if what == "folder":
        shard.mkdir()
    else:
        shard.symlink_to(shard if what == "link to itself" else folder / "none")
    with pytest.raises(CheckpointError, match="missing shard"):
        load_model(folder)


def test_quantised_numbers_are_not_read_as_weights(write: Callable[[str], Path]) -> None:
    folder = write("bert")
    tensors = load_file(folder / "model.safetensors")
    name = sorted(tensors)[0]
    tensors[name] = tensors[name].to(torch.int8)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"{name} is I8, expected a float type"):
        load_model(folder)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{{ raise_exception('no') }}",
    ],
)
def test_a_chat_template_reaches_nothing_outside(
    write: Callable[[str], Path], template: str
) -> None:
    tokenizer = load_model(write("dream")).tokenizer
    tokenizer.chat_template = template
    with pytest.raises(ConfigError, match="its chat template cannot be used"):
        encode_prompt(tokenizer, USER)
