"""What a launcher asks for and cannot be trained is refused before anything is loaded or claimed."""

from pathlib import Path
from typing import Any

import pytest
from accelerate import DistributedType
from arms import CANVAS_LENGTH, CE, made_samples, short, small_model
from divided_processes import RECIPES, launcher_settings

from slackdlm.errors import ConfigError
from slackdlm.training.config import DataConfig, Recipe
from slackdlm.training.engine import check_engine, check_sharding, engine
from slackdlm.training.model_config import LoraRecipe, ModelConfig
from slackdlm.training.run import train, train_samples

FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
ZERO3 = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}


def launched(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("settings", "found"), [({}, None), (FSDP2, "FSDP"), (ZERO3, "DEEPSPEED")])
def test_the_launcher_says_which_engine_divides_the_weights(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], found: str | None
) -> None:
    launched(monkeypatch, settings)
    assert engine() == found
    check_engine(short(), is_quantized=False)
    check_engine(short(bf16=True), is_quantized=False)


@pytest.mark.parametrize(
    ("file", "found"), [("ddp", None), ("fsdp2", "FSDP"), ("deepspeed-zero3", "DEEPSPEED")]
)
@pytest.mark.parametrize("bf16", [False, True])
def test_the_recipes_for_accelerate_train_in_either_precision(
    monkeypatch: pytest.MonkeyPatch, file: str, found: str | None, bf16: bool
) -> None:
    launched(monkeypatch, launcher_settings(RECIPES / f"{file}.yaml"))
    assert engine() == found
    check_engine(short(bf16=bf16), is_quantized=False)


@pytest.mark.parametrize(
    ("settings", "facts", "message"),
    [
        (
            FSDP2,
            {"is_quantized": True},
            "4-bit weights cannot be divided .* launch with .*ddp.yaml",
        ),
        (
            ZERO3,
            {"is_quantized": True},
            "4-bit weights cannot be divided .* launch with .*ddp.yaml",
        ),
        (FSDP2, {"is_tied": True}, "whose embedding and output layer are one weight; .*ddp.yaml"),
        (FSDP2 | {"FSDP_VERSION": "1"}, {}, "fsdp_version is 1, expected 2; use .*fsdp2.yaml"),
        (
            FSDP2 | {"FSDP_ACTIVATION_CHECKPOINTING": "true"},
            {},
            "fsdp_activation_checkpointing is on; .* training.gradient_checkpointing",
        ),
        (
            ZERO3 | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"},
            {},
            "zero_stage is 2, expected 3; use .*zero3.yaml",
        ),
        (
            ZERO3 | {"ACCELERATE_DEEPSPEED_CONFIG_FILE": "ds.json"},
            {},
            "deepspeed_config_file is set, whose optimizer",
        ),
        (
            {"ACCELERATE_MIXED_PRECISION": "bf16"},
            {},
            "mixed_precision is bf16, but training.bf16 of the recipe is false; set",
        ),
        (
            {"ACCELERATE_MIXED_PRECISION": "fp16"},
            {"bf16": True},
            "mixed_precision is fp16, but training.bf16 of the recipe is true; set",
        ),
        (
            ZERO3 | {"ACCELERATE_MIXED_PRECISION": "bf16"},
            {"bf16": True},
            "with mixed_precision bf16 DeepSpeed trains weights of bfloat16",
        ),
    ],
)
def test_what_the_engine_cannot_train_right_is_an_error(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], facts: dict[str, Any], message: str
) -> None:
    launched(monkeypatch, settings)
    facts = {"is_quantized": False} | facts
    with pytest.raises(ConfigError, match=message):
        check_engine(short(bf16=facts.pop("bf16", False)), **facts)


def test_an_engine_is_refused_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    launched(monkeypatch, FSDP2)
    recipe = Recipe(
        model=ModelConfig(path="not/there", lora=LoraRecipe(), quantization="4bit"),
        data=DataConfig(train="not-there.jsonl"),
        objective=CE,
        training=short(),
    )
    with pytest.raises(ConfigError, match="4-bit weights cannot be divided"):
        train(recipe, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tied_model_is_refused_before_the_folder_is_claimed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    launched(monkeypatch, FSDP2)
    loaded, samples = small_model(), made_samples()
    loaded.model.all_tied_weights_keys = {"head": "embedding"}
    with pytest.raises(ConfigError, match="embedding and output layer are one weight"):
        train_samples(
            loaded,
            samples,
            [],
            canvas_length=CANVAS_LENGTH,
            objective=CE,
            training=short(),
            output=tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("settings", "name"), [(FSDP2, "FSDP"), (ZERO3, "DEEPSPEED")])
def test_a_launcher_that_was_to_divide_the_weights_and_does_not_is_an_error(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], name: str
) -> None:
    launched(monkeypatch, settings)
    check_sharding(DistributedType[name])
    with pytest.raises(
        ConfigError, match=f"asks for {name}, but it has set up MULTI_CPU; on a CPU"
    ):
        check_sharding(DistributedType.MULTI_CPU)
