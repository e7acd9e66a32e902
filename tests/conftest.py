"""What every test shares: hypothesis without deadlines, a switch for the shape checks."""

from collections.abc import Iterator

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
    from slackdlm.models.llada_config import LLaDAConfig
    from slackdlm.models.loading import new_model
    from slackdlm.models.tokenizer import train_tokenizer
    from slackdlm.studies.toy_language import vocabulary

    tokenizer = train_tokenizer([" ".join(vocabulary())], vocab_size=256, kind="word")
    config = LLaDAConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        n_layers=2,
        n_heads=2,
        mlp_hidden_size=64,
        max_sequence_length=128,
    )
    return new_model(config, tokenizer, generator_seed=3)
