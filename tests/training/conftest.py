"""A model of a few thousand parameters and random samples for it."""

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from slackdlm.models.llada_config import LLaDAConfig
from slackdlm.models.loading import LoadedModel, new_model
from slackdlm.models.tokenizer import train_tokenizer
from slackdlm.training.data import Sample


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    words = " ".join(f"w{number}" for number in range(24))
    return train_tokenizer([words], vocab_size=40, kind="word")


@pytest.fixture
def new_loaded(tokenizer: PreTrainedTokenizerFast) -> Callable[[], LoadedModel]:
    def build() -> LoadedModel:
        config = LLaDAConfig(
            vocab_size=len(tokenizer),
            d_model=16,
            n_layers=1,
            n_heads=2,
            mlp_hidden_size=24,
            max_sequence_length=64,
        )
        return new_model(config, tokenizer, generator_seed=7)

    return build


@pytest.fixture
def loaded(new_loaded: Callable[[], LoadedModel]) -> LoadedModel:
    return new_loaded()


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    generator = torch.Generator().manual_seed(3)

    def ids(low: int, high: int) -> torch.Tensor:
        length = int(torch.randint(low, high, (), generator=generator))
        return torch.randint(4, 28, (length,), generator=generator)

    return [Sample(ids(2, 9), ids(1, 15), f"made:{number}") for number in range(23)]
