"""What a launcher asks for and cannot be trained is refused before anything is loaded or claimed."""

import json
from pathlib import Path
from typing import Any

import pytest
from accelerate import DistributedType, PartialState
from arms import CANVAS_LENGTH, CE, made_samples, recipe_of, short, small_model
from divided_processes import RECIPES, launcher_settings
from transformers import PreTrainedModel

from slackdlm.errors import ConfigError
from slackdlm.models.loading import save_model
from slackdlm.training import checkpoints
from slackdlm.training.config import DataConfig, Recipe
from slackdlm.training.engine import check_engine, check_sharding, engine
from slackdlm.training.folder import begin
from slackdlm.training.model_config import LoraRecipe, ModelConfig
from slackdlm.training.prepare import Prepared, prepare
from slackdlm.training.processes import this_process
from slackdlm.training.run import train

FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
ZERO3 = {
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
    "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true",
}


def launched(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


def on_devices(
    monkeypatch: pytest.MonkeyPatch, devices: DistributedType, *, processes: int = 1
) -> None:
    """What accelerate has found here, whatever it has."""
    this_process()
    state = PartialState._shared_state
    monkeypatch.setitem(state, "distributed_type", devices)
    monkeypatch.setitem(state, "num_processes", processes)


@pytest.fixture(autouse=True)
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    on_devices(monkeypatch, DistributedType.MULTI_GPU)


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
            ZERO3 | {"ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "false"},
            {},
            "without zero3_save_16bit_model no process could save .*; set it to true",
        ),
        (
            ZERO3 | {"ACCELERATE_GRADIENT_CLIPPING": "0.5"},
            {},
            "gradient_clipping is 0.5; remove it, and training.max_grad_norm of the recipe decides",
        ),
        (
            ZERO3 | {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"},
            {},
            "gradient_accumulation_steps is 4; remove it, and training.micro_batch_size",
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
        train(
            recipe_of(CE, short()),
            output=tmp_path / "run",
            prepared=Prepared(loaded, samples, []),
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("settings", "name"), [(FSDP2, "FSDP"), (ZERO3, "DEEPSPEED")])
def test_a_launcher_that_was_to_divide_the_weights_and_does_not_is_an_error(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], name: str
) -> None:
    launched(monkeypatch, settings)
    check_sharding(DistributedType[name])
    with pytest.raises(ConfigError, match=f"asks for {name}, but it has set up MULTI_GPU; launch"):
        check_sharding(DistributedType.MULTI_GPU)


@pytest.mark.parametrize("devices", [DistributedType.NO, DistributedType.MULTI_CPU])
def test_fsdp_on_a_cpu_is_refused_before_the_folder_is_claimed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, devices: DistributedType
) -> None:
    """accelerate would train whole weights there, without a word."""
    launched(monkeypatch, FSDP2)
    on_devices(monkeypatch, devices)
    with pytest.raises(
        ConfigError,
        match=f"FSDP divides weights over GPUs alone, and this is {devices.value}; .*torchrun",
    ):
        train(
            recipe_of(CE, short()),
            output=tmp_path / "run",
            prepared=Prepared(small_model(), made_samples(), []),
        )
    assert not (tmp_path / "run").exists()


FSDP2_SENDING = FSDP2 | {"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}


def recipe_on(folder: Path, *, lora: bool) -> Recipe:
    """For the small model, saved there, and some words."""
    save_model(small_model(), folder / "model")
    (folder / "data.jsonl").write_text('{"prompt": "w1", "response": "w2 w3"}\n' * 12)
    return Recipe(
        model=ModelConfig(path=str(folder / "model"), lora=LoraRecipe(rank=2) if lora else None),
        data=DataConfig(
            train=str(folder / "data.jsonl"), max_prompt_length=16, canvas_length=CANVAS_LENGTH
        ),
        objective=CE,
        training=short(eval_samples=2),
    )


def as_second_process(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]) -> None:
    """Which cannot read weights."""

    def unreadable(*_: object, **__: object) -> None:
        raise OSError("read")

    launched(monkeypatch, settings)
    monkeypatch.setitem(PartialState._shared_state, "process_index", 1)
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", unreadable)


@pytest.mark.parametrize("settings", [FSDP2_SENDING, ZERO3])
@pytest.mark.parametrize("lora", [False, True])
def test_a_process_that_is_sent_the_weights_does_not_read_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: dict[str, str], lora: bool
) -> None:
    recipe = recipe_on(tmp_path, lora=lora)
    read = dict(prepare(recipe)[0].model.named_parameters())
    as_second_process(monkeypatch, settings)
    sent = dict(prepare(recipe)[0].model.named_parameters())
    assert sent.keys() == read.keys()
    for name, weight in sent.items():
        assert (weight.shape, weight.dtype) == (read[name].shape, read[name].dtype), name
        assert (weight.device.type, weight.requires_grad) == ("cpu", read[name].requires_grad), name
    assert len({weight.data_ptr() for weight in sent.values()}) == len(sent)


@pytest.mark.parametrize("settings", [{}, FSDP2])
def test_a_process_that_is_sent_none_reads_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: dict[str, str]
) -> None:
    recipe = recipe_on(tmp_path, lora=False)
    as_second_process(monkeypatch, settings)
    with pytest.raises(OSError, match="read"):
        prepare(recipe)


@pytest.mark.parametrize(("processes", "shown"), [(1, "1 process"), (4, "4 processes")])
def test_zero3_resumes_with_as_many_processes_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, processes: int, shown: str
) -> None:
    launched(monkeypatch, ZERO3)
    record = {"recipe": {}, "samples": {}, "status": "running"}
    checkpoint = tmp_path / "checkpoints" / "checkpoint-2"
    (checkpoint / "global_step2").mkdir(parents=True)
    (checkpoint / "latest").write_text("global_step2")
    for rank in range(2):
        for kind in ("model", "optim"):
            name = f"zero_pp_rank_{rank}_mp_rank_00_{kind}_states.pt"
            (checkpoint / "global_step2" / name).touch()
    checkpoints.seal(checkpoint)
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n')
    on_devices(monkeypatch, DistributedType.MULTI_GPU, processes=processes)
    with pytest.raises(
        ConfigError,
        match=f"checkpoint-2: written by 2 processes, but this run is launched with {shown};"
        " DeepSpeed resumes with --num_processes 2 alone",
    ):
        begin(tmp_path, record, resume=True)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 3
    on_devices(monkeypatch, DistributedType.MULTI_GPU, processes=2)
    monkeypatch.setattr(PartialState, "wait_for_everyone", lambda _: None)
    assert begin(tmp_path, record, resume=True).checkpoint == checkpoint
