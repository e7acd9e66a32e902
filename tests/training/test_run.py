import itertools
import json
import logging
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
import yaml
from arms import CE, SLACK_CTC, recipe_of, short
from killed_while_saving import finish
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from slackdlm.errors import CheckpointError, ConfigError, DataError, SlackDLMError
from slackdlm.models.adapter import new_adapter
from slackdlm.models.identity import model_identity
from slackdlm.models.loaded import LoadedModel
from slackdlm.models.loading import load_model, save_model
from slackdlm.models.record import Base, TrainingRecord, base_sha256, find_record
from slackdlm.training.checkpoints import checkpoint_step
from slackdlm.training.config import ObjectiveConfig, Recipe, TrainingConfig, load_recipe
from slackdlm.training.data import Sample
from slackdlm.training.folder import begin
from slackdlm.training.prepare import Prepared, prepare, read_recipe_dialogues
from slackdlm.training.run import TrainResult, train

Build = Callable[[], LoadedModel]


def run(
    loaded: LoadedModel,
    samples: list[Sample],
    output: Path,
    *,
    training: TrainingConfig,
    objective: ObjectiveConfig = SLACK_CTC,
    resume: bool = False,
) -> TrainResult:
    return train(
        recipe_of(objective, training),
        output=output,
        prepared=Prepared(loaded, samples, samples[:3]),
        resume=resume,
        progress=False,
    )


def journal(folder: Path) -> list[dict[str, Any]]:
    """The records without their times."""
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    timed = {"seconds", "positions_per_second"}
    return [{k: v for k, v in record.items() if k not in timed} for record in records]


def assert_same_run(a: Path, b: Path, *, weights: str = "model/model.safetensors") -> None:
    assert journal(a) == journal(b)
    mine, other = (load_file(folder / weights) for folder in (a, b))
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[name], other[name]) for name in mine)


def undo(folder: Path, *, step: int) -> None:
    """Make a finished run one that died some time after ``step``."""
    shutil.rmtree(folder / "model")
    for checkpoint in (folder / "checkpoints").iterdir():
        if int(checkpoint.name.split("-")[1]) > step:
            shutil.rmtree(checkpoint)
    file = folder / "run.json"
    run = json.loads(file.read_text())
    del run["result"]
    file.write_text(json.dumps(run | {"status": "running"}))


CHECKPOINTED = short(steps=10, save_every=2, keep_checkpoints=9)


def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(
    new_loaded: Build, samples: list[Sample], tmp_path: Path
) -> None:
    run(new_loaded(), samples, tmp_path / "whole", training=CHECKPOINTED)
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    undo(tmp_path / "broken", step=4)
    run(new_loaded(), samples, tmp_path / "broken", training=CHECKPOINTED, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_a_resumed_run_with_accumulation_is_the_unbroken_one(
    new_loaded: Build, samples: list[Sample], tmp_path: Path
) -> None:
    training = short(steps=6, micro_batch_size=2, save_every=2, keep_checkpoints=9)
    run(new_loaded(), samples, tmp_path / "whole", training=training)
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    undo(tmp_path / "broken", step=4)
    run(new_loaded(), samples, tmp_path / "broken", training=training, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_a_torn_checkpoint_is_skipped_for_the_one_before_it(
    new_loaded: Build, samples: list[Sample], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(new_loaded(), samples, tmp_path / "whole", training=CHECKPOINTED)
    shutil.copytree(tmp_path / "whole", tmp_path / "torn")
    undo(tmp_path / "torn", step=6)
    weights = tmp_path / "torn" / "checkpoints" / "checkpoint-6" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        run(new_loaded(), samples, tmp_path / "torn", training=CHECKPOINTED, resume=True)
    assert "checkpoint-6 is torn and skipped: model.safetensors has 100 of" in caplog.text
    assert_same_run(tmp_path / "whole", tmp_path / "torn")


def test_a_run_that_died_before_its_first_checkpoint_starts_again(
    new_loaded: Build, samples: list[Sample], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(new_loaded(), samples, tmp_path / "whole", training=CHECKPOINTED)
    shutil.copytree(tmp_path / "whole", tmp_path / "early")
    undo(tmp_path / "early", step=0)
    with caplog.at_level(logging.WARNING):
        run(new_loaded(), samples, tmp_path / "early", training=CHECKPOINTED, resume=True)
    assert "no complete checkpoint; the run starts again at step 0" in caplog.text
    assert_same_run(tmp_path / "whole", tmp_path / "early")


def test_a_run_that_died_after_its_last_step_is_finished(
    new_loaded: Build, samples: list[Sample], tmp_path: Path
) -> None:
    whole = run(new_loaded(), samples, tmp_path / "run", training=CHECKPOINTED)
    before = load_file(tmp_path / "run" / "model" / "model.safetensors")
    undo(tmp_path / "run", step=10)
    again = run(new_loaded(), samples, tmp_path / "run", training=CHECKPOINTED, resume=True)
    after = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (again.train_loss, again.eval_ce) == (whole.train_loss, whole.eval_ce)
    assert again.tokens_per_second is None


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with when it was written."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def test_resuming_a_finished_run_gives_its_result_and_changes_nothing(
    new_loaded: Build, samples: list[Sample], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = run(new_loaded(), samples, tmp_path / "run", training=short())
    before = contents(tmp_path)
    with caplog.at_level(logging.WARNING):
        again = run(new_loaded(), samples, tmp_path / "run", training=short(), resume=True)
    assert again == first
    assert contents(tmp_path) == before
    assert caplog.messages == [
        f"{tmp_path / 'run'}: the run is finished already; nothing is trained or changed"
    ]


def test_a_different_run_is_not_resumed_and_the_keys_are_named(
    new_loaded: Build, samples: list[Sample], tmp_path: Path
) -> None:
    run(new_loaded(), samples, tmp_path / "run", training=short())
    with pytest.raises(
        ConfigError,
        match=r"these differ: objective\.kind \(was 'slack_ctc', now 'ce'\), "
        r"objective\.slack_ratio .*, training\.seed \(was 0, now 1\)",
    ):
        run(
            new_loaded(),
            samples,
            tmp_path / "run",
            training=short(seed=1),
            objective=CE,
            resume=True,
        )


def test_what_makes_a_run_fit_may_change_when_it_is_resumed(
    new_loaded: Build, samples: list[Sample], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(new_loaded(), samples, tmp_path / "whole", training=CHECKPOINTED)
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    undo(tmp_path / "broken", step=4)
    smaller = replace(
        CHECKPOINTED, micro_batch_size=2, gradient_checkpointing=True, max_loss_growth=3.0
    )
    with caplog.at_level(logging.WARNING):
        run(new_loaded(), samples, tmp_path / "broken", training=smaller, resume=True)
    said = [r.getMessage() for r in caplog.records if r.name.startswith("slackdlm")]
    assert said == [
        f"{tmp_path / 'broken'}: resumed with training.gradient_checkpointing (was False, now True),"
        " training.max_loss_growth (was 2.0, now 3.0), training.micro_batch_size (was None, now 2)"
    ]
    whole, broken = journal(tmp_path / "whole"), journal(tmp_path / "broken")
    assert [record["step"] for record in whole] == [record["step"] for record in broken]
    for mine, other in zip(whole, broken, strict=True):
        assert mine == pytest.approx(other, abs=1e-4)
    recorded = json.loads((tmp_path / "broken" / "run.json").read_text())
    assert recorded["recipe"]["training"]["micro_batch_size"] == 2


def test_a_finished_run_is_not_prolonged_and_the_way_to_train_on_is_named(
    new_loaded: Build, samples: list[Sample], tmp_path: Path
) -> None:
    run(new_loaded(), samples, tmp_path / "run", training=short())
    with pytest.raises(
        ConfigError,
        match=r"training\.steps \(was 6, now 9\); .* begin a new run from its model \(model.path, or",
    ):
        run(new_loaded(), samples, tmp_path / "run", training=short(steps=9), resume=True)


def test_other_data_under_the_same_recipe_is_not_resumed(
    new_loaded: Build, samples: list[Sample], tmp_path: Path
) -> None:
    run(new_loaded(), samples, tmp_path / "run", training=short())
    with pytest.raises(ConfigError, match=r"these differ: .*samples\.train_sha256"):
        run(
            new_loaded(),
            samples[::-1][:20] + samples[:3],
            tmp_path / "run",
            training=short(),
            resume=True,
        )


def test_a_folder_with_a_run_is_not_overwritten(
    new_loaded: Build, samples: list[Sample], tmp_path: Path
) -> None:
    run(new_loaded(), samples, tmp_path / "run", training=short())
    with pytest.raises(
        ConfigError, match="holds a run already; resume it, delete it or choose another"
    ):
        run(new_loaded(), samples, tmp_path / "run", training=short())


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
    ],
)
def test_a_damaged_record_is_not_resumed(record: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(record)
    with pytest.raises(CheckpointError, match=r"run.json: not the record of a run"):
        begin(tmp_path, {"recipe": {}, "samples": {}}, resume=True)


def test_there_must_be_something_to_resume(
    loaded: LoadedModel, samples: list[Sample], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="there is no run to resume"):
        run(loaded, samples, tmp_path / "run", training=short(), resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_the_folder_is_looked_at_before_anything_is_read(
    recipe_file: Path, tmp_path: Path, resume: bool
) -> None:
    recipe = steps(recipe_file, 2, "data.train=none.jsonl")
    output = tmp_path / "run"
    output.mkdir()
    if not resume:
        (output / "run.json").write_text("{}")
    message = "there is no run to resume" if resume else "holds a run already"
    with pytest.raises(SlackDLMError, match=message):
        train(recipe, output=output, resume=resume, progress=False)


def test_a_batch_that_does_not_split_evenly_is_refused_before_anything_is_read_or_written(
    recipe_file: Path, new_loaded: Build, samples: list[Sample], tmp_path: Path
) -> None:
    message = "batch_size: 8 is not a multiple of .* 3 x 1"
    recipe = steps(
        recipe_file,
        2,
        "data.train=none.jsonl",
        "training.batch_size=8",
        "training.micro_batch_size=3",
    )
    with pytest.raises(ConfigError, match=message):
        train(recipe, output=tmp_path / "run", progress=False)
    with pytest.raises(ConfigError, match=message):
        run(new_loaded(), samples, tmp_path / "run", training=short(micro_batch_size=3))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "file", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"]
)
def test_a_checkpoint_whose_bytes_are_damaged_is_named(
    new_loaded: Build, samples: list[Sample], tmp_path: Path, file: str
) -> None:
    training = short(steps=4, save_every=2)
    run(new_loaded(), samples, tmp_path / "run", training=training)
    undo(tmp_path / "run", step=2)
    damaged = tmp_path / "run" / "checkpoints" / "checkpoint-2" / file
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    with pytest.raises(
        CheckpointError, match=r"checkpoint-2: cannot be loaded \(.*; remove this folder, and"
    ):
        run(new_loaded(), samples, tmp_path / "run", training=training, resume=True)


@contextmanager
def no_file_above(size: int) -> Generator[None]:
    """As on a disk that is full: what is larger cannot be written whole."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("what", ["weights", "optimizer", "model"])
def test_a_full_disk_is_named_and_the_run_goes_on_once_there_is_room(
    new_loaded: Build, samples: list[Sample], tmp_path: Path, what: str, adapter: bool
) -> None:
    def loaded() -> LoadedModel:
        return new_adapter(new_loaded(), rank=8, alpha=8, dropout=0) if adapter else new_loaded()

    training = short(steps=3, save_every=0 if what == "model" else 2)
    whole = tmp_path / "whole"
    run(loaded(), samples, whole, training=training)
    weights = "adapter_model.safetensors" if adapter else "model.safetensors"
    size = (whole / "model" / weights).stat().st_size
    folder, room = tmp_path / "run", size + 100 if what == "optimizer" else size // 2
    torn = folder / "model" if what == "model" else folder / "checkpoints" / "checkpoint-2"
    with (
        pytest.raises(
            CheckpointError,
            match=rf"^{torn}: cannot be written \(.*; [\d.e+]+ GB are free there\); make room, and",
        ),
        no_file_above(room),
    ):
        run(loaded(), samples, folder, training=training)
    assert not (folder / "model").exists()
    assert not (folder / ".model.draft").exists()
    run(loaded(), samples, folder, training=training, resume=True)
    assert_same_run(whole, folder, weights=f"model/{weights}")


def test_a_log_that_lost_steps_is_named(
    new_loaded: Build, samples: list[Sample], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = short(steps=4, save_every=2)
    run(new_loaded(), samples, tmp_path / "run", training=training)
    undo(tmp_path / "run", step=2)
    log = tmp_path / "run" / "log.jsonl"
    whole = log.read_text()
    with caplog.at_level(logging.WARNING):
        run(new_loaded(), samples, tmp_path / "run", training=training, resume=True)
    assert not caplog.messages
    undo(tmp_path / "run", step=2)
    before, _first, *others = whole.splitlines(keepends=True)  # the evaluation before any step
    log.write_text("".join([before, *others]))
    with caplog.at_level(logging.WARNING):
        run(new_loaded(), samples, tmp_path / "run", training=training, resume=True)
    assert (
        f"{log}: holds 1 of the first 2 steps; the losses of the others are missing" in caplog.text
    )


@pytest.mark.parametrize(("key", "split"), [("split", "validation"), ("eval_split", "validation")])
def test_a_split_of_a_file_is_refused(recipe_file: Path, key: str, split: str) -> None:
    recipe = steps(recipe_file, 2)
    data = replace(recipe.data, eval=recipe.data.train, **{key: split})
    with pytest.raises(
        ConfigError, match=rf"data\.{key}: .* is a file, which has no splits; leave"
    ):
        read_recipe_dialogues(replace(recipe, data=data))


def test_there_must_be_a_sample(loaded: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no training sample"):
        run(loaded, [], tmp_path / "run", training=short())


def test_only_the_newest_checkpoints_are_kept(
    loaded: LoadedModel, samples: list[Sample], tmp_path: Path
) -> None:
    training = short(steps=5, save_every=1, keep_checkpoints=2)
    run(loaded, samples, tmp_path / "run", training=training)
    kept = sorted(folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["checkpoint-4", "checkpoint-5"]


@pytest.mark.parametrize("adapter", [False, True])
def test_a_checkpoint_can_be_decoded_with_as_the_model_at_the_end(
    new_loaded: Build, samples: list[Sample], tmp_path: Path, adapter: bool
) -> None:
    base = tmp_path / "base"
    save_model(new_loaded(), base)
    loaded = load_model(base)
    if adapter:
        loaded = new_adapter(loaded, rank=2, alpha=8, dropout=0)
    run(loaded, samples, tmp_path / "run", training=short(steps=4, save_every=2))

    def logits(folder: Path) -> torch.Tensor:
        found = load_model(base, adapter=folder) if adapter else load_model(folder)
        assert found.record is not None
        assert found.record.slack_ratio == (0.0, 0.5)
        with torch.no_grad():
            return found.model(torch.arange(4, 20)[None]).logits

    last, halfway = (tmp_path / "run" / "checkpoints" / f"checkpoint-{n}" for n in (4, 2))
    assert torch.equal(logits(last), logits(tmp_path / "run" / "model"))
    assert not torch.equal(logits(last), logits(halfway))


def test_run_json_records_what_made_the_run(
    loaded: LoadedModel, samples: list[Sample], tmp_path: Path
) -> None:
    result = run(loaded, samples, tmp_path / "run", training=short())
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["recipe"]["objective"]["kind"] == "slack_ctc"
    assert record["recipe"]["training"]["seed"] == 0
    assert record["samples"]["train"] == len(samples)
    assert record["result"]["train_loss"] == result.train_loss
    assert record["versions"]["torch"] == torch.__version__
    assert record["hardware"]["torch_threads"] == torch.get_num_threads()


CE_RECORD = TrainingRecord(
    objective="ce",
    ctc_weight=0.0,
    slack_ratio=(0.0, 0.0),
    slack_region="content",
    padding="fixed",
    canvas_length=12,
)


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    words = [f"w{number}" for number in range(12)]
    rows = [
        {
            "question": " ".join(words[i % 7 : i % 7 + 3]),
            "answer": " ".join(words[i % 5 : i % 5 + 4]),
        }
        for i in range(40)
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shape = {"d_model": 16, "n_layers": 1, "n_heads": 2, "mlp_hidden_size": 16}
    recipe = {
        "model": {"from_scratch": {"tokenizer_kind": "word", "vocab_size": 40, **shape}},
        "data": {
            "train": str(data),
            "columns": {"prompt": "question", "response": "answer"},
            "max_prompt_length": 24,
            "canvas_length": 12,
        },
        "objective": {"kind": "ce"},
        "training": {"steps": 150, "batch_size": 4, "eval_every": 100, "eval_samples": 8}
        | {"save_every": 20, "learning_rate": 1e-3},
    }
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(recipe))
    return file


def steps(recipe_file: Path, number: int, *more: str) -> Recipe:
    return load_recipe(recipe_file, [f"training.steps={number}", *more])


def test_a_recipe_gives_a_model_that_loads(recipe_file: Path, tmp_path: Path) -> None:
    result = train(steps(recipe_file, 20), output=tmp_path / "run", progress=False)
    loaded = load_model(result.output / "model")
    assert loaded.model.config.max_sequence_length == 36
    assert loaded.record == CE_RECORD
    record = json.loads((result.output / "run.json").read_text())
    assert record["name"] == "small"
    assert record["samples"] == record["samples"] | {"train": 32, "eval": 8}
    (digest,) = record["files"].values()
    assert len(digest) == 64
    assert result.eval_ce is not None
    assert result.tokens_per_second is not None


def test_an_adapter_s_record_goes_before_its_model_s(lora_recipe: Path, tmp_path: Path) -> None:
    slack = ["objective.kind=slack_ctc", "objective.slack_ratio=[0, 0.5]"]
    recipe = steps(lora_recipe, 2, *slack, "objective.slack_region=canvas", "data.padding=llada")
    adapter = train(recipe, output=tmp_path / "run", progress=False).output / "model"
    base = Path(str(recipe.model.path))
    loaded = load_model(base, adapter=adapter)
    assert loaded.record == TrainingRecord(
        objective="slack_ctc",
        ctc_weight=1.0,
        slack_ratio=(0.0, 0.5),
        slack_region="canvas",
        padding="llada",
        canvas_length=12,
        base=Base(name=str(base), sha256=base_sha256(base)),
    )
    assert find_record(base, adapter=adapter) == loaded.record
    assert find_record(base) == CE_RECORD
    identity = model_identity(loaded)
    (adapter / "slackdlm.json").unlink()
    without = load_model(base, adapter=adapter)
    assert without.record == CE_RECORD
    assert model_identity(without) == identity, "the record is no part of the model"
    save_model(load_model(base), tmp_path / "copy")
    assert find_record(tmp_path / "copy") == CE_RECORD


def test_a_saved_model_is_the_start_of_the_next_run(recipe_file: Path, tmp_path: Path) -> None:
    first = train(steps(recipe_file, 40), output=tmp_path / "base", progress=False)
    blocks = yaml.safe_load(recipe_file.read_text())
    blocks["model"] = {"path": str(tmp_path / "base" / "model")}
    recipe_file.write_text(yaml.safe_dump(blocks))
    recipe = steps(recipe_file, 1, "training.learning_rate=1e-12")
    second = train(recipe, output=tmp_path / "next", progress=False)
    assert second.eval_ce == pytest.approx(first.eval_ce, rel=1e-5)


@pytest.fixture
def lora_recipe(recipe_file: Path, tmp_path: Path) -> Path:
    """A recipe for a new adapter on a saved model."""
    base = train(steps(recipe_file, 2), output=tmp_path / "base", progress=False).output / "model"
    blocks = yaml.safe_load(recipe_file.read_text())
    blocks["model"] = {"path": str(base), "lora": {"rank": 2, "alpha": 8}}
    recipe_file.write_text(yaml.safe_dump(blocks))
    return recipe_file


@pytest.mark.parametrize("kind", ["ce", "slack_ctc"])
def test_both_arms_train_the_row_of_slack_and_slack_alone_moves_its_embedding(
    lora_recipe: Path, tmp_path: Path, kind: str
) -> None:
    ratio = "[0, 0]" if kind == "ce" else "[0.5, 0.5]"
    arm = [f"objective.kind={kind}", f"objective.slack_ratio={ratio}", "data.canvas_length=12"]
    recipe = steps(lora_recipe, 6, *arm, "training.weight_decay=0.5")
    train(recipe, output=tmp_path / "run", progress=False)
    base = load_model(str(recipe.model.path))
    saved = load_file(tmp_path / "run" / "model" / "adapter_model.safetensors")
    embedding, head = (
        next(value for key, value in saved.items() if f".{name}.token_adapter." in key)
        for name in ("wte", "ff_out")
    )
    ends: list[Any] = [base.model.get_input_embeddings(), base.model.get_output_embeddings()]
    before = [end.weight[base.slack_id] for end in ends]
    assert torch.equal(embedding[0], before[0]) == (kind == "ce")
    assert not torch.equal(head[0], before[1])


def test_a_new_adapter_is_trained_alone_and_resumes(lora_recipe: Path, tmp_path: Path) -> None:
    recipe = steps(
        lora_recipe,
        6,
        "training.save_every=2",
        "training.keep_checkpoints=9",
        "model.lora.target_modules=[q_proj, v_proj]",
    )
    train(recipe, output=tmp_path / "run", progress=False)
    base, model = str(recipe.model.path), tmp_path / "run" / "model"
    assert {file.name for file in model.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "slackdlm.json",
    }
    adapted = load_model(base, adapter=model).model.state_dict()
    plain = load_model(base).model.state_dict()
    adapters = {key for key in adapted if "lora_" in key}
    assert {key.split(".")[-4] for key in adapters} == {"q_proj", "v_proj"}
    assert all(bool((adapted[key] != 0).any()) for key in adapters)
    for name, value in plain.items():
        wrapped = ("base_layer.", "token_adapter.")
        key = next(k for k in adapted if re.sub("|".join(wrapped), "", k).endswith(name))
        assert torch.equal(adapted[key], value)
    shutil.copytree(tmp_path / "run", tmp_path / "broken")
    undo(tmp_path / "broken", step=4)
    train(recipe, output=tmp_path / "broken", resume=True, progress=False)
    assert_same_run(
        tmp_path / "run", tmp_path / "broken", weights="model/adapter_model.safetensors"
    )


def test_a_saved_adapter_is_the_start_of_the_next_run(lora_recipe: Path, tmp_path: Path) -> None:
    first = train(steps(lora_recipe, 30), output=tmp_path / "run", progress=False)
    blocks = yaml.safe_load(lora_recipe.read_text())
    del blocks["model"]["lora"]
    blocks["model"]["adapter"] = str(tmp_path / "run" / "model")
    lora_recipe.write_text(yaml.safe_dump(blocks))
    recipe = steps(lora_recipe, 1, "training.learning_rate=1e-12")
    second = train(recipe, output=tmp_path / "next", progress=False)
    assert second.eval_ce == pytest.approx(first.eval_ce, rel=1e-5)
    third = train(steps(lora_recipe, 9), output=tmp_path / "third", progress=False)
    assert third.eval_ce != pytest.approx(first.eval_ce, rel=1e-3)


def test_an_adapter_knows_its_base_wherever_that_lies(
    lora_recipe: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = steps(lora_recipe, 4, "training.save_every=2")
    adapter = train(recipe, output=tmp_path / "run", progress=False).output / "model"
    base = load_model(str(recipe.model.path))
    caplog.clear()
    save_model(base, tmp_path / "moved", max_shard_size="20KB")
    load_model(tmp_path / "moved", adapter=adapter)
    assert not caplog.messages
    weights: Any = base.model.get_output_embeddings()
    with torch.no_grad():
        weights.weight[7, 5] += 0.01
    save_model(base, tmp_path / "other")
    load_model(tmp_path / "other", adapter=adapter)
    (line,) = caplog.messages
    assert f"trained on {recipe.model.path} (weights" in line
    assert f"{tmp_path / 'other'} (weights" in line
    # A run does not go on over another model either.
    undo(tmp_path / "run", step=2)
    shutil.copy(tmp_path / "other" / "model.safetensors", str(recipe.model.path))
    with pytest.raises(ConfigError, match="was begun on other weights of"):
        train(recipe, output=tmp_path / "run", resume=True, progress=False)


@pytest.mark.parametrize("where", ["ff_out", "saved"])
def test_an_adapter_on_the_output_layer_is_trained_further_and_keeps_the_layers_it_brings(
    lora_recipe: Path, tmp_path: Path, where: str
) -> None:
    recipe = steps(lora_recipe, 2)
    base = str(recipe.model.path)
    network: Any = load_model(base).model
    head = "model.transformer.ff_out"
    keys: dict[str, Any] = {"target_modules": ["ff_out"]}
    if where == "saved":
        keys = {"target_modules": ["q_proj"], "modules_to_save": [head]}
    adapted = PeftModel(network, LoraConfig(r=2, **keys))
    brings = where == "ff_out"
    with torch.no_grad():
        network.get_input_embeddings().weight += 0.1 * brings
    adapted.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=brings)
    blocks = yaml.safe_load(lora_recipe.read_text())
    del blocks["model"]["lora"]
    blocks["model"]["adapter"] = str(tmp_path / "adapter")
    lora_recipe.write_text(yaml.safe_dump(blocks))
    folder = train(steps(lora_recipe, 3), output=tmp_path / "run", progress=False).output / "model"
    before = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    after = load_file(folder / "adapter_model.safetensors")
    assert after.keys() == before.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("transformer.ff_out" in name for name in moved)
    assert not any("wte" in name or "base_layer" in name for name in moved)
    # What the bytes of the saved adapter say is what PEFT makes of them.
    ids = torch.arange(5, 12)[None]
    reference: Any = PeftModel.from_pretrained(load_model(base).model, str(folder))
    ours = load_model(base, adapter=folder).model
    torch.testing.assert_close(ours(ids).logits, reference.eval()(ids).logits)


def test_bfloat16_weights_carry_a_float32_adapter(lora_recipe: Path, tmp_path: Path) -> None:
    options = ["model.dtype=bfloat16", "training.bf16=true", "training.learning_rate=1e-2"]
    result = train(steps(lora_recipe, 12, *options), output=tmp_path / "run", progress=False)
    saved = load_file(tmp_path / "run" / "model" / "adapter_model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.float32}
    whole = train(steps(lora_recipe, 12, options[-1]), output=tmp_path / "whole", progress=False)
    assert result.train_loss == pytest.approx(whole.train_loss, abs=0.05)
    assert result.train_loss != whole.train_loss


def test_activations_are_recomputed_if_asked_for(
    new_loaded: Build, samples: list[Sample], tmp_path: Path
) -> None:
    for asked in (False, True):
        loaded = new_loaded()
        training = short(steps=1, gradient_checkpointing=asked)
        run(loaded, samples, tmp_path / str(asked), training=training)
        assert loaded.model.is_gradient_checkpointing == asked


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_recomputed_activations_give_the_same_steps(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    file = request.getfixturevalue("recipe_file" if kind == "full" else "lora_recipe")
    for name in ("plain", "recomputed"):
        recipe = steps(file, 6, f"training.gradient_checkpointing={name == 'recomputed'}".lower())
        train(recipe, output=tmp_path / name, progress=False)
    assert journal(tmp_path / "plain") == journal(tmp_path / "recomputed")


def test_bfloat16_products_change_little(recipe_file: Path, tmp_path: Path) -> None:
    for name in ("false", "true"):
        recipe = steps(recipe_file, 10, f"training.bf16={name}")
        train(recipe, output=tmp_path / name, progress=False)
    exact, rounded = (
        torch.tensor([r["loss"] for r in journal(tmp_path / name) if "loss" in r])
        for name in ("false", "true")
    )
    assert 0 < float((exact - rounded).abs().max()) < 0.05


def test_an_adapter_on_4_bits_is_trained_saved_and_trained_on(
    recipe_file: Path, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    shape = ["d_model=64", "mlp_hidden_size=64"]  # bitsandbytes packs 32 rows at a time on a CPU
    base = steps(recipe_file, 2, *(f"model.from_scratch.{size}" for size in shape))
    path = train(base, output=tmp_path / "base", progress=False).output / "model"
    block = f"{{path: {path}, lora: {{rank: 2, alpha: 8}}, quantization: 4bit}}"
    recipe = steps(recipe_file, 12, f"model={block}")
    first = train(recipe, output=tmp_path / "first", progress=False)
    names = [file.name for file in (first.output / "model").glob("*.safetensors")]
    assert names == ["adapter_model.safetensors"]
    model = replace(recipe.model, lora=None, adapter=str(first.output / "model"))
    again = train(replace(recipe, model=model), output=tmp_path / "again", progress=False)
    begun, gone_on = (
        next(record["loss"] for record in journal(result.output) if "loss" in record)
        for result in (first, again)
    )
    assert gone_on < begun
    assert again.train_loss < first.train_loss


def test_a_logger_gets_the_curves(recipe_file: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    recipe = steps(recipe_file, 4, "training.report_to=tensorboard", "training.eval_every=2")
    train(recipe, output=tmp_path / "run", progress=False)
    (file,) = (tmp_path / "run").rglob("events.out.tfevents.*")
    events = accumulator.EventAccumulator(str(file))
    events.Reload()
    assert {"train/loss", "train/learning_rate", "eval/ce"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("eval/ce")] == [0, 2, 4]


def test_a_canvas_that_the_model_has_no_room_for_is_refused(
    lora_recipe: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"canvas_length: 64 positions, but .* takes at most 36"):
        train(steps(lora_recipe, 2, "data.canvas_length=40"), output=tmp_path / "run")


def test_evaluation_can_be_left_out_and_have_its_own_file(
    recipe_file: Path, tmp_path: Path
) -> None:
    none = train(
        steps(recipe_file, 2, "training.eval_samples=0"), output=tmp_path / "a", progress=False
    )
    assert (none.eval_ce, none.eval_objective) == (None, None)
    data = tmp_path / "data.jsonl"
    own = steps(recipe_file, 2, f"data.eval={data}", "training.eval_samples=5")
    train(own, output=tmp_path / "b", progress=False)
    record = json.loads((tmp_path / "b" / "run.json").read_text())
    assert record["samples"] == record["samples"] | {"train": 40, "eval": 5}


def test_evaluation_samples_that_are_trained_on_are_counted(
    recipe_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data.jsonl"
    own = steps(recipe_file, 2, f"data.eval={data}", "training.eval_samples=5")
    with caplog.at_level(logging.WARNING, logger="slackdlm"):
        _, samples, held_out = prepare(own, device="meta")
    assert (len(samples), len(held_out)) == (40, 5)
    assert caplog.messages == [
        "eval: 5 of 5 samples are trained on too, so the evaluation shows what is remembered as well;"
        " give another file (data.eval) or remove repeated rows"
    ]


def test_a_null_among_the_texts_does_not_keep_a_tokenizer_from_being_made(
    recipe_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"question": "w1", "answer": None}) + "\n" + data.read_text())
    with caplog.at_level(logging.WARNING, logger="slackdlm"):
        _, samples, _ = prepare(steps(recipe_file, 2))
    assert f"({data}:1)" in caplog.messages[0]
    assert len(samples) == 40 - 8


def test_holding_out_everything_is_refused(recipe_file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds out 40 of 40 dialogues and leaves none"):
        train(steps(recipe_file, 2, "training.eval_samples=40"), output=tmp_path / "run")


@pytest.fixture
def one_thread() -> Generator[None]:
    """Sums over several threads are rounded otherwise than those of one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_run_killed_ten_times_while_saving_ends_as_the_unbroken_one(tmp_path: Path) -> None:
    """SIGKILL at ten random moments of saving; each life resumes from what the last one left."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    script = Path(__file__).parents[1] / "support" / "killed_while_saving.py"
    command = [sys.executable, str(script), str(tmp_path / "killed")]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=540, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # accelerate imports DeepSpeed where it is installed, which says on standard output that this is a CPU.
    lives = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lives) == 10
    assert all(life["killed"] for life in lives)
    steps = [checkpoint_step(Path(life["last"])) for life in lives]
    assert all(later > earlier for earlier, later in itertools.pairwise(steps))
    assert any(life["torn"] for life in lives), "no kill fell into the writing of a checkpoint"
    finish(tmp_path / "killed")
    finish(tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_logger_that_is_not_installed_is_named_before_the_folder_is_claimed(
    loaded: LoadedModel, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slackdlm.training.run.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"wandb is not installed; pip install 'slackdlm\[logg"):
        run(loaded, samples, tmp_path / "run", training=short(report_to="wandb"))
    assert not (tmp_path / "run").exists()


def test_the_loggers_of_a_recipe_are_those_of_transformers() -> None:
    (names,) = [
        get_args(hint)
        for field, hint in get_type_hints(TrainingConfig).items()
        if field == "report_to"
    ]
    assert set(names) - {"none"} <= INTEGRATION_TO_CALLBACK.keys()
    assert len(names) == 10


def test_a_logger_that_cannot_start_is_one_error_and_the_run_goes_on_without_it(
    loaded: LoadedModel, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NotLoggedIn(TrainerCallback):
        def on_train_begin(self, *_: object, **__: object) -> None:
            raise RuntimeError("no API key\nconfigured")

    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "wandb", NotLoggedIn)
    monkeypatch.setattr("slackdlm.training.run.find_spec", lambda name: name)
    with pytest.raises(
        ConfigError,
        match=r"report_to: wandb cannot start \(RuntimeError: no API key configured\); set it up, or",
    ):
        run(loaded, samples, tmp_path / "run", training=short(report_to="wandb"))
    run(loaded, samples, tmp_path / "run", training=short(), resume=True)
    assert len(journal(tmp_path / "run")) == 6 + 3
