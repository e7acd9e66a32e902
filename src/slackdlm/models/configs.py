"""Which network does a ``config.json`` ask for? The published keys; other variants are refused."""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, no_type_check

from transformers import PreTrainedConfig, Qwen2Config

from slackdlm.errors import ConfigError, one_line

# Written by transformers itself, some by older versions; none changes a number here.
_GENERAL = {
    *PreTrainedConfig().to_dict(),
    *("auto_map", "torch_dtype", "attn_implementation", "name_or_path"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"),
}
# Type, lowest and highest value: a width or length, a number of blocks (each costs time before the
# weights are looked at), a real number above 0.
_SIZE = (int, 1, 2**31)
_LAYERS = (int, 1, 2**12)
_POSITIVE = (float, 1e-30, 1e30)


def _check_config(
    config: PreTrainedConfig,
    kwargs: dict[str, Any],
    *,
    implemented: Mapping[str, tuple[Any, ...]],
    without_effect: Collection[str],
    numbers: Mapping[str, tuple[type, float, float]],
    architecture: str,
) -> None:
    """ConfigError if a configuration asks for what nobody here knows; names the first wrong key.

    Args:
        config: Holds the keys it has fields for.
        kwargs: The other keys. What starts with an underscore or is None or False asks for nothing.
            Keys of remote code are dropped, and the implemented ones filled in.
        implemented: The values a key may have; a missing key stands for the first.
        without_effect: Other names that are dealt with, beside those of every transformers model.
        numbers: Type, lowest and highest value of a key; None is left to its default.
        architecture: What is implemented, for the message.
    """
    values = vars(config) | kwargs
    for key, accepted in implemented.items():
        if values.get(key, accepted[0]) not in accepted:
            expected = " or ".join(map(repr, accepted))
            raise ConfigError(
                f"config.json: {key} = {one_line(repr(values[key]))} is not implemented, expected"
                f" {expected}; use a checkpoint of the {architecture} architecture"
            )
    known = {*_GENERAL, *implemented, *without_effect}
    for key, value in kwargs.items():
        if not (key in known or key.startswith("_") or value is None or value is False):
            raise ConfigError(
                f"config.json: the key {one_line(key)} = {one_line(repr(value))} is not known and"
                " may change the result; use a checkpoint of a published architecture, or remove"
                " the key if it has no effect"
            )
    for key, (kind, lowest, highest) in numbers.items():
        value: Any = values.get(key)
        fits = isinstance(value, int if kind is int else int | float)
        fits = fits and not isinstance(value, bool) and lowest <= value <= highest
        if value is not None and not fits:
            raise ConfigError(
                f"config.json: {key}: expected {'a whole number' if kind is int else 'a number'}"
                f" from {lowest:g} to {highest:g}, got {one_line(repr(value))}; use the config.json"
                " that belongs to these weights"
            )
    for key, accepted in implemented.items():
        if key not in values and accepted[0] is not None:
            kwargs[key] = accepted[0]
    for key in ("auto_map", "rope_scaling"):
        kwargs.pop(key, None)


def _check_multiple(config: PreTrainedConfig, width: str, parts: str, *, factor: int = 1) -> None:
    """ConfigError unless one size divides into others, each of a multiple of ``factor``."""
    size, number = getattr(config, width), getattr(config, parts)
    if size % (factor * number) != 0:
        kind = "an even multiple" if factor == 2 else "a multiple"
        raise ConfigError(
            f"config.json: {width} must be {kind} of {parts}, got {size} and {number}; "
            "use the config.json that belongs to these weights"
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

    def __post_init__(self, **kwargs: Any) -> None:
        """Resolve the sizes left to their defaults and refuse what is not implemented."""
        _check_config(self, kwargs, **_LLADA)
        self.n_kv_heads, self.embedding_size = self.num_kv_heads, self.num_rows
        self.mlp_hidden_size = self.ff_size
        super().__post_init__(**kwargs)
        _check_multiple(self, "d_model", "n_heads", factor=2)
        _check_multiple(self, "n_heads", "n_kv_heads")
        if self.num_rows < self.vocab_size:
            raise ConfigError(
                f"config.json: embedding_size must be at least vocab_size, "
                f"got {self.num_rows} and {self.vocab_size}; "
                "use the config.json that belongs to these weights"
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


_LLADA: dict[str, Any] = {
    "architecture": "LLaDA-8B",
    # Keys whose other values would give other numbers: a checkpoint that asks for one is refused.
    "implemented": {
        "block_type": ("llama",),
        "activation_type": ("silu",),
        "layer_norm_type": ("rms",),
        "layer_norm_with_affine": (True,),
        "bias_for_layer_norm": (False, None),
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
    },
    # They choose a kernel, a device or a place, or only matter for a variant refused above.
    "without_effect": (
        *("alibi_bias_max", "attention_layer_norm_with_affine", "flash_attention"),
        *("init_cutoff_factor", "init_device", "precision", "use_cache"),
    ),
    "numbers": {
        **dict.fromkeys(
            ("d_model", "n_heads", "n_kv_heads", "mlp_hidden_size", "mlp_ratio"), _SIZE
        ),
        **dict.fromkeys(("vocab_size", "embedding_size", "max_sequence_length"), _SIZE),
        **dict.fromkeys(("rope_theta", "rms_norm_eps", "init_std"), _POSITIVE),
        "n_layers": _LAYERS,
    },
}


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

    def __post_init__(self, **kwargs: Any) -> None:
        """Resolve the sizes left to their defaults and refuse what is not implemented."""
        _check_config(self, kwargs, **_DREAM)
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        super().__post_init__(**kwargs)
        _check_multiple(self, "hidden_size", "num_attention_heads")
        _check_multiple(self, "num_attention_heads", "num_key_value_heads")

    def body(self) -> Qwen2Config:
        """The same sizes under the keys of transformers' Qwen2."""
        keys = (
            *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
            *("num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
            *("rms_norm_eps", "initializer_range"),
        )
        return Qwen2Config(
            **{key: getattr(self, key) for key in keys},
            rope_parameters={"rope_type": "default", "rope_theta": self.rope_theta},
            use_cache=False,
            attn_implementation="sdpa",  # pyright: ignore[reportCallIssue]
        )


_DREAM: dict[str, Any] = {
    "architecture": "Dream-7B",
    "implemented": {
        "hidden_act": ("silu",),
        "rope_scaling": (None,),
        "use_sliding_window": (False,),
        "use_mrope": (None, False),
        "attention_dropout": (0.0,),
    },
    # They matter only for a variant refused above, or for a cache there is none of.
    "without_effect": ("max_window_layers", "sliding_window", "use_cache"),
    "numbers": {
        **dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size"), _SIZE),
        **dict.fromkeys(("num_attention_heads", "num_key_value_heads"), _SIZE),
        "max_position_embeddings": _SIZE,
        "num_hidden_layers": _LAYERS,
        **dict.fromkeys(("rope_theta", "rms_norm_eps", "initializer_range"), _POSITIVE),
    },
}
