"""Random models of toy size, for whatever tokenizer a test needs."""

from transformers import PreTrainedTokenizerFast

from slackdlm.models.configs import LLaDAConfig
from slackdlm.models.loaded import LoadedModel
from slackdlm.models.loading import new_model


def random_llada(
    tokenizer: PreTrainedTokenizerFast,
    *,
    d_model: int,
    n_layers: int,
    mlp_hidden_size: int,
    max_length: int,
    seed: int,
) -> LoadedModel:
    """A native LLaDA with two heads and a row for every token."""
    config = LLaDAConfig(
        vocab_size=len(tokenizer),
        d_model=d_model,
        n_layers=n_layers,
        n_heads=2,
        mlp_hidden_size=mlp_hidden_size,
        max_sequence_length=max_length,
    )
    return new_model(config, tokenizer, generator_seed=seed)
