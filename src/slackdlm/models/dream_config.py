"""Which Dream is it? The published configuration keys; an error for variants not implemented."""

from typing import Any, ClassVar, no_type_check

from transformers import PreTrainedConfig, Qwen2Config

from slackdlm.errors import ConfigError
from slackdlm.models.config_keys import LAYERS, POSITIVE, SIZE, check_config

# Keys whose other values would give other numbers: a checkpoint that asks for one is refused.
_IMPLEMENTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "rope_scaling": (None,),
    "use_sliding_window": (False,),
    "use_mrope": (None, False),
    "attention_dropout": (0.0,),
}
_NUMBERS = {
    "vocab_size": SIZE,
    "hidden_size": SIZE,
    "intermediate_size": SIZE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": SIZE,
    "num_key_value_heads": SIZE,
    "max_position_embeddings": SIZE,
    "rope_theta": POSITIVE,
    "rms_norm_eps": POSITIVE,
    "initializer_range": POSITIVE,
}
# Published keys that matter only for a variant refused above, or for a cache there is none of.
_WITHOUT_EFFECT = ("max_window_layers", "sliding_window", "use_cache")


@no_type_check  # the signature hides that any other key is accepted, which trips run-time checks
class DreamConfig(PreTrainedConfig):
    """The keys of a published Dream ``config.json``; the defaults are those of Dream-7B.

    ``auto_map`` is dropped: no remote code is run or pointed at.

    Raises:
        ConfigError: For a variant that is not implemented, a key that is not known, or sizes that
            do not divide; the message names the key.

    References:
        Ye et al., 2025 (Dream 7B): ``config.json`` of the published Dream-v0-Base-7B and -Instruct.
    """

    model_type = "Dream"
    attribute_map: ClassVar[dict[str, str]] = {"max_sequence_length": "max_position_embeddings"}

    vocab_size: int = 152064
    """Rows of the embedding and of the head ``V``."""
    hidden_size: int = 3584
    """Hidden size ``D``."""
    intermediate_size: int = 18944
    """Width of the feed-forward layer."""
    num_hidden_layers: int = 28
    """Number of blocks."""
    num_attention_heads: int = 28
    """Query heads; divides ``hidden_size``."""
    num_key_value_heads: int | None = 4
    """Key and value heads; divides the query heads. None: as many."""
    max_position_embeddings: int = 131072
    """Longest input in tokens."""
    rope_theta: float = 1000000.0
    """Base of the rotary frequencies."""
    rms_norm_eps: float = 1e-6
    """Added to the mean square before the root."""
    initializer_range: float = 0.02
    """Standard deviation of a new model's weights."""
    tie_word_embeddings: bool = False
    """Whether the head is the embedding."""
    mask_token_id: int | None = 151666
    """Id of ``<|mask|>``."""
    eos_token_id: int | list[int] | None = 151643
    """Id of ``<|endoftext|>``, or every id that ends a response."""
    pad_token_id: int | None = 151643
    """Id of the padding, ``<|endoftext|>`` again."""

    hidden_act: str = "silu"
    use_sliding_window: bool = False
    attention_dropout: float = 0.0

    def __post_init__(self, **kwargs: Any) -> None:
        """Resolve the sizes left to their defaults and refuse what is not implemented."""
        check_config(
            self,
            kwargs,
            implemented=_IMPLEMENTED,
            without_effect=_WITHOUT_EFFECT,
            numbers=_NUMBERS,
            architecture="Dream-7B",
        )
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        super().__post_init__(**kwargs)
        for width, parts in (
            ("hidden_size", "num_attention_heads"),
            ("num_attention_heads", "num_key_value_heads"),
        ):
            if getattr(self, parts) < 1 or getattr(self, width) % getattr(self, parts) != 0:
                raise ConfigError(
                    f"config.json: {width} must be a multiple of {parts}, "
                    f"got {getattr(self, width)} and {getattr(self, parts)}"
                )

    def body(self) -> Qwen2Config:
        """The same sizes under the keys of transformers' Qwen2."""
        return Qwen2Config(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.num_key_value_heads,
            max_position_embeddings=self.max_position_embeddings,
            rope_parameters={"rope_type": "default", "rope_theta": self.rope_theta},
            rms_norm_eps=self.rms_norm_eps,
            initializer_range=self.initializer_range,
            use_cache=False,
            attn_implementation="sdpa",  # pyright: ignore[reportCallIssue]
        )
