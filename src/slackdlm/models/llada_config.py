"""Which LLaDA is it? The published configuration keys; an error for variants not implemented."""

from typing import Any, ClassVar, no_type_check

from transformers import PreTrainedConfig

from slackdlm.errors import ConfigError
from slackdlm.models.config_keys import LAYERS, POSITIVE, SIZE, check_config

# Keys whose other values would give other numbers: a checkpoint that asks for one is refused.
_IMPLEMENTED: dict[str, tuple[Any, ...]] = {
    "block_type": ("llama",),
    "activation_type": ("silu",),
    "layer_norm_type": ("rms",),
    "layer_norm_with_affine": (True,),
    "bias_for_layer_norm": (None, False),
    "rope": (True,),
    "rope_full_precision": (True,),
    "rope_scaling": (None,),
    "clip_qkv": (None,),
    "alibi": (False,),
    "attention_layer_norm": (False,),
    "input_emb_norm": (False,),
    "scale_logits": (False,),
    "include_bias": (False,),
    "include_qkv_bias": (False, None),
    "attention_dropout": (0.0,),
    "embedding_dropout": (0.0,),
    "residual_dropout": (0.0,),
    "block_group_size": (1,),
    "multi_query_attention": (None, False),
    "init_fn": ("mitchell", "normal"),
}

_NUMBERS = {
    "d_model": SIZE,
    "n_layers": LAYERS,
    "n_heads": SIZE,
    "n_kv_heads": SIZE,
    "mlp_hidden_size": SIZE,
    "mlp_ratio": SIZE,
    "vocab_size": SIZE,
    "embedding_size": SIZE,
    "max_sequence_length": SIZE,
    "rope_theta": POSITIVE,
    "rms_norm_eps": POSITIVE,
    "init_std": POSITIVE,
}

# Published keys that choose a kernel, a device or a place, or that only matter for a variant refused above.
_WITHOUT_EFFECT = (
    "alibi_bias_max",
    "attention_layer_norm_with_affine",
    "flash_attention",
    "init_cutoff_factor",
    "init_device",
    "precision",
    "use_cache",
)


@no_type_check  # the signature hides that any other key is accepted, which trips run-time checks
class LLaDAConfig(PreTrainedConfig):
    """The keys of a published LLaDA ``config.json``.

    The defaults are those of LLaDA-8B, except for ``mlp_hidden_size`` (12288 there) and the ids.

    Keys that only choose a kernel or a device (``flash_attention``, ``precision``, ``init_device``,
    ``use_cache``, ...) are kept and have no effect. ``auto_map`` is dropped: no remote code is run
    or pointed at.

    Raises:
        ConfigError: For a variant that is not implemented, a key that is not known, or sizes that
            do not divide; the message names the key.

    References:
        Nie et al., 2025 (LLaDA): ``config.json`` of the published LLaDA-8B-Base and -Instruct.
    """

    model_type = "llada"
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "intermediate_size": "mlp_hidden_size",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "num_key_value_heads": "n_kv_heads",
        "max_position_embeddings": "max_sequence_length",
        "tie_word_embeddings": "weight_tying",
    }

    d_model: int = 4096
    """Hidden size ``D``."""
    n_layers: int = 32
    """Number of blocks."""
    n_heads: int = 32
    """Query heads; divides ``d_model``."""
    n_kv_heads: int | None = None
    """Key and value heads; divides ``n_heads``. None: as many as ``n_heads``."""
    mlp_hidden_size: int | None = None
    """Width of the feed-forward layer. None: ``mlp_ratio * d_model``."""
    mlp_ratio: int = 4
    """Read only where ``mlp_hidden_size`` is None."""
    vocab_size: int = 126464
    """Number of token ids ``V``."""
    embedding_size: int | None = None
    """Rows of the embedding and of the head, at least ``vocab_size``. None: ``vocab_size``."""
    max_sequence_length: int = 4096
    """Longest input in tokens."""
    rope_theta: float = 500000.0
    """Base of the rotary frequencies."""
    rms_norm_eps: float = 1e-5
    """Added to the mean square before the root."""
    weight_tying: bool = False
    """Whether the head is the embedding."""
    mask_token_id: int | None = None
    """Id of ``<|mdm_mask|>``; filled in from the tokenizer for a new model."""
    eos_token_id: int | list[int] | None = None
    """Id of ``<|endoftext|>``, or every id that ends a response."""
    pad_token_id: int | None = None
    """Id of the padding, ``<|endoftext|>`` again."""
    init_fn: str = "mitchell"
    """How a new model is initialised, ``mitchell`` or ``normal``: see ``LLaDAModelLM``."""
    init_std: float = 0.02
    """Standard deviation of ``init_fn="normal"``."""

    block_type: str = "llama"
    block_group_size: int = 1
    activation_type: str = "silu"
    layer_norm_type: str = "rms"
    layer_norm_with_affine: bool = True
    bias_for_layer_norm: bool | None = False
    attention_layer_norm: bool = False
    input_emb_norm: bool = False
    multi_query_attention: bool | None = None
    rope: bool = True
    rope_full_precision: bool = True
    alibi: bool = False
    scale_logits: bool = False
    include_bias: bool = False
    include_qkv_bias: bool | None = False
    attention_dropout: float = 0.0
    embedding_dropout: float = 0.0
    residual_dropout: float = 0.0

    def __post_init__(self, **kwargs: Any) -> None:
        """Resolve the sizes left to their defaults and refuse what is not implemented."""
        check_config(
            self,
            kwargs,
            implemented=_IMPLEMENTED,
            without_effect=_WITHOUT_EFFECT,
            numbers=_NUMBERS,
            architecture="LLaDA-8B",
        )
        self.n_kv_heads, self.embedding_size = self.num_kv_heads, self.num_rows
        self.mlp_hidden_size = self.ff_size
        super().__post_init__(**kwargs)
        self._check_sizes()

    def _check_sizes(self) -> None:
        if self.d_model % (2 * self.n_heads) != 0:
            raise ConfigError(
                f"config.json: d_model must be an even multiple of n_heads, "
                f"got {self.d_model} and {self.n_heads}"
            )
        if self.n_heads % self.num_kv_heads != 0:
            raise ConfigError(
                f"config.json: n_heads must be a multiple of n_kv_heads, "
                f"got {self.n_heads} and {self.n_kv_heads}"
            )
        if self.num_rows < self.vocab_size:
            raise ConfigError(
                f"config.json: embedding_size must be at least vocab_size, "
                f"got {self.num_rows} and {self.vocab_size}"
            )

    @property
    def num_kv_heads(self) -> int:
        """Number of key and value heads."""
        return self.n_kv_heads or self.n_heads

    @property
    def num_rows(self) -> int:
        """Rows of the embedding and of the head."""
        return self.embedding_size or self.vocab_size

    @property
    def ff_size(self) -> int:
        """Width of the feed-forward layer."""
        return self.mlp_hidden_size or self.mlp_ratio * self.d_model
