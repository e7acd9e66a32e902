"""Small checkpoints of every family, written without our code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dream_checkpoint import write_checkpoint as write_dream
from encoder_checkpoints import write_encoder
from llada_checkpoint import write_llada
from transformers.utils import logging

from slackdlm.models.configs import LLaDAConfig
from slackdlm.models.loaded import LoadedModel
from slackdlm.models.loading import load_model, new_model, save_model
from slackdlm.models.tokenizer import train_tokenizer

logging.disable_progress_bar()


@pytest.fixture
def write_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Writes a published LLaDA and returns its folder; keywords override config keys."""

    def write(**keys: Any) -> Path:
        return write_llada(tmp_path / f"published-{len(list(tmp_path.iterdir()))}", **keys)

    return write


@pytest.fixture
def published(write_checkpoint: Callable[..., Path]) -> Path:
    return write_checkpoint()


@pytest.fixture
def write_kind(tmp_path: Path) -> Callable[..., Path]:
    """Writes a model by its kind: LLaDA, LLaDA with one matrix at both ends, Dream or an encoder."""

    def write(kind: str, **keys: Any) -> Path:
        folder = tmp_path / kind
        if kind == "llada":
            return write_llada(folder, **keys)
        if kind == "dream":
            return write_dream(folder, **keys)
        if kind != "tied":
            return write_encoder(folder, kind, **keys)
        tokenizer = load_model(write_llada(tmp_path / "untied")).tokenizer
        shape = {"d_model": 16, "n_layers": 2, "n_heads": 2, "mlp_hidden_size": 24}
        shape |= {"vocab_size": len(tokenizer), "max_sequence_length": 128}
        config = LLaDAConfig(weight_tying=True, **shape)
        save_model(new_model(config, tokenizer, generator_seed=1), folder)
        return folder

    return write


@pytest.fixture
def new() -> Callable[..., LoadedModel]:
    """A new LLaDA with a tokenizer of bytes; keywords override config keys."""

    def make(seed: int = 0, **keys: Any) -> LoadedModel:
        tokenizer = train_tokenizer(["the boats"], vocab_size=300, kind="byte_bpe")
        sizes = {"d_model": 32, "n_layers": 2, "n_heads": 2, "mlp_hidden_size": 48}
        config = LLaDAConfig(**(sizes | {"vocab_size": len(tokenizer)} | keys))
        return new_model(config, tokenizer, generator_seed=seed)

    return make


@pytest.fixture
def edit() -> Callable[..., None]:
    """Changes keys of a JSON file, which need not be there."""

    def change(path: Path, **keys: Any) -> None:
        old = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(old | keys))

    return change


@pytest.fixture
def draw_ids() -> Callable[..., torch.Tensor]:
    """Two rows of ids that every small vocabulary has and that are no special tokens."""

    def draw(*, length: int = 9, rows: int = 2) -> torch.Tensor:
        generator = torch.Generator().manual_seed(3)
        return torch.randint(10, 60, (rows, length), generator=generator)

    return draw
