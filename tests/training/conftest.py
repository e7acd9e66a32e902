"""A model of a few thousand parameters and random samples for it."""

from collections.abc import Callable

import pytest
from arms import made_samples, small_model, small_tokenizer
from transformers import PreTrainedTokenizerFast

from slackdlm.models.loaded import LoadedModel
from slackdlm.training.data import Sample


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return small_tokenizer()


@pytest.fixture
def new_loaded(tokenizer: PreTrainedTokenizerFast) -> Callable[[], LoadedModel]:
    return lambda: small_model(tokenizer)


@pytest.fixture
def loaded(new_loaded: Callable[[], LoadedModel]) -> LoadedModel:
    return new_loaded()


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    return made_samples()
