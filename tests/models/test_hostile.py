"""Nothing in a checkpoint folder is run: neither pickles nor code, nor what a template asks for."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("family", FAMILIES)
def test_code_that_the_config_points_at_is_not_run(
    write_kind: Callable[[str], Path], edit: Callable[..., None], tmp_path: Path, family: str
) -> None:
    folder, mark = write_kind(family), tmp_path / "was-run"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Evil: ...\n")
    names = ("AutoConfig", "AutoModel", "AutoModelForMaskedLM", "AutoTokenizer")
    remote = {"auto_map": dict.fromkeys(names, "evil.Evil")}
    trust = {"trust_remote_code": True}
    edit(folder / "tokenizer_config.json", **remote, **trust)
    # BERT's configuration class is transformers' own and takes any key.
    edit(folder / "config.json", **remote, **(trust if family == "bert" else {}))
    load_model(folder)
    assert not mark.exists()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pickle_beside_the_weights_is_not_opened(
    write_kind: Callable[[str], Path], tmp_path: Path, family: str
) -> None:
    folder, mark = write_kind(family), tmp_path / "was-run"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    load_model(folder)
    assert not mark.exists()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_a_pickle_instead_of_the_weights_is_an_error_whatever_its_name(
    write_kind: Callable[[str], Path], tmp_path: Path, family: str, name: str
) -> None:
    folder, mark = write_kind(family), tmp_path / "was-run"
    for path in [*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")]:
        path.unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb(mark)))
    message = "found only pickles" if name.endswith(".bin") else "torn or not safetensors"
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)
    assert not mark.exists()


def test_links_are_followed_as_the_hub_cache_has_them_but_not_to_a_pickle(
    write_kind: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = write_kind("bert")
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
def test_a_shard_that_is_no_file_is_an_error(write_kind: Callable[[str], Path], what: str) -> None:
    folder = write_kind("llada")
    shard = folder / "model-00001-of-00002.safetensors"
    shard.unlink()
    if what == "folder":
        shard.mkdir()
    else:
        shard.symlink_to(shard if what == "link to itself" else folder / "none")
    with pytest.raises(CheckpointError, match="missing shard"):
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
    write_kind: Callable[[str], Path], template: str
) -> None:
    tokenizer = load_model(write_kind("dream")).tokenizer
    tokenizer.chat_template = template
    with pytest.raises(ConfigError, match="its chat template cannot be used"):
        encode_prompt(tokenizer, USER)
