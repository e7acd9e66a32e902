"""The ``model`` block of a recipe: which weights, in which type, and which of them are trained."""

from typing import Annotated, Literal

from annotated_types import Lt

from slackdlm.config import Count, Flag, NonNegative, Positive, Text, Texts, settings
from slackdlm.errors import ConfigError

SMALLEST_VOCABULARY = {"byte_bpe": 263, "word": 12}
"""The special tokens, and 256 bytes or the unknown word, the roles' names and one word."""


@settings
class FromScratchConfig:
    """A small model trained from random weights, with a tokenizer fitted to the training texts."""

    tokenizer_kind: Literal["byte_bpe", "word"] = "byte_bpe"
    """``byte_bpe`` can spell anything; ``word`` is for closed vocabularies such as the demo's."""
    vocab_size: Count = 2048
    """Tokens, special ones included. Ours: small enough for a CPU."""
    d_model: Count = 128
    """Width ``D`` of the hidden states."""
    n_layers: Count = 4
    """Transformer blocks."""
    n_heads: Count = 4
    """Attention heads; must divide ``d_model``."""
    mlp_hidden_size: Count = 384
    """Width of the feed-forward layers. Default: three times ``d_model``, as LLaDA-8B."""

    def __post_init__(self) -> None:
        if self.d_model % (2 * self.n_heads):
            raise ConfigError(
                f"model.from_scratch.d_model: expected an even multiple of n_heads = {self.n_heads},"
                f" got {self.d_model}"
            )
        least = SMALLEST_VOCABULARY[self.tokenizer_kind]
        if self.vocab_size < least:
            raise ConfigError(
                f"model.from_scratch.vocab_size: {self.tokenizer_kind} needs at least {least}, special"
                f" tokens included, got {self.vocab_size}"
            )


@settings
class LoraRecipe:
    """A new low-rank adapter: the weights of ``model.path`` stay as they are."""

    rank: Count = 16
    """Inner width of the two added matrices of each adapted layer."""
    alpha: Positive = 32.0
    """Their product is scaled by ``alpha / rank``."""
    dropout: Annotated[NonNegative, Lt(1)] = 0.0
    """Share of inputs dropped in front of the adapter while training, in [0, 1). Above 0 the
    trajectory depends on the number of processes: each draws its own."""
    target_modules: Texts | None = None
    """Names of the adapted layers. Default: the projections of attention and feed-forward of every
    block, never the output layer."""
    train_slack: Flag = True
    """Whether the row of ``<slack>`` in the embedding and in the output layer is trained too, in every
    arm alike: a reserved token starts from weights that never stood for anything."""


@settings
class ModelConfig:
    """Where the weights come from: exactly one of ``path`` and ``from_scratch``."""

    path: Text | None = None
    """Model folder or hub name to start from."""
    adapter: Text | None = None
    """Adapter folder on top of ``path``, trained further."""
    lora: LoraRecipe | None = None
    """A new adapter on top of ``path``; it alone is trained, and the run saves it alone."""
    from_scratch: FromScratchConfig | None = None
    """Shape of a new model."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the weights of ``path``. ``bfloat16`` halves their memory and is for adapters (whose
    own weights are float32 either way); trained itself, it loses small updates to rounding."""

    quantization: Literal["4bit"] | None = None
    """``4bit``: the weights of ``path`` as NF4 under an adapter (QLoRA); needs bitsandbytes. Tried
    on a CPU, not on a GPU."""

    def __post_init__(self) -> None:
        if (self.path is None) == (self.from_scratch is None):
            raise ConfigError("model: expected exactly one of model.path and model.from_scratch")
        if self.path is None:
            if self.adapter is not None:
                raise ConfigError(
                    "model.adapter: an adapter needs the model.path it was trained on"
                )
            if self.lora is not None:
                raise ConfigError("model.lora: an adapter needs a model.path to be trained on")
        if self.adapter is not None and self.lora is not None:
            raise ConfigError(
                "model.lora: expected either a new adapter (model.lora) or one to train further"
                " (model.adapter), got both"
            )
        is_frozen = self.adapter is not None or self.lora is not None
        if self.quantization is not None and not is_frozen:
            raise ConfigError(
                "model.quantization: quantised weights cannot be trained; add model.lora"
            )
        if self.dtype != "float32" and not is_frozen:
            raise ConfigError(
                f"model.dtype: {self.dtype} weights are for adapters (model.lora); full fine-tuning"
                " keeps float32 weights, use training.bf16 for its products"
            )
