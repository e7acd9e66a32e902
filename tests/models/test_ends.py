"""Which ids end a response? Every one that the files of a checkpoint list; the first is the padding."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from encoder_checkpoints import write_encoder

from slackdlm.errors import CheckpointError
from slackdlm.models.loading import load_model, save_model
from slackdlm.sampling.sampler import Sampler, SamplerConfig

Edit = Callable[..., None]
NAMES = {"llada": ("<|endoftext|>", "<|eot_id|>"), "dream": ("<|endoftext|>", "<|im_end|>")}
MORE = {"llada": "[gMASK]", "dream": "<|im_start|>"}


@pytest.fixture(params=["llada", "dream"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(family: str, write_kind: Callable[[str], Path]) -> Path:
    return write_kind(family)


@pytest.mark.parametrize("form", ["int", "list", "longer list", "generation_config.json"])
def test_every_listed_end_is_one(
    folder: Path, family: str, form: str, tmp_path: Path, edit: Edit
) -> None:
    plain = load_model(folder)
    end, turn, more = plain.tokenizer.convert_tokens_to_ids([*NAMES[family], MORE[family]])
    assert plain.eos_ids == (end, turn)
    listed, expected = {
        "int": (turn, (end, turn)),
        "list": ([turn, end], (end, turn)),
        "longer list": ([end, turn, more], (end, turn, more)),
        "generation_config.json": ([more], (end, turn, more)),
    }[form]
    file = form if form.endswith(".json") else "config.json"
    edit(folder / file, eos_token_id=listed)
    loaded = load_model(folder)
    assert loaded.eos_ids == expected
    assert loaded.pad_id == plain.pad_id == end
    save_model(loaded, tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    assert (again.eos_ids, again.pad_id) == (expected, end)


def test_decoding_stops_at_a_listed_end(folder: Path, family: str, edit: Edit) -> None:
    """The model says the listed token wherever its score is above 0, and the response is over there."""
    more = load_model(folder).tokenizer.convert_tokens_to_ids(MORE[family])
    answers = []
    for listed in (None, more):
        if listed is not None:
            edit(folder / "generation_config.json", eos_token_id=listed)
        loaded = load_model(folder)
        with torch.no_grad():
            weight = loaded.model.get_output_embeddings().weight
            weight[[i for i in range(len(weight)) if i != more]] *= 1e-3
        config = SamplerConfig(canvas_length=16, steps=16)
        prompts = [loaded.tokenizer.encode(text) for text in ("the boats", "sailed", "Hello")]
        answers.append(Sampler(loaded, config).generate_from_ids(prompts))
    free, stopped = ([answer.tokens for answer in part] for part in answers)
    assert any(more in tokens for tokens in free)
    ends = [tokens.index(more) if more in tokens else len(tokens) for tokens in free]
    assert stopped == [tokens[:end] for tokens, end in zip(free, ends, strict=True)]


@pytest.mark.parametrize("listed", [7, [7], "2", True, [None], [[1]], 10**9, -1, [], None])
@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_what_is_no_end_is_an_error(folder: Path, file: str, listed: object, edit: Edit) -> None:
    edit(folder / file, eos_token_id=listed)
    if file == "generation_config.json" and listed in ([], None):
        load_model(folder)
        return
    with pytest.raises(CheckpointError, match="eos_token_id is "):
        load_model(folder)


def test_the_mask_is_no_end(folder: Path, edit: Edit) -> None:
    mask = json.loads((folder / "config.json").read_text())["mask_token_id"]
    edit(folder / "generation_config.json", eos_token_id=[mask])
    with pytest.raises(CheckpointError, match=rf"eos_token_id is \[{mask}\]"):
        load_model(folder)


def test_an_encoder_with_a_list_of_ends_has_them_all(tmp_path: Path, edit: Edit) -> None:
    folder = write_encoder(tmp_path / "bert", "bert")
    edit(folder / "config.json", eos_token_id=[2, 3])
    loaded = load_model(folder)
    assert loaded.tokenizer.convert_ids_to_tokens(loaded.eos_ids) == ["[SEP]", "[CLS]"]
    edit(folder / "config.json", eos_token_id=[60])
    with pytest.raises(CheckpointError, match=r"eos_token_id is \[60\], but \[SEP\]"):
        load_model(folder)
