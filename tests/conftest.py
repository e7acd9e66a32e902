"""What every test shares: hypothesis without deadlines, a switch for the shape checks."""

from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
from hypothesis import settings

settings.register_profile("slackdlm", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("slackdlm")


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Switches the jaxtyping checks off, as they are for users: our own errors are reached."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def toy():
    """A random toy LLaDA over the toy language's words."""
    from toy_models import random_llada

    from slackdlm.models.tokenizer import train_tokenizer
    from slackdlm.studies.toy_language import vocabulary

    tokenizer = train_tokenizer([" ".join(vocabulary())], vocab_size=256, kind="word")
    return random_llada(
        tokenizer, d_model=32, n_layers=2, mlp_hidden_size=64, max_length=128, seed=3
    )


@pytest.fixture(scope="session")
def toy_folder(toy, tmp_path_factory) -> Path:
    """The same, saved."""
    from slackdlm.models.loading import save_model

    folder = tmp_path_factory.mktemp("toy") / "model"
    save_model(toy, folder)
    return folder
