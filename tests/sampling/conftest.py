import pytest


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
