"""How does a recipe become a trained model? Data, stream, trainer, and a folder with the record.

The folder holds ``run.json`` (recipe, versions, seeds, result), ``log.jsonl`` (every step and
evaluation), ``checkpoints/`` and, at the end, ``model/``: the weights and tokenizer, or the adapter
alone if one was trained (``load_model(base, adapter=run / "model")``), and the canvases it was trained
on.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from peft import PeftModel

from slackdlm.atomic import write_json
from slackdlm.errors import ConfigError, DataError
from slackdlm.models.adapter import casts_by_autocast
from slackdlm.models.loaded import LoadedModel, has_plain_head
from slackdlm.models.loading import save_model
from slackdlm.models.record import Base, TrainingRecord, base_sha256, read_record, write_record
from slackdlm.training import checkpoints, journal
from slackdlm.training.config import Recipe, TrainingConfig
from slackdlm.training.data import Sample, fingerprint
from slackdlm.training.draw import CanvasSpec, canvas_spec
from slackdlm.training.engine import check_engine
from slackdlm.training.folder import begin, check_folder
from slackdlm.training.prepare import Prepared, prepare
from slackdlm.training.processes import this_process
from slackdlm.training.progress import progress_bar, quiet_transformers
from slackdlm.training.provenance import environment, file_sha256
from slackdlm.training.stream import EvalStream, TrainStream, train_stream
from slackdlm.training.trainer import EvalStreams, SlackTrainer, training_arguments

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
    recipe: Recipe,
    *,
    output: str | Path,
    prepared: Prepared | None = None,
    resume: bool = False,
    progress: bool = True,
) -> TrainResult:
    """Train what a recipe says.

    Args:
        recipe: From :func:`slackdlm.training.config.load_recipe`.
        output: The run's folder, usually ``runs/<recipe.name>``.
        prepared: Model and samples in memory, instead of those that ``recipe.model`` and the files
            of ``recipe.data`` give. The model is trained in place.
        resume: Continue the run in ``output`` from its last complete checkpoint, exactly.
        progress: Whether to show a bar on stderr.

    Returns:
        Final losses and speed. Resuming a finished run returns its recorded result.

    Raises:
        ConfigError: If the recipe is wrong, ``output`` holds a run already, or a resumed run
            differs.
        DataError: If a data file cannot be used, or there is no sample.
        CheckpointError: If there is nothing to resume.
        SlackDLMError: If the loss or the gradient is not finite.
    """
    folder, training = Path(output), recipe.training
    _check_settings(recipe)
    check_folder(folder, resume=resume)
    if prepared is None:
        prepared = prepare(recipe)
    loaded, samples, eval_samples = prepared
    _check_prepared(prepared, training)
    # What is trained on: a pure function of the recipe and the number of the draw.
    spec = canvas_spec(
        loaded,
        canvas_length=recipe.data.canvas_length,
        padding=recipe.data.padding,
        objective=recipe.objective,
    )
    stream = train_stream(recipe, samples, spec)
    streams = _eval_streams(eval_samples, spec) if eval_samples else None
    # Where it starts: a folder that is claimed by its record, or the last whole checkpoint in it.
    run = _record(recipe, prepared)
    start = begin(folder, run, resume=resume)
    if start.result is not None:
        recorded: dict[str, Any] = {**start.result, "output": folder}
        return TrainResult(**recorded)
    loaded = replace(loaded, record=_training_record(loaded, spec, start.checkpoint))
    # The Trainer's loop; its settings are the recipe's.
    arguments = training_arguments(
        training, folder=folder / "checkpoints", evaluate=streams is not None
    )
    is_new = start.checkpoint is None
    arguments.eval_on_start = is_new and streams is not None and training.eval_every > 0
    started = time.perf_counter()
    with (
        quiet_transformers(),
        casts_by_autocast(loaded.model, active=training.bf16),
        progress_bar(
            total=training.steps, shown=progress and this_process().is_main_process
        ) as callbacks,
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
    # The end: one process gathers the weights of all and writes them, then says so.
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


def _check_settings(recipe: Recipe) -> None:
    """What can be refused before anything is read."""
    check_engine(recipe.training, is_quantized=recipe.model.quantization is not None)
    report_to = recipe.training.report_to
    if report_to != "none" and find_spec(report_to) is None:
        package = "'slackdlm[loggers]'" if report_to in ("tensorboard", "wandb") else report_to
        raise ConfigError(
            f"training.report_to: {report_to} is not installed; pip install {package}, or none"
        )
    recipe.training.num_accumulation(num_processes=this_process().num_processes)


def _check_prepared(prepared: Prepared, training: TrainingConfig) -> None:
    if not prepared.samples:
        raise DataError("train: there is no training sample")
    network: Any = prepared.loaded.model
    check_engine(
        training,
        is_quantized=getattr(network, "is_quantized", False),
        is_tied=bool(network.all_tied_weights_keys),
        has_plain_head=has_plain_head(network, slack_id=prepared.loaded.slack_id),
    )


def _record(recipe: Recipe, prepared: Prepared) -> dict[str, Any]:
    """``run.json`` of a run that has begun; ``recipe`` and ``samples`` are its identity."""
    files = [file for file in (recipe.data.train, recipe.data.eval) if file is not None]
    _, samples, eval_samples = prepared
    return {
        "name": recipe.name,
        "status": "running",
        "recipe": recipe.as_dict(),
        "files": {file: file_sha256(file) for file in files if Path(file).is_file()},
        "samples": {
            "train": len(samples),
            "train_sha256": fingerprint(samples),
            "eval": len(eval_samples),
            "eval_sha256": fingerprint(eval_samples),
        },
        **environment(),
    }


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


def _training_record(
    loaded: LoadedModel, spec: CanvasSpec, checkpoint: Path | None
) -> TrainingRecord:
    """What decoding needs to know of the training."""
    return TrainingRecord(
        objective=spec.objective.kind,
        ctc_weight=spec.objective.weight,
        slack_ratio=spec.objective.slack_ratio,
        slack_region=spec.objective.slack_region,
        padding=spec.padding,
        canvas_length=spec.canvas_length,
        base=_base(loaded, checkpoint),
    )


def _eval_streams(samples: Sequence[Sample], spec: CanvasSpec) -> EvalStreams:
    ce = replace(
        spec.objective,
        kind="ce",
        ctc_weight=None,
        slack_ratio=(0.0, 0.0),
        slack_region="content",
        alignment="random",
    )
    return EvalStreams(
        ce=EvalStream(samples, replace(spec, objective=ce)), objective=EvalStream(samples, spec)
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
