"""How does a recipe become a trained model? Data, stream, trainer, and a folder with the record.

The folder holds ``run.json`` (recipe, versions, seeds, result), ``log.jsonl`` (every step and
evaluation), ``checkpoints/`` and, at the end, ``model/``: the weights and tokenizer, or the adapter
alone if one was trained (``load_model(base, adapter=run / "model")``), and the canvases it was trained
on.
"""

import importlib.util
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from peft import PeftModel

from slackdlm.atomic import write_json
from slackdlm.errors import ConfigError, DataError, counted
from slackdlm.models import encoder
from slackdlm.models.adapter import casts_by_autocast, new_adapter
from slackdlm.models.chat import written_fields
from slackdlm.models.checkpoint import read_json
from slackdlm.models.configs import LLaDAConfig
from slackdlm.models.hub import locate
from slackdlm.models.loaded import LoadedModel, has_plain_head
from slackdlm.models.loading import load_model, new_model, save_model
from slackdlm.models.record import Base, TrainingRecord, base_sha256, read_record, write_record
from slackdlm.models.tokenizer import train_tokenizer
from slackdlm.training import checkpoints, journal
from slackdlm.training.config import FromScratchConfig, ObjectiveConfig, Recipe, TrainingConfig
from slackdlm.training.data import (
    Sample,
    encode_samples,
    fingerprint,
    num_shared,
    read_dialogues,
)
from slackdlm.training.dialogues import Dialogue, description
from slackdlm.training.engine import check_engine, receives_weights
from slackdlm.training.folder import begin, check_folder
from slackdlm.training.processes import this_process
from slackdlm.training.progress import progress_bar, quiet_transformers
from slackdlm.training.provenance import environment, file_sha256
from slackdlm.training.stream import CanvasSpec, EvalStream, Padding, TrainStream
from slackdlm.training.trainer import EvalStreams, SlackTrainer, training_arguments

_LOG = logging.getLogger(__name__)
NUM_FINAL_STEPS = 50
"""Steps at the end of a run whose mean training loss is its result; all, if fewer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """What a finished run came to."""

    output: Path
    """The run's folder; the weights lie in ``model`` below it."""
    steps: int
    """Optimizer steps."""
    train_loss: float
    """Mean training loss of the last 50 steps (all, if fewer), in nats per canvas position."""
    eval_ce: float | None
    """Evaluation bound without slack, in nats per response token; None without evaluation."""
    eval_objective: float | None
    """The arm's own evaluation loss, in nats per response token; None without evaluation."""
    seconds: float
    """Wall-clock time of this call's training, evaluation included."""
    tokens_per_second: float | None
    """Canvas positions trained on per second of this call; None if it had no step left to do."""


def train(
    recipe: Recipe, *, output: str | Path, resume: bool = False, progress: bool = True
) -> TrainResult:
    """Train what a recipe says.

    Args:
        recipe: From :func:`slackdlm.training.config.load_recipe`.
        output: The run's folder, usually ``runs/<recipe.name>``.
        resume: Continue the run in ``output`` from its last complete checkpoint, exactly.
        progress: Whether to show a bar on stderr.

    Returns:
        Final losses and speed. Resuming a finished run returns its recorded result.

    Raises:
        ConfigError: If the recipe is wrong, ``output`` holds a run already, or a resumed run
            differs.
        DataError: If a data file cannot be used.
        CheckpointError: If there is nothing to resume.
        SlackDLMError: If the loss or the gradient is not finite.
    """
    check_engine(recipe.training, is_quantized=recipe.model.quantization is not None)
    check_folder(Path(output), resume=resume)
    # A batch that does not split evenly is refused before the model is loaded.
    recipe.training.num_accumulation(num_processes=this_process().num_processes)
    loaded, samples, eval_samples = prepare(recipe)
    files = [file for file in (recipe.data.train, recipe.data.eval) if file is not None]
    return train_samples(
        loaded,
        samples,
        eval_samples,
        canvas_length=recipe.data.canvas_length,
        padding=recipe.data.padding,
        length_grouping=recipe.data.length_grouping,
        objective=recipe.objective,
        training=recipe.training,
        output=output,
        resume=resume,
        progress=progress,
        record={
            "name": recipe.name,
            "recipe": recipe.as_dict(),
            "files": {file: file_sha256(file) for file in files if Path(file).is_file()},
        },
    )


def prepare(
    recipe: Recipe, *, device: str | None = None
) -> tuple[LoadedModel, list[Sample], list[Sample]]:
    """Model, training samples and evaluation samples of a recipe.

    Args:
        recipe: The run.
        device: ``"meta"`` leaves the weights of ``model.path`` where they are: enough to look at
            the data.

    Raises:
        ConfigError: If the recipe is wrong or the model has no room for its samples.
        DataError: If a data file cannot be used.
        CheckpointError: If the model cannot be loaded.
    """
    dialogues, held_out = read_recipe_dialogues(recipe)
    loaded = _model(recipe, dialogues, device=device)
    _check_room(loaded, recipe)
    if recipe.data.eval is None:
        _say_what_is_read("train", [*dialogues, *held_out], loaded, recipe)
    else:
        _say_what_is_read("train", dialogues, loaded, recipe)
        _say_what_is_read("eval", held_out, loaded, recipe)
    lengths: dict[str, Any] = {
        "max_prompt_length": recipe.data.max_prompt_length,
        "canvas_length": recipe.data.canvas_length,
        "max_unusable": recipe.data.max_unusable,
    }
    samples = encode_samples(dialogues, loaded.tokenizer, name="train", **lengths)
    if not held_out:
        return loaded, samples, []
    if recipe.data.eval is None:  # few, of the same kind as those that passed
        lengths["max_unusable"] = 1.0
    eval_samples = encode_samples(held_out, loaded.tokenizer, name="eval", **lengths)
    eval_samples = eval_samples[: recipe.training.eval_samples]
    _warn_of_shared(eval_samples, samples)
    return loaded, samples, eval_samples


def _say_what_is_read(
    name: str, dialogues: Sequence[Dialogue], loaded: LoadedModel, recipe: Recipe
) -> None:
    if dialogues and this_process().is_main_process:
        written = written_fields(loaded.tokenizer)
        text, is_lossy = description(dialogues, written, recipe.data.columns)
        _LOG.log(logging.WARNING if is_lossy else logging.INFO, "%s: %s", name, text)


def _warn_of_shared(eval_samples: Sequence[Sample], samples: Sequence[Sample]) -> None:
    """What a model has been trained on says little of what it has learnt."""
    shared = num_shared(eval_samples, samples)
    if shared and this_process().is_main_process:
        _LOG.warning(
            "eval: %d of %s are trained on too, so the evaluation shows what is remembered as well; give"
            " another file (data.eval) or remove repeated rows",
            shared,
            counted(len(eval_samples), "sample"),
        )


def train_samples(
    loaded: LoadedModel,
    samples: Sequence[Sample],
    eval_samples: Sequence[Sample],
    *,
    canvas_length: int,
    padding: Padding = "fixed",
    length_grouping: bool = False,
    objective: ObjectiveConfig,
    training: TrainingConfig,
    output: str | Path,
    resume: bool = False,
    progress: bool = True,
    record: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Train a model in memory on samples in memory; :func:`train` is this behind files.

    Args:
        loaded: Trained in place. Copy it first to keep the weights it came with.
        samples: Training samples, their order part of the run.
        eval_samples: Samples of the evaluation loss; none: no evaluation.
        canvas_length: ``L``, or the longest canvas; see ``data.canvas_length``.
        padding: What stands behind a response; see ``data.padding``.
        length_grouping: See ``data.length_grouping``.
        objective: The arm.
        training: How long and how.
        output: As in :func:`train`.
        resume: As in :func:`train`.
        progress: As in :func:`train`.
        record: Written into ``run.json``; ``recipe`` in it replaces the default record of the
            settings.

    Returns:
        As :func:`train`.

    Raises:
        ConfigError: As in :func:`train`, or if a response is longer than ``canvas_length``.
        DataError: If there is no sample.
        CheckpointError: As in :func:`train`.
        SlackDLMError: As in :func:`train`.
    """
    if not samples:
        raise DataError("train: there is no training sample")
    _check_logger(training.report_to)
    network: Any = loaded.model
    check_engine(
        training,
        is_quantized=getattr(network, "is_quantized", False),
        is_tied=bool(network.all_tied_weights_keys),
        has_plain_head=has_plain_head(loaded.model, slack_id=loaded.slack_id),
    )
    folder = Path(output)
    spec = canvas_spec(loaded, canvas_length=canvas_length, padding=padding, objective=objective)
    stream = train_stream(samples, spec, training, length_grouping=length_grouping)
    streams = _eval_streams(eval_samples, spec) if eval_samples else None
    arguments = training_arguments(
        training, folder=folder / "checkpoints", evaluate=streams is not None
    )
    data = {"canvas_length": canvas_length, "padding": padding, "length_grouping": length_grouping}
    settings = {"data": data, "objective": asdict(objective), "training": asdict(training)}
    run: dict[str, Any] = {"name": folder.name, "status": "running", "recipe": settings}
    run |= {**(record or {}), "samples": _described(samples, eval_samples), **environment()}
    results = [key.name for key in fields(TrainResult) if key.name != "output"]
    start = begin(folder, run, resume=resume, results=results)
    if start.result is not None:
        recorded: dict[str, Any] = {**start.result, "output": folder}
        return TrainResult(**recorded)
    written = replace(_training_record(objective, spec), base=_base(loaded, start.checkpoint))
    loaded = replace(loaded, record=written)
    is_new = start.checkpoint is None
    arguments.eval_on_start = is_new and streams is not None and training.eval_every > 0
    started = time.perf_counter()
    shown = progress and this_process().is_main_process
    with (
        quiet_transformers(),
        casts_by_autocast(network, active=training.bf16),
        progress_bar(total=training.steps, shown=shown) as callbacks,
    ):
        trainer = SlackTrainer(
            loaded.model,
            arguments,
            train_stream=stream,
            eval_streams=streams,
            config=training,
            log_file=folder / "log.jsonl",
            write_beside=partial(_write_beside, loaded),
            callbacks=callbacks,
        )
        trainer.train(resume_from_checkpoint=str(start.checkpoint) if start.checkpoint else None)
    seconds = time.perf_counter() - started
    state = trainer.whole_state()
    shared: list[Any] = [None]
    if trainer.is_world_process_zero():
        result = _result(folder, stream, first_step=start.step, seconds=seconds)
        _save_weights(trainer, loaded, folder / "model", state=state)
        run |= {"status": "finished", "result": {**asdict(result), "output": str(folder)}}
        write_json(folder / "run.json", run)
        shared = [result]
    return broadcast_object_list(shared)[0]


def _base(loaded: LoadedModel, checkpoint: Path | None) -> Base | None:
    """What an adapter is trained on, where that lies in a folder.

    Raises:
        ConfigError: If the run was begun on other weights.
    """
    if not isinstance(loaded.model, PeftModel) or loaded.folder is None:
        return None
    base = Base(name=loaded.name.partition("+")[0], sha256=base_sha256(loaded.folder))
    record = None if checkpoint is None else read_record(checkpoint)
    if record is not None and record.base is not None and record.base.sha256 != base.sha256:
        raise ConfigError(
            f"{checkpoint}: the run was begun on other weights of {record.base.name} than {loaded.folder} holds"
            " now; resume it with those, or begin a new run"
        )
    return base


def _described(samples: Sequence[Sample], eval_samples: Sequence[Sample]) -> dict[str, Any]:
    return {
        "train": len(samples),
        "train_sha256": fingerprint(samples),
        "eval": len(eval_samples),
        "eval_sha256": fingerprint(eval_samples),
    }


def _training_record(objective: ObjectiveConfig, spec: CanvasSpec) -> TrainingRecord:
    """What decoding needs to know of the training."""
    return TrainingRecord(
        objective=objective.kind,
        ctc_weight=spec.ctc_weight,
        slack_ratio=spec.slack_ratio,
        slack_region=spec.slack_region,
        padding=spec.padding,
        canvas_length=spec.canvas_length,
    )


def _save_weights(
    trainer: SlackTrainer, loaded: LoadedModel, folder: Path, *, state: dict[str, Any] | None
) -> None:
    """The model, or its adapter alone, in a folder that is there whole or not at all."""
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    draft = folder.with_name(f".{folder.name}.draft")
    for old in (draft, folder):
        if old.exists():
            shutil.rmtree(old)
    try:
        with checkpoints.saving(folder), quiet_transformers():
            if isinstance(loaded.model, PeftModel):
                layers: bool = getattr(loaded.model, "brings_layers", False)
                loaded.model.save_pretrained(
                    str(draft), state_dict=state, save_embedding_layers=layers
                )
                # PEFT's card, empty but for a local path
                (draft / "README.md").unlink(missing_ok=True)
                _write_beside(loaded, draft)
            else:
                save_model(loaded, draft, state_dict=state)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_beside(loaded: LoadedModel, folder: Path) -> None:
    """What weights, or an adapter's, need beside them to be loaded and decoded with."""
    if not isinstance(loaded.model, PeftModel):
        loaded.tokenizer.save_pretrained(folder)
    if loaded.record is not None:
        write_record(loaded.record, folder)


def read_recipe_dialogues(recipe: Recipe) -> tuple[list[Dialogue], list[Dialogue]]:
    """Dialogues to train on and to evaluate on (none: no evaluation).

    Raises:
        ConfigError: If a split of a single file is asked for.
        DataError: If they cannot be read, or holding out leaves none to train on.
    """
    data, num_held_out = recipe.data, recipe.training.eval_samples
    _refuse_split("data.split", data.train, asked=data.split != "train")
    _refuse_split("data.eval_split", data.eval, asked=data.eval_split != "test")
    _refuse_split("data.subset", data.train, asked=data.subset is not None)
    where: dict[str, Any] = {
        "columns": data.columns,
        "form": data.format,
        "subset": data.subset,
        "streaming": data.streaming,
    }
    dialogues = read_dialogues(data.train, split=data.split, limit=data.max_dialogues, **where)
    if num_held_out == 0:
        return dialogues, []
    if data.eval is not None:
        limit = num_held_out if data.streaming else None
        return dialogues, read_dialogues(data.eval, split=data.eval_split, limit=limit, **where)
    if num_held_out >= len(dialogues):
        raise DataError(
            f"training.eval_samples: holds out {num_held_out} of {len(dialogues)} dialogues and"
            " leaves none to train on; lower it or give data.eval"
        )
    return dialogues[:-num_held_out], dialogues[-num_held_out:]


def _refuse_split(key: str, file: str | None, *, asked: bool) -> None:
    """All of a file would be read, whatever split is named; of what ``save_to_disk`` wrote of one split too."""
    if not asked or file is None:
        return
    path = Path(file).expanduser()
    if path.is_file() or (path / "state.json").is_file():
        kind = "file" if path.is_file() else "data set on disk"
        part = "subsets" if key == "data.subset" else "splits"
        raise ConfigError(f"{key}: {file} is a {kind}, which has no {part}; leave {key} out")


def _model(recipe: Recipe, dialogues: Sequence[Dialogue], *, device: str | None) -> LoadedModel:
    shape = recipe.model.from_scratch
    if shape is None:
        is_sent = device is None and _is_sent(recipe)
        loaded = load_model(
            str(recipe.model.path),
            adapter=recipe.model.adapter if device is None else None,
            dtype=recipe.model.dtype,
            device="meta" if is_sent else device,
            quantization=recipe.model.quantization if device is None else None,
        )
        if device is not None:
            return loaded
        if recipe.model.lora is not None:
            loaded = new_adapter(loaded, **asdict(recipe.model.lora), seed=recipe.training.seed)
        elif isinstance(loaded.model, PeftModel):
            loaded.model.set_adapter("default")  # It comes frozen; this makes it trainable.
        if is_sent:
            # Addresses, by which accelerate knows a weight again; nothing lies there until it is written.
            loaded.model.to_empty(device="cpu")
        return loaded
    contents = [turn["content"] for dialogue in dialogues for turn in dialogue.messages]
    texts = [content for content in contents if isinstance(content, str)]
    tokenizer = train_tokenizer(texts, vocab_size=shape.vocab_size, kind=shape.tokenizer_kind)
    config = new_config(recipe, shape, vocab_size=len(tokenizer))
    return new_model(config, tokenizer, generator_seed=recipe.training.seed)


def new_config(recipe: Recipe, shape: FromScratchConfig, *, vocab_size: int) -> LLaDAConfig:
    """The configuration of a recipe's new model."""
    return LLaDAConfig(
        vocab_size=vocab_size,
        d_model=shape.d_model,
        n_layers=shape.n_layers,
        n_heads=shape.n_heads,
        mlp_hidden_size=shape.mlp_hidden_size,
        max_sequence_length=recipe.data.max_prompt_length + recipe.data.canvas_length,
    )


def _is_sent(recipe: Recipe) -> bool:
    """Whether the first process sends this one the weights of ``model.path``.

    Encoders have buffers beside them, which it does not send.
    """
    if not receives_weights():
        return False
    # Downloaded by all: none may wait that long for another.
    folder = locate(str(recipe.model.path))
    return not encoder.is_encoder(read_json(folder / "config.json").get("model_type"))


def _check_room(loaded: LoadedModel, recipe: Recipe) -> None:
    needed = recipe.data.max_prompt_length + recipe.data.canvas_length
    if needed > loaded.max_length:
        raise ConfigError(
            f"data.max_prompt_length + data.canvas_length: {needed} positions, but {loaded.name}"
            f" takes at most {loaded.max_length}; lower one of them"
        )


def canvas_spec(
    loaded: LoadedModel,
    *,
    canvas_length: int,
    objective: ObjectiveConfig,
    padding: Padding = "fixed",
) -> CanvasSpec:
    """How an arm writes canvases for this model."""
    return CanvasSpec(
        canvas_length=canvas_length,
        padding=padding,
        slack_ratio=objective.slack_ratio,
        slack_region=objective.slack_region,
        alignment=objective.alignment,
        alignment_warmup=objective.alignment_warmup,
        ctc_weight=objective.weight,
        loss_norm=objective.loss_norm,
        eps=objective.eps,
        mask_id=loaded.mask_id,
        slack_id=loaded.slack_id,
        pad_id=loaded.pad_id,
    )


def train_stream(
    samples: Sequence[Sample], spec: CanvasSpec, training: TrainingConfig, *, length_grouping: bool
) -> TrainStream:
    """All draws of a run."""
    return TrainStream(
        samples,
        spec,
        num_steps=training.steps,
        batch_size=training.batch_size,
        seed=training.seed,
        data_seed=training.data_seed,
        length_grouping=length_grouping,
    )


def _eval_streams(samples: Sequence[Sample], spec: CanvasSpec) -> EvalStreams:
    plain = replace(
        spec, slack_ratio=(0.0, 0.0), slack_region="content", alignment="random", ctc_weight=0.0
    )
    return EvalStreams(ce=EvalStream(samples, plain), objective=EvalStream(samples, spec))


def _result(folder: Path, stream: TrainStream, *, first_step: int, seconds: float) -> TrainResult:
    lengths = (stream.step_lengths(step) for step in range(first_step, stream.num_steps))
    num_positions = sum(map(sum, lengths))
    records = journal.read(folder / "log.jsonl")
    losses = [record["loss"] for record in records if "loss" in record][-NUM_FINAL_STEPS:]
    evaluations = [record for record in records if "eval_ce" in record]
    last = evaluations[-1] if evaluations else {}
    return TrainResult(
        output=folder,
        steps=stream.num_steps,
        train_loss=sum(losses) / len(losses),
        eval_ce=last.get("eval_ce"),
        eval_objective=last.get("eval_objective"),
        seconds=seconds,
        tokens_per_second=num_positions / seconds if num_positions else None,
    )


def _check_logger(report_to: str) -> None:
    """A logger that is not installed would stop the run only once its folder is claimed."""
    if report_to != "none" and importlib.util.find_spec(report_to) is None:
        package = "'slackdlm[loggers]'" if report_to in ("tensorboard", "wandb") else report_to
        raise ConfigError(
            f"training.report_to: {report_to} is not installed; pip install {package}, or none"
        )
